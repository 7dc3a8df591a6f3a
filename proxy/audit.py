"""The audit trail in motion: what commands note, and the one who puts all of it into the chain.

A command need not have the key ring, so it stores a :class:`~proxy.chain.Note` in the transaction of its
change, signed if it has the ring. Whoever has the chain's key, a running proxy or the command itself, puts
the notes into the chain (:meth:`Ledger.append`); from then on nobody can change them unseen. The key is
random, made with the first record, and kept in the store, sealed for its place there.

Never on the way of a request. Never raises because a trail was tampered with: what happens now is recorded
all the same, in a way that leaves the break to be found.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from proxy.chain import (
    KEY_BYTES,
    NO_LINK,
    START,
    Chain,
    Entry,
    Mark,
    Note,
    Record,
    Verifier,
    as_details,
    entry_bytes,
)
from proxy.errors import OperatorError
from proxy.model import Clock, Sealed, Secret, Tenant
from proxy.store import Extension, Marks, Standing, Store, Trail
from proxy.vault import Place, SealedValueError, Vault

EVENTS = frozenset(
    {
        "tenant.added",
        "tenant.changed",
        "tenant.removed",
        "connect.link_created",
        "grant.revoked",
        "grant.refresh_asked",
        "keys.rotated",
        "store.backed_up",
        "store.restored",
        "store.migrated",
        "audit.pruned",
        "audit.dropped",
    }
)
"""Of records that are not made of a fact: what commands do, and what is done to the trail."""
CHANGES = EVENTS - {"audit.dropped"} | {"grant.connected", "proxy.started"}
"""Of records that tell of what somebody changed, and not of what the proxy does by itself."""
KEY_PLACE = Place("meta", "", "audit_key", 0)
_PRUNED_AT_ONCE = 10_000
"""Records that one transaction removes: a large trail must not hold up others for long."""

_HASHED = ("legacy_keys", "shared_keys")
"""Fields of a tenant of which only the number is recorded."""

Tenants = Mapping[str, Tenant]


class AuditError(OperatorError):
    """The trail cannot be read or written: no key, or one that does not open."""


# --- what commands note


@dataclass(frozen=True, slots=True)
class Recorder:
    """Makes the notes of one command.

    :param actor: who runs it.
    :param vault: signs them; without it they are marked as unsigned once they are in the chain.
    """

    actor: str
    clock: Clock
    vault: Vault | None
    context: Mapping[str, Any] = field(default_factory=dict)
    """What every note of the command has among its details."""

    def __call__(self, event: str, tenant: str | None = None, /, **details: Any) -> Note:  # noqa: ANN401 - JSON
        """The note that ``event`` happens now."""
        assert event in EVENTS, event
        entry = Entry(self.clock(), event, tenant, self.actor, as_details({**self.context, **details}))
        if self.vault is None:
            return Note(entry)
        return Note(entry, *self.vault.authenticate(_signed(entry)))

    def of_tenants(self, before: Tenants, after: Tenants) -> list[Note]:
        """A note for each tenant that is added, changed or removed."""
        notes = [self("tenant.removed", name, **_all_shown(before[name])) for name in before.keys() - after]
        for name, tenant in after.items():
            old = before.get(name)
            if old is None:
                notes.append(self("tenant.added", name, **_all_shown(tenant)))
            elif old != tenant:
                notes.append(self("tenant.changed", name, **_changes(old, tenant)))
        return sorted(notes, key=lambda note: note.entry.tenant or "")


class TenantEdit:
    """An edit of tenants that knows, once it was carried out, what it changed."""

    def __init__(self, edit: Callable[[Tenants], Tenants], recorder: Recorder) -> None:
        self._edit = edit
        self._recorder = recorder
        self.before: Tenants = {}
        self.after: Tenants = {}

    def __call__(self, stored: Tenants) -> Tenants:
        """The tenants as they are to be."""
        self.before, self.after = dict(stored), self._edit(stored)
        return self.after

    def notes(self) -> list[Note]:
        """What the trail is to have of it."""
        return self._recorder.of_tenants(self.before, self.after)


def _as_fields(tenant: Tenant) -> dict[str, Any]:
    """A tenant's fields less its name, those of its policy each by itself."""
    found = asdict(tenant)
    del found["name"]
    return {**{f"policy.{name}": value for name, value in found.pop("policy").items()}, **found}


