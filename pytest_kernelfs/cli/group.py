"""The ``kernelfs`` command itself: what all its commands share, and how its errors are shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Any

import click

from pytest_kernelfs import __version__
from pytest_kernelfs.cache import Cache, default_root
from pytest_kernelfs.errors import InfrastructureError, KernelfsError, UsageError
from pytest_kernelfs.kernels import KernelSettings


class Failure(click.ClickException):
    """One of our errors, shown as one line."""

    def __init__(self, error: KernelfsError) -> None:
        super().__init__(str(error))

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"kernelfs: error: {self.message}", file=file or sys.stderr)


class WrongUsage(Failure):
    exit_code = 4


def failure(error: KernelfsError | OSError) -> Failure:
    """An error as it is shown."""
    if isinstance(error, OSError):
        error = InfrastructureError(f"the host refused something that was needed: {error}")
    return WrongUsage(error) if isinstance(error, UsageError) else Failure(error)


class Commands(click.Group):
    """A group whose commands may raise our errors."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader has had enough, which click takes quietly
        except (KernelfsError, OSError) as error:
            raise failure(error) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kernelfs")
@click.option(
    "--cache",
    "cache_root",
    type=click.Path(file_okay=False, readable=False, path_type=Path),  # what uses it says more than click
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
    """Prepare a host for tests on real kernels, run commands on them, and look after what they leave."""
    cache = Cache(cache_root.expanduser().absolute())
    keyring = None if debian_keyring is None else debian_keyring.expanduser()
    context.obj = KernelSettings(cache, debian_mirror=debian_mirror, debian_keyring=keyring)
