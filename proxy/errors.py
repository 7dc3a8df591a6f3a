"""Every error that a person meets, by whose fault it is, with a fixed public sentence that says what to do.

A :class:`Refusal` is the proxy's own answer to a caller: one type for each fault, rendered in one place
(:mod:`proxy.problems`). An :class:`OperatorError` ends a command with one line. Neither ever carries the text
of another exception, which could hold a secret.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar


class OperatorError(Exception):
    """Something that the operator must put right; the text is one line: item, value, remedy."""

    exit_code: ClassVar[int] = 1


class UsageError(OperatorError):
    """The command or its configuration is wrong, so nothing was done."""

    exit_code: ClassVar[int] = 2


class ConfigurationError(UsageError):
    """The configuration has mistakes; all of them are listed, each with item, value, rule and remedy."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.source = source
        self.mistakes = mistakes
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  - {mistake}" for mistake in mistakes))


class TenantError(UsageError):
    """A tenant, or a set of tenants, that must not be saved: bad name, route claimed twice, and the like."""


class QuestionError(UsageError):
    """What is to be explained is no request that anybody could send."""


class KeyRingError(UsageError):
    """The vault's keys are missing, malformed, readable by others, or not those of this store."""


class KeyServiceError(OperatorError):
    """The service that wraps the vault's keys cannot be reached, refuses, or needs what is not installed."""


class StoreError(OperatorError):
    """The store cannot be opened: no permission, not a database, from a newer version, in use."""