def _changes(old: Tenant, new: Tenant) -> dict[str, Any]:
    was, becomes = _as_fields(old), _as_fields(new)
    return {
        name: {"old": _shown(name, was[name]), "new": _shown(name, becomes[name])}
        for name in was
        if was[name] != becomes[name]
    }


def _all_shown(tenant: Tenant) -> dict[str, Any]:
    return {name: _shown(name, value) for name, value in _as_fields(tenant).items()}


def _shown(name: str, value: object) -> object:
    """The value as it is recorded; of hashes of keys only how many there are."""
    return f"{len(value)} hashes" if name in _HASHED and isinstance(value, tuple) else value


def _signed(entry: Entry) -> bytes:
    return b"pleo-proxy audit note\0" + entry_bytes(entry)


# --- the chain


@dataclass(slots=True)
class Ledger:
    """Extends, reads, verifies and prunes the trail of one store."""

    trail: Trail
    vault: Vault
    actor: str
    clock: Clock
    broken: str | None = None
    """What was wrong with the end of the trail when it was last extended; ``None`` if nothing."""
    _chain: Chain | None = None

    async def append(self, entries: Sequence[Entry] = ()) -> Mark | None:
        """Put all notes, and then ``entries``, into the chain.

        :returns: the newest record; ``None`` if there was nothing to add.
        :raises StoreUnavailable: the store does not work; nothing was added.
        :raises AuditError: the chain's key is gone, or does not open.
        """
        chain = await self._opened(begin=True)
        added: list[Mark] = []

        def edit(standing: Standing) -> Extension | None:
            new = [*(self._entry_of(note) for note in standing.notes), *entries]
            if not new:
                return None
            head, self.broken = _end_of(chain, standing)
            records = chain.extended(head, new)
            added.append(Mark(records[-1].number, records[-1].link, self.clock()))
            return Extension(records, chain.marked("head", added[-1]))

        await self.trail.extend(edit)
        return added[-1] if added else None

    async def prune(self, before: float, *, broken_too: bool = False) -> int:
        """Remove the records that are older than ``before``, and record that; returns how many.

        :param broken_too: also records that are not in order. Without it they stay, for whoever asks why;
            else a time that was changed would have them pruned out of the way.
        :raises StoreUnavailable: the store does not work.
        :raises AuditError: the chain's key is gone, or does not open, or a record is not in order.
        """
        if (await self.trail.marks()).key is None:
            return 0
        chain = await self._opened()
        pruned = 0
        while True:
            count = await self.trail.prune(before, _PRUNED_AT_ONCE, self._pruning(chain, before, broken_too))
            pruned += count
            if count < _PRUNED_AT_ONCE:
                return pruned

    def _pruning(
        self, chain: Chain, before: float, broken_too: bool
    ) -> Callable[[Standing, Sequence[Record]], Extension]:
        def edit(standing: Standing, oldest: Sequence[Record]) -> Extension:
            now, last, text = self.clock(), oldest[-1], standing.marks.pruned
            begin = START if text is None else chain.read_mark("pruned", text)
            broken = oldest[0].number if begin is None else chain.first_break(begin, oldest)
            if broken is not None and not broken_too:
                raise AuditError(
                    f"record {broken} of the audit trail is not in order, so nothing was pruned: see "
                    "`pleo-proxy audit verify`"
                )
            fields = {"before": before, "records": len(oldest), "up_to": last.number, "broken": broken}
            details = as_details(fields)
            head, self.broken = _end_of(chain, standing)
            # The notes stay where they are: the next to append takes them.
            records = chain.extended(head, [Entry(now, "audit.pruned", None, self.actor, details)])
            new_head = Mark(records[-1].number, records[-1].link, now)
            pruned = Mark(last.number, last.link, now)
            return Extension(records, chain.marked("head", new_head), chain.marked("pruned", pruned))

        return edit

    async def verified(self, anchors: Mapping[int, bytes]) -> Verifier | None:
        """The whole trail, looked through; ``None`` where there is none.

        :raises StoreUnavailable: the store does not work.
        :raises AuditError: the chain's key is gone, or does not open.
        """
        marks = await self.trail.marks()
        if marks.key is None and marks.head is None and not await self.trail.newest(1, None, None):
            return None
        chain = await self._opened()
        verifiers: list[Verifier] = []

        def take(marks: Marks, records: Sequence[Record]) -> None:
            if not verifiers:
                verifiers.append(Verifier(chain, marks.head, marks.pruned, anchors))
            verifiers[0].take(records)

        marks = await self.trail.read(take)
        verifier = verifiers[0] if verifiers else Verifier(chain, marks.head, marks.pruned, anchors)
        verifier.finish()
        return verifier

    def _entry_of(self, note: Note) -> Entry:
        """What a note becomes; one that nobody signed, or that was changed since, says so of itself."""
        try:
            self.vault.verify(_signed(note.entry), note.key, note.tag)
        except SealedValueError:
            details = {**_read_details(note.entry.details), "unsigned": True}
            return replace(note.entry, details=as_details(details))
        return note.entry

    async def _opened(self, *, begin: bool = False) -> Chain:
        if self._chain is None:
            marks = await self.trail.marks()
            if marks.key is None and begin:
                marks = await self._begun()
            self._chain = open_chain(marks.key, self.vault)
        return self._chain

    async def _begun(self) -> Marks:
        key = secrets.token_bytes(KEY_BYTES)
        sealed = self.vault.seal(Secret(urlsafe_b64encode(key).decode()), KEY_PLACE)
        # Of two that begin at once the other may be faster: what is stored holds.
        return await self.trail.begin(sealed, Chain(key).marked("head", START))


