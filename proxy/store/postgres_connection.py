"""Connections to one PostgreSQL database: made, migrated or refused in one line, and made again when lost.

Neighbours: :mod:`proxy.store.postgres_schema` holds the steps that are applied here,
:mod:`proxy.store.postgres` the statements that run afterwards. No error holds the text of the driver or the
server, which may quote values and the password.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

import asyncpg

from proxy.config.store_url import StoreUrl
from proxy.errors import StoreError, StoreMissingError, StoreUnavailable
from proxy.store.postgres_schema import CREATE_STEPS_TABLE, STEPS, STEPS_TABLE

Connection = Any
"""An ``asyncpg.Connection``; the driver comes without types."""

POOL = 4
"""Connections for statements, beside one that listens: transactions take milliseconds."""
CONNECT_S = 5.0
COMMAND_S = 10.0
_ACQUIRE_S = 10.0
_RELEASE_S = 2.0
_PAUSE_S = 0.1
_PAUSE_MAX_S = 2.0
"""While the server is away it is tried so seldom; the rest fails at once."""

_CHANNEL = "pleo_proxy"
_MIGRATION_LOCK = 7_501_100_001
"""Keys of advisory locks are the database's, so these are numbers that nobody else would take."""
TENANTS_LOCK = 7_501_100_002

