"""The names of certificates: one form for each, whoever wrote it."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.certificates import canonical, names_of

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(subject: x509.Name, *names: x509.GeneralName) -> bytes:
    """A certificate in DER with these names."""
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([]))
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


ERP = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DK"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme, Inc"),
        x509.NameAttribute(NameOID.COMMON_NAME, "erp"),
    ]
)


def test_all_names_of_a_certificate() -> None:
    """Fingerprint, subject and alternative names, each as an operator would write it."""
    der = certificate(
        ERP,
        x509.DNSName("ERP.Example"),
        x509.UniformResourceIdentifier("spiffe://acme/erp"),
        x509.RFC822Name("Erp@Acme.Example"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.DNSName("*.example"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
    )
    assert names_of(der) == (
        f"sha256:{hashlib.sha256(der).hexdigest()}",
        "subject:CN=erp,O=Acme\\, Inc,C=DK",
        "san:dns:erp.example",
        "san:uri:spiffe://acme/erp",
        "san:email:Erp@acme.example",
        "san:ip:2001:db8::1",
    )


def test_a_certificate_without_names() -> None:
    """It has a fingerprint all the same; and so has what this program cannot read."""
    der = certificate(x509.Name([]))
    assert names_of(der) == (f"sha256:{hashlib.sha256(der).hexdigest()}",)
    assert names_of(b"nonsense") == (f"sha256:{hashlib.sha256(b'nonsense').hexdigest()}",)


def test_a_certificate_with_many_names_is_known_by_the_first() -> None:
    """What is looked up for each connection is bounded."""
    der = certificate(ERP, *(x509.DNSName(f"n{number}.example") for number in range(500)))
    assert len(names_of(der)) == 64


WRITTEN = {
    "dns": ("san:dns:ERP.Example", "san:dns:erp.example"),
    "uri": ("san:uri:spiffe://Acme/erp", "san:uri:spiffe://Acme/erp"),
    "email": ("san:email:Erp@Acme.Example", "san:email:Erp@acme.example"),
    "ip": ("san:ip:2001:DB8:0::1", "san:ip:2001:db8::1"),
    "ipv4-as-ipv6": ("san:ip:::ffff:10.0.0.1", "san:ip:10.0.0.1"),
    "subject": ("subject:CN=erp,O=Acme\\, Inc,C=DK", "subject:CN=erp,O=Acme\\, Inc,C=DK"),
    "subject-otherwise-escaped": ("subject:CN=erp,O=Acme\\2c Inc", "subject:CN=erp,O=Acme\\, Inc"),
    "fingerprint": ("sha256:" + ":".join(["AB"] * 32), "sha256:" + "ab" * 32),
    "white-space-around": ("  san:dns:erp.example ", "san:dns:erp.example"),
}


@pytest.mark.parametrize(("text", "form"), WRITTEN.values(), ids=WRITTEN)
def test_what_an_operator_writes(text: str, form: str) -> None:
    """Each name has one form, and that form is its own."""
    assert canonical(text) == form
    assert canonical(form) == form


@pytest.mark.parametrize(
    "text",
    [
        "", "erp", "CN=erp", "san:", "san:dns:", "san:dns:*.example", "san:dns:a..b", "san:dns:a b",
        "san:x:y", "san:ip:10.0.0.0/8", "san:ip:fe80::1%eth0", "san:email:erp", "san:uri:erp", "san:uri:a: b",
        "subject:", "subject:erp", "subject:cn=erp", "subject:CN=erp, O=Acme", "sha256:", "sha256:ab",
        "sha256:" + "zz" * 32, "sha1:" + "ab" * 20, "SAN:dns:erp.example",
    ],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    """It is refused with how to write one."""
    with pytest.raises(ValueError, match=r"\Awrite "):
        canonical(text)


VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=20)


@given(VALUES, VALUES, VALUES, VALUES)
@example("0", "\xa0", "0", "0")
@example("0", " ", "0", "\\ ")
@example("0", "\\", "0", " a ")
def test_no_two_subjects_share_a_form(one: str, two: str, three: str, four: str) -> None:
    """Whatever signs are in them, subjects have the same text only if they have the same values."""

    def subject(common_name: str, organization: str) -> str:
        attributes = [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
        return names_of(certificate(x509.Name(attributes)))[1]

    assert (subject(one, two) == subject(three, four)) is ((one, two) == (three, four))
    assert canonical(subject(one, two)) == subject(one, two)
