"""What a store does for the layers above it, whichever database keeps it.

Every method is one transaction: it happens whole or not at all, and what it returns is committed and
durable. A caller that is cancelled while it waits does not stop a transaction that it started. Every method
raises :class:`proxy.errors.StoreUnavailable` where the database does not work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from proxy.chain import Note
from proxy.model import (
    AdminSession,
    Flow,
    Grant,
    Link,
    Sealed,
    Tenant,
)
from proxy.store.trail import NO_MARKS, Marks, Notes, Trail

LINK_KEPT_S = 24 * 3600.0
"""How long an expired link is kept: who opens it late is told that it expired, not that it never was."""


class TenantGone(Exception):  # noqa: N818 - a state of the store that callers act on, named as they speak of it
    """The tenant that something was to be stored for does not exist, or was removed meanwhile."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"tenant {tenant} does not exist")
        self.tenant = tenant


class LinkSpent(Exception):  # noqa: N818 - as TenantGone
    """The connect link with which something was to be stored is used, expired, or not there."""


@dataclass(frozen=True, slots=True)
class Content:
    """What of a store is worth keeping, as of one moment. Links and flows are over within a day."""

    tenants: Mapping[str, Tenant]
    grants: Mapping[str, Grant]
    key_check: Sealed | None


class StoreNotEmpty(Exception):  # noqa: N818 - as TenantGone
    """A store that was to be filled holds something already."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a store holds, as of one moment."""

    content: Content
    links: tuple[Link, ...]
    """In the order of their ids, as the flows."""
    flows: tuple[Flow, ...]
    marks: Marks = NO_MARKS
    """Of the audit trail, whose records are too many to be held at once; see :meth:`Trail.read`."""
    notes: tuple[Note, ...] = ()


class AdminSessions(Protocol):
    """Sessions of the operator's pages. Looked up at each use, so other processes are not told of changes."""

    async def add(self, session: AdminSession) -> None:
        """Store a new session."""

    async def get(self, id: str) -> AdminSession | None:  # noqa: A002 - the field's name
        """The session as it is stored, however old it is."""

    async def touch(self, id: str, at: float) -> None:  # noqa: A002 - the field's name
        """The session was seen at ``at``; one that is gone stays gone, and no session gets older."""

    async def remove(self, id: str) -> bool:  # noqa: A002 - the field's name
        """Forget the session; whether there was one."""

    async def sweep(self, seen_before: float) -> None:
        """Forget all that were last seen before an instant."""


