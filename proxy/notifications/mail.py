"""A notification as an e-mail (RFC 5322), handed to a server over SMTP (RFC 5321).

Beyond this machine always with TLS, from the start or by STARTTLS, so that neither password nor message goes
in clear. Runs in a thread, since the library blocks; what outlasts the time-out has its connection cut.
"""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime

from proxy.model import Secret
from proxy.notifications.channels import TIMEOUT_S, DeliveryError
from proxy.notifications.messages import Message


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in."""

    host: str
    port: int
    tls: bool
    """From the start; else by STARTTLS."""
    may_be_plain: bool
    """STARTTLS is used if it is offered, and not insisted on: the server is this machine."""
    user: str | None = None
    password: Secret | None = None


class _Connection:
    """One connection that another thread can cut."""

    def __init__(self) -> None:
        self._smtp: smtplib.SMTP | None = None
        self.is_cut = False

    def opened(self, smtp: smtplib.SMTP) -> None:
        self._smtp = smtp
        if self.is_cut:
            self.cut()

    def cut(self) -> None:
        self.is_cut = True
        ours = getattr(self._smtp, "sock", None)
        if isinstance(ours, socket.socket):
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, slots=True)
class Mail:
    """The channel."""

    server: MailServer
    sender: str
    to: tuple[str, ...]
    trust: Callable[[], ssl.SSLContext] = ssl.create_default_context

    @property
    def name(self) -> str:
        return "mail"

    async def deliver(self, message: Message) -> None:
        connection = _Connection()
        handing_in = asyncio.ensure_future(asyncio.to_thread(self._hand_in, message, connection))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await asyncio.shield(handing_in)
        except TimeoutError:
            raise DeliveryError("timeout") from None
        finally:
            connection.cut()
            with suppress(DeliveryError):
                await handing_in  # ends at once where its connection was cut

    def _hand_in(self, message: Message, connection: _Connection) -> None:
        try:
            with self._connect() as smtp:
                connection.opened(smtp)
                self._secure(smtp)
                if self.server.user is not None and self.server.password is not None:
                    smtp.login(self.server.user, self.server.password.reveal())
                # The envelope as configured; recipients that the server refuses one by one are an error too.
                refused = smtp.send_message(self._composed(message), self.sender, self.to)
        except TimeoutError:
            raise DeliveryError("timeout") from None
        except ssl.SSLError:
            raise DeliveryError("tls_failed") from None
        except smtplib.SMTPNotSupportedError:
            raise DeliveryError("not_supported") from None
        except smtplib.SMTPRecipientsRefused:
            raise DeliveryError("recipients_refused") from None
        except smtplib.SMTPResponseException as error:
            raise DeliveryError(f"smtp_{error.smtp_code}") from None
        except (smtplib.SMTPException, OSError):
            raise DeliveryError("unreachable") from None
        if refused:
            raise DeliveryError("recipients_refused")

    def _connect(self) -> smtplib.SMTP:
        server = self.server
        if server.tls:
            return smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_S, context=self.trust())
        return smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)

    def _secure(self, smtp: smtplib.SMTP) -> None:
        smtp.ehlo()
        if not self.server.tls and (smtp.has_extn("starttls") or not self.server.may_be_plain):
            smtp.starttls(context=self.trust())
            smtp.ehlo()

    def _composed(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.to)
        mail["Subject"] = message.subject
        mail["Date"] = format_datetime(datetime.fromtimestamp(message.at, UTC))
        # The same for each try, so that a mailbox which got it twice can tell (RFC 5322 section 3.6.4).
        mail["Message-ID"] = f"<{message.id}@{self.sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        mail.set_content(message.as_text())
        return mail
