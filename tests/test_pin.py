"""Which company a request names: every spelling that some server takes for a company id counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import pin

OURS = "0a0ac3e0-5b1d-4c1e-9f53-6d1f6f3a7c01"
THEIRS = "7b0b4cf1-5d8e-4f3a-b1c9-3a8e5c8d7f02"

NAMES = [
    "company_id", "companyId", "COMPANYID", "Company-Id", "company.id", "company_ids", "filter[companyId]",
    "filter.company_id", "companyId[]", "company id",
]  # fmt: skip
OTHER_NAMES = ["companyIdentifier", "id", "company", "companyName", "company_idx", "vat"]


@pytest.mark.parametrize("name", NAMES)
def test_a_query_that_names_another_company(name: str) -> None:
    """Whatever its spelling, and wherever it stands, a parameter for a company must hold the tenant's."""
    for shape in ("{}={}", "a=1&{}={}&b=2", "a=1;{}={}", "{}={}&x", "%61=%62&{}={}"):
        for spelt in (name, percent(name), percent(name.replace("i", "\u0131"))):
            assert pin.fault_in_query(shape.format(spelt.replace(" ", "+"), THEIRS).encode(), OURS)
            assert not pin.fault_in_query(shape.format(spelt.replace(" ", "+"), OURS).encode(), OURS)


def percent(text: str) -> str:
    """Every byte percent-encoded."""
    return "".join(f"%{byte:02x}" for byte in text.encode())


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_query_that_names_no_company(name: str) -> None:
    """Parameters of other names may hold anything."""
    assert not pin.fault_in_query(f"{name}={THEIRS}".encode(), OURS)


@pytest.mark.parametrize(
    "query",
    [
        f"company_id={OURS}&company_id={THEIRS}",
        f"company_id={THEIRS}&company_id={OURS}",
        f"company_id={OURS}&companyId={THEIRS}",
        f"company_id={OURS},{THEIRS}",
        f"company_id={OURS}%2C{THEIRS}",
        f"company_id={OURS}%00",
        "company_id=",
        "company_id",
        "company_id=%ff",
        f"company_id={OURS[:-1]}",
        f"company_id={OURS}0",
        f"company_id=urn:pleo:company:{THEIRS}",
        f"company_id={OURS.replace('-', '')}",
    ],
)
def test_a_query_of_which_some_server_takes_another_company(query: str) -> None:
    """Of several values each must be the tenant's, and what is no company id is none of the tenant's."""
    assert pin.fault_in_query(query.encode(), OURS)


@pytest.mark.parametrize(
    "value", [OURS, OURS.upper(), f"+{OURS}+", f"urn:pleo:company:{OURS}", f"{OURS},{OURS}"]
)
def test_a_query_with_the_tenants_company(value: str) -> None:
    """The tenant's own id passes in each form that Pleo writes it in."""
    assert not pin.fault_in_query(f"companyId={value}".encode(), OURS)


def test_no_query_names_nothing() -> None:
    """Neither a missing query nor an empty one does."""
    assert not pin.fault_in_query(None, OURS)
    assert not pin.fault_in_query(b"", OURS)


BODIES: dict[str, tuple[Any, Any]] = {
    # a document that must not pass, and what may stand in its place
    "plain": ({"companyId": THEIRS}, {"companyId": OURS}),
    "snake": ({"company_id": THEIRS}, {"company_id": OURS}),
    "letter-case": ({"COMPANYid": THEIRS}, {"COMPANYid": OURS}),
    "nested": ({"a": {"b": [{"companyId": THEIRS}]}}, {"a": {"b": [{"companyId": OURS}]}}),
    "in-a-list": ([1, {"companyId": THEIRS}], [1, {"companyId": OURS}]),
    "list-of-ids": ({"companyIds": [OURS, THEIRS]}, {"companyIds": [OURS, OURS]}),
    "filter": ({"companyId": {"eq": THEIRS}}, {"companyId": {"eq": OURS}}),
    "deep-filter": ({"companyId": {"in": [[OURS], [THEIRS]]}}, {"companyId": {"in": [[OURS]], "not": False}}),
    "number": ({"companyId": 7}, {"companyId": None}),
    "true": ({"companyId": True}, {"companyId": f" {OURS.upper()} "}),
    "text": ({"companyId": "another"}, {"companyId": f"urn:pleo:company:{OURS}"}),
    "dotless-i": ({"company\u0131d": THEIRS}, {"company\u0131d": OURS}),
    "without-hyphens": ({"companyId": {"eq": THEIRS.replace("-", "")}}, {"companyId": {"eq": "1234"}}),
}


