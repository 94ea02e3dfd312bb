"""What the running kernel can do, found out by doing it: throw-away mounts of overlay and cgroup."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pytest_kernelfs.guest import dying, files, filesystems, kmsg, namespaces, overlay, syscalls
from pytest_kernelfs.guest.dispatch import GuestError

MET, UNMET, UNCLEAR = "met", "unmet", "unclear"

# Overlay's options, each as it is tried, with what it cannot be without.
OVERLAY_OPTIONS = {
    "default_permissions": "default_permissions",
    "index": "index=on",
    "metacopy": "metacopy=on",
    "nfs_export": "index=on,nfs_export=on",
    "override_creds": "override_creds",
    "redirect_dir": "redirect_dir=on",
    "userxattr": "userxattr",
    "uuid": "uuid=off",
    "verity": "metacopy=on,verity=on",
    "volatile": "volatile",
    "xino": "xino=on",
}
# What overlay can do beyond options.
OVERLAY_FEATURES = ("data_only", "datadir+", "lowerdir+", "userns")
V2_CONTROLLERS = ("cpu", "cpuset", "dmem", "hugetlb", "io", "memory", "misc", "perf_event", "pids", "rdma")
V1_CONTROLLERS = (
    *("blkio", "cpu", "cpuacct", "cpuset", "debug", "devices", "freezer", "hugetlb", "memory", "misc"),
    *("net_cls", "net_prio", "perf_event", "pids", "rdma"),
)

_NOT_KNOWN = re.compile(r"unrecognized mount option|Unknown parameter|Bad value for|bad mount option")
_NOT_DONE = re.compile(r"falling back|ignoring|disabling|not supported")
_PROBE_IDS = (100000, 65536)


def settle(kind: str, value: str) -> tuple[str, str]:
    """Whether this kernel meets the need: MET, UNMET or UNCLEAR, with the reason as the end of a sentence.

    A controller that was tried in cgroup v1 comes back to v2 some time later: ask for those of v2 first.
    """
    return _PROBES[kind](value)


def _filesystem(name: str) -> tuple[str, str]:
    if name in filesystems.kinds():
        return MET, ""
    return UNMET, f"has no file system {name}"


def _command(name: str) -> tuple[str, str]:
    return (MET, "") if shutil.which(name) else (UNMET, f"runs on a machine without the program {name}")


def _module(name: str) -> tuple[str, str]:
    """Loaded, built in or to be had; one that is built in and has no parameters shows nowhere else."""
    plain = name.replace("-", "_")
    builtin = f"/lib/modules/{os.uname().release}/modules.builtin"
    if os.path.isdir(f"/sys/module/{plain}"):
        return MET, ""
    if os.path.exists(builtin) and f"/{plain}.ko" in _read(builtin).replace("-", "_"):
        return MET, ""
    tool = shutil.which("modprobe")
    if tool and subprocess.call([tool, "-n", "-q", name], stdin=subprocess.DEVNULL) == 0:
        return MET, ""
    return UNMET, f"has no module {name} on its machine, neither loadable nor built in"


def _overlay(feature: str) -> tuple[str, str]:
    if "overlay" not in filesystems.kinds():
        return UNMET, "has no file system overlay"
    if feature in ("lowerdir+", "datadir+"):
        if overlay.appends():
            return MET, ""
        return UNMET, f"does not know the overlay parameter {feature} of the new mount API"
    with _layers() as folder:
        if feature == "data_only":
            return _data_only(folder)
        if feature == "userns":
            return _userns(folder)
        return _overlay_option(folder, feature)


def _overlay_option(folder: str, feature: str) -> tuple[str, str]:
    options = OVERLAY_OPTIONS.get(feature, feature)
    start = kmsg.mark(f"kernelfs: trying the overlay option {feature}")
    try:
        _try(_plan(folder, options))
    except overlay.Refused as refused:
        said = " | ".join(_said(start))
        if refused.number == errno.EINVAL and _NOT_KNOWN.search(said):
            return UNMET, f"does not know the overlay option {feature}: {said}"
        return UNCLEAR, f"mounts no overlay with {options}: {os.strerror(refused.number)}; it said: {said}"
    name = feature.partition("=")[0]
    fallen_back = [line for line in _said(start) if _NOT_DONE.search(line) and name in line]
    if fallen_back:
        return UNCLEAR, f"did not keep the overlay option {feature} on tmpfs: {' | '.join(fallen_back)}"
    return MET, ""


def _data_only(folder: str) -> tuple[str, str]:
    plan = _plan(folder, "metacopy=on")._replace(data=[f"{folder}/data"])
    start = kmsg.mark("kernelfs: trying data-only layers of overlay")
    try:
        _try(plan)
    except overlay.Refused as refused:
        said = " | ".join(_said(start))
        if refused.number in (errno.EINVAL, errno.ENOENT):
            return UNMET, f"does not know data-only layers of overlay (lowerdir=a::b): {said}"
        return UNCLEAR, f"mounts no overlay with a data-only layer: {os.strerror(refused.number)}; {said}"
    return MET, ""


def _userns(folder: str) -> tuple[str, str]:
    plan = _plan(folder, "")
    try:
        process = namespaces.hold_overlay(*plan, *_PROBE_IDS)
    except namespaces.NoNamespace as refused:
        return UNMET, f"does not mount overlay in a user namespace: {refused.reason}"
    except GuestError as error:
        return UNCLEAR, f"mounts no overlay in a user namespace: {error}"
    namespaces.end(process)
    return MET, ""


@contextmanager
def _layers() -> Iterator[str]:
    """A tmpfs with folders for an overlay; it has trusted extended attributes on every kernel."""
    with _mounted("tmpfs", "tmpfs", "mode=0755") as folder:
        files.make_folders([f"{folder}/{name}" for name in ("lower", "data", "upper", "work", "merged")])
        yield folder


def _plan(folder: str, options: str) -> overlay.Plan:
    return overlay.Plan(
        f"{folder}/merged", [f"{folder}/lower"], [], f"{folder}/upper", f"{folder}/work", options, "old"
    )


def _try(plan: overlay.Plan) -> None:
    overlay.attempt(plan)
    syscalls.umount(plan.target)


def _said(start: int) -> list[str]:
    return [record["text"] for record in kmsg.read(start + 1)]


def _cgroup(feature: str) -> tuple[str, str]:
    if feature == "v1":
        return _mountable("cgroup", "none,name=kernelfs-probe", "cgroup v1")
    if feature == "v2":
        return _mountable("cgroup2", "", "cgroup v2")
    version, _, name = feature.rpartition(":")
    controller, _, file = name.partition(".")
    if version == "v1":
        return _v1(controller, name if file else "")
    return _v2(controller, name if file else "")


def _mountable(fstype: str, options: str, called: str) -> tuple[str, str]:
    try:
        with _mounted("none", fstype, options):
            return MET, ""
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL):
            return UNMET, f"has no {called}"
        if error.errno == errno.EPERM:
            return _hierarchies_there(called)
        return UNCLEAR, f"does not mount {called}: {error.strerror}"


def _hierarchies_there(called: str) -> tuple[str, str]:
    """In a cgroup namespace none can be made, but those that are there can be used."""
    there = set(dying.hierarchies())
    met = "" in there if called.endswith("v2") else bool(there - {""})
    return (MET, "") if met else (UNMET, f"has {called} only outside of the cgroup namespace of the tests")


def _v2(controller: str, file: str) -> tuple[str, str]:
    answer = _cgroup("v2")
    if answer[0] != MET:
        return answer
    with _mounted("none", "cgroup2", "") as root:
        shown = controller in _read(f"{root}/cgroup.controllers").split()
        if not shown and controller != "cgroup" and not dying.is_implicit(controller):
            return UNMET, f"has no controller {controller} in cgroup v2{_switched_off()}"
        if not file:
            return MET, ""
        # Others may have it enabled there, and go on using it.
        given = shown and not _is_given(root, controller)
        if given:
            _write(f"{root}/cgroup.subtree_control", f"+{controller}")
        try:
            with _group(root) as group:
                if os.path.exists(f"{group}/{file}"):
                    return MET, ""
        finally:
            if given:
                _write(f"{root}/cgroup.subtree_control", f"-{controller}")
    return UNMET, f"has no file {file} in a group of cgroup v2"


def _is_given(root: str, controller: str) -> bool:
    """Whether the groups below the root of version 2 have the controller."""
    return controller in _read(f"{root}/cgroup.subtree_control").split()


def _v1(controller: str, file: str) -> tuple[str, str]:
    there = dying.hierarchies()
    try:
        with _mounted("none", "cgroup", controller) as root, _group(root) as group:
            names = [name for name in os.listdir(group) if name.startswith(controller + ".")]
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
            return UNMET, f"has no controller {controller} in cgroup v1{_switched_off()}"
        if error.errno == errno.EPERM:
            return UNMET, f"has no hierarchy of cgroup v1 with {controller} for the tests' cgroup namespace"
        if error.errno == errno.EBUSY and "" in there and _is_given(there[""], controller):
            return UNMET, f"has the controller {controller} in use by cgroup v2"
        return UNCLEAR, f"does not mount the controller {controller} of cgroup v1: {error.strerror}"
    # This one is used through perf_event_open(2) alone.
    if not names and controller != "perf_event":
        return UNMET, f"has the controller {controller} for cgroup v2 only"
    if file and file not in names:
        return UNMET, f"has no file {file} in a group of cgroup v1"
    return MET, ""


def _switched_off() -> str:
    """What the boot parameters say of cgroups, in brackets."""
    words = [word for word in _read("/proc/cmdline").split() if "cgroup" in word]
    return f" (booted with {' '.join(words)})" if words else ""


@contextmanager
def _group(root: str) -> Iterator[str]:
    group = f"{root}/kernelfs-probe"
    os.mkdir(group)
    try:
        yield group
    finally:
        os.rmdir(group)


@contextmanager
def _mounted(source: str, fstype: str, options: str) -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="probe-", dir="/run")
    try:
        syscalls.mount(source, folder, fstype, 0, options)
        try:
            yield folder
        finally:
            syscalls.umount(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read().strip()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


_PROBES: dict[str, Callable[[str], tuple[str, str]]] = {
    "cgroup": _cgroup,
    "command": _command,
    "filesystem": _filesystem,
    "module": _module,
    "overlay": _overlay,
}
