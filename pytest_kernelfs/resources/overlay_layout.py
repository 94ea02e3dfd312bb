"""Where the folders of an overlay lie, and how its options are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_kernelfs.arguments import check_files, check_texts
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.mount import Mount

Layer = Mapping[str, str | bytes] | Mount | str
Switch = bool | None
_SWITCHED = {True: "on", False: "off"}


@dataclass(frozen=True)
class Layout:
    """The folders of an overlay; ``upper`` and ``work`` are "" if it is read-only."""

    path: str
    lower: list[str]
    data_lower: list[str]
    upper: str
    work: str

    @classmethod
    def of(cls, path: str, lower: list[str], data_lower: list[str], folder: str) -> Layout:
        """With fresh folders below ``folder`` for every mount: to reuse them is EBUSY or undefined."""
        upper, work = (f"{folder}/upper", f"{folder}/work") if folder else ("", "")
        return cls(path, lower, data_lower, upper, work)


def check_layers(name: str, layers: Iterable[Layer]) -> list[Layer]:
    """The layers. Raises: UsageError unless they are mappings of files, mounts and absolute paths."""
    if isinstance(layers, (str, Mapping)) or not isinstance(layers, Iterable):
        raise UsageError(f"overlay_factory: {name}={layers!r} is no list of layers; write [{layers!r}]")
    checked = list(layers)
    for layer in checked:
        if isinstance(layer, Mapping):
            check_files("overlay_factory", "layer", "it", layer)
        elif isinstance(layer, str) and not layer.startswith("/"):
            raise UsageError(f"overlay_factory: the layer {layer!r} is no absolute path in the guest")
        elif not isinstance(layer, (str, Mount)):
            raise UsageError(f"overlay_factory: the layer {layer!r} is no mapping of files, mount, or path")
    return checked


def overlay_options(
    options: Sequence[str], switches: Mapping[str, Switch | str], *, userxattr: bool, volatile: bool
) -> str:
    """The options in one text: the test's own, then switches that are not None, then flags.

    Raises: UsageError for a switch that is neither a bool nor a word.
    """
    words = check_texts("overlay_factory: options", options)
    for name, value in switches.items():
        if value is None:
            continue
        if not isinstance(value, (bool, str)) or (isinstance(value, str) and not value.isalpha()):
            raise UsageError(f"overlay_factory: {name}={value!r} is neither True, False nor a word")
        words.append(f"{name}={_SWITCHED[value] if isinstance(value, bool) else value}")
    words += ["userxattr"] if userxattr else []
    words += ["volatile"] if volatile else []
    return ",".join(words)
