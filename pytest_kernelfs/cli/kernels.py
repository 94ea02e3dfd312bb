"""``kernelfs kernels``: list, fetch and prune kernels."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

import click

from pytest_kernelfs.cli.group import main
from pytest_kernelfs.cli.numbers import Amount
from pytest_kernelfs.cli.tables import columns
from pytest_kernelfs.config import FLAVOURS
from pytest_kernelfs.kernels import Candidate, Kernel, KernelSettings, Resolver
from pytest_kernelfs.sizes import format_size


@main.group()
@click.option(
    "--flavour",
    type=click.Choice(FLAVOURS),
    default="cloud",
    show_default=True,
    help="Which of Debian's kernels.",
)
@click.pass_context
def kernels(context: click.Context, flavour: str) -> None:
    """List, fetch and prune kernels."""
    context.obj = replace(context.obj, flavour=flavour)


@kernels.command("ls")
@click.option("--available", is_flag=True, help="Those that Debian offers instead of those in the cache.")
@click.pass_obj
def list_kernels(settings: KernelSettings, *, available: bool) -> None:
    """List the kernels in the cache, or those that can be had."""
    resolver = Resolver(settings)
    cached = resolver.cached()
    if available:
        here = {kernel.checksum for kernel in cached}
        rows = [_available_row(candidate, here) for candidate in resolver.available()]
    else:
        rows = [_cached_row(kernel) for kernel in cached]
    for line in columns(rows):
        click.echo(line)
    _tell_notes(resolver)
    if not rows:
        what = "Debian offers no kernel of this flavour" if available else "no kernel is in the cache yet"
        click.echo(f"kernelfs: {what}", err=True)


@kernels.command("fetch")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.pass_obj
def fetch_kernels(settings: KernelSettings, specs: Sequence[str]) -> None:
    """Bring kernels into the cache: 6.1, 6.1.176, 6.1.0-50-amd64, debian:bookworm, ./linux, ./foo.deb."""
    from pytest_kernelfs.report.progress import shown_progress

    with shown_progress(sys.stderr) as progress:
        resolver = Resolver(replace(settings, progress=progress))
        fetched = [resolver.fetch(candidate) for candidate in resolver.resolve(specs)]
    for line in columns([[kernel.id, kernel.release, str(kernel.boot_image)] for kernel in fetched]):
        click.echo(line)
    _tell_notes(resolver)


@kernels.command("prune")
@click.option(
    "--older-than",
    "days",
    type=Amount(min=0),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Those that were not used for so long.",
)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Only tell which.")
@click.pass_obj
def prune_kernels(settings: KernelSettings, *, days: float, everything: bool, dry_run: bool) -> None:
    """Remove kernels from the cache, and what was left of some that were never whole."""
    from pytest_kernelfs.kernels.store import Store, disk_usage

    store = Store(settings.cache)
    verb = "would remove" if dry_run else "removed"
    doomed = [kernel for kernel in store.all() if everything or _days_unused(kernel) >= days]
    freed = 0
    for folder, why in store.useless().items():
        freed += disk_usage(folder) if dry_run else store.discard(folder)
        click.echo(f"{verb} {folder}, {why}")
    for kernel in doomed:
        freed += _disk_usage(kernel) if dry_run else store.remove(kernel)
        click.echo(f"{verb} {kernel.release} ({kernel.source})")
    count = "1 kernel" if len(doomed) == 1 else f"{len(doomed)} kernels"
    click.echo(f"{count}, {format_size(freed)} {'to be freed' if dry_run else 'freed'}")


def _available_row(candidate: Candidate, here: Collection[str]) -> list[str]:
    where = (
        "in the cache"
        if candidate.checksum in here
        else f"{format_size(candidate.download_size)} to download"
    )
    return [candidate.id, candidate.release, candidate.source, where]


def _cached_row(kernel: Kernel) -> list[str]:
    used = f"used {_days_unused(kernel):.0f} days ago"
    return [kernel.id, kernel.release, kernel.source, format_size(_disk_usage(kernel)), used]


def _days_unused(kernel: Kernel) -> float:
    """Each use touches the kernel's folder."""
    return (time.time() - kernel.boot_image.parent.stat().st_mtime) / 86400


def _disk_usage(kernel: Kernel) -> int:
    from pytest_kernelfs.kernels.store import disk_usage

    return disk_usage(kernel.boot_image.parent)


def _tell_notes(resolver: Resolver) -> None:
    for note in resolver.notes:
        click.echo(f"kernelfs: note: {note}", err=True)
