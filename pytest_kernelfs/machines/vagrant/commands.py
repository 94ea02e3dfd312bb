"""Vagrant's commands, through python-vagrant, each with a deadline of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from pytest_kernelfs.errors import ProviderUnavailable, UsageError
from pytest_kernelfs.machines.ssh.transport import as_value
from pytest_kernelfs.machines.vagrant.bounded import Bounds, Watch, hopeful
from pytest_kernelfs.tools import find

# For commands that only look: Ruby alone takes a second to start.
LOOK_S = 60.0
# For what works on a machine that is there.
WORK_S = 120.0


def require() -> None:
    """Raises: ProviderUnavailable if there is no Vagrant, or no python-vagrant."""
    if find("vagrant") is None:
        raise ProviderUnavailable(
            "there is no Vagrant on this host; install it (Debian: apt-get install vagrant vagrant-libvirt), "
            "or choose another provider with --kernelfs-provider"
        )
    if find_spec("vagrant") is None:
        raise ProviderUnavailable(
            "the provider vagrant needs python-vagrant: pip install 'pytest-kernelfs[vagrant]'"
        )


@final
class Commands:
    """Vagrant on the Vagrantfile in ``folder``; ``env`` is what its environment has besides ours.

    Every command raises InfrastructureError if it fails or does not end in time, with what it printed, and
    ProviderUnavailable if this host lacks something.
    """

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        """Raises: as ``require``."""
        require()
        self._folder = folder
        self._env = {**os.environ, **env}

    def version(self) -> str:
        """Vagrant's own."""
        printed = str(self._within(LOOK_S).printed("--version"))
        found = re.search(r"^Vagrant (\S+)", printed, re.MULTILINE)
        return found[1] if found else "of unknown version"

    def up(self, hypervisor: str, timeout: float, watch: Watch = hopeful) -> None:
        """Make the machine, start it, and wait until ssh answers."""
        self._within(timeout, watch).up(provider=hypervisor)

    def reload(self, timeout: float, watch: Watch = hopeful) -> None:
        """Shut the machine down, start it again, and wait until ssh answers."""
        self._within(timeout, watch).reload(provision=False)

    def state(self) -> str:
        """What Vagrant calls the machine: running, poweroff, not_created …"""
        return str(self._within(LOOK_S).status()[0].state)

    def ssh_config(self) -> str:
        """What ssh has to be configured with.

        Raises besides: UsageError if the Vagrantfile is one of several machines.
        """
        text = str(self._within(LOOK_S).ssh_config())
        if host_of(text) is None:
            raise UsageError(
                f"the Vagrantfile in {self._folder} has to describe one machine; "
                f"'vagrant ssh-config' names {text.count('Host ')}"
            )
        return text

    def save_snapshot(self, name: str) -> None:
        self._within(WORK_S).snapshot_save(name)

    def restore_snapshot(self, name: str) -> None:
        self._within(WORK_S).snapshot_restore(name)

    def destroy(self) -> None:
        """End the machine and remove all it had; no error if there is none."""
        self._within(WORK_S).destroy()

    def add_box(self, name: str, file: Path) -> None:
        self._within(WORK_S).box_add(name, str(file))

    def _within(self, timeout: float, watch: Watch = hopeful) -> Any:
        return _bounded_vagrant()(self._folder, Bounds(self._folder, self._env, timeout, watch).run)


def host_of(ssh_config: str) -> str | None:
    """The only machine that is configured there; None if there is none, or several."""
    hosts = [line.split()[1] for line in ssh_config.splitlines() if line.startswith("Host ")]
    return hosts[0] if len(hosts) == 1 else None


def with_paths_as_they_are(ssh_config: str) -> str:
    """The same with the paths of keys quoted for ssh, which Vagrant names as they are, or in quotes.

    Raises: UsageError for one that ssh cannot be told.
    """
    return re.sub(r"^( *IdentityFile )(.+)$", _quoted, ssh_config, flags=re.MULTILINE)


def _quoted(line: re.Match[str]) -> str:
    path = line[2].strip()
    if " " in path:  # then it has put it into quotes
        path = path.removeprefix('"').removesuffix('"')
    refuse_variables(Path(path))
    return f"{line[1]}{as_value(Path(path))}"


def refuse_variables(path: Path) -> None:
    """Raises: UsageError for a place of keys that ssh cannot be told."""
    if "${" in str(path):
        raise UsageError(
            f"the provider vagrant: ssh cannot be told to use a key in {path}: it takes '${{' for the "
            "beginning of a variable's name; choose another folder with --kernelfs-cache, or with "
            "VAGRANT_HOME for boxes of your own"
        )


def address_of(ssh_config: str) -> tuple[str, int] | None:
    """Where the machine's sshd listens; None if it cannot be reached without a detour."""
    words = dict(line.split(None, 1) for line in ssh_config.splitlines() if len(line.split()) > 1)
    if "HostName" not in words or "ProxyCommand" in words or "ProxyJump" in words:
        return None
    return words["HostName"].strip(), int(words.get("Port", "22"))


@cache
def _bounded_vagrant() -> Callable[..., Any]:
    """python-vagrant's class, whose commands are run by a function of ours."""
    import vagrant

    theirs: Any = vagrant.Vagrant

    class Bounded(theirs):  # type: ignore[misc]
        def __init__(self, root: Path, run: Callable[[Sequence[str]], str]) -> None:
            super().__init__(root=str(root))
            self._run = run

        # All its other methods run Vagrant with one of these two, which wait forever.
        def _call_vagrant_command(self, args: Sequence[str | None]) -> None:
            self._run(self._make_vagrant_command(args))

        def _run_vagrant_command(self, args: Sequence[str | None]) -> str:
            return self._run(self._make_vagrant_command(args))

        def printed(self, *args: str) -> str:
            return self._run_vagrant_command(args)

    return Bounded
