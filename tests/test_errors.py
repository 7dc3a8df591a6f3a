"""Every refusal of the proxy, by name and status, and the errors that end a command."""

from __future__ import annotations

import pytest

from proxy.errors import (
    REFUSALS,
    ConfigurationError,
    ConsentFault,
    ConsentRefused,
    InternalError,
    KeyRingError,
    OperatorError,
    Refusal,
    StoreError,
    TenantError,
    TenantUnknown,
    UsageError,
)

CONTRACT = {
    "tenant-unknown": 404,
    "tenant-ambiguous": 400,
    "tenant-disabled": 403,
    "needs-reauth": 503,
    "policy-refused": 403,
    "browser-refused": 403,
    "host-refused": 421,
    "provider-unavailable": 503,
    "store-unavailable": 503,
    "sealed-value-refused": 503,
    "target-refused": 400,
    "target-too-long": 414,
    "head-too-large": 431,
    "body-too-large": 413,
    "rate-limited": 429,
    "overloaded": 503,
    "upstream-unreachable": 502,
    "upstream-timeout": 504,
    "loop-detected": 508,
}
"""What callers may rely on."""

# RFC 9209 section 2.3, as far as it is about what a proxy does by itself.
PROXY_ERRORS = {
    "destination_unavailable",
    "connection_limit_reached",
    "http_request_error",
    "http_request_denied",
    "http_response_timeout",
    "proxy_internal_error",
    "proxy_configuration_error",
    "proxy_loop_detected",
}

EACH = [pytest.param(refusal, id=refusal.name) for refusal in REFUSALS]


@pytest.mark.parametrize(("name", "status"), CONTRACT.items(), ids=CONTRACT)
def test_contract_refusals_exist(name: str, status: int) -> None:
    """Each documented refusal is one type with the documented status."""
    assert [refusal.status for refusal in REFUSALS if refusal.name == name] == [status]


def test_no_refusal_is_undocumented() -> None:
    """Beside the documented refusals there is only the one for a defect of the proxy itself."""
    assert {refusal.name for refusal in REFUSALS} - CONTRACT.keys() == {"internal-error"}
    assert InternalError.status == 500


def test_refusals_have_unique_names_and_titles() -> None:
    """A name or a title tells a reader which fault was met."""
    assert len({refusal.name for refusal in REFUSALS}) == len(REFUSALS)
    assert len({refusal.title for refusal in REFUSALS}) == len(REFUSALS)


@pytest.mark.parametrize("refusal", EACH)
def test_each_refusal_says_what_to_do(refusal: type[Refusal]) -> None:
    """Each has a title without a full stop, an action of whole sentences, and a registered proxy error."""
    assert refusal.title
    assert not refusal.title.endswith(".")
    assert refusal.action.endswith((".", ")."))
    assert refusal.action != refusal.title
    assert refusal.proxy_error in PROXY_ERRORS
    assert refusal.__doc__


@pytest.mark.parametrize("refusal", EACH)
def test_a_refusal_without_detail_shows_its_title(refusal: type[Refusal]) -> None:
    """The detail is never empty."""
    raised = refusal()
    assert raised.detail == refusal.title == str(raised)
    assert raised.tenant is None
    assert raised.retry_after_s is None


def test_a_refusal_carries_what_it_is_given() -> None:
    """Detail, tenant and waiting time are those of the place where it was raised."""
    raised = TenantUnknown("nobody is called 'x'", tenant="x", retry_after_s=3)
    assert (raised.detail, raised.tenant, raised.retry_after_s) == ("nobody is called 'x'", "x", 3)
    assert str(raised) == "nobody is called 'x'"


@pytest.mark.parametrize(
    ("error", "code"),
    [(OperatorError, 1), (StoreError, 1), (UsageError, 2), (TenantError, 2), (KeyRingError, 2)],
)
def test_exit_codes(error: type[OperatorError], code: int) -> None:
    """1 where something failed, 2 where usage or configuration is wrong."""
    assert error("text").exit_code == code


def test_a_configuration_error_lists_all_mistakes() -> None:
    """All mistakes are told at once, each on a line of its own, under the source's name."""
    error = ConfigurationError("proxy.toml", ["one is wrong", "two is wrong"])
    assert str(error) == "proxy.toml: 2 mistakes\n  - one is wrong\n  - two is wrong"
    assert str(ConfigurationError("x", ["a"])).startswith("x: 1 mistake\n")
    assert error.exit_code == 2


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.slug) for fault in ConsentFault])
def test_each_consent_fault_has_a_status_and_a_name(fault: ConsentFault) -> None:
    """Each has an error status, and is told by its slug; the words are the catalogues'."""
    assert 400 <= fault.status < 600
    assert str(ConsentRefused(fault)) == fault.slug


def test_consent_faults_are_told_apart() -> None:
    """No two faults share a slug."""
    assert len({fault.slug for fault in ConsentFault}) == len(ConsentFault)
