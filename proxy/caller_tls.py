"""TLS of a callers' listener: a context made of the operator's files, and made anew when they change.

Decides nothing about a caller: who has shown which certificate is told to :mod:`proxy.entrance`.
"""

from __future__ import annotations

import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from proxy.errors import OperatorError
from proxy.facts import CertificateFailed, CertificateReloaded, Emit

_Seen = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What an operator gives a listener, as PEM files."""

    certificate: Path
    """The certificate, and behind it those that lead to its CA."""
    key: Path
    client_ca: Path | None = None
    """CAs of callers' certificates; ``None`` where none is asked for."""
    optional: bool = False
    """A caller without a certificate is let in too."""


class CallerTls:
    """The TLS of one listener."""

    def __init__(self, listener: str, files: TlsFiles, emit: Emit) -> None:
        """
        :raises OperatorError: the files do not make a context; one line names the file and the remedy.
        """
        self._listener = listener
        self._files = files
        self._emit = emit
        self._seen = self._look()
        self.context = context_of(listener, files)
        """For new connections."""

    def take_up_changes(self) -> None:
        """Make a new context if a file has changed; if none can be made, say so and go on with the old one.

        Asked about twice a second, so that whoever renews certificates has to tell nobody.
        """
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.context = context_of(self._listener, self._files)
        except OperatorError as error:
            self._emit(CertificateFailed(self._listener, str(error)))
        else:
            self._emit(CertificateReloaded(self._listener))

    def _look(self) -> _Seen:
        files = self._files
        return tuple(_marks(path) for path in (files.certificate, files.key, files.client_ca) if path)


def _marks(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def context_of(listener: str, files: TlsFiles) -> ssl.SSLContext:
    """What a connection is secured with: TLS 1.2 or newer, HTTP/1.1, no compression, no renegotiation.

    :raises OperatorError: a file is missing, malformed, or a key that others can read.
    """
    _check_key_file(listener, files.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # A passphrase is asked for on a terminal unless one is given here, and a key with one is refused so.
        context.load_cert_chain(files.certificate, files.key, password=b"")
    except (OSError, ValueError):
        raise OperatorError(
            f"listen.proxy {listener}: {files.certificate} and {files.key} are no certificate in PEM and its "
            "key without a passphrase; correct them, and let the proxy's user read them"
        ) from None
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL if files.optional else ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.client_ca)
        except (OSError, ValueError):
            raise OperatorError(
                f"listen.proxy {listener}: {files.client_ca} holds no certificates of CAs in PEM; correct "
                "it, and let the proxy's user read it"
            ) from None
    return context


def _check_key_file(listener: str, key: Path) -> None:
    """Group members may read it, as Debian's ``ssl-cert`` does and systemd's credentials look."""
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
    except OSError as error:
        raise OperatorError(
            f"listen.proxy {listener}: {key}: {error.strerror}; correct the path, and let the proxy's user "
            "read it"
        ) from None
    if mode & 0o027:
        raise OperatorError(
            f"listen.proxy {listener}: {key} has mode {mode:04o}, so others can reach the key; run "
            f"`chmod 640 {key}`"
        )
