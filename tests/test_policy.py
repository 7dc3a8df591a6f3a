"""What a tenant's callers may ask: presets, blocked endpoints, and that no spelling gets round them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import policy
from proxy.errors import TargetRefused, TenantError
from proxy.model import Policy, Preset, Unblocked
from proxy.target import parse

ALL = tuple(Preset)
ACCOUNTING = (Preset.ACCOUNTING, Preset.FULL)
READERS = (Preset.READ_ONLY, Preset.ACCOUNTING, Preset.FULL)
EXPORTERS = (Preset.EXPORTS, Preset.ACCOUNTING, Preset.FULL)
FULL = (Preset.FULL,)
NOBODY: tuple[Preset, ...] = ()


def allows(preset: Preset, method: str, path: str) -> bool:
    """Whether callers of a tenant with ``preset`` may send this."""
    return not fault(Policy(preset), method, path)


def fault(held: Policy, method: str, path: str) -> str:
    """What a policy has against a method and path."""
    return policy.rules_of(held).verdict(method, path).fault


ENDPOINTS = {
    "introspect": ("GET", "/v1/introspect", ALL),
    "companies": ("GET", "/v1/companies", ALL),
    "company-by-id": ("HEAD", "/v1/companies/3f2c", ALL),
    "employees": ("GET", "/v2/employees", ALL),
    "companies-of-another-name": ("GET", "/v1/companies-house", READERS),
    "accounting-entry": ("GET", "/v1/accounting-entries/1", READERS),
    "receipts": ("GET", "/v1/accounting-entries/1/receipts", READERS),
    "beta-version": ("GET", "/v1-beta/anything", READERS),
    "version-alone": ("GET", "/v1", READERS),
    "search": ("POST", "/v1/accounting-entries:search", READERS),
    "vendor-search": ("POST", "/v1/vendors:search", READERS),
    "search-within-a-vendor": ("POST", "/v1/vendors/1:search", ACCOUNTING),
    "search-by-get": ("GET", "/v1/vendors:search", READERS),
    "search-by-put": ("PUT", "/v1/x:search", FULL),
    "search-like-action": ("POST", "/v1/x:searchAndDestroy", FULL),
    "export-jobs": ("GET", "/v3/export-jobs", ALL),
    "export-job-items": ("PUT", "/v3/export-jobs/1/items", EXPORTERS),
    "new-export-job": ("POST", "/v3/export-jobs", EXPORTERS),
    "export-items": ("GET", "/v3/export-items", ALL),
    "export-job-events": ("POST", "/v3/export-job-events", EXPORTERS),
    "delete-export-job": ("DELETE", "/v3/export-jobs/1", FULL),
    "export-of-another-name": ("POST", "/v3/export-jobsx", FULL),
    "new-vendor": ("POST", "/v1/vendors", ACCOUNTING),
    "change-vendor": ("PUT", "/v1/vendors/1", ACCOUNTING),
    "archive-vendor": ("POST", "/v1/vendors/1:archive", ACCOUNTING),
    "delete-tag": ("DELETE", "/v0/tags/1", ACCOUNTING),
    "aggregated-tags": ("POST", "/v0/aggregations/tags", ACCOUNTING),
    "chart-of-accounts-batch": ("POST", "/v1/chart-of-accounts/batch", ACCOUNTING),
    "vendors-of-another-name": ("POST", "/v1/vendorsx", FULL),
    "patch-vendor": ("PATCH", "/v1/vendors/1", FULL),
    "new-employee": ("POST", "/v2/employees", FULL),
    "installation": ("GET", "/v1/installations/me", READERS),
    "activate-installation": ("POST", "/v1/installations/me:activate", FULL),
    "delete-another-installation": ("DELETE", "/v1/installations/you", FULL),
    "subscriptions": ("GET", "/v1/subscriptions", READERS),
    "subscription": ("GET", "/v1/subscriptions/1", READERS),
    "legacy-path": ("GET", "/expenses", NOBODY),
    "unversioned-path": ("GET", "/expense-reports", FULL),
    "root": ("GET", "/", FULL),
    "options": ("OPTIONS", "/v1/companies", FULL),
    "delete-installation": ("DELETE", "/v1/installations/me", NOBODY),
    "delete-installation-of-another-version": ("DELETE", "/v2-beta1/installations/me", NOBODY),
    "read-subscription-secret": ("GET", "/v1/subscriptions/1/secret", NOBODY),
    "new-subscription-secret": ("POST", "/v1/subscriptions/1/secret", NOBODY),
    "trace": ("TRACE", "/v1/companies", NOBODY),
    "subscription-secret-by-options": ("OPTIONS", "/v1/subscriptions/1/secret", NOBODY),
}


@pytest.mark.parametrize("preset", Preset)
@pytest.mark.parametrize(("method", "path", "allowed"), ENDPOINTS.values(), ids=ENDPOINTS)
def test_endpoints_by_preset(preset: Preset, method: str, path: str, allowed: tuple[Preset, ...]) -> None:
    """Each preset lets through the endpoints of its purpose and no others; the blocked ones, none does."""
    assert allows(preset, method, path) is (preset in allowed)


SPELLINGS = {
    "letter-case": ("DELETE", "/V1/Installations/ME"),
    "method-lower-case": ("delete", "/v1/installations/me"),
    "method-mixed-case": ("Delete", "/v1/installations/me"),
    "trailing-slash": ("DELETE", "/v1/installations/me/"),
    "trailing-slashes": ("DELETE", "/v1/installations/me//"),
    "empty-first-segment": ("DELETE", "//v1/installations/me"),
    "empty-segment": ("DELETE", "/v1//installations/me"),
    "empty-segments-everywhere": ("DELETE", "///v1//installations///me//"),
    "empty-segment-with-parameter": ("DELETE", "/v1/;x/installations/;y/me"),
    "like-another-host": ("DELETE", "//host.example/v1/installations/me"),
    "like-another-host-with-slashes": ("DELETE", "//host.example//v1//installations/me"),
    "trace-letter-case": ("Trace", "/"),
    "parameter-at-end": ("DELETE", "/v1/installations/me;x=y"),
    "empty-parameter": ("DELETE", "/v1/installations/me;"),
    "parameter-in-the-middle": ("DELETE", "/v1/installations;a;b=c/me"),
    "parameter-on-version": ("DELETE", "/v1;x/installations/me"),
    "parameter-and-slash": ("DELETE", "/v1/installations/me;x/"),
    "slash-and-parameter": ("DELETE", "/v1/installations/me/;x"),
    "long-s": ("DELETE", "/v1/in\u017ftallations/me"),
    "another-version": ("DELETE", "/v99-rc1/installations/me"),
    "trailing-dot": ("DELETE", "/v1/installations/me."),
    "dots-and-spaces": ("DELETE", "/v1./installations. /me.../"),
    "secret-letter-case": ("GET", "/v1/subscriptions/A/SECRET"),
    "secret-parameter": ("GET", "/v1/subscriptions;x/a;y/secret;z/"),
    "secret-with-long-s": ("GET", "/v1/\u017fub\u017fcriptions/a/\u017fecret"),
}


@pytest.mark.parametrize(("method", "path"), SPELLINGS.values(), ids=SPELLINGS)
def test_blocked_endpoints_in_other_spellings(method: str, path: str) -> None:
    """A blocked endpoint is blocked in every spelling that some server would take for it."""
    assert fault(Policy(), method, path).startswith("blocked: ")


# What each preset refuses, plainly spelt.
PLAIN = [
    (preset, method, path)
    for method, path, allowed in ENDPOINTS.values()
    for preset in Preset
    # A path of the old API is refused as a help, not as a danger: another spelling of it is Pleo's to answer.
    if preset not in allowed and path != "/expenses"
]


@st.composite
def tricky(draw: st.DrawFn, text: str) -> str:
    """``text`` in other letter case, partly percent-encoded."""
    spelt = []
    for char in text:
        other = draw(st.sampled_from([char, char.upper(), char.lower(), char.title()]))
        encoded = "".join(f"%{byte:02X}" for byte in other.encode())
        spelt.append(draw(st.sampled_from([other, other, other, encoded, encoded.lower()])))
    return "".join(spelt)


PARAMETERS = st.sampled_from(["", "", "", ";", ";x", ";x=y", ";a;b", "%3Bx", ";..", ";%2e"])
# Mostly one that target.parse lets through, so that the policy has something to decide.
SLASHES = st.sampled_from(
    ["/"] * 20 + ["//", "///", "/;/", "/;x/", "/./", "/%2e/", "/a/../", "%2F", "/..;/x/"]
)


@st.composite
def disguised(draw: st.DrawFn, path: str) -> bytes:
    """A request target that some server on the way could take for ``path``."""
    segments = path[1:].split("/")
    spelt = [draw(SLASHES) + draw(tricky(segment)) + draw(PARAMETERS) for segment in segments]
    host = draw(st.sampled_from(["", "", "", "//host.example"]))
    return (host + "".join(spelt) + draw(st.sampled_from(["", "/", "//", "?", "?x=y", "/;x"]))).encode()


@given(st.data(), st.sampled_from(PLAIN))
def test_no_disguise_passes_what_the_plain_spelling_would_not(
    data: st.DataObject, plain: tuple[Preset, str, str]
) -> None:
    """Whatever a preset refuses in plain spelling, it or the target's own rules refuse in disguise."""
    preset, method, path = plain
    raw = data.draw(disguised(path))
    method = data.draw(st.sampled_from([method, method.lower(), method.title()]))
    try:
        decoded = parse(raw, max_bytes=9999).decoded
    except TargetRefused:
        return
    assert not allows(preset, method, decoded)