def open_chain(key: Sealed | None, vault: Vault) -> Chain:
    """The chain of a sealed key.

    :raises AuditError: there is none, or it does not open.
    """
    if key is None:
        raise AuditError("the key of the audit trail is gone from the store: restore a copy of the database")
    try:
        return Chain(urlsafe_b64decode(vault.open(key, KEY_PLACE).reveal()))
    except (SealedValueError, ValueError) as error:
        problem = error.problem if isinstance(error, SealedValueError) else "no key"
        raise AuditError(
            f"the key of the audit trail does not open ({problem}): put back the key ring of this database"
        ) from None


def unwritten(count: int, *, at: float, actor: str) -> Entry:
    """The entry that tells of ``count`` others that were dropped."""
    return Entry(at, "audit.dropped", None, actor, as_details({"records": count}))


def line_of(record: Record) -> bytes:
    """A record as one line of JSON, for an export."""
    links = {"previous": record.previous.hex(), "link": record.link.hex()}
    return orjson.dumps(as_row(record) | links, option=orjson.OPT_APPEND_NEWLINE)


def as_row(record: Record) -> dict[str, Any]:
    """A record as listings show it."""
    entry = record.entry
    return {
        "number": record.number,
        "at": entry.at,
        "event": entry.event,
        "tenant": entry.tenant,
        "actor": entry.actor,
        "details": _read_details(entry.details),
    }


def _read_details(text: str) -> dict[str, Any]:
    try:
        details = orjson.loads(text)
    except ValueError:
        details = None
    return details if isinstance(details, dict) else {"unreadable": text[:1000]}


def _end_of(chain: Chain, standing: Standing) -> tuple[Mark, str | None]:
    """Where the chain goes on, and what is wrong there.

    Where mark and records disagree somebody changed one of them. It goes on behind both, so that the break
    stays to be found.
    """
    text = standing.marks.head
    head = None if text is None else chain.read_mark("head", text)
    last = standing.last
    if head is None:
        number = last.number if last is not None else 0
        return Mark(number, NO_LINK, 0.0), "the mark of the newest record is missing or changed"
    if last is None:
        return head, None if head.number == 0 else "all records are gone"
    if (last.number, last.link) != (head.number, head.link):
        return replace(head, number=max(last.number, head.number)), "the newest record is another than marked"
    return head, None


async def record(store: Store, recorder: Recorder, *notes: Note) -> None:
    """Put what a command noted, and ``notes``, into the chain, if it has the key ring of this store.

    :raises StoreUnavailable: the store does not work.
    :raises AuditError: the chain's key is gone, or does not open.
    """
    vault, check = recorder.vault, await store.key_check()
    if vault is not None and check is not None:
        await Ledger(store.trail, vault, recorder.actor, recorder.clock).append(
            [note.entry for note in notes]
        )