_SERVER_SETTINGS = {
    "application_name": "pleo-proxy",
    # An answer that is committed survives a power cut of the server, whatever the database's default is.
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    # Below COMMAND_S, so that the server ends what takes too long, and says why.
    "lock_timeout": "5000",
    "statement_timeout": "9000",
    # A client that lost its power in a transaction must not hold its locks for the hours that TCP waits.
    "idle_in_transaction_session_timeout": "15000",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What the driver raises. Time-outs are OSErrors."""

_CONNECTION_LOST = ("the connection was lost", "check that the server runs")
_FAULTS = {
    "28P01": ("the password was refused", "correct it in store.url, PGPASSWORD or the password file"),
    "28000": ("access was refused", "correct the user in store.url, or the server's pg_hba.conf"),
    "3D000": ("there is no such database", "create it, or correct store.url"),
    "3F000": ("there is no schema to create tables in", "create it, or correct the user's search_path"),
    "42501": ("access is not permitted", "let its user create tables in it, and read and write them"),
    "42P01": ("a table is missing", "restore a backup"),
    "53300": ("too many connections", "raise the server's max_connections"),
    "53100": ("the server's disk is full", "free some space there"),
    "55P03": ("a lock was not given back in time", "end the session that holds it"),
    "57014": ("it took too long", "check the server"),
    "57P01": ("the server is shutting down", "start it again"),
    "57P03": ("the server is starting or stopping", "try again"),
    "25006": ("it cannot be written", "let store.url name the primary server"),
}
"""By SQLSTATE (PostgreSQL's documentation, appendix A)."""
_OTHER_FAULT = ("the database refused", "look into the server's log")


def fault_of(error: BaseException) -> tuple[str, str]:
    """What went wrong with the database, and the remedy. Never the error's text."""
    match error:
        case TimeoutError():
            return "it gave no answer in time", "check the server and the network"
        case asyncpg.PostgresError():
            code = error.sqlstate or ""
            what, remedy = _CONNECTION_LOST if code.startswith("08") else _FAULTS.get(code, _OTHER_FAULT)
            return f"{what} ({code or type(error).__name__})", remedy
        case ssl.SSLError():
            return "TLS with it failed", "correct sslmode and the certificates that store.url names"
        case OSError():
            # A name that leads nowhere has a negative number, and a server that wants no TLS has none.
            number = error.errno or 0
            why = f" ({os.strerror(number)})" if number > 0 else ""
            return f"it cannot be reached{why}", "check that the server runs, or correct store.url"
        case asyncpg.ClientConfigurationError() | ValueError():
            return "the driver does not understand its address", "correct store.url"
        case _:
            return f"{_CONNECTION_LOST[0]} ({type(error).__name__})", _CONNECTION_LOST[1]


def is_defect(error: BaseException) -> bool:
    """Whether the program did something wrong; calling that an outage would hide it."""
    return isinstance(
        error,
        asyncpg.IntegrityConstraintViolationError
        | asyncpg.DataError
        | asyncpg.PostgresSyntaxError
        | ValueError,  # what the driver cannot encode
    )


class Connections:
    """A few connections for statements, and one that hears what others commit. Made by :meth:`open`."""

    def __init__(self, url: StoreUrl, pool: Any) -> None:  # noqa: ANN401 - the driver comes without types
        self.url = url
        self._pool = pool
        self._listener: Connection | None = None
        self._listening = asyncio.Lock()
        # Not the backend's process id: statements run on several connections, which come and go.
        self._me = secrets.token_hex(8)
        self._noted = False
        self._pause_s = 0.0
        self._closed_until = 0.0
        self._why = ""

    @classmethod
    async def open(cls, url: StoreUrl, *, create: bool) -> Connections:
        """Connect; make or migrate the tables as needed.

        :raises StoreMissingError: there are none, and ``create`` is not set.
        :raises StoreError: in one line, with the URL, what is wrong, and the remedy.
        """
        try:
            connection = await asyncpg.connect(**_arguments(url))
            try:
                await _migrate(connection, url, create=create)
            finally:
                await _close(connection)
            pool = await asyncpg.create_pool(min_size=0, max_size=POOL, **_arguments(url))
            opened = cls(url, pool)
            await opened._listen()
        except (*FAILURES, ValueError) as error:
            what, remedy = fault_of(error)
            raise StoreError(f"store {url}: {what}: {remedy}") from None
        return opened

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for one transaction.

        :raises StoreUnavailable: there is none to be had, or it could not be had a moment ago.
        """
        self._check_pause()
        try:
            connection = await self._pool.acquire(timeout=_ACQUIRE_S)
        except FAILURES as error:
            raise self._failed(error) from None
        self._pause_s = 0.0
        try:
            yield connection
        finally:
            # What was committed is; a connection that cannot be cleaned up is thrown away by the pool.
            with suppress(*FAILURES):
                await self._pool.release(connection, timeout=_RELEASE_S)

    async def tell(self, connection: Connection) -> None:
        """Let the other instances know, when and if this transaction commits, that it changed something."""
        await connection.execute("SELECT pg_notify($1, $2)", _CHANNEL, self._me)

    async def changed(self) -> bool:
        """Whether another instance told of a commit since the last call, or may have while none was heard.

        :raises StoreUnavailable: nothing can be heard now; what is missed counts as a change later.
        """
        async with self._listening:
            if self._listener is None or self._listener.is_closed():
                self._check_pause()
                try:
                    await self._listen()
                except FAILURES as error:
                    raise self._failed(error) from None
                return True
            try:
                # The server sends what was told before it answers; and a connection that is dead without
                # a word, as behind a firewall that forgot it, is found out.
                await self._listener.execute("SELECT 1", timeout=CONNECT_S)
            except FAILURES as error:
                self._listener.terminate()
                raise self._failed(error) from None
            noted, self._noted = self._noted, False
            return noted

    async def close(self) -> None:
        """Close all connections, those that do not answer too."""
        if self._listener is not None:
            await _close(self._listener)
        try:
            await asyncio.wait_for(self._pool.close(), CONNECT_S)
        except FAILURES:
            self._pool.terminate()

    async def _listen(self) -> None:
        connection = await asyncpg.connect(**_arguments(self.url))
        try:
            await connection.add_listener(_CHANNEL, self._hear)
        except BaseException:
            connection.terminate()
            raise
        self._listener, self._noted = connection, False

    def _hear(self, _connection: Connection, _process: int, _channel: str, sender: object) -> None:
        self._noted = self._noted or sender != self._me

    def _check_pause(self) -> None:
        if monotonic() < self._closed_until:
            raise StoreUnavailable(f"The store failed: {self._why}")

    def _failed(self, error: BaseException) -> StoreUnavailable:
        """Note that no connection could be had, so that a server which is away is left in peace a while."""
        self._why = fault_of(error)[0]
        self._pause_s = min(_PAUSE_MAX_S, max(_PAUSE_S, self._pause_s * 2))
        # Spread, so that all instances do not come back at the same instant.
        self._closed_until = monotonic() + self._pause_s * random.uniform(0.5, 1)  # noqa: S311 - no secret
        return StoreUnavailable(f"The store failed: {self._why}")


@asynccontextmanager
async def writing(db: Connections) -> AsyncIterator[Connection]:
    """A transaction that sees, statement by statement, what others have committed: locks come first."""
    async with db.connection() as conn, conn.transaction():
        yield conn


@asynccontextmanager
async def reading(db: Connections) -> AsyncIterator[Connection]:
    """A transaction whose statements all see the same moment."""
    async with db.connection() as conn, conn.transaction(isolation="repeatable_read", readonly=True):
        yield conn


def _arguments(url: StoreUrl) -> dict[str, Any]:
    password = {} if url.password is None else {"password": url.password.reveal()}
    return {
        "dsn": url.text,
        "timeout": CONNECT_S,
        "command_timeout": COMMAND_S,
        "server_settings": _SERVER_SETTINGS,
        **password,
    }


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=_RELEASE_S)
    except FAILURES:
        connection.terminate()


async def _migrate(connection: Connection, url: StoreUrl, *, create: bool) -> None:
    if await _pending(connection, url, create=create):
        # The session's lock, since the first step cannot lock a table that is not there. It waits for
        # another instance that is at it, for as long as lock_timeout says.
        await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        try:
            # Looked at again: another instance may have created or migrated it since.
            for step in await _pending(connection, url, create=create):
                async with connection.transaction():
                    await connection.execute(CREATE_STEPS_TABLE)
                    await connection.execute(STEPS[step])
                    await connection.execute(f"INSERT INTO {STEPS_TABLE} (name) VALUES ($1)", step)  # noqa: S608 - ours
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _MIGRATION_LOCK)


async def _pending(connection: Connection, url: StoreUrl, *, create: bool) -> list[str]:
    """The steps that are yet to be applied. Refuses what this program must not write to; reads only."""
    if await connection.fetchval("SELECT to_regclass($1)::oid", STEPS_TABLE) is None:
        if await connection.fetchval(_HOLDS_TABLES):
            raise StoreError(f"store {url}: it is the database of another program: correct store.url")
        if not create:
            raise StoreMissingError(f"store {url}: the database is empty: correct the URL")
        return list(STEPS)
    applied = {row["name"] for row in await connection.fetch(f"SELECT name FROM {STEPS_TABLE}")}  # noqa: S608 - ours
    if unknown := sorted(applied - STEPS.keys()):
        raise StoreError(
            f"store {url}: it is from a newer version ({', '.join(unknown)}): upgrade pleo-proxy, "
            "or restore a backup made by this version"
        )
    return [step for step in STEPS if step not in applied]


_HOLDS_TABLES = """
    SELECT EXISTS (
        SELECT FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
        -- Extensions put views of their own there; those are nobody's data.
        AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
        )
    )
"""