@given(st.sampled_from(Preset), st.sampled_from(["DELETE", "delete"]), st.text())
@example(Preset.FULL, "DELETE", "")
def test_the_decision_is_always_one_of_two(preset: Preset, method: str, path: str) -> None:
    """Any text as a path is allowed or refused; nothing else is raised."""
    allows(preset, method, "/" + path)


def test_the_fault_names_the_rule() -> None:
    """What was refused is told with the rule that refused it."""
    assert fault(Policy(Preset.READ_ONLY), "POST", "/v1/Vendors;x") == "outside the preset 'read-only'"
    assert "revoke every token" in fault(Policy(), "DELETE", "/v1/installations/me")
    assert (
        fault(Policy(deny=("GET /v1/tags/**",)), "HEAD", "/v1/tags/7")
        == "denied by the rule 'GET /v1/tags/**'"
    )
    assert fault(Policy(allow=("GET /v1/tags",)), "GET", "/v1/vendors") == "outside what the policy allows"


RULES = {
    # rule, method, path, whether it is meant
    "exact": ("GET /v1/vendors", "GET", "/v1/vendors", True),
    "no-more": ("GET /v1/vendors", "GET", "/v1/vendors/1", False),
    "no-less": ("GET /v1/vendors/*", "GET", "/v1/vendors", False),
    "one-segment": ("GET /v1/vendors/*", "GET", "/v1/vendors/1", True),
    "one-segment-alone": ("GET /v1/vendors/*", "GET", "/v1/vendors/1/receipts", False),
    "within-a-segment": ("POST /v1/*:search", "POST", "/v1/vendors:search", True),
    "anything-below": ("GET /v1/vendors/**", "GET", "/v1/vendors/1/receipts", True),
    "in-the-middle": ("GET /**/items", "GET", "/v3/export-jobs/1/items", True),
    "head-goes-with-get": ("GET /v1/vendors", "HEAD", "/v1/vendors", True),
    "get-does-not-go-with-head": ("HEAD /v1/vendors", "GET", "/v1/vendors", False),
    "several-methods": ("PUT,post /v1/vendors", "POST", "/v1/vendors", True),
    "other-method": ("PUT,POST /v1/vendors", "DELETE", "/v1/vendors", False),
    "any-method": ("* /v1/vendors", "PURGE", "/v1/vendors", True),
    "letter-case": ("GET /V1/Vendors", "get", "/v1/vENDORS", True),
    "slash-at-the-end": ("GET /v1/vendors/", "GET", "/v1/vendors", True),
    "slash-at-the-end-of-the-path": ("GET /v1/vendors", "GET", "/v1/vendors//", True),
    "letters-of-patterns": ("GET /v1/a.c", "GET", "/v1/abc", False),
    "everything": ("* /**", "GET", "/", True),
}


