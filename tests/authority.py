"""A certificate authority of the tests, and a server's certificate for localhost that it issued."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Authority:
    """Contexts of both ends: ``client`` trusts the authority, ``server`` shows the certificate."""

    client: ssl.SSLContext
    server: ssl.SSLContext

    @classmethod
    def found(
        cls,
        folder: Path,
        *,
        name: str = "localhost",
        common_name: str | None = None,
        expires_in_days: float = 1,
    ) -> Self:
        """A new one, with its files in ``folder``; the certificate is for ``name``.

        With ``common_name`` it has that in its subject, and no names beside it.
        """
        ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        now = datetime.datetime.now(datetime.UTC)

        def certificate(
            subject: x509.Name, subject_key: ec.EllipticCurvePrivateKey, days: float = 1
        ) -> x509.CertificateBuilder:
            return (
                x509.CertificateBuilder()
                .subject_name(subject)
                .issuer_name(ca_name)
                .public_key(subject_key.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - datetime.timedelta(days=2))
                .not_valid_after(now + datetime.timedelta(days=days))
            )

        def save(name: str, *items: bytes) -> Path:
            path = folder / name
            path.write_bytes(b"".join(items))
            return path

        ca = certificate(ca_name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        if common_name is None:
            names = x509.SubjectAlternativeName([x509.DNSName(name)])
            leaf = certificate(x509.Name([]), key, expires_in_days).add_extension(names, True)
        else:
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
            leaf = certificate(subject, key, expires_in_days)
        pem = serialization.Encoding.PEM
        ca_file = save("ca.pem", ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
        server_file = save(
            "server.pem",
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            leaf.sign(ca_key, hashes.SHA256()).public_bytes(pem),
        )
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(server_file)
        return cls(ssl.create_default_context(cafile=str(ca_file)), server)


@asynccontextmanager
async def untrusted_server(folder: Path) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server whose certificate nobody trusts: its port on localhost, and what each connection sent."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())
        writer.close()

    context = Authority.found(folder).server
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1], seen
