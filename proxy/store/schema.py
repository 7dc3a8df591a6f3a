"""The tables, as steps that each lead from one version of the store to the next.

A step that was released is never changed; the next one is added below it and to ``STEPS``. Each is applied
in one transaction with its record, so a store is never between two versions.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations


def m001_initial(db: Database) -> None:
    """Tenants, grants, links, flows.

    Hosts and legacy keys belong to one tenant at most, which the index makes true whatever a program does.
    Whether networks overlap is beyond an index; that is refused when tenants are saved. Instants are
    seconds since the epoch. Enumerations have no CHECK, since a new member would need a new table; they
    are checked when they are read.
    """
    db.executescript(
        """
        CREATE TABLE tenants (
            name TEXT NOT NULL PRIMARY KEY,
            company TEXT,
            enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
            preset TEXT NOT NULL
        ) STRICT;

        CREATE TABLE routes (
            tenant TEXT NOT NULL REFERENCES tenants (name) ON DELETE CASCADE,
            kind TEXT NOT NULL CHECK (kind IN ('host', 'network', 'legacy_key')),
            value TEXT NOT NULL,
            position INTEGER NOT NULL,
            PRIMARY KEY (tenant, kind, value)
        ) STRICT, WITHOUT ROWID;
        CREATE UNIQUE INDEX routes_claimed_once ON routes (kind, value) WHERE kind IN ('host', 'legacy_key');

        CREATE TABLE grants (
            tenant TEXT NOT NULL PRIMARY KEY REFERENCES tenants (name) ON DELETE CASCADE,
            state TEXT NOT NULL,
            generation INTEGER NOT NULL,
            company TEXT,
            scopes TEXT NOT NULL,
            access TEXT,
            refresh TEXT,
            issued_at REAL,
            access_expires_at REAL,
            refresh_expires_at REAL,
            last_refreshed_at REAL,
            last_outcome TEXT,
            attempted_at REAL,
            lease_owner TEXT,
            lease_until REAL,
            refresh_asked_at REAL,
            answer_lost INTEGER NOT NULL DEFAULT 0
        ) STRICT;

        CREATE TABLE links (
            id TEXT NOT NULL PRIMARY KEY,
            tenant TEXT NOT NULL REFERENCES tenants (name) ON DELETE CASCADE,
            created_at REAL NOT NULL,
            expires_at REAL NOT NULL,
            used_at REAL
        ) STRICT;
        CREATE INDEX links_of_tenant ON links (tenant);

        CREATE TABLE flows (
            id TEXT NOT NULL PRIMARY KEY,
            link TEXT NOT NULL,
            tenant TEXT NOT NULL REFERENCES tenants (name) ON DELETE CASCADE,
            browser TEXT NOT NULL,
            verifier TEXT NOT NULL,
            created_at REAL NOT NULL,
            expires_at REAL NOT NULL
        ) STRICT;
        CREATE INDEX flows_of_tenant ON flows (tenant);

        CREATE TABLE meta (
            key TEXT NOT NULL PRIMARY KEY,
            value TEXT NOT NULL
        ) STRICT;
        """
    )


def m002_policies(db: Database) -> None:
    """A tenant's policies, the one in force and the one on trial, as JSON; the preset is part of them."""
    db.executescript(
        """
        ALTER TABLE tenants ADD COLUMN policy TEXT NOT NULL DEFAULT '{}';
        ALTER TABLE tenants ADD COLUMN trial TEXT;
        UPDATE tenants SET policy = json_object('preset', preset);
        ALTER TABLE tenants DROP COLUMN preset;
        """
    )


def m003_routes(db: Database) -> None:
    """Certificates and shared keys beside the other routes, each of one tenant at most.

    The table is made anew, since SQLite cannot take a CHECK away, and has none for words, like the others.
    """
    db.executescript(
        """
        CREATE TABLE routes_made_anew (
            tenant TEXT NOT NULL REFERENCES tenants (name) ON DELETE CASCADE,
            kind TEXT NOT NULL,
            value TEXT NOT NULL,
            position INTEGER NOT NULL,
            PRIMARY KEY (tenant, kind, value)
        ) STRICT, WITHOUT ROWID;
        INSERT INTO routes_made_anew (tenant, kind, value, position)
            SELECT tenant, kind, value, position FROM routes;
        DROP TABLE routes;
        ALTER TABLE routes_made_anew RENAME TO routes;
        CREATE UNIQUE INDEX routes_claimed_once ON routes (kind, value) WHERE kind <> 'network';
        """
    )


def m004_sessions(db: Database) -> None:
    """Sessions of the operator's pages."""
    db.executescript(
        """
        CREATE TABLE admin_sessions (
            id TEXT NOT NULL PRIMARY KEY,
            role TEXT NOT NULL,
            user TEXT NOT NULL,
            proof TEXT NOT NULL,
            created_at REAL NOT NULL,
            seen_at REAL NOT NULL
        ) STRICT;
        """
    )


def m005_audit(db: Database) -> None:
    """The audit trail: records in a chain, and what is not in it yet. Its marks are rows of ``meta``."""
    db.executescript(
        """
        CREATE TABLE audit (
            number INTEGER NOT NULL PRIMARY KEY CHECK (number > 0),
            at REAL NOT NULL,
            event TEXT NOT NULL,
            tenant TEXT,
            actor TEXT NOT NULL,
            details TEXT NOT NULL,
            previous BLOB NOT NULL,
            link BLOB NOT NULL
        ) STRICT;

        CREATE TABLE audit_notes (
            id INTEGER NOT NULL PRIMARY KEY,
            at REAL NOT NULL,
            event TEXT NOT NULL,
            tenant TEXT,
            actor TEXT NOT NULL,
            details TEXT NOT NULL,
            key TEXT NOT NULL,
            tag TEXT NOT NULL
        ) STRICT;
        """
    )


def m006_trail_of_tenant(db: Database) -> None:
    """The records of one tenant are found without reading those of all."""
    db.execute("CREATE INDEX audit_of_tenant ON audit (tenant, number)")


STEPS = (m001_initial, m002_policies, m003_routes, m004_sessions, m005_audit, m006_trail_of_tenant)

migrations = Migrations("pleo-proxy")
for _step in STEPS:
    migrations()(_step)


def unknown_steps(db: Database) -> list[str]:
    """Steps that were applied to ``db`` and that this program does not have: a newer one was here."""
    known = {step.__name__ for step in STEPS}
    return [step.name for step in migrations.applied(db) if step.name not in known]


def is_foreign(db: Database) -> bool:
    """Whether ``db`` holds the tables of some other program: not empty, and no step of ours was applied."""
    return bool(db.table_names()) and not migrations.applied(db)