@pytest.mark.parametrize(("rule", "method", "path", "meant"), RULES.values(), ids=RULES)
def test_rules_of_the_operators(rule: str, method: str, path: str, *, meant: bool) -> None:
    """A rule lets through what it means where it allows, and keeps out the same where it denies."""
    assert (not fault(Policy(allow=(rule,)), method, path)) is meant
    assert bool(fault(Policy(deny=(rule,)), method, path)) is meant


@given(st.data(), st.sampled_from(PLAIN))
def test_no_disguise_gets_past_a_rule_that_denies(
    data: st.DataObject, plain: tuple[Preset, str, str]
) -> None:
    """What a rule denies in plain spelling, it or the target's own rules refuse in disguise."""
    _, method, path = plain
    raw = data.draw(disguised(path))
    try:
        decoded = parse(raw, max_bytes=9999).decoded
    except TargetRefused:
        return
    assert fault(Policy(deny=(f"{method} {path}",)), method, decoded)


def test_rules_that_deny_go_first() -> None:
    """What both an allowing and a denying rule mean is refused, whatever the preset."""
    held = Policy(Preset.FULL, allow=("* /v1/**",), deny=("DELETE /v1/vendors/*",))
    assert not fault(held, "GET", "/v1/vendors/1")
    assert fault(held, "DELETE", "/v1/vendors/1")


