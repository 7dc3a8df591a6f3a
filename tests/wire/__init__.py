"""The wire as it is: bytes on real sockets, judged by readers of HTTP/1.1 that share nothing with the proxy.

========== ======================================================================================
messages   a strict and incremental reader of requests and answers (RFC 9112)
recorder   an upstream that keeps what arrives, byte for byte, and answers as it is told
theatre    the proxy before a recorder in this process, and callers that send any bytes
generating seeded requests and answers, all of them valid
attacks    the catalogue of requests that must not get through as they are
mutating   seeded damage to valid messages
processes  a real ``serve`` process with a tenant that is connected, and what it costs in memory
========== ======================================================================================
"""
