"""What a notification says, as JSON for programs and as text for people. No I/O, and never a secret."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import orjson

from proxy.notices import Kind, Notice
from proxy.problems import reconnect_url

MOST_ITEMS = 50
"""Tenants that one message names; the others are counted."""

_SUMMARY = {
    Kind.NEEDS_REAUTH: "Pleo has ended the authorisation of {who}",
    Kind.ENDS_SOON: "The authorisation of {who} ends soon",
    Kind.CLIENT_REJECTED: "Pleo refuses the OAuth client",
    Kind.STORE_LOST: "The store does not answer",
    Kind.RECOVERED: "Recovered: {who}",
    Kind.TEST: "A test",
}
_ACTION = {
    Kind.NEEDS_REAUTH: "Calls of this tenant are refused until a person at the customer consents again: open "
    "the page, or run `pleo-proxy connect TENANT`, and send them the link.",
    Kind.ENDS_SOON: "Refreshing has not worked for weeks; `pleo-proxy grants list` and the log say why. If "
    "it is not mended before the end, a person at the customer must consent again.",
    Kind.CLIENT_REJECTED: "No token is renewed until this is mended: compare pleo.client_id, "
    "pleo.client_secret and pleo.client_auth with what Pleo registered, and restart.",
    Kind.STORE_LOST: "Tokens in memory serve until they expire, and none is renewed: bring the "
    "database back.",
    Kind.RECOVERED: "Nothing is to be done.",
    Kind.TEST: "Nothing is to be done: somebody ran `pleo-proxy notify test`.",
}
_NAMES = {
    Kind.CLIENT_REJECTED: "Pleo takes the OAuth client again",
    Kind.STORE_LOST: "the store answers again",
}


@dataclass(frozen=True, slots=True)
class Message:
    """Notices of one kind that are told together."""

    id: str
    """The same for each try and on each channel, so that who gets it twice can tell."""
    at: float
    kind: Kind
    notices: tuple[Notice, ...]
    public_url: str

    @property
    def subject(self) -> str:
        """One line for people."""
        names = sorted({_name(notice) for notice in self.notices})
        who = names[0] if len(names) == 1 else f"{len(names)} tenants" if self._is_of_tenants else "all"
        return f"pleo-proxy: {_SUMMARY[self.kind].format(who=who)}"

    @property
    def _is_of_tenants(self) -> bool:
        return all(notice.tenant for notice in self.notices)

    def as_json(self) -> bytes:
        """The body of a webhook, and what a command gets: ``type``, ``timestamp`` and ``data``."""
        data: dict[str, Any] = {
            "summary": self.subject.removeprefix("pleo-proxy: "),
            "action": _ACTION[self.kind],
            "proxy": self.public_url,
            "items": [self._item(notice) for notice in self.notices[:MOST_ITEMS]],
            "more": max(0, len(self.notices) - MOST_ITEMS),
        }
        return orjson.dumps({"type": self.kind.value, "timestamp": instant(self.at), "data": data})

    def as_text(self) -> str:
        """The body of an e-mail."""
        lines = [self.subject.removeprefix("pleo-proxy: ") + ".", ""]
        for notice in self.notices[:MOST_ITEMS]:
            lines.append(f"* {_name(notice)}, since {instant(notice.since)}")
            if notice.ends_at is not None:
                lines.append(f"  ends {instant(notice.ends_at)}")
            if (url := self._url(notice)) is not None:
                lines.append(f"  {url}")
        if len(self.notices) > MOST_ITEMS:
            lines.append(f"* and {len(self.notices) - MOST_ITEMS} more")
        return "\n".join([*lines, "", _ACTION[self.kind], "", f"From the proxy at {self.public_url}", ""])

    def _item(self, notice: Notice) -> dict[str, Any]:
        item: dict[str, Any] = {"tenant": notice.tenant, "since": instant(notice.since)}
        if notice.ends_at is not None:
            item["ends_at"] = instant(notice.ends_at)
            item["days_left"] = max(0, int((notice.ends_at - self.at) // 86400))
        if notice.was is not None:
            item["was"] = notice.was.value
        if (url := self._url(notice)) is not None:
            item["reconnect_url"] = url
        return item

    def _url(self, notice: Notice) -> str | None:
        # The page asks for a login: a link that works by itself would be a secret.
        if notice.tenant is None or notice.kind not in (Kind.NEEDS_REAUTH, Kind.ENDS_SOON):
            return None
        return reconnect_url(self.public_url, notice.tenant)


def messages_of(notices: Sequence[Notice], *, at: float, public_url: str) -> Iterator[Message]:
    """One message for each kind among ``notices``."""
    for kind, group in groupby(sorted(notices, key=lambda each: each.kind), lambda each: each.kind):
        yield Message(new_id(), at, kind, tuple(group), public_url)


def trial_message(*, at: float, public_url: str) -> Message:
    """What ``pleo-proxy notify test`` sends."""
    return Message(new_id(), at, Kind.TEST, (Notice(Kind.TEST, None, at),), public_url)


def new_id() -> str:
    """An id that no other message has."""
    return f"msg_{secrets.token_hex(16)}"


def instant(at: float) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _name(notice: Notice) -> str:
    return notice.tenant or _NAMES.get(notice.trouble.kind, "the proxy as a whole")