def test_blocked_endpoints_pass_only_where_they_are_unblocked_by_name() -> None:
    """Each name unblocks its endpoint and no other; an allowing rule unblocks nothing, and TRACE nobody."""
    delete, secret = ("DELETE", "/v1/installations/me"), ("GET", "/v1/subscriptions/7/secret")
    everything = Policy(allow=("* /**",))
    assert fault(everything, *delete)
    assert fault(everything, *secret)
    installation = Policy(unblock=(Unblocked.INSTALLATION,))
    verdict = policy.rules_of(installation).verdict(*delete)
    assert (verdict.fault, verdict.revokes) == ("", True)
    assert fault(installation, *secret)
    assert not fault(Policy(unblock=(Unblocked.SUBSCRIPTION_SECRET,)), *secret)
    assert fault(Policy(Preset.READ_ONLY, unblock=tuple(Unblocked)), *delete)
    assert fault(Policy(unblock=tuple(Unblocked)), "TRACE", "/v1/vendors")


LEGACY = {
    "/expenses": "today POST /v1/accounting-entries:search",
    "/expenses/7": "today POST /v1/accounting-entries:search",
    "/v1/expenses": "today POST /v1/accounting-entries:search",
    "/v1/expenses/7/receipts": "today POST /v1/accounting-entries:search",
    "/V1/Expenses/": "today POST /v1/accounting-entries:search",
    "/employees": "today GET /v2/employees",
    "/teams": "which today's API does not have",
    "/tag-groups/7": "today /v0/tag-groups",
    "/accounts": "today /v1/chart-of-accounts",
    "/tax-codes": "today /v0/tax-codes",
    "/companies/balance": "which today's API does not have",
    "/v1/companies/balance": "which today's API does not have",
}
NOT_LEGACY = [
    "/v1/employees",
    "/v2/employees",
    "/v1/tax-codes",
    "/v0/tag-groups",
    "/v1/tag-groups",
    "/v1/accounts",
    "/v1/teams",
    "/v2/expenses",
    "/v0/expenses",
    "/v1/expenses:search",
    "/v1/companies",
    "/v1/companies/3f2c",
    "/v1/companies/balances",
    "/v2/companies/balance",
    "/companies",
    "/v1/accounting-entries:search",
    "/v1-beta/expenses",
    "/x/expenses",
    "/expensesx",
]


@pytest.mark.parametrize("preset", Preset)
@pytest.mark.parametrize(("path", "told"), LEGACY.items(), ids=LEGACY)
def test_a_path_of_the_old_api_is_told_what_it_is_today(preset: Preset, path: str, told: str) -> None:
    """With any preset and method, and in preference to "outside the preset"."""
    for method in ("GET", "POST"):
        verdict = policy.rules_of(Policy(preset)).verdict(method, path)
        assert verdict.is_legacy
        assert verdict.fault.startswith(f"of Pleo's old API, {told}")
        assert not verdict.revokes


@pytest.mark.parametrize("path", NOT_LEGACY)
def test_what_pleo_has_or_may_get_is_pleos_to_answer(path: str) -> None:
    """Only exact shapes of the old API are refused."""
    assert not fault(Policy(), "GET", path)
    assert not policy.rules_of(Policy(Preset.EXPORTS)).verdict("GET", path).is_legacy


