"""cgroups of the tests' own on a machine that has others: one in each hierarchy; all of theirs are in it."""

from __future__ import annotations

import os
from typing import NamedTuple

from pytest_kernelfs.guest import attributes, cgroups, files, journal, meminfo, tenant_disks

# In version 2, what gives controllers to its children holds no processes itself.
AGENT = "agent"


class Own(NamedTuple):
    """Our cgroup in a hierarchy: version 1 or 2, where that is mounted, its controllers, our folder."""

    version: int
    mount: str
    controllers: str
    folder: str


def make(name: str) -> list[Own]:
    """Make a cgroup in each hierarchy that is mounted, as far as that is let."""
    made = []
    for own in _places(name):
        journal.note("cgroup", own.folder)
        try:
            os.mkdir(own.folder)
            if own.version == 2:
                _give_controllers(own.mount)
                os.mkdir(f"{own.folder}/{AGENT}")
            elif "cpuset" in own.controllers.split(","):
                cgroups.inherit_cpuset(own.folder)
        except OSError:
            continue  # read-only, as in a container: then it is done without
        made.append(own)
    return made


def _places(name: str) -> list[Own]:
    """Version 1 below where we are, so that limits hold; version 2 below its root: there are no processes."""
    current = {}
    with open("/proc/self/cgroup") as file:
        for line in file:
            _number, controllers, path = line.rstrip("\n").split(":", 2)
            # A named hierarchy has no controllers; init keeps its units there.
            if not controllers.startswith("name="):
                current[controllers] = path.rstrip("/")
    found: dict[str, Own] = {}
    with open("/proc/self/mountinfo", errors="replace") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            root, mount = head.split()[3:5]
            fstype, _source, options = tail.split()[:3]
            if root != "/":
                continue  # a part of it, shown elsewhere
            if fstype == "cgroup2":
                found.setdefault("", Own(2, mount, "", f"{mount}/{name}"))
            elif fstype == "cgroup":
                words = set(options.split(","))
                for controllers, path in current.items():
                    # A named hierarchy has no controllers; init keeps its units there.
                    if (
                        controllers
                        and not controllers.startswith("name=")
                        and set(controllers.split(",")) <= words
                    ):
                        found.setdefault(controllers, Own(1, mount, controllers, f"{mount}{path}/{name}"))
    return list(found.values())


def _give_controllers(root: str) -> None:
    """Have the children of version 2's root given all controllers: those that init does not use, too."""
    given = _words(root + "/cgroup.subtree_control")
    for controller in _words(root + "/cgroup.controllers"):
        if controller not in given:
            journal.note("controller", f"{root}/cgroup.subtree_control", controller)
            try:
                attributes.write(root + "/cgroup.subtree_control", "+" + controller)
            except OSError:
                continue  # a test that wants it is told


def take_back(path: str, controller: str) -> bool:
    """Undo that, unless somebody uses the controller by now: what they set would be lost with it."""
    root = os.path.dirname(path)
    try:
        if not _is_used(root, controller):
            attributes.write(path, "-" + controller)
    except OSError:
        pass  # some cgroup hands it on to its own children
    return False


def _is_used(root: str, controller: str) -> bool:
    """Whether a child has settings other than one that was just made."""
    fresh = f"{root}/kernelfs-fresh-{os.urandom(4).hex()}"
    os.mkdir(fresh)
    try:
        plain = _settings(fresh, controller)
    finally:
        os.rmdir(fresh)
    return any(
        _settings(f"{root}/{name}", controller).get(file, value) != value
        for name in os.listdir(root)
        if os.path.isdir(f"{root}/{name}")
        for file, value in plain.items()
    )


def _settings(folder: str, controller: str) -> dict[str, str]:
    """The values that can be set, less triggers and what the kernel counts."""
    found = {}
    for name in os.listdir(folder):
        if name.startswith(controller + ".") and not name.endswith((".pressure", ".peak", ".reclaim")):
            mode = os.stat(f"{folder}/{name}").st_mode
            if mode & 0o200 and mode & 0o400:
                found[name] = files.text(f"{folder}/{name}")
    return found


def _words(path: str) -> list[str]:
    with open(path) as file:
        return file.read().split()


def enter(own: list[Own]) -> None:
    """Bring this process into them all."""
    for each in own:
        attributes.write(each.folder + "/cgroup.procs", "0")


def settle(own: list[Own]) -> None:
    """In the agent: have tests make their cgroups in ours, and disks slowed down there.

    Under version 1 what is written back later is of the root, whoever wrote it.
    """
    for each in own:
        if each.version == 2:
            attributes.write(f"{each.folder}/{AGENT}/cgroup.procs", "0")
            cgroups.settle(each.folder, AGENT)
            if os.path.exists(each.folder + "/io.max"):
                tenant_disks.slow_down(2, each.folder)
            count_dirty(each.folder)
        elif "blkio" in each.controllers.split(","):
            for folder in (each.mount, each.folder):
                if os.path.exists(folder + "/blkio.throttle.write_bps_device"):
                    tenant_disks.slow_down(1, folder)
        elif "memory" in each.controllers.split(","):
            count_dirty(each.folder)


def count_dirty(folder: str) -> None:
    """What is dirty of others on the machine is not what tests ask for."""
    path = folder + "/memory.stat"
    if os.path.exists(path):
        meminfo.count_in(path)
