"""The ``kernelfs`` command: prepare a host, look after kernels, clean up.

Exit codes: 0 all is well; 1 it could not be done, or something required is
missing; 2 the command line is wrong; 4 what it names does not exist or makes
no sense (as pytest's own code for wrong usage).
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import click

from pytest_kernelfs import __version__
from pytest_kernelfs.cache import Cache, default_root
from pytest_kernelfs.config import FLAVOURS
from pytest_kernelfs.errors import InfrastructureError, KernelfsError, ProviderUnavailable, UsageError
from pytest_kernelfs.kernels import Candidate, Kernel, KernelSettings, Resolver
from pytest_kernelfs.providers import NAMES
from pytest_kernelfs.sizes import format_size


class _Failure(click.ClickException):
    """One of our errors, shown as one line."""

    def __init__(self, error: KernelfsError) -> None:
        super().__init__(str(error))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"kernelfs: error: {self.message}", file=file or sys.stderr)


class _WrongUsage(_Failure):
    exit_code = 4


class _Commands(click.Group):
    """A group whose commands may raise our errors."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            raise _WrongUsage(error) from error
        except KernelfsError as error:
            raise _Failure(error) from error
        except BrokenPipeError:
            raise  # the reader has had enough, which click takes quietly
        except OSError as error:
            raise _Failure(
                InfrastructureError(f"the host refused something that was needed: {error}")
            ) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kernelfs")
@click.option(
    "--cache",
    "cache_root",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="KERNELFS_CACHE",
    default=default_root,
    metavar="DIR",
    help="The cache folder (else KERNELFS_CACHE, else kernelfs in your own cache folder).",
)
@click.option(
    "--debian-mirror",
    envvar="KERNELFS_DEBIAN_MIRROR",
    metavar="URL",
    help="Where Debian's kernels come from (else KERNELFS_DEBIAN_MIRROR, else this host's apt mirror).",
)
@click.option(
    "--debian-keyring",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="KERNELFS_DEBIAN_KEYRING",
    metavar="FILE",
    help="What they are verified with (else KERNELFS_DEBIAN_KEYRING, else Debian's own).",
)
@click.pass_context
def main(
    context: click.Context, cache_root: Path, debian_mirror: str | None, debian_keyring: Path | None
) -> None:
    """Prepare a host for tests on real kernels, and look after what they leave in the cache."""
    cache = Cache(cache_root.expanduser().absolute())
    context.obj = KernelSettings(cache, debian_mirror=debian_mirror, debian_keyring=debian_keyring)


@main.command()
@click.option("--yes", is_flag=True, help="Install without asking.")
@click.option("--dry-run", is_flag=True, help="Only print what would be installed.")
@click.option(
    "--provider",
    "providers",
    multiple=True,
    type=click.Choice(NAMES),
    help="Also what this machine provider uses; repeatable.",
)
@click.option("--for-tests", is_flag=True, help="Also what the tests of pytest-kernelfs itself use.")
def setup(*, yes: bool, dry_run: bool, providers: Sequence[str], for_tests: bool) -> None:
    """Install the programs that this host lacks, with apt or dnf.

    Exit code 1 if something required is missing in the end.
    """
    from pytest_kernelfs import provision

    needs = provision.needs(providers, for_tests=for_tests)
    lacking = provision.missing(needs)
    if not lacking:
        click.echo("nothing to do: every program is there")
        return
    manager = provision.package_manager()
    if manager is None:
        raise ProviderUnavailable(
            "this distribution has neither apt-get nor dnf; install these programs yourself: "
            + ", ".join(f"{need.name} ({need.purpose})" for need in lacking)
        )
    names = provision.packages(manager, lacking)
    click.echo(f"missing:  {', '.join(need.name for need in lacking)}")
    click.echo(f"packages: {' '.join(names)}")
    click.echo(f"command:  {shlex.join(provision.install_command(manager, names))}")
    if dry_run:
        return
    if not yes and not _agrees("Install them now?"):
        sys.exit(1)
    try:
        provision.install(manager, names)
    except ProviderUnavailable as error:
        if any(need.required for need in lacking):
            raise
        click.echo(f"kernelfs: warning: {error}", err=True)
    _report_still_missing(provision.missing(needs))


def _agrees(question: str) -> bool:
    try:
        return click.confirm(question, default=True)
    except click.Abort:
        raise UsageError("nobody answered; run it again with --yes") from None


def _report_still_missing(lacking: Sequence[Any]) -> None:
    if not lacking:
        click.echo("done: every program is there")
        return
    listed = "; ".join(f"{need.name} (for {need.purpose})" for need in lacking)
    if any(need.required for need in lacking):
        raise ProviderUnavailable(f"still missing: {listed}; see above why, install them by hand")
    click.echo(f"kernelfs: warning: still missing, though runs are possible without: {listed}", err=True)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs instead of people.")
@click.pass_obj
def doctor(settings: KernelSettings, *, as_json: bool) -> None:
    """Tell what this host has and lacks for running kernels, and how to mend it.

    Exit code 1 if something required is missing.
    """
    from pytest_kernelfs import doctor as surgery

    checks = surgery.examine(settings)
    if as_json:
        click.echo(surgery.as_json(checks))
    else:
        surgery.write_table(checks, sys.stdout)
    if not surgery.healthy(checks):
        sys.exit(1)


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
    for line in _columns(rows):
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
    for line in _columns([[kernel.id, kernel.release, str(kernel.boot_image)] for kernel in fetched]):
        click.echo(line)
    _tell_notes(resolver)


@kernels.command("prune")
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="Those that were not used for so long.",
)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Only tell which.")
@click.pass_obj
def prune_kernels(settings: KernelSettings, *, days: float, everything: bool, dry_run: bool) -> None:
    """Remove kernels from the cache."""
    resolver = Resolver(settings)
    doomed = [kernel for kernel in resolver.cached() if everything or _days_unused(kernel) >= days]
    freed = 0
    for kernel in doomed:
        freed += _disk_usage(kernel) if dry_run else resolver.remove(kernel)
        click.echo(f"{'would remove' if dry_run else 'removed'} {kernel.release} ({kernel.source})")
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


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows with their fields aligned, two blanks between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(field.ljust(width) for field, width in zip(row, widths, strict=True)).rstrip()


def _tell_notes(resolver: Resolver) -> None:
    for note in resolver.notes:
        click.echo(f"kernelfs: note: {note}", err=True)


@main.command()
@click.option("--cache-size", default="10G", show_default=True, help="What the cache may hold after it.")
@click.pass_obj
def gc(settings: KernelSettings, cache_size: str) -> None:
    """Remove what runs that were killed left behind, and what the cache holds too much of.

    Templates and ramdisks go, the longest unused first; kernels stay (see 'kernelfs kernels prune').
    """
    from pytest_kernelfs.machines.housekeeping import tidy
    from pytest_kernelfs.machines.lease import collect
    from pytest_kernelfs.sizes import parse_size

    limit = parse_size(cache_size, "--cache-size")
    removed = [*collect(settings.cache.root / "scratch"), *tidy(settings.cache, limit)]
    for line in removed:
        click.echo(line)
    if not removed:
        click.echo("nothing to remove")


if __name__ == "__main__":
    main()
