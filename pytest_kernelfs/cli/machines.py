"""Machines for commands: the options that describe them, and how one is started and ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, final

import click

from pytest_kernelfs import config as configuration
from pytest_kernelfs import providers
from pytest_kernelfs.config import OPTIONS, Config
from pytest_kernelfs.errors import KernelfsError
from pytest_kernelfs.kernels import KernelSettings
from pytest_kernelfs.run import Run

if TYPE_CHECKING:
    from pytest_kernelfs.kernels import Candidate
    from pytest_kernelfs.machines.machine import Machine, MakeProvider

# Those of pytest's options that say nothing of one machine.
_LEFT_OUT = frozenset({"isolation", "cache_size", "keep", "artifacts"})
# Here it is one machine.
_WORDED = {
    "kernelfs_provider": f"what runs the machine: {', '.join(providers.NAMES)}, or a provider of a plugin of "
    "pytest"
}
_LONG = "--kernelfs-"
# Where work begins in a machine unless a folder is shared.
HOME = "/root"


class _Option(click.Option):
    """An option that also goes by its name in pytest, which is what error messages call it."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None:
            return None
        shown = record[0].partition(f", {_LONG}")[0]
        return (shown if self.is_flag else f"{shown} {self.metavar}", record[1])


@dataclass(frozen=True)
class Wanted:
    """What was said of the machine; ``texts`` by ini name, None for what was not said."""

    texts: Mapping[str, str | None]
    share: Sequence[str]
    allow_local: bool
    offline: bool

    def config(self, settings: KernelSettings, specs: Sequence[str]) -> Config:
        """Raises: UsageError."""
        mirror, keyring = settings.debian_mirror, settings.debian_keyring
        # What stands before the command's name; it may stand after it, too, as errors tell people to.
        above = {
            "kernelfs_cache": str(settings.cache.root),
            "kernelfs_debian_mirror": mirror,
            "kernelfs_debian_keyring": None if keyring is None else str(keyring),
        }
        given = {name: text for name, text in self.texts.items() if text is not None}
        return configuration.typed(
            {**self.texts, **above, **given},
            specs=specs,
            share=self.share,
            allow_local=self.allow_local,
            offline=self.offline,
        )


def machine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that describe a machine; it gets them as ``wanted``."""
    taken = [option for option in OPTIONS if option.ini.removeprefix("kernelfs_") not in _LEFT_OUT]

    @wraps(function)
    def with_wanted(*args: Any, share: Sequence[str], allow_local: bool, offline: bool, **given: Any) -> Any:
        texts = {option.ini: given.pop(option.ini) for option in taken}
        return function(*args, wanted=Wanted(texts, share, allow_local, offline), **given)

    decorated: Callable[..., Any] = with_wanted
    for name, text in (
        ("offline", "Use only kernels that are in the cache."),
        ("allow-local", "Provider local: work on this host's own kernel, as root."),
    ):
        decorated = click.option(f"--{name}", f"{_LONG}{name}", cls=_Option, is_flag=True, help=text)(
            decorated
        )
    for option in reversed(taken):
        decorated = click.option(
            option.name.replace(_LONG, "--"),
            option.name,
            option.ini,
            cls=_Option,
            metavar=option.metavar,
            help=_help(option),
        )(decorated)
    return click.option(
        "--share",
        f"{_LONG}share",
        cls=_Option,
        multiple=True,
        metavar="DIR[:GUEST]",
        help="A folder that the machine gets a copy of, at GUEST; repeatable. Work begins in the first.",
    )(decorated)


def _help(option: configuration.Option) -> str:
    text = _WORDED.get(option.ini, option.help)
    text = text[0].upper() + text[1:]
    return f"{text} [{option.default}]." if option.default else f"{text}."


@final
class Machines:
    """Starts machines one after the other."""

    def __init__(self, settings: KernelSettings, wanted: Wanted, specs: Sequence[str]) -> None:
        """Raises: UsageError if something that was said of them makes no sense."""
        from pytest_kernelfs.machines.shares import parse_shares

        config = wanted.config(settings, specs)
        self._shares = parse_shares(config.share)
        offered = [providers.ours(config.providers), *_others(config.provider)]
        # Each folder is copied once: it does not pay to save a machine that has them, and fork it.
        config = replace(config, share=())
        self._run = Run(config, lambda: providers.choose(config.provider, offered))
        self._run.check_provider()

    def kernels(self) -> list[Candidate]:
        """The kernels that were asked for; the default one if none was.

        Raises: UsageError, KernelNotFound, InfrastructureError.
        """
        return self._run.resolve()

    @property
    def folder(self) -> str:
        """Where work begins in a machine: the first folder that is shared, if any is."""
        return self._shares[0].guest if self._shares else HOME

    @contextmanager
    def started(self, candidate: Candidate) -> Iterator[Machine]:
        """A machine with that kernel, which ends with the block.

        Raises: InfrastructureError, ProviderUnavailable.
        """
        from pytest_kernelfs.machines.sharing import bring
        from pytest_kernelfs.report.progress import shown_progress

        with shown_progress(sys.stderr) as progress:
            self._run.fetch_all([candidate], progress)
        with _told(f"starting a machine with kernel {candidate.release} …"):
            machine = self._run.provider.start(self._run.kernel(candidate), self._run.machine_spec)
        try:
            for share in self._shares:
                bring(machine, share)
            yield machine
        finally:
            machine.destroy()

    def describe(self) -> str:
        """What the provider says of itself. Raises: KernelfsError if it does not work here."""
        return self._run.provider.describe()

    def close(self) -> None:
        self._run.close()


def ask_provider(settings: KernelSettings, name: str) -> tuple[str, str]:
    """What the provider of that name says of itself, and "" or why it does not work.

    Its options are those of the environment.
    """
    wanted = Wanted({"kernelfs_provider": name}, share=(), allow_local=name == "local", offline=True)
    try:
        with closing(Machines(settings, wanted, [])) as machines:
            return machines.describe(), ""
    except KernelfsError as error:
        return "", str(error)


def _others(name: str) -> Sequence[Mapping[str, MakeProvider]]:
    """What plugins offer, if none of our providers has that name. Raises: UsageError."""
    if name in providers.NAMES:
        return []
    from pytest_kernelfs.cli import plugins

    return plugins.offered(name)


@contextmanager
def _told(text: str) -> Iterator[None]:
    """Show on a terminal what goes on, for as long as it does."""
    if not sys.stderr.isatty():
        yield
        return
    click.echo(text, err=True, nl=False)
    try:
        yield
    finally:
        click.echo("\r\033[K", err=True, nl=False)
