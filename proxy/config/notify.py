"""The table of those who are told of troubles: by webhook, by e-mail, by a command. No I/O.

A rule between two settings stands on the later one, so that all broken rules are found in one pass.
"""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from proxy.config.secret_refs import SecretRef, SecretSetting
from proxy.config.sections import Section
from proxy.config.values import Kind, Rule, Seconds, WebUrl, as_list

_HOST = r"(?:\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?)"
_SMTP = re.compile(rf"smtps?://(?:[^\s:@/?#]+@)?{_HOST}(?::([0-9]{{1,5}}))?", re.IGNORECASE)
_ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?"
)
"""An address as HTML's forms take it: no quotes, no comments, ASCII."""


def _parse_smtp_url(value: str) -> str:
    match = _SMTP.fullmatch(value)
    if match is None or not 0 < int(match[1] or 1) < 65536:
        raise Rule(
            "must be smtp:// (STARTTLS) or smtps://, then USER@ if the server wants a login, HOST, and :PORT "
            "if it is not 587 or 465; a password goes into notify.smtp_password"
        )
    return value


def _parse_mail_address(value: str) -> str:
    if not _ADDRESS.fullmatch(value):
        raise Rule('must be an e-mail address and nothing around it; write for example "ops@example.com"')
    return value


def _parse_argument(value: str) -> str:
    if "\0" in value:
        raise Rule("must hold no NUL character; remove it")
    return value


MailAddress = Annotated[str, AfterValidator(_parse_mail_address), Kind("e-mail address")]
MailAddresses = Annotated[
    tuple[Annotated[str, AfterValidator(_parse_mail_address)], ...],
    BeforeValidator(as_list),
    Kind("list of e-mail addresses", many=True),
]
Arguments = Annotated[
    tuple[Annotated[str, AfterValidator(_parse_argument)], ...],
    BeforeValidator(as_list),
    Kind("list: a program and its arguments", many=True),
]
SmtpUrl = Annotated[str, AfterValidator(_parse_smtp_url), Kind("smtp:// or smtps:// URL")]


class Notify(Section):
    """Who is told of troubles, and how."""

    webhook_url: WebUrl | None = Field(
        default=None,
        description="Where notifications are posted, signed as Standard Webhooks says. It may be a private "
        "address: no token goes there. Absent: nowhere.",
    )
    webhook_secret: Annotated[SecretSetting | None, Kind("secret", secret=True)] = Field(
        default=None,
        validate_default=True,
        description="By which the receiver knows who posts: `whsec_` and 24 to 64 random bytes in base64.",
    )
    smtp_url: SmtpUrl | None = Field(
        default=None,
        description="The server that takes e-mail: `smtp://USER@HOST` with STARTTLS (port 587), or "
        "`smtps://` (465). Without TLS only on this machine. Absent: no e-mail.",
    )
    smtp_password: Annotated[SecretSetting | None, Kind("secret", secret=True)] = Field(
        default=None, validate_default=True, description="The password of the user in `smtp_url`."
    )
    mail_from: MailAddress | None = Field(
        default=None, validate_default=True, description="Whom e-mail is from."
    )
    mail_to: MailAddresses | None = Field(
        default=None, validate_default=True, description="Whom e-mail goes to."
    )
    command: Arguments = Field(
        default=(),
        description="A program, by its absolute path, and its arguments. It gets each notification as JSON "
        "on standard input, and an environment with nothing but PATH and LANG. Absent: none.",
    )
    repeat_s: Annotated[Seconds, Field(ge=60)] = Field(
        default=86400.0,
        description="A trouble that lasts is told again after so long: once a day, so that it is not "
        "forgotten, and does not wake anybody again the same night.",
    )
    store_down_s: Seconds = Field(
        default=60.0,
        description="The store is said to be lost after so long without an answer: a restart of the database "
        "is nothing to tell.",
    )

    @field_validator("webhook_secret")
    @classmethod
    def _is_signed(cls, secret: SecretRef | None, info: ValidationInfo) -> SecretRef | None:
        url = info.data.get("webhook_url", "wrong")
        if secret is None and url not in (None, "wrong"):
            raise Rule("notify.webhook_url needs it, so that the receiver can tell who posts; set it")
        _has_effect(secret, url, "notify.webhook_url")
        return secret

    @field_validator("smtp_password")
    @classmethod
    def _somebody_logs_in(cls, password: SecretRef | None, info: ValidationInfo) -> SecretRef | None:
        url: str | None = info.data.get("smtp_url", "wrong")
        _has_effect(password, url, "notify.smtp_url")
        if url in (None, "wrong"):
            return password
        has_user = urlsplit(url).username is not None
        if has_user and password is None:
            raise Rule("the user in notify.smtp_url needs it; set it, or remove the user there")
        if password is not None and not has_user:
            raise Rule("has no effect without a user in notify.smtp_url; write smtp://USER@HOST there")
        return password

    @field_validator("mail_from")
    @classmethod
    def _mail_is_from_somebody(cls, sender: str | None, info: ValidationInfo) -> str | None:
        url = info.data.get("smtp_url", "wrong")
        if sender is None and url not in (None, "wrong"):
            raise Rule("notify.smtp_url needs it; write the address that e-mail is to come from")
        _has_effect(sender, url, "notify.smtp_url")
        return sender

    @field_validator("mail_to")
    @classmethod
    def _mail_goes_to_somebody(
        cls, to: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        url = info.data.get("smtp_url", "wrong")
        if not to and url not in (None, "wrong"):
            raise Rule("notify.smtp_url needs it; write who gets the e-mail")
        _has_effect(to, url, "notify.smtp_url")
        return to

    @field_validator("command")
    @classmethod
    def _is_a_program(cls, arguments: tuple[str, ...]) -> tuple[str, ...]:
        if arguments and not arguments[0].startswith("/"):
            raise Rule("must begin with a program's absolute path, since no shell looks for it; write it out")
        return arguments


def _has_effect(value: object, other: object, needed: str) -> None:
    if value is not None and other is None:
        raise Rule(f"has no effect without {needed}; remove it, or set that")
