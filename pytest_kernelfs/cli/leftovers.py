"""``kernelfs gc``: what is left of machines."""

from __future__ import annotations

import click

from pytest_kernelfs.cli.group import main
from pytest_kernelfs.kernels import KernelSettings


@main.command()
@click.option("--cache-size", default="10G", show_default=True, help="What the cache may hold after it.")
@click.pass_obj
def gc(settings: KernelSettings, cache_size: str) -> None:
    """Remove what runs that were killed left behind, and what the cache holds too much of.

    Templates and ramdisks go, the longest unused first; kernels stay (see 'kernelfs kernels prune').
    """
    from pytest_kernelfs.guest import tenant
    from pytest_kernelfs.machines.housekeeping import tidy
    from pytest_kernelfs.machines.lease import collect
    from pytest_kernelfs.machines.vagrant import places
    from pytest_kernelfs.sizes import parse_size

    limit = parse_size(cache_size, "--cache-size")
    removed = [
        *(f"undid on this host: {what}" for what in tenant.collect()),
        *places.collect(settings.cache.root),
        *collect(settings.cache.root / "scratch"),
        *tidy(settings.cache, limit),
    ]
    for line in removed:
        click.echo(line)
    if not removed:
        click.echo("nothing to remove")
