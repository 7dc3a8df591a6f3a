"""``migrate-store``: all that a store holds, into an empty one of whichever kind."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import click

from proxy import pairs
from proxy.cli.inputs import config_option, load_settings, open_ring
from proxy.cli.output import progress_bar, warn_of_arguments
from proxy.cli.recording import link, recorder_of
from proxy.config.store_url import StoreUrl, parse_store_url
from proxy.config.values import Rule
from proxy.errors import StoreError, StoreMissingError, UsageError
from proxy.model import Grant
from proxy.store import Content, ServeLock, Snapshot, Store, StoreNotEmpty, open_store
from proxy.vault import SealedValueError, Vault


@click.command(name="migrate-store")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--dry-run", is_flag=True, help="Check both stores and the key ring, and write nothing.")
@config_option
def migrate_store(source: str, target: str, config_path: Path | None, *, dry_run: bool) -> None:
    """Copy tenants, grants, links, flows and the audit trail from one store into another, an empty one.

    FROM and TO are URLs as `store.url` takes them. Give a password as PGPASSWORD, since arguments can be seen
    by everyone on the machine.

    Stop every `serve` of both first. Nothing is sealed anew: TO needs the key ring that FROM has, which must
    be the one that the configuration names. FROM stays as it is; never serve it again once TO is served.
    """
    origin, goal = _url("FROM", source), _url("TO", target)
    if origin == goal:
        raise UsageError(f"FROM and TO are the same store, {origin}; name two")
    if origin.password is not None or goal.password is not None:
        warn_of_arguments("FROM or TO", "give the password as PGPASSWORD or in PostgreSQL's password file")
    snapshot = asyncio.run(_migrate(origin, goal, config_path, dry_run=dry_run))
    content = snapshot.content
    counts = {
        "tenants": len(content.tenants),
        "grants": len(content.grants),
        "links": len(snapshot.links),
        "flows": len(snapshot.flows),
        "key checks": int(content.key_check is not None),
    }
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    click.echo(f"{'Would copy' if dry_run else 'Copied'} {told}\nfrom {origin}\nto   {goal}.")
    if not dry_run:
        click.echo("All of it was read back and opens. Now let store.url name the new store, and start.")


def _url(argument: str, text: str) -> StoreUrl:
    try:
        return parse_store_url(text)
    except Rule as rule:
        raise UsageError(f"{argument} {rule}") from None


async def _migrate(origin: StoreUrl, goal: StoreUrl, config_path: Path | None, *, dry_run: bool) -> Snapshot:
    settings = load_settings(config_path)
    async with AsyncExitStack() as stack:
        source = open_store(origin, create=False)
        stack.push_async_callback(source.close)
        _lock(origin, stack)
        snapshot = await source.snapshot()
        _refuse_attempts(snapshot.content, origin)
        content = snapshot.content
        # A store that was never served has nothing that is sealed, and there may be no key ring yet.
        vault = open_ring(settings) if content.grants or content.key_check is not None else None
        _open_all(content, vault, origin, "Opening tokens")
        recorder = recorder_of(settings)
        note = recorder("store.migrated", origin=str(origin), goal=str(goal))
        snapshot = replace(snapshot, notes=(*snapshot.notes, note))
        try:
            target = open_store(goal, create=not dry_run)
        except StoreMissingError:
            return snapshot
        stack.push_async_callback(target.close)
        if dry_run:
            await _refuse_unless_empty(target, goal)
            return snapshot
        _lock(goal, stack)
        await _refuse_unless_empty(target, goal)
        await _copy_trail(source, target)
        try:
            await target.fill(snapshot)
        except StoreNotEmpty:
            raise _not_empty(goal) from None
        written = await target.snapshot()
        if written != snapshot:
            raise StoreError(f"store {goal}: it does not hold what was written: go on with the old one")
        _open_all(written.content, vault, goal, "Opening what was written")
        await link(target, recorder)
    return snapshot


def _lock(url: StoreUrl, stack: AsyncExitStack) -> None:
    if url.path is not None:
        stack.enter_context(ServeLock.acquire(url.path))


def _refuse_attempts(content: Content, url: StoreUrl) -> None:
    names = [grant.tenant for grant in content.grants.values() if grant.attempted_at is not None]
    if names:
        raise StoreError(
            f"store {url}: a refresh is noted as under way for {', '.join(names)}: stop every `serve` of it; "
            "if one has crashed, start and stop it once"
        )


def _open_all(content: Content, vault: Vault | None, url: StoreUrl, title: str) -> None:
    if vault is None:
        return
    if content.key_check is not None:
        vault.verify_check(content.key_check)
    with progress_bar(title) as progress:
        for number, grant in enumerate(content.grants.values(), 1):
            _open(grant, vault, url)
            progress(number, len(content.grants))


def _open(grant: Grant, vault: Vault, url: StoreUrl) -> None:
    try:
        pairs.open_pair(vault, grant)
    except SealedValueError as error:
        raise StoreError(
            f"store {url}: the tokens of tenant {grant.tenant} do not open ({error.problem}): put the "
            f"key ring back, or give them up with `pleo-proxy grants revoke {grant.tenant}`"
        ) from None


async def _copy_trail(source: Store, target: Store) -> None:
    """The records of the audit trail as they are, in order or not."""
    newest = await source.trail.newest(1, None, None)
    after = 0
    with progress_bar("Copying the audit trail") as progress:
        while page := await source.trail.page(after):
            await target.trail.copy_in(page)
            after = page[-1].number
            progress(after, newest[0].number)


async def _refuse_unless_empty(store: Store, url: StoreUrl) -> None:
    content = await store.content()
    if content.tenants or content.key_check is not None or await store.trail.newest(1, None, None):
        raise _not_empty(url)


def _not_empty(url: StoreUrl) -> StoreError:
    return StoreError(f"store {url}: it is not empty, and nothing was written: name a new one")