class Store(Protocol):
    """Tenants, grants, connect links and flows, shared by every process that opens the same database.

    The ``edit`` functions run inside the transaction and away from the event loop, so they must be pure:
    values in, values out, no I/O and no await. One that raises has refused: nothing is written, and its
    exception comes out unchanged. The ``notes`` are asked after them, where something
    changes, for what the audit trail is to have of it: the change does not happen without them.
    """

    @property
    def sessions(self) -> AdminSessions:
        """Who is logged in to the operator's pages."""

    @property
    def trail(self) -> Trail:
        """The audit trail."""

    async def tenants(self) -> dict[str, Tenant]:
        """All tenants by name, in the order of their names."""

    async def edit_tenants(
        self, edit: Callable[[Mapping[str, Tenant]], Mapping[str, Tenant]], notes: Notes = tuple
    ) -> dict[str, Tenant]:
        """Replace all tenants by what ``edit`` makes of them, writing the difference; returns the new ones.

        A tenant that is gone loses its grant, flows and links too.

        :raises TenantError: one host or legacy key is claimed twice. ``edit`` should have refused that with
            a better text; the database is the second lock on the door.
        """

    async def grants(self) -> dict[str, Grant]:
        """All grants by tenant, in the order of the tenants' names."""

    async def grant(self, tenant: str) -> Grant | None:
        """The tenant's grant; ``None`` where nobody consented, or the tenant does not exist."""

    async def edit_grant(
        self, tenant: str, edit: Callable[[Grant | None], Grant | None], notes: Notes = tuple
    ) -> Grant | None:
        """Replace one grant by what ``edit`` makes of it; returns what is stored afterwards.

        An unchanged grant is not written; ``None`` removes it. No other writer, of any process, comes
        between reading and writing, so comparing generations in ``edit`` is a compare-and-swap.

        :raises TenantGone: there is no such tenant; ``edit`` was not called.
        """

    async def connect(
        self,
        tenant: str,
        edit: Callable[[Tenant, Grant | None], tuple[Tenant, Grant]],
        *,
        link: str,
        at: float,
    ) -> tuple[Tenant, Grant]:
        """Consent: settle the company, store the grant and mark the link as used, all at once or not at all.

        Of many with one link exactly one succeeds; a refusal by ``edit`` leaves the link as it was.

        :raises LinkSpent: at ``at`` the link is used or expired, or there is none; ``edit`` was not called.
        :raises TenantGone: there is no such tenant; ``edit`` was not called.
        :raises TenantError: as in :meth:`edit_tenants`.
        """

    async def content(self) -> Content:
        """All tenants and grants and the key check, as they were at one and the same moment."""

    async def edit_content(self, edit: Callable[[Content], Content], notes: Notes = tuple) -> Content:
        """Replace tenants, grants and key check by what ``edit`` makes of them, writing the difference.

        No other writer comes between reading and writing. Returns what is stored afterwards.

        :raises TenantError: as in :meth:`edit_tenants`.
        """

    async def add_link(self, link: Link, notes: Notes = tuple) -> None:
        """Store a new connect link.

        :raises TenantGone: its tenant does not exist.
        """

    async def link(self, id: str) -> Link | None:  # noqa: A002 - the field's name
        """The link as it is stored, used or expired though it may be."""

    async def links(self, tenant: str) -> list[Link]:
        """The tenant's links that are still known, the newest first."""

    async def add_flow(self, flow: Flow) -> None:
        """Store a flow that has just begun.

        :raises TenantGone: its tenant does not exist.
        """

    async def take_flow(self, id: str, browser: str, at: float) -> Flow | None:  # noqa: A002 - the field's name
        """Remove and return the flow, for exactly one caller, if it is this browser's and not expired.

        For another browser it stays where it is, so that nobody can spoil a flow that is not theirs.
        """

    async def edit_flows(self, edit: Callable[[Flow], Flow]) -> list[Flow]:
        """Replace each flow's verifier by the one that ``edit`` gives it; returns the flows thereafter."""

    async def sweep(self, at: float) -> None:
        """Delete the flows that are expired at ``at``, and the links expired for :data:`LINK_KEPT_S`.

        Called now and then, it also bounds how long replaced secrets linger in the database's log.
        """

    async def key_check(self) -> Sealed | None:
        """The sealed constant by which a wrong key ring is recognised at start; ``None`` in a new store."""

    async def set_key_check(self, sealed: Sealed, *, replacing: Sealed | None = None) -> None:
        """Store the sealed constant if what is stored is ``replacing`` (``None``: if there is none yet).

        Otherwise somebody was faster and nothing is written; :meth:`key_check` tells what holds.
        """

    async def snapshot(self) -> Snapshot:
        """All that is stored, as it was at one and the same moment."""

    async def fill(self, snapshot: Snapshot) -> None:
        """Store all of ``snapshot`` at once, in a store that holds nothing but perhaps records of its trail.

        :raises StoreNotEmpty: it holds a tenant, a key check or a trail with marks; nothing was written.
        """

    async def changed(self) -> bool:
        """Whether someone else has committed anything since the last call, or since the store was opened.

        May be ``True`` too often, never too seldom; what this store commits itself does not count.
        """

    async def ping(self) -> None:
        """Whether the store could be written to now, for readiness.

        :raises StoreUnavailable: it could not.
        """

    async def close(self) -> None:
        """Finish what was started and close; further calls raise. Closing twice is fine."""
