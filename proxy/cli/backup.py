"""``backup`` and ``restore``."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import click

from proxy import backup as files
from proxy import listing
from proxy.backup import Restored
from proxy.chain import Note
from proxy.cli.inputs import config_option, load_settings, open_ring, with_store
from proxy.cli.output import progress_bar
from proxy.cli.recording import link, recorder_of
from proxy.config import Settings
from proxy.errors import UsageError
from proxy.store import Content, ServeLock, Store

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("file", type=FILE)
@config_option
def backup(file: Path, config_path: Path | None) -> None:
    """Write all tenants and grants to FILE, as of one moment, beside a running proxy.

    Tokens are in it as they are stored: sealed. Keep the key ring apart from it. An existing FILE is replaced
    when the new one is complete.
    """

    async def work(store: Store, settings: Settings) -> Content:
        vault = open_ring(settings)
        with progress_bar("Reading, writing, recording") as progress:
            progress(0, 3)
            content, at = await store.content(), time.time()
            if content.key_check is not None:
                vault.verify_check(content.key_check)
            progress(1, 3)
            files.save(file, files.written(content, vault, at=at))
            progress(2, 3)
            recorder = recorder_of(settings)
            note = recorder("store.backed_up", tenants=len(content.tenants), grants=len(content.grants))
            await link(store, recorder, note)
            progress(3, 3)
        return content

    saved = with_store(config_path, work)
    click.echo(f"Wrote {len(saved.tenants)} tenants and {len(saved.grants)} grants to {file}.")


@click.command()
@click.argument("file", type=FILE)
@click.option("--yes", is_flag=True, help="Replace the tenants that the store has.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check the file and the key ring, tell what would be restored, and change nothing.",
)
@config_option
def restore(file: Path, config_path: Path | None, *, yes: bool, dry_run: bool) -> None:
    """Replace all tenants and grants by those in FILE, while no proxy runs.

    The whole file is checked first. Grants that are newer in the store than in FILE stay. The others are
    `unverified` until the running proxy has refreshed them once: Pleo may have ended their tokens since.
    """
    if dry_run:
        _tell(*with_store(config_path, lambda store, settings: _rehearsed(store, settings, file)), would=True)
        return
    settings = load_settings(config_path)

    async def work(store: Store, settings: Settings) -> tuple[Restored, float]:
        vault, recorder = open_ring(settings), recorder_of(settings)
        saved, made_at = files.read(files.load(file), vault)
        made: list[Restored] = []

        def edit(stored: Content) -> Content:
            if stored.key_check is not None:
                vault.verify_check(stored.key_check)
            if (stored.tenants or stored.grants) and not yes:
                raise UsageError(
                    f"the store holds {len(stored.tenants)} tenants; to replace them by the "
                    f"{len(saved.tenants)} of {file}, add --yes"
                )
            with progress_bar("Restoring grants") as progress:
                made.append(files.restored(stored, saved, vault, progress=progress))
            return made[-1].content

        def notes() -> list[Note]:
            done = made[-1]
            told = {"tenants": len(done.content.tenants), "unverified": done.unverified, "kept": done.kept}
            return [recorder("store.restored", as_of=made_at, **told)]

        await store.edit_content(edit, notes)
        await link(store, recorder)
        return made[-1], made_at

    with ExitStack() as stack:
        if settings.store.url.path is not None:
            stack.enter_context(ServeLock.acquire(settings.store.url.path))
        elif not yes:
            raise UsageError("make sure that no proxy uses this store, then add --yes")
        done, made_at = with_store(config_path, work)
    _tell(done, made_at)


async def _rehearsed(store: Store, settings: Settings, file: Path) -> tuple[Restored, float]:
    """What a restore would make of the store as it is, which may be served meanwhile."""
    vault = open_ring(settings)
    saved, made_at = files.read(files.load(file), vault)
    stored = await store.content()
    if stored.key_check is not None:
        vault.verify_check(stored.key_check)
    return files.restored(stored, saved, vault, progress=lambda _done, _total: None), made_at


def _tell(done: Restored, made_at: float, *, would: bool = False) -> None:
    restored, kept = ("Would restore", "Would keep") if would else ("Restored", "Kept")
    click.echo(f"{restored} {len(done.content.tenants)} tenants as of {listing.instant(made_at)}.")
    click.echo(f"{kept} {len(done.kept)} grants that are as new in the store, or newer.")
    click.echo(f"{restored} {len(done.unverified)} grants, to be verified by their first refresh.")
