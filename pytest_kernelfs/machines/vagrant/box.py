"""Our own box: a small Debian, built from packages by the recipe in the project's folder "vagrant"."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable
from pytest_kernelfs.machines.guarded import guarded
from pytest_kernelfs.machines.vagrant.bounded import end_group
from pytest_kernelfs.machines.vagrant.commands import Commands
from pytest_kernelfs.machines.vagrant.places import plugins_of_user, shipped_folder
from pytest_kernelfs.machines.verdict import tail
from pytest_kernelfs.tools import find

KIND = "vagrant-home"
_RECIPE = "build-box"
_BUILD_S = 900.0
_TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-img": "qemu-utils", "mke2fs": "e2fsprogs", "apt-get": "apt"}
_SETTINGS = ("BOX_SUITE", "BOX_SIZE", "BOX_PACKAGES")


def box_name() -> str:
    """What our box is called; the name changes with the recipe."""
    return f"kernelfs-{_key()}"


def home_with_box(cache: Cache) -> Path:
    """A VAGRANT_HOME that has our box, from the cache or built, and the user's plugins.

    Raises: ProviderUnavailable if this host cannot build it; InfrastructureError.
    """
    home = cache.entry(KIND, _key(), _build)
    _lend_plugins(home)
    return home


def _key() -> str:
    digest = hashlib.sha256((shipped_folder() / _RECIPE).read_bytes())
    release = Path("/etc/os-release")
    digest.update(release.read_bytes() if release.is_file() else b"")
    for name in _SETTINGS:
        digest.update(f"{name}={os.environ.get(name, '')}\n".encode())
    return digest.hexdigest()[:16]


def _build(home: Path) -> None:
    missing = sorted({package for tool, package in _TOOLS.items() if find(tool) is None})
    if missing:
        raise ProviderUnavailable(
            f"the box of the provider vagrant cannot be built here without {', '.join(missing)}; install "
            f"that (apt-get install {' '.join(missing)}), or name a box with --kernelfs-vagrant-box"
        )
    work = home / "work"
    work.mkdir()
    _run_recipe(work, work / "kernelfs.box")
    Commands(work, {"VAGRANT_HOME": str(home), **QUIET}).add_box(box_name(), work / "kernelfs.box")
    shutil.rmtree(work)


# No question to the makers of Vagrant whether there is a newer one.
QUIET = {"VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_NO_COLOR": "1"}


def _run_recipe(work: Path, box: Path) -> None:
    log = work / "log"
    # Root's files go with the folder, whatever happens. Those of others have to lie where the subordinate
    # users that they are made with may enter.
    place = {"TMPDIR": str(work)} if os.geteuid() == 0 else {}
    with log.open("wb") as out:
        process = subprocess.Popen(
            guarded(["sh", str(shipped_folder() / _RECIPE), str(box)]),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, **place},
            start_new_session=True,
        )
        try:
            code = process.wait(_BUILD_S)
        except BaseException as error:
            end_group(process, signal.SIGTERM)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = -1
    if code:
        how = f"took longer than {_BUILD_S:g} s" if code == -1 else f"failed (exit code {code})"
        raise InfrastructureError(
            f"building the box of the provider vagrant {how}. Its last words:\n"
            f"{tail(log.read_text(errors='replace'))}\n"
            "See that apt works here ('apt-get update'), or name a box with --kernelfs-vagrant-box."
        )


def _lend_plugins(home: Path) -> None:
    """Have Vagrant find the plugins that the user has installed with it."""
    users = plugins_of_user()
    for name in ("plugins.json", "gems"):
        ours, theirs = home / name, users / name
        if theirs.exists() and not ours.is_symlink():
            if ours.is_dir():
                shutil.rmtree(ours)
            ours.unlink(missing_ok=True)
            ours.symlink_to(theirs)
