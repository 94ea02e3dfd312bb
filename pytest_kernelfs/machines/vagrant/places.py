"""Where Vagrant's files lie: nothing of it in the user's project, and all of it known to ``collect``.

Each machine has a folder below the cache, named after the process that made it, with what Vagrant notes of
it and with a record of how to destroy it. What the hypervisor itself has to read lies in another, that any
user may enter: libvirt's machines run as a user of their own, and libvirt makes it the owner of what they
boot, so they are given copies.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_kernelfs.cache import explain_os_errors
from pytest_kernelfs.errors import KernelfsError, ProviderUnavailable
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.vagrant.commands import Commands

_RECORD = "record.json"
_RUNS = "vagrant"
_PUBLIC = "kernelfs-boot-"
# Where the machine is known: whoever destroys it may have others in their environment.
_INHERITED = ("VAGRANT_HOME", "LIBVIRT_DEFAULT_URI")
# Where the project's folder "vagrant" is: in an installed package, and beside the package in a checkout.
_PACKAGE = Path(__file__).parents[2]
_SHIPPED = (_PACKAGE / "vagrant_files", _PACKAGE.parent / "vagrant")


def shipped_folder() -> Path:
    """The folder with our Vagrantfile and the recipe of our box."""
    for folder in _SHIPPED:
        if (folder / "Vagrantfile").is_file() and (folder / "build-box").is_file():
            return folder
    raise ProviderUnavailable(
        "this installation of pytest-kernelfs lacks its Vagrantfile; install it again, or give a folder with "
        "one of your own with --kernelfs-vagrant-folder"
    )


@dataclass(frozen=True)
class Place:
    """The files of one machine, and how Vagrant is called for it.

    ``private`` is the machine's folder, ``public`` what the hypervisor may read; ``vagrantfile`` is the
    folder with the Vagrantfile, ``env`` what Vagrant's environment has besides ours.
    """

    private: Path
    public: Path
    vagrantfile: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name for the machine, that no other has on this host."""
        return f"kernelfs-{self.private.name}"

    @property
    def console(self) -> Path:
        """What its serial console prints."""
        return self.public / "console"

    @property
    def commands(self) -> Commands:
        """Vagrant, for this machine. Raises: ProviderUnavailable."""
        return Commands(self.vagrantfile, {**self.env, "VAGRANT_DOTFILE_PATH": str(self._state)})

    @property
    def _state(self) -> Path:
        return self.private / "state"

    def destroy(self) -> None:
        """End the machine, if Vagrant has made one, and remove the files.

        Raises: InfrastructureError, ProviderUnavailable; the files stay then.
        """
        # Without a machine there is no use to ask, and the hypervisor may be what is missing.
        if any(self._state.glob("machines/*/*/id")):
            self.commands.destroy()
        self.remove()

    def noted(self, env: Mapping[str, str]) -> Place:
        """The same with an environment; it is noted how to destroy the machine without its owner."""
        env = {**{name: os.environ[name] for name in _INHERITED if name in os.environ}, **env}
        record = {"public": str(self.public), "vagrantfile": str(self.vagrantfile), "env": env}
        with explain_os_errors("note a machine", self.private):
            (self.private / _RECORD).write_text(json.dumps(record))
        return replace(self, env=env)

    def remove(self) -> None:
        """Remove the files; the machine has to be gone."""
        for folder in (self.public, self.private):
            shutil.rmtree(folder, ignore_errors=True)


def make_place(cache_root: Path, vagrantfile: Path) -> Place:
    """A place for a machine of this process. Raises: InfrastructureError."""
    private = lease.make_data_folder(cache_root / _RUNS)
    place = Place(private, _public(private), vagrantfile)
    with explain_os_errors("make a folder for a machine", place.public.parent, "TMPDIR"):
        # To enter, not to list: what lies there is found by those alone who are told its name.
        place.public.mkdir(mode=0o711)
        place.public.chmod(0o711)
        place.console.touch()
        place.console.chmod(0o666)
    return place


def _public(private: Path) -> Path:
    return Path(tempfile.gettempdir()) / f"{_PUBLIC}{private.name}"


def collect(cache_root: Path) -> list[str]:
    """Destroy the machines, and remove the files, of runs that were killed; gives a line for each."""
    folder = cache_root / _RUNS
    orphans = sorted(folder.iterdir()) if folder.is_dir() else []
    return [_destroy(path) for path in orphans if lease.owner_is_gone(path)]


def _destroy(private: Path) -> str:
    try:
        record = json.loads((private / _RECORD).read_text())
        place = Place(private, Path(record["public"]), Path(record["vagrantfile"]), record["env"])
    except (OSError, ValueError, KeyError):
        # Its owner died before there was a machine.
        Place(private, _public(private), private).remove()
        return f"removed {private}"
    try:
        place.destroy()
    except KernelfsError as error:
        return f"could not destroy the machine {place.name}, whose owner is gone: {error}"
    return f"destroyed the machine {place.name}, whose owner is gone"


def plugins_of_user() -> Path:
    """Where the user's own Vagrant has its plugins."""
    return Path(os.environ.get("VAGRANT_HOME") or "~/.vagrant.d").expanduser()
