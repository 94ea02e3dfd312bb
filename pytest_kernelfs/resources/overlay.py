"""Overlay mounts: lower layers with given contents, upper and work folders of their own, the merged view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import overlay as guest
from pytest_kernelfs.resources.mount import Mount, check_mount
from pytest_kernelfs.resources.overlay_layout import Layer, Layout, Switch, check_layers, overlay_options
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.resources.user_namespace import FIRST_ID, UserNamespaceOverlay

DEFAULT_LOWER: tuple[Layer, ...] = ({"etc/hostname": "lower\n"},)
APIS = ("auto", "old", "new")
# Hundreds of layers take an emulated machine a while.
_TIMEOUT_S = 300.0


@final
class Overlay(Mount):
    """A mounted overlay: ``path`` is the merged view; ``lower`` is a list of folders, topmost first.

    ``data_lower`` are the layers for data only; ``upper`` and ``work`` are "" if it is read-only. ``api``
    says which mount API was used, "old" or "new".
    """

    kind = "overlay"

    def __init__(self, resources: Resources, on: Mount, layout: Layout, options: str, api: str) -> None:
        self.lower = layout.lower
        self.data_lower = layout.data_lower
        self.upper = layout.upper
        self.work = layout.work
        self.options = options
        self._asked_api = api
        self.api = ""
        super().__init__(resources, layout.path, layout.upper or on.path, on.disk)
        self.mount()

    def __repr__(self) -> str:
        upper = f"upper={self.upper}" if self.upper else "read-only"
        data = f" data_lower={len(self.data_lower)}" if self.data_lower else ""
        return f"<overlay {self.path} {upper} lower={len(self.lower)}{data}>"

    def mount(self) -> None:
        """Mount it again after a umount, with the same folders and options.

        Raises: UsageError if it is mounted; GuestCommandError with the kernel's reason, such as the mark
        that a volatile overlay leaves in its work folder.
        """
        if self in self.resources.mounts:
            raise UsageError(f"{self!r} is mounted; unmount it before it is mounted again")
        folders = (self.path, self.lower, self.data_lower, self.upper, self.work)
        used = self.resources.vm.guest(
            guest.mount_overlay, *folders, self.options, self._asked_api, timeout=_TIMEOUT_S
        )
        self.api = str(used)
        self._mounted()


class OverlayFactory:
    """Makes overlay mounts: the ``overlay_factory`` fixture."""

    def __init__(self, resources: Resources, default_on: Callable[[], Mount]) -> None:
        self._resources = resources
        self._default_on = default_on
        self._layers: dict[tuple[str, int, str], str] = {}
        resources.on_power_cut(self._layers.clear)

    def __call__(
        self,
        *,
        on: Mount | None = None,
        lower: Sequence[Layer] = DEFAULT_LOWER,
        data_lower: Sequence[Layer] = (),
        lower_on: Mount | None = None,
        upper: bool = True,
        volatile: bool = False,
        metacopy: Switch = None,
        redirect_dir: Switch | str = None,
        index: Switch = None,
        nfs_export: Switch = None,
        userxattr: bool = False,
        xino: Switch | str = None,
        options: Sequence[str] = (),
        api: str = "auto",
    ) -> Overlay:
        """Mount an overlay.

        ``on`` holds its folders; by default the test's ``xfs``. ``lower`` are the layers, topmost first:
        mappings of file names to content (a name that ends in "/" is a folder; equal ones on the same file
        system are shared), mounts such as another overlay, or paths in the guest. ``data_lower`` are layers
        that only hold data for metacopy. New layers lie on ``lower_on``, by default ``on``. Without ``upper``
        it is read-only.

        Switches that are None are left to the kernel; ``options`` go to it as they are. ``api`` is "old" for
        mount(2), "new" for fsopen(2) and its like, "auto" for the old one unless there are too many layers.

        Raises: UsageError; GuestCommandError with the kernel's reason.
        """
        if not isinstance(upper, bool):
            raise UsageError(
                f"overlay_factory: upper={upper!r} is neither True nor False; the upper folder is made anew"
            )
        if volatile and not upper:
            raise UsageError("overlay_factory: without an upper folder there is nothing to be volatile")
        switches = {
            "metacopy": metacopy,
            "redirect_dir": redirect_dir,
            "index": index,
            "nfs_export": nfs_export,
            "xino": xino,
        }
        text = overlay_options(options, switches, userxattr=userxattr, volatile=volatile)
        layout, base = self._layout(on, lower, data_lower, lower_on, upper, api, owner=0)
        return Overlay(self._resources, base, layout, text, api)

    def in_user_namespace(
        self,
        *,
        on: Mount | None = None,
        lower: Sequence[Layer] = DEFAULT_LOWER,
        lower_on: Mount | None = None,
        userxattr: bool = True,
        options: Sequence[str] = (),
        api: str = "auto",
    ) -> UserNamespaceOverlay:
        """Mount an overlay in a user namespace of its own, without privileges outside (Linux 5.11).

        New layers are owned by the namespace's root. The arguments are those of the factory itself.

        Raises: UsageError; GuestCommandError with the kernel's reason, also if it does not allow that.
        """
        text = overlay_options(options, {}, userxattr=userxattr, volatile=False)
        layout, _ = self._layout(on, lower, (), lower_on, True, api, owner=FIRST_ID)
        return UserNamespaceOverlay(self._resources, layout, text, api)

    def _layout(
        self,
        on: Mount | None,
        lower: Sequence[Layer],
        data_lower: Sequence[Layer],
        lower_on: Mount | None,
        upper: bool,
        api: str,
        *,
        owner: int,
    ) -> tuple[Layout, Mount]:
        """Make the layers; gives where all lies, and what it lies on."""
        lower, data_lower = check_layers("lower", lower), check_layers("data_lower", data_lower)
        if not lower:
            raise UsageError("overlay_factory: an overlay has at least one lower layer")
        if api not in APIS:
            raise UsageError(f"overlay_factory: the mount API {api!r} is none of {', '.join(APIS)}")
        for layer in (*lower, *data_lower):
            if isinstance(layer, Mount):
                layer.demand_mounted("overlay_factory, layer")
        if lower_on is not None:
            check_mount("overlay_factory, lower_on", lower_on)
            lower_on.demand_mounted("overlay_factory, lower_on")
        base = self._default_on() if on is None else on
        check_mount("overlay_factory, on", base)
        base.demand_mounted("overlay_factory, on")
        paths = self._make_layers(lower_on or base, [*lower, *data_lower], owner)
        name = self._resources.name(Overlay.kind)
        folder = f"{base.path}/{name}" if upper else ""
        path = self._resources.mount_point(name)
        return Layout.of(path, paths[: len(lower)], paths[len(lower) :], folder), base

    def _make_layers(self, on: Mount, layers: Sequence[Layer], owner: int) -> list[str]:
        """The folders of the layers; those that are not there yet are made in one go."""
        paths: list[str] = []
        new: dict[tuple[str, int, str], tuple[str, dict[str, str | bytes]]] = {}
        for layer in layers:
            if isinstance(layer, str):
                paths.append(layer)
            elif isinstance(layer, Mount):
                paths.append(layer.path)
            else:
                key = (on.path, owner, repr(sorted(layer.items())))
                if key not in self._layers and key not in new:
                    new[key] = (f"{on.path}/{self._resources.name('lower')}", dict(layer))
                paths.append(self._layers[key] if key in self._layers else new[key][0])
        if new:
            self._resources.vm.guest(guest.make_layers, list(new.values()), owner, timeout=_TIMEOUT_S)
            self._layers.update((key, path) for key, (path, _) in new.items())
        return paths