@pytest.mark.parametrize(("foreign", "own"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
)
def test_a_document_that_names_another_company(foreign: Any, own: Any, encoding: str) -> None:
    """However deep, and in whatever encoding of Unicode, a member for a company must hold the tenant's."""
    for ascii_only in (True, False):
        for indent in (None, 2):

            def body(document: Any, indent: int | None = indent, ascii_only: bool = ascii_only) -> bytes:
                return json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode(encoding)

            assert pin.fault_in_json(body(foreign), OURS)
            assert not pin.fault_in_json(body(own), OURS)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(f'{{"companyId":"{OURS}","companyId":"{THEIRS}"}}', id="duplicate-last"),
        pytest.param(f'{{"companyId":"{THEIRS}","companyId":"{OURS}"}}', id="duplicate-first"),
        pytest.param(f'{{"\\u0063ompanyId":"{THEIRS}"}}', id="escaped-letter"),
        pytest.param(f'{{"\\u0043OMPANY\\u0049D":"{THEIRS}"}}', id="escaped-capitals"),
        pytest.param(f'{{"x":"\\\\","company\\u0131d":"{THEIRS}"}}', id="escaped-dotless-i"),
        pytest.param(f'{{"companyId":"{THEIRS}",}}', id="trailing-comma"),
        pytest.param(f"{{'companyId':'{THEIRS}'}}", id="single-quotes"),
        pytest.param(f'{{companyId:"{THEIRS}"}}', id="no-quotes"),
        pytest.param(f'/* a */ {{"companyId":"{THEIRS}"}}', id="comment"),
        pytest.param(f'{{"compan\\yId":"{THEIRS}"}}', id="escape-that-json-does-not-have"),
        pytest.param(f'{{"compan\\x79Id":"{THEIRS}"}}', id="escape-of-javascript"),
        pytest.param(f'\n\t {{"companyId":"{THEIRS}"}}', id="white-space-first"),
        pytest.param(f'{{"a":1}}{{"companyId":"{THEIRS}"}}', id="two-documents"),
        pytest.param("[" * 100_000 + f'{{"companyId":"{THEIRS}"}}', id="deep"),
    ],
)
def test_a_text_that_some_parser_takes_for_another_company(body: str) -> None:
    """What is no JSON for certain, and seems to name a company, does not pass."""
    assert pin.fault_in_json(body.encode(), OURS)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"companyId=" + THEIRS.encode(),
        b'"companyId"',
        b"\x89PNG companyId",
        b"--boundary\r\ncompanyId",
        b'{"name":"Company Inc.","vat":"' + THEIRS.encode() + b'"}',
        b'{"name":"caf\\u00e9 \\"a\\" \\\\company\\\\x","n":1}',
        b'{"name": not json',
    ],
)
def test_bodies_that_name_no_company(body: bytes) -> None:
    """What is no document with members, or has none for a company, passes, also where it is no JSON."""
    assert not pin.fault_in_json(body, OURS)


@pytest.mark.parametrize(
    ("kind", "encoding", "fits"),
    [
        (b"application/json", b"", True),
        (b"application/json; charset=utf-8", b"identity", True),
        (b'application/json;charset="UTF-8"', b"", True),
        (b"text/plain; charset=iso-8859-1", b"", True),
        (b"application/json; charset=utf-7", b"", False),
        (b"application/json; charset=utf-16", b"", False),
        (b"application/json; charset=utf-8-or-7", b"", False),
        (b"application/json; charset=IBM037", b"", False),
        (b"application/json; charset=utf-8; charset=utf-7", b"", False),
        (b"application/json; CHARSET = cp500", b"", False),
        (b"application/json", b"gzip", False),
        (b"application/json", b"identity, br", False),
    ],
)
def test_bodies_that_cannot_be_looked_into(kind: bytes, encoding: bytes, *, fits: bool) -> None:
    """A body that is compressed, or in a charset in which ASCII is not ASCII, could hold anything."""
    assert (not pin.fault_in_fields([kind], [encoding])) is fits


@pytest.mark.parametrize(
    ("piece", "suspect"),
    [
        (b'{"path":"C:\\\\acme\\\\company\\\\id"}', False),
        (b'{"text":"a \\"quote\\" and \\n a line, \\u00e4"}', False),
        (b'{"name":"Company Identification Ltd"}', False),
        (b'{"odd":"\\\\\\a"}', True),
    ],
)
def test_what_is_suspect(piece: bytes, *, suspect: bool) -> None:
    """Escapes as encoders write them, and paths of Windows, are nothing; what JSON does not have is."""
    assert pin.is_suspect(piece) is suspect


@given(st.data(), st.sampled_from(sorted(BODIES)))
def test_no_cut_hides_a_name(data: st.DataObject, case: str) -> None:
    """In whatever pieces a document comes, one of them is suspect."""
    body = json.dumps(BODIES[case][0], ensure_ascii=False).encode()
    before, suspect = b"", False
    while body:
        size = data.draw(st.integers(1, len(body)))
        piece, body = body[:size], body[size:]
        suspect = suspect or pin.is_suspect(piece, before)
        before = pin.tail(piece, before)
    assert suspect


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from([OURS, THEIRS]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=6) | st.sampled_from(["companyId", "company_id", "x"]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


def names_theirs(document: object, *, within: bool = False) -> bool:
    """An oracle of its own: another company's id stands somewhere below a member for a company."""
    if isinstance(document, dict):
        return any(
            names_theirs(value, within=within or key in ("companyId", "company_id"))
            for key, value in document.items()
        )
    if isinstance(document, list):
        return any(names_theirs(value, within=within) for value in document)
    return within and document == THEIRS


@given(VALUES)
def test_no_document_with_another_company_passes(document: Any) -> None:
    """Whatever else a document holds: if a member for a company holds another one's id, it is refused."""
    if names_theirs(document):
        assert pin.fault_in_json(json.dumps(document).encode(), OURS)


@given(st.binary(max_size=200))
def test_any_bytes_are_judged(body: bytes) -> None:
    """Nothing but a verdict comes of any body or query."""
    pin.fault_in_json(b"{" + body, OURS)
    pin.fault_in_query(body, OURS)
