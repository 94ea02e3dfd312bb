"""``kernelfs ps`` and ``kernelfs gc``: the machines there are, and what is left of others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from pytest_kernelfs.cli.group import failure, main
from pytest_kernelfs.cli.tables import columns
from pytest_kernelfs.errors import KernelfsError
from pytest_kernelfs.kernels import KernelSettings

_LONGEST_COMMAND = 60

Step = Callable[[], Iterable[str]]
"""Does something; gives a line for each thing it did."""


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
    from pytest_kernelfs.machines.vagrant import places
    from pytest_kernelfs.sizes import parse_size

    limit = parse_size(cache_size, "--cache-size (or KERNELFS_CACHE_SIZE)")
    cache = settings.cache
    check_allowed(cache)
    steps: list[Step] = [
        lambda: [f"undid on this host: {what}" for what in tenant.collect()],
        lambda: places.collect(cache.root),
        lambda: collect(cache.root / SCRATCH),
        lambda: tidy(cache, limit),
        # A hypervisor may not answer: what is here does not wait for that.
        *(partial(_collect_at, uri) for uri in uris),
    ]
    if not _told(steps):
        click.echo("nothing to remove")


def _collect_at(uri: str) -> Iterator[str]:
    from pytest_kernelfs.machines.libvirt import leftovers as hypervisor
    from pytest_kernelfs.machines.vagrant import leftovers as vagrant

    yield from hypervisor.collect_at(uri)
    yield from vagrant.collect_at(uri)


def _told(steps: Sequence[Step]) -> bool:
    """Take every step, whatever becomes of the others, and show what it did; tells whether any did anything.

    Raises: the last error of a step; those before it are shown.
    """
    lines = 0
    error: KernelfsError | OSError | None = None
    for step in steps:
        try:
            for line in step():
                click.echo(line)
                lines += 1
        except BrokenPipeError:
            raise
        except (KernelfsError, OSError) as another:
            if error is not None:
                failure(error).show()
            error = another
    if error is not None:
        raise error
    return lines > 0


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
