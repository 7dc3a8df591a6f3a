"""The tables in PostgreSQL, as steps that each lead from one version of the store to the next.

They hold what :mod:`proxy.store.schema` has for SQLite, under the same names. A step that was released is
never changed; the next one is added below it. Each is applied in one transaction with its record. Columns
that rows are found or ordered by have the collation "C": names come in one order on every server.
"""

from __future__ import annotations

STEPS_TABLE = "pleo_proxy_steps"
"""Which steps were applied. By this table a database is known to be a store."""

CREATE_STEPS_TABLE = f"""
    CREATE TABLE IF NOT EXISTS {STEPS_TABLE} (
        name TEXT COLLATE "C" PRIMARY KEY,
        applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
"""

# Every refresh leaves the row with the replaced tokens dead. Vacuuming early, and not after a share of the
# table, takes them out of the file; until then they are there, sealed.
_INITIAL = """
    CREATE TABLE tenants (
        name TEXT COLLATE "C" PRIMARY KEY,
        company TEXT,
        enabled BOOLEAN NOT NULL,
        preset TEXT NOT NULL
    );

    CREATE TABLE routes (
        tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (name) ON DELETE CASCADE,
        kind TEXT COLLATE "C" NOT NULL CHECK (kind IN ('host', 'network', 'legacy_key')),
        value TEXT COLLATE "C" NOT NULL,
        position INTEGER NOT NULL,
        PRIMARY KEY (tenant, kind, value)
    );
    CREATE UNIQUE INDEX routes_claimed_once ON routes (kind, value) WHERE kind IN ('host', 'legacy_key');

    CREATE TABLE grants (
        tenant TEXT COLLATE "C" PRIMARY KEY REFERENCES tenants (name) ON DELETE CASCADE,
        state TEXT NOT NULL,
        generation BIGINT NOT NULL,
        company TEXT,
        scopes TEXT NOT NULL,
        access TEXT,
        refresh TEXT,
        issued_at DOUBLE PRECISION,
        access_expires_at DOUBLE PRECISION,
        refresh_expires_at DOUBLE PRECISION,
        last_refreshed_at DOUBLE PRECISION,
        last_outcome TEXT,
        attempted_at DOUBLE PRECISION,
        lease_owner TEXT,
        lease_until DOUBLE PRECISION,
        refresh_asked_at DOUBLE PRECISION,
        answer_lost BOOLEAN NOT NULL DEFAULT FALSE
    ) WITH (autovacuum_vacuum_threshold = 50, autovacuum_vacuum_scale_factor = 0);

    CREATE TABLE links (
        id TEXT COLLATE "C" PRIMARY KEY,
        tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (name) ON DELETE CASCADE,
        created_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL,
        used_at DOUBLE PRECISION
    );
    CREATE INDEX links_of_tenant ON links (tenant);

    CREATE TABLE flows (
        id TEXT COLLATE "C" PRIMARY KEY,
        link TEXT NOT NULL,
        tenant TEXT COLLATE "C" NOT NULL REFERENCES tenants (name) ON DELETE CASCADE,
        browser TEXT NOT NULL,
        verifier TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL
    );
    CREATE INDEX flows_of_tenant ON flows (tenant);

    CREATE TABLE meta (
        key TEXT COLLATE "C" PRIMARY KEY,
        value TEXT NOT NULL
    );
"""

_POLICIES = """
    ALTER TABLE tenants ADD COLUMN policy TEXT NOT NULL DEFAULT '{}', ADD COLUMN trial TEXT;
    UPDATE tenants SET policy = json_build_object('preset', preset)::text;
    ALTER TABLE tenants DROP COLUMN preset;
"""

_ROUTES = """
    ALTER TABLE routes DROP CONSTRAINT routes_kind_check;
    DROP INDEX routes_claimed_once;
    CREATE UNIQUE INDEX routes_claimed_once ON routes (kind, value) WHERE kind <> 'network';
"""

_SESSIONS = """
    CREATE TABLE admin_sessions (
        id TEXT COLLATE "C" PRIMARY KEY,
        role TEXT NOT NULL,
        "user" TEXT NOT NULL,
        proof TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL,
        seen_at DOUBLE PRECISION NOT NULL
    );
"""

_AUDIT = """
    CREATE TABLE audit (
        number BIGINT PRIMARY KEY CHECK (number > 0),
        at DOUBLE PRECISION NOT NULL,
        event TEXT NOT NULL,
        tenant TEXT,
        actor TEXT NOT NULL,
        details TEXT NOT NULL,
        previous BYTEA NOT NULL,
        link BYTEA NOT NULL
    );

    CREATE TABLE audit_notes (
        id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at DOUBLE PRECISION NOT NULL,
        event TEXT NOT NULL,
        tenant TEXT,
        actor TEXT NOT NULL,
        details TEXT NOT NULL,
        key TEXT NOT NULL,
        tag TEXT NOT NULL
    );
"""

_TRAIL_OF_TENANT = "CREATE INDEX audit_of_tenant ON audit (tenant, number);"

STEPS = {
    "m001_initial": _INITIAL,
    "m002_policies": _POLICIES,
    "m003_routes": _ROUTES,
    "m004_sessions": _SESSIONS,
    "m005_audit": _AUDIT,
    "m006_trail_of_tenant": _TRAIL_OF_TENANT,
}
"""Statements by the step's name, in the order in which they are applied."""
