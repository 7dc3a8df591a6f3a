"""The names of a caller's certificate, and how an operator writes them. Pure.

A name is text of one form only, so that two are the same if and only if they are equal:
``san:dns:NAME``, ``san:uri:URI``, ``san:email:ADDRESS``, ``san:ip:ADDRESS``, ``subject:NAME`` (RFC 4514) and
``sha256:FINGERPRINT``. Says nothing of whether a certificate is valid, which TLS has decided before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress

from cryptography import x509

from proxy.arrival import address_of

_DNS = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_VISIBLE = re.compile(r"[\x21-\x7e]{1,1024}")
_NAMES_MOST = 64
"""Of one certificate; who has more is known by its first."""


def canonical(text: str) -> str:
    """The one form of a name that an operator wrote.

    :raises ValueError: it is none; the text says how to write one.
    """
    kind, _, value = _trimmed(text).partition(":")
    match kind:
        case "sha256":
            fingerprint = value.replace(":", "").lower()
            if _FINGERPRINT.fullmatch(fingerprint):
                return f"sha256:{fingerprint}"
        case "subject":
            return f"subject:{_subject(value)}"
        case "san":
            return _alternative(*value.partition(":")[::2])
    raise ValueError(
        "write san:dns:NAME, san:uri:URI, san:email:ADDRESS, san:ip:ADDRESS, subject:CN=…,O=… or sha256:HEX"
    )


def _trimmed(text: str) -> str:
    """Without white space around it, but with a space that is escaped: it belongs to a value (RFC 4514)."""
    plain = text.strip(" \t\r\n")
    backslashes = len(plain) - len(plain.rstrip("\\"))
    return f"{plain} " if backslashes % 2 else plain


def _subject(value: str) -> str:
    try:
        name = x509.Name.from_rfc4514_string(value).rfc4514_string()
    except ValueError:
        name = ""
    if not name:
        raise ValueError(
            "write the subject as `openssl x509 -noout -subject -nameopt RFC2253` shows it, such as "
            "subject:CN=erp,O=Acme"
        )
    return name


def _alternative(kind: str, value: str) -> str:
    """A subject alternative name (RFC 5280 section 4.2.1.6)."""
    match kind:
        case "dns" if _DNS.fullmatch(value.lower()):
            return f"san:dns:{value.lower()}"
        case "ip" if address_of(value) is not None and "%" not in value:
            return f"san:ip:{address_of(value)}"
        case "email" if _VISIBLE.fullmatch(value) and "@" in value:
            local, _, domain = value.rpartition("@")
            return f"san:email:{local}@{domain.lower()}"
        case "uri" if _VISIBLE.fullmatch(value) and ":" in value:
            return f"san:uri:{value}"
    raise ValueError("write san:dns:NAME (no wildcard), san:uri:URI, san:email:ADDRESS or san:ip:ADDRESS")


def names_of(der: bytes) -> tuple[str, ...]:
    """All names of a certificate, its fingerprint first."""
    found = [f"sha256:{hashlib.sha256(der).hexdigest()}"]
    # OpenSSL reads more than this library: what that cannot read is known by its fingerprint alone.
    with suppress(ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        found += _names(x509.load_der_x509_certificate(der))
    return tuple(found[:_NAMES_MOST])


def _names(certificate: x509.Certificate) -> Iterator[str]:
    if subject := certificate.subject.rfc4514_string():
        yield f"subject:{subject}"
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for name in names:
        match name:
            case x509.DNSName():
                text = f"dns:{name.value}"
            case x509.UniformResourceIdentifier():
                text = f"uri:{name.value}"
            case x509.RFC822Name():
                text = f"email:{name.value}"
            case x509.IPAddress():
                text = f"ip:{name.value}"
            case _:
                continue
        try:
            yield _alternative(*text.partition(":")[::2])
        except ValueError:
            continue  # a wildcard, or nothing that an operator could have written
