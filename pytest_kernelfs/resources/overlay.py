"""Overlay mounts: lower layers with given contents, upper and work folders of their own, the merged view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import files, mounts
from pytest_kernelfs.resources.mount import Mount
from pytest_kernelfs.resources.stack import MOUNTS, Resources

Layer = Mapping[str, str | bytes]
DEFAULT_LOWER: tuple[Layer, ...] = ({"etc/hostname": "lower\n"},)


@final
class Overlay(Mount):
    """A mounted overlay: ``path`` is the merged view; ``lower`` is a list of folders, topmost first."""

    kind = "overlay"

    def __init__(self, resources: Resources, on: Mount, lower: list[str], options: Sequence[str]) -> None:
        name = resources.name(self.kind)
        self.lower = lower
        self.upper = f"{on.path}/{name}/upper"
        self.work = f"{on.path}/{name}/work"
        super().__init__(resources, f"{MOUNTS}/{name}", self.upper, on.disk)
        # Fresh folders for every mount: to reuse them is EBUSY or undefined.
        resources.vm.guest(files.make_folders, [self.upper, self.work])
        layers = [f"lowerdir={':'.join(lower)}", f"upperdir={self.upper}", f"workdir={self.work}"]
        resources.vm.guest(mounts.mount, "overlay", self.path, "overlay", ",".join([*layers, *options]))
        self._mounted()

    def __repr__(self) -> str:
        return f"<overlay {self.path} upper={self.upper} lower={len(self.lower)}>"


class OverlayFactory:
    """Makes overlay mounts: the ``overlay_factory`` fixture."""

    def __init__(self, resources: Resources, default_on: Callable[[], Mount]) -> None:
        self._resources = resources
        self._default_on = default_on
        self._layers: dict[tuple[str, str], str] = {}

    def __call__(
        self,
        *,
        on: Mount | None = None,
        lower: Sequence[Layer] = DEFAULT_LOWER,
        volatile: bool = False,
        options: Sequence[str] = (),
    ) -> Overlay:
        """Mount an overlay.

        ``on`` holds all its folders; by default the test's ``xfs``. ``lower`` are the layers, topmost
        first, each a mapping of file names to content (a name that ends in "/" is a folder); equal layers on
        the same file system are shared. ``volatile`` and ``options`` go to the kernel as they are.

        Raises: UsageError; GuestCommandError with the kernel's reason.
        """
        if not lower:
            raise UsageError("overlay_factory: an overlay has at least one lower layer")
        base = on or self._default_on()
        layers = [self._layer(base, layer) for layer in lower]
        return Overlay(self._resources, base, layers, [*options, *(["volatile"] if volatile else [])])

    def _layer(self, on: Mount, content: Layer) -> str:
        key = (on.path, repr(sorted(content.items())))
        if key not in self._layers:
            path = f"{on.path}/{self._resources.name('lower')}"
            self._resources.vm.guest(files.make_tree, path, dict(content))
            self._layers[key] = path
        return self._layers[key]