class StoreMissingError(StoreError):
    """There is no store where one should be, and none was to be made."""


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, named as design and documents name it
    """The proxy answers by itself instead of forwarding.

    ``detail`` is text of the proxy's own making that names the item and the value; ``proxy_error`` is the
    error type of RFC 9209 section 2.3 for ``Proxy-Status``.
    """

    name: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    action: ClassVar[str]
    proxy_error: ClassVar[str] = "http_request_denied"

    def __init__(
        self, detail: str = "", *, tenant: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.tenant = tenant
        self.retry_after_s = retry_after_s


class TenantUnknown(Refusal):
    """No route claims the request."""

    name = "tenant-unknown"
    status = 404
    title = "No tenant matches this request"
    action = (
        "Put the tenant's name in front of the path (http://HOST:PORT/NAME/v2/employees), send it in the "
        "X-Pleo-Tenant header, or ask the operator to add a route with `pleo-proxy tenants set`."
    )


class TenantAmbiguous(Refusal):
    """Routes of different tenants claim the request; it is never guessed which was meant."""

    name = "tenant-ambiguous"
    status = 400
    title = "More than one tenant claims this request"
    action = "Send it so that only one tenant's route matches, or ask the operator to narrow the routes."

    def __init__(self, detail: str = "", *, tenant: str | None = None, claims: tuple[str, ...] = ()) -> None:
        super().__init__(detail, tenant=tenant)
        self.claims = claims
        """Each route with the tenant that it names."""


class TenantDisabled(Refusal):
    """The operator has switched the tenant off."""

    name = "tenant-disabled"
    status = 403
    title = "This tenant is disabled"
    action = "Ask the operator to enable it with `pleo-proxy tenants enable NAME`."


class NeedsReauth(Refusal):
    """There is no usable grant: never connected, refused for good, or revoked."""

    name = "needs-reauth"
    status = 503
    title = "This tenant has no valid authorisation at Pleo"
    action = (
        "The operator runs `pleo-proxy connect NAME` (or opens reconnect_url) and sends the link to a person "
        "at the company, who approves it in a browser. Calls work again at once afterwards."
    )


class PolicyRefused(Refusal):
    """The tenant's policy does not allow this caller, this method and path, or the company that is named."""

    name = "policy-refused"
    status = 403
    title = "The tenant's policy does not allow this request"
    action = (
        "Ask the operator whether the policy should be wider (`pleo-proxy policy show NAME`, then "
        "`pleo-proxy policy set NAME …`)."
    )


class LegacyPathRefused(PolicyRefused):
    """The path is of Pleo's old API, so Pleo would only answer that it does not know it."""

    action = (
        "Have the tool call what the detail names, at the same base URL; its answers have another form, too. "
        "If Pleo has the path after all, the operator allows it with `pleo-proxy policy set NAME --allow …`."
    )


class BrowserRefused(Refusal):
    """A web page sent the request; the proxy has no passwords, so pages must not reach it."""

    name = "browser-refused"
    status = 403
    title = "Requests from web pages are refused"
    action = (
        "Call the proxy from a program. One that contains or imitates a browser sends X-Pleo-Tenant with "
        "each request, and neither Origin nor Referer. To look at an answer, type its address at 127.0.0.1."
    )


class HostRefused(Refusal):
    """``Host`` names neither an address nor a configured name (defence against DNS rebinding)."""

    name = "host-refused"
    status = 421
    title = "The Host header names a host that this proxy does not serve"
    action = "Use the proxy's IP address, or ask the operator to add the name to listen.hosts or to a tenant."


class ProviderUnavailable(Refusal):
    """No valid access token, and none could be had from Pleo just now."""

    name = "provider-unavailable"
    status = 503
    title = "No access token can be had from Pleo at the moment"
    action = "Try again after the time in Retry-After; if it persists, the operator's log tells why."
    proxy_error = "http_request_error"


class StoreUnavailable(Refusal):
    """The proxy's own store does not work, so tokens can be neither read nor saved."""

    name = "store-unavailable"
    status = 503
    title = "The proxy's store is not available"
    action = "Try again later; the operator checks the disk or database that store.url names."
    proxy_error = "proxy_internal_error"


class SealedValueRefused(Refusal):
    """A stored token does not open with the key ring; it is kept, and never taken for "no token"."""

    name = "sealed-value-refused"
    status = 503
    title = "The stored authorisation cannot be opened"
    action = "The operator restores the key ring that vault.keys names; nothing was erased."
    proxy_error = "proxy_configuration_error"


class TargetRefused(Refusal):
    """The request is malformed, or its target means different things to different servers."""

    name = "target-refused"
    status = 400
    title = "The request is malformed"
    action = "Correct the request as the detail says."
    proxy_error = "http_request_error"


class TargetTooLong(Refusal):
    """The request target is longer than ``limits.target_bytes``."""

    name = "target-too-long"
    status = 414
    title = "The request target is too long"
    action = "Shorten the query, or ask the operator to raise limits.target_bytes."
    proxy_error = "http_request_error"


class HeadTooLarge(Refusal):
    """The header section is larger than ``limits.head_bytes`` or has more than ``limits.headers`` fields."""

    name = "head-too-large"
    status = 431
    title = "The request's header section is too large"
    action = "Send fewer or shorter headers; or the operator raises limits.head_bytes or limits.headers."
    proxy_error = "http_request_error"


class BodyTooLarge(Refusal):
    """The request body is larger than ``limits.body_bytes``."""

    name = "body-too-large"
    status = 413
    title = "The request body is too large"
    action = "Send less at once, or ask the operator to raise limits.body_bytes."
    proxy_error = "http_request_error"


class RateLimited(Refusal):
    """The tenant's own request rate is used up, or too many of its requests are under way."""

    name = "rate-limited"
    status = 429
    title = "The tenant's request rate is used up"
    action = "Try again after the time in Retry-After."


class Overloaded(Refusal):
    """The proxy is at ``limits.connections``, or is shutting down."""

    name = "overloaded"
    status = 503
    title = "The proxy takes no more requests at the moment"
    action = "Try again after the time in Retry-After."
    proxy_error = "connection_limit_reached"


class UpstreamUnreachable(Refusal):
    """Pleo's API could not be resolved or connected, failed TLS, or broke off before an answer."""

    name = "upstream-unreachable"
    status = 502
    title = "Pleo's API cannot be reached"
    action = "Try again; if it persists, the operator checks the network between the proxy and Pleo."
    proxy_error = "destination_unavailable"


class UpstreamTimeout(Refusal):
    """Pleo's API gave no answer in time; it may or may not have carried out the request."""

    name = "upstream-timeout"
    status = 504
    title = "Pleo's API did not answer in time"
    action = "Check whether the request took effect before repeating anything but a read."
    proxy_error = "http_response_timeout"


class LoopDetected(Refusal):
    """The request already passed through this proxy (RFC 9110 section 7.6.3)."""

    name = "loop-detected"
    status = 508
    title = "The request came back to this proxy"
    action = "The operator corrects pleo.api_url or the network: the upstream must not be the proxy itself."
    proxy_error = "proxy_loop_detected"


class InternalError(Refusal):
    """A defect of the proxy; the log line ``request.crashed`` with the same request id says where."""

    name = "internal-error"
    status = 500
    title = "The proxy failed on this request"
    action = "Tell the operator the request_id; the log says what happened."
    proxy_error = "proxy_internal_error"


REFUSALS: tuple[type[Refusal], ...] = tuple(Refusal.__subclasses__())
"""All of them, for the pages that explain them and for the tests that hold documents to the code."""


class ConsentFault(Enum):
    """Why a consent did not lead to a connected tenant; ``status`` is that of the authoriser's page.

    What the page says stands in the catalogues of :mod:`proxy.texts`, by the slug.
    """

    LINK_UNKNOWN = "link-unknown", 404
    LINK_EXPIRED = "link-expired", 410
    LINK_USED = "link-used", 410
    PAGE_SKIPPED = "page-skipped", 400
    STATE_UNKNOWN = "state-unknown", 400
    DENIED = "denied", 403
    CANCELLED = "cancelled", 403
    PLEO_REFUSED = "pleo-refused", 502
    PLEO_UNAVAILABLE = "pleo-unavailable", 503
    NOT_SET_UP = "not-set-up", 502
    NOT_VERIFIED = "not-verified", 502
    WRONG_COMPANY = "wrong-company", 409
    STORE_FAILED = "store-failed", 503

    def __init__(self, slug: str, status: int) -> None:
        self.slug = slug
        self.status = status


class ConsentRefused(Exception):  # noqa: N818 - an answer to the authoriser, not a defect
    """The consent flow ends here; nothing that was connected before has changed."""

    def __init__(self, fault: ConsentFault, error: str | None = None, /, **told: Any) -> None:  # noqa: ANN401
        super().__init__(fault.slug)
        self.fault = fault
        self.error = error
        """For the operator's log: a known error code, or the proxy's own word for what went wrong."""
        self.told = told
        """What the authoriser's page tells beside: fields of :class:`proxy.consents.Ending`."""
