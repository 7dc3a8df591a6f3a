"""pleo-proxy: plain HTTP in, authorised Pleo requests out.

Start at :mod:`proxy.exchange`, the main path. Imports point down this list only, and within a layer to what
stands before; ``tests/test_house_rules.py`` holds both and this map to the code.

0. words

   * ``errors``: every refusal and every operator's error, by whose fault it is
   * ``model``: the nouns as frozen values, and secrets that never show themselves
   * ``facts``: what happened, as values that the layers report
   * ``places``: where in the package an exception came from

1. rules, without I/O or clock

   * ``recurring``: a memory of what callers repeat
   * ``target``: what a request asks for, as bytes that are judged and never rewritten
   * ``headers``: what crosses the proxy, what does not, and where the credential goes in
   * ``trace_context``: of which trace a request is a part, and what Pleo hears of that
   * ``addresses``: which addresses a connection with a credential may be opened to
   * ``arrival``: how a request reached the proxy, and from whom
   * ``forwarded``: what trusted proxies in front say of the caller
   * ``heads``: the head of a request, read strictly or refused
   * ``framing``: where the body of a request ends
   * ``guard``: ``Host`` and browsers, before anyone asks for a tenant
   * ``certificates``: the names of a caller's certificate
   * ``credentials``: what callers must prove where a tenant asks for it
   * ``legacy``: paths of Pleo's old API, and what they are today
   * ``policy``: what a tenant's callers may ask
   * ``pin``: which company a request names
   * ``oauth``: OAuth messages as data
   * ``vault``: sealing
   * ``chain``: the audit trail's records, each with a keyed hash over the one before
   * ``lifecycle``: the life of a grant as pure decisions
   * ``problems``: a refusal as a problem document
   * ``loglines``: lines of the log as a reader sees them
   * ``notices``: which troubles operators are told of unasked, and when
   * ``consents``: how a consent can end, and what is told of it

2. edges

   * ``hardening``: what other processes of this machine get to see of this one
   * ``keyservice``: what holds a key elsewhere, with which ours are wrapped; AWS KMS
   * ``texts``: what authorisers read, in each language
   * ``config``: settings, found, read and checked as a whole
   * ``beacon``: where a running proxy shows that it runs, and what its last reload came to
   * ``envelope``: a key ring whose keys are wrapped
   * ``keyring``: the key file
   * ``store``: what outlives the process, in SQLite or PostgreSQL
   * ``outbound``: sockets for connections to the outside, none to a forbidden address
   * ``provider``: Pleo's authorisation server
   * ``upstream``: the pooled connections to Pleo's API
   * ``replay``: a request body that can be sent twice
   * ``intake``: a caller's request as it comes in
   * ``response``: an answer whose bytes go to the caller as they are
   * ``pairs``: a token pair sealed for the store, and opened again
   * ``rates``: token buckets that processes share

3. policy in motion

   * ``tenants``: from a request to its tenant, and which tenants may be saved
   * ``admission``: whether a request is let in now: policy, rate, and how many are under way
   * ``listing``: tenants and grants as people and programs get to see them
   * ``audit``: the audit trail extended, verified and pruned
   * ``recovery``: what a start makes good of a run that was cut off
   * ``refresher``: one refresh, from the write-ahead to the saved answer
   * ``held``: the grants in memory
   * ``tokens``: the access token of each tenant, obtained and replaced
   * ``authorize``: the consent flow
   * ``actions``: what operators do to a tenant and its grant, wherever they do it
   * ``rotation``: sealing what is stored anew with the first key
   * ``backup``: tenants and grants in one file that nobody can change unseen, and back from it
   * ``explain``: what would become of a request that nobody sends

4. ``exchange``: the main path

5. doors and sinks

   * ``caller_tls``: TLS of a callers' listener, and its files
   * ``door``: the listening sockets
   * ``unix_socket``: a listening Unix socket and its file
   * ``entrance``: who comes in by a listening socket
   * ``listener``: the accepting side, for callers
   * ``telemetry``: facts as log lines and metrics
   * ``tracing``: traces of requests for OpenTelemetry
   * ``notifications``: troubles told by webhook, e-mail or command
   * ``admin``: the operator's listener

6. the whole

   * ``known_secrets``: which secrets of the settings the log must not show
   * ``listening``: the listeners as the settings have them
   * ``wiring``: the settings as the parts understand them
   * ``readings``: what metrics read of the running parts
   * ``groundwork``: what a start does before anything is served
   * ``watch``: keeps what is in force in step with the store
   * ``retune``: other settings put in force in the running parts, all at once
   * ``reload``: a changed configuration read, checked, and put in force in every process
   * ``app``: builds everything in this order and owns its life
   * ``workers``: several processes of it under one supervisor

7. ``cli``: parses, calls, prints; ``__main__`` is the same by another name

Apart stands ``sandbox``, a simulated Pleo: it imports nothing of the rest, and only ``cli`` and the tests
import it.
"""

__version__ = "0.1.0"
