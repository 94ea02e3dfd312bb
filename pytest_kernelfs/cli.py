"""The ``kernelfs`` command: prepare a host, look after kernels, clean up.

Exit codes: 0 all is well; 1 it could not be done, or something required is
missing; 2 the command line is wrong; 4 what it names does not exist or makes
no sense (as pytest's own code for wrong usage).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click

from pytest_kernelfs import __version__
from pytest_kernelfs.cache import default_root
from pytest_kernelfs.errors import KernelfsError, ProviderUnavailable, UsageError


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
@click.pass_context
def main(context: click.Context, cache_root: Path) -> None:
    """Prepare a host for tests on real kernels, and look after what they leave in the cache."""
    context.obj = cache_root.expanduser().absolute()


@main.command()
@click.option("--yes", is_flag=True, help="Install without asking.")
@click.option("--dry-run", is_flag=True, help="Only print what would be installed.")
@click.option("--for-tests", is_flag=True, help="Also what the tests of pytest-kernelfs itself use.")
def setup(*, yes: bool, dry_run: bool, for_tests: bool) -> None:
    """Install the programs that this host lacks, with apt or dnf.

    Exit code 1 if something required is missing in the end.
    """
    from pytest_kernelfs import provision

    needs = provision.needs(for_tests=for_tests)
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
    if not yes:
        click.confirm("Install them now?", default=True, abort=True)
    try:
        provision.install(manager, names)
    except ProviderUnavailable as error:
        if any(need.required for need in lacking):
            raise
        click.echo(f"kernelfs: warning: {error}", err=True)
    _report_still_missing(provision.missing(needs))


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
def doctor(cache_root: Path, *, as_json: bool) -> None:
    """Tell what this host has and lacks for running kernels, and how to mend it.

    Exit code 1 if something required is missing.
    """
    from pytest_kernelfs import doctor as surgery

    checks = surgery.examine(cache_root)
    if as_json:
        click.echo(surgery.as_json(checks))
    else:
        surgery.write_table(checks, sys.stdout)
    if not surgery.healthy(checks):
        sys.exit(1)


@main.command()
def gc() -> None:
    """End machines and remove folders whose owners are gone, as after a kill -9."""
    from pytest_kernelfs.machines.lease import collect

    removed = collect()
    for line in removed:
        click.echo(line)
    if not removed:
        click.echo("nothing to remove")


if __name__ == "__main__":
    main()