def test_an_allowing_rule_lets_a_path_of_the_old_api_through() -> None:
    """An operator who names it knows better; one who names something else is told as everybody."""
    held = Policy(Preset.READ_ONLY, allow=("GET /v1/expenses/**", "GET /v1/expenses"))
    assert not fault(held, "GET", "/v1/expenses")
    assert not fault(held, "GET", "/v1/expenses/7")
    assert policy.rules_of(held).verdict("POST", "/v1/expenses").is_legacy
    assert policy.rules_of(held).verdict("GET", "/teams").is_legacy
    denied = Policy(allow=("* /**",), deny=("GET /expenses",))
    assert fault(denied, "GET", "/expenses") == "denied by the rule 'GET /expenses'"


@pytest.mark.parametrize(
    ("held", "method", "path", "rule"),
    [
        (Policy(), "GET", "/v2/employees", "the preset 'full'"),
        (Policy(Preset.READ_ONLY), "POST", "/v1/vendors", "the preset 'read-only'"),
        (Policy(allow=("GET /a", "GET /v1/**")), "GET", "/v1/x", "the rule 'GET /v1/**'"),
        (Policy(allow=("GET /a",)), "GET", "/v1/x", "what the policy allows"),
        (Policy(deny=("GET /b", "* /v1/**")), "GET", "/v1/x", "the rule '* /v1/**'"),
        (Policy(), "DELETE", "/v1/installations/me", "the list of blocked endpoints"),
        (Policy(), "GET", "/expenses", "the paths of Pleo's old API"),
    ],
)
def test_a_verdict_names_the_rule_that_decides(held: Policy, method: str, path: str, rule: str) -> None:
    """Whatever it comes to, an operator can tell which rule to change."""
    assert policy.rules_of(held).verdict(method, path).rule == rule


def test_only_what_ends_all_tokens_is_said_to() -> None:
    """A verdict tells which request revokes."""
    rules = policy.rules_of(Policy(unblock=tuple(Unblocked)))
    assert not rules.verdict("GET", "/v1/installations/me").revokes
    assert rules.verdict("delete", "/v1/Installations/me/").revokes


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("allow", ("GET",), "'GET' is not METHODS PATH"),
        ("allow", ("GET v1/vendors",), "not METHODS PATH"),
        ("allow", ("GET  /v1",), "not METHODS PATH"),
        ("deny", ("G3T /v1",), "not METHODS PATH"),
        ("deny", ("GET /v1?x=1",), "the decoded path alone"),
        ("deny", ("GET /v1/%2e",), "the decoded path alone"),
        ("callers", ("10.0.0.1/8",), "'10.0.0.1/8' is not in CIDR notation"),
        ("callers", ("acme",), "'acme' is not in CIDR notation"),
        ("requests_per_minute", 0, "requests_per_minute 0 must be at least 1"),
        ("requests_per_minute", 601, "601 is more than the 600 that Pleo takes"),
        ("concurrency", -1, "concurrency -1 must be at least 1"),
        ("body_bytes", 0, "body_bytes 0 must be at least 1"),
    ],
)
def test_a_policy_that_means_nothing_is_not_saved(field: str, value: Any, told: str) -> None:
    """The error names item, value and rule."""
    with pytest.raises(TenantError, match=re.escape(told)):
        policy.checked(replace(Policy(), **{field: value}), ceiling=600)


def test_a_policy_in_canonical_form() -> None:
    """Repetitions are dropped, networks are canonical, and Pleo's ceiling itself may be had."""
    held = Policy(
        allow=("GET /v1/a", "GET /v1/a"),
        callers=("10.1.0.0/16", " 10.1.0.0/16 ", "2001:DB8::/32"),
        requests_per_minute=600,
    )
    checked = policy.checked(held, ceiling=600)
    assert checked == Policy(
        allow=("GET /v1/a",), callers=("10.1.0.0/16", "2001:db8::/32"), requests_per_minute=600
    )
    assert policy.checked(replace(held, requests_per_minute=9999)).requests_per_minute == 9999


def test_every_preset_has_rules() -> None:
    """A preset that can be chosen has rules."""
    assert policy.PRESETS.keys() == set(Preset)
