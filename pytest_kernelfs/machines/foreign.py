"""Providers of other plugins: what they raise by mistake becomes an error that says whose mistake it is."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast, final

from pytest_kernelfs.errors import InfrastructureError, KernelfsError
from pytest_kernelfs.machines.machine import Exchange, Machine, MakeProvider, Provider, Settings

_PACKAGE = Path(__file__).resolve().parent.parent
_LIBRARY = Path(sysconfig.get_path("stdlib"))
# What their methods give that is theirs, too.
_GIVES: dict[str, type[Any]] = {
    **dict.fromkeys(("start", "start_if_quick", "start_writable", "power_cut"), Machine),
    **dict.fromkeys(("fork", "fork_if_room"), Machine),
    "exchange": Exchange,
}
_CALLED = {Machine: "a machine of {}", Exchange: "a call in a machine of {}"}


def watched(name: str, make: MakeProvider) -> MakeProvider:
    """The same provider; it, and its machines, raise KernelfsErrors and no others.

    Any other exception becomes an InfrastructureError that says what raised it, and where.
    """

    def make_watched(settings: Settings) -> Provider:
        owner = f"the provider {name!r}"
        with _blaming(f"making {owner}"):
            made = make(settings)
        return cast(Provider, _Watched(made, Provider, owner, owner))

    return make_watched


def mistake(what: str, error: Exception) -> InfrastructureError:
    """What is to be raised instead of an error that ``what`` raised, which is no KernelfsError."""
    said = " ".join("".join(traceback.format_exception_only(type(error), error)).split())
    return InfrastructureError(
        f"{what} raised {said}{_place(error)}; this is a fault of the plugin that offers the "
        "provider, not of the kernel under test"
    )


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Raises: InfrastructureError, that ``what`` raised it, for any exception but a KernelfsError."""
    try:
        yield
    except KernelfsError:
        raise
    except Exception as error:
        raise mistake(what, error) from error


def _place(error: Exception) -> str:
    """Where it was raised: the innermost line of theirs, if there is any."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not _is_not_theirs(Path(frame.filename))]
    return f" ({theirs[-1].filename}:{theirs[-1].lineno}, in {theirs[-1].name})" if theirs else ""


def _is_not_theirs(path: Path) -> bool:
    """Whether a file is ours, or of Python's own library."""
    if path.is_relative_to(_PACKAGE):
        return True
    return path.is_relative_to(_LIBRARY) and "site-packages" not in path.parts


@final
class _Watched:
    """Something of another plugin's that follows one of our protocols; all else of it is as it was."""

    def __init__(self, thing: Any, protocol: type[Any], what: str, owner: str) -> None:
        names = {*vars(protocol), *protocol.__annotations__}
        vars(self).update(_thing=thing, _what=what, _owner=owner)
        vars(self)["_names"] = {name for name in names if not name.startswith("_")}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copies and looks for such has not been made completely yet
            raise AttributeError(name)
        if name not in self._names:
            return getattr(self._thing, name)
        with _blaming(f"{name!r} of {self._what}"):
            value = getattr(self._thing, name)
        return partial(self._call, name, value) if callable(value) else value

    def __setattr__(self, name: str, value: Any) -> None:
        with _blaming(f"setting {name!r} of {self._what}"):
            setattr(self._thing, name, value)

    def __repr__(self) -> str:
        return repr(self._thing)

    def _call(self, name: str, method: Any, *args: Any, **kwargs: Any) -> Any:
        own = [arg._thing if isinstance(arg, _Watched) else arg for arg in args]
        with _blaming(f"{name!r} of {self._what}"):
            value = method(*own, **kwargs)
        protocol = _GIVES.get(name)
        if protocol is None or value is None:
            return value
        return _Watched(value, protocol, _CALLED[protocol].format(self._owner), self._owner)
