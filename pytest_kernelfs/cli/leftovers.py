"""``kernelfs ps`` and ``kernelfs gc``: the machines there are, and what is left of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pytest_kernelfs.cli.group import main
from pytest_kernelfs.cli.tables import columns
from pytest_kernelfs.kernels import KernelSettings

_LONGEST_COMMAND = 60


@main.command()
@click.option(
    "--cache-size",
    envvar="KERNELFS_CACHE_SIZE",
    default="10G",
    metavar="SIZE",
    help="What the cache may hold after it (else KERNELFS_CACHE_SIZE, else 10G).",
)
@click.option("--libvirt-uri", "uris", multiple=True, metavar="URI", help="Clean up there, too; repeatable.")
@click.pass_obj
def gc(settings: KernelSettings, cache_size: str, uris: Sequence[str]) -> None:
    """Remove what runs that were killed left behind, and what the cache holds too much of.

    Templates, ramdisks and what is known of the needs of tests go, the longest unused first; kernels stay
    (see 'kernelfs kernels prune').
    """
    from pytest_kernelfs.cache import SCRATCH
    from pytest_kernelfs.guest import tenant
    from pytest_kernelfs.machines.housekeeping import check_allowed, tidy
    from pytest_kernelfs.machines.lease import collect
    from pytest_kernelfs.machines.libvirt import leftovers as hypervisor
    from pytest_kernelfs.machines.vagrant import leftovers as vagrant
    from pytest_kernelfs.machines.vagrant import places
    from pytest_kernelfs.sizes import parse_size

    limit = parse_size(cache_size, "--cache-size (or KERNELFS_CACHE_SIZE)")
    check_allowed(settings.cache)
    removed = [
        *(f"undid on this host: {what}" for what in tenant.collect()),
        *places.collect(settings.cache.root),
        *(line for uri in uris for line in (*hypervisor.collect_at(uri), *vagrant.collect_at(uri))),
        *collect(settings.cache.root / SCRATCH),
        *tidy(settings.cache, limit),
    ]
    for line in removed:
        click.echo(line)
    if not removed:
        click.echo("nothing to remove")


@main.command()
def ps() -> None:
    """List your machines and who owns them.

    Those of the provider qemu, that is; what other providers run is listed by their own tools, such as virsh.
    """
    from pytest_kernelfs.machines.lease import running

    rows = [
        [str(machine.pid), kernel, _age(machine.age), str(owner.pid), _command(owner.pid)]
        for kernel, owner, machine in running()
    ]
    if not rows:
        click.echo("kernelfs: no machine of yours is running", err=True)
        return
    for line in columns([["PID", "KERNEL", "AGE", "OWNER", "OWNER'S COMMAND"], *rows]):
        click.echo(line)


def _age(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "(gone)"
    text = b" ".join(words).decode(errors="replace").strip()
    return text if len(text) <= _LONGEST_COMMAND else f"{text[:_LONGEST_COMMAND]}…"
