"""``kernelfs setup`` and ``kernelfs doctor``: what this host needs and has."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

import click

from pytest_kernelfs.cli.group import main
from pytest_kernelfs.errors import ProviderUnavailable, UsageError
from pytest_kernelfs.kernels import KernelSettings
from pytest_kernelfs.providers import NAMES


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
@click.option(
    "--provider",
    "names",
    multiple=True,
    metavar="NAME",
    help="Also ask this machine provider, as the environment configures it, whether it works; repeatable.",
)
@click.pass_obj
def doctor(settings: KernelSettings, *, as_json: bool, names: Sequence[str]) -> None:
    """Tell what this host has and lacks for running kernels, and how to mend it.

    Exit code 1 if something required is missing, or a provider that was asked does not work.
    """
    from pytest_kernelfs import doctor as surgery
    from pytest_kernelfs.cli.machines import ask_provider

    checks = surgery.examine(settings)
    checks += [surgery.asked_check(name, *ask_provider(settings, name)) for name in names]
    if as_json:
        click.echo(surgery.as_json(checks))
    else:
        surgery.write_table(checks, sys.stdout)
    if not surgery.healthy(checks):
        sys.exit(1)
