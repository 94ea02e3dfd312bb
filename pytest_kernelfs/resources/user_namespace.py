"""An overlay that was mounted without privileges, in a user namespace of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from pytest_kernelfs.guest import namespaces
from pytest_kernelfs.machines.vm import DEFAULT_TIMEOUT_S, CommandResult
from pytest_kernelfs.resources.overlay_layout import Layout
from pytest_kernelfs.resources.stack import Resources

# As rootless containers have it: 65536 users, none of whom is anybody outside.
FIRST_ID = 100000
IDS = 65536


@final
class UserNamespaceOverlay:
    """An overlay that is seen only inside its namespaces: ``path`` is the merged view there.

    ``lower``, ``upper`` and ``work`` can be seen outside as well; what root makes inside is owned by the
    user 100000 outside. ``process`` is what holds the namespaces open.
    """

    def __init__(self, resources: Resources, layout: Layout, options: str, api: str) -> None:
        self.resources = resources
        self.path = layout.path
        self.lower = layout.lower
        self.upper = layout.upper
        self.work = layout.work
        self.options = options
        self.process = int(
            resources.vm.guest(
                namespaces.hold_overlay,
                *(layout.path, layout.lower, layout.data_lower, layout.upper, layout.work),
                *(options, api, FIRST_ID, IDS),
            )
        )
        resources.on_teardown(f"user namespace of {self.path}", self.umount)

    def __repr__(self) -> str:
        return f"<overlay {self.path} in the user namespace of process {self.process}>"

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: float = DEFAULT_TIMEOUT_S,
        check: bool = False,
        input: str | bytes | None = None,  # noqa: A002  (the name subprocess uses)
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command inside, as the root of the namespace; otherwise as ``vm.run``."""
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        enter = ["nsenter", "-t", str(self.process), "-U", "-m", "-S", "0", "-G", "0", "--"]
        return self.resources.vm.run([*enter, *words], timeout=timeout, check=check, input=input, env=env)

    def umount(self) -> None:
        """End the namespaces, and the mount with them; that they are gone already is no error.

        A process of the test's own that still runs inside holds them open.
        """
        self.resources.vm.guest(namespaces.end, self.process)
