"""This host as a machine of tests: what they made on it, and what is left of that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import filelock
import pytest

from pytest_kernelfs.guest import journal, loops, tenant

_INSTALLED = "kernelfs" in {point.name for point in entry_points(group="pytest11")}
_PLUGIN = [] if _INSTALLED else ["-p", "pytest_kernelfs.plugin"]
# For what starts a whole run, on a host that has much else to do.
_PATIENCE_S = 300.0
# One place for all checkouts and all their workers, whatever their folder for temporary files is.
_LOCK = Path("/run/kernelfs-tests-on-this-host.lock")

LOCAL = ("--kernelfs-provider=local", "--kernelfs-allow-local")


@contextmanager
def alone_on_this_host() -> Iterator[None]:
    """For tests that have this host for a machine: one at a time, as root; what they leave is taken down."""
    if os.geteuid():
        pytest.skip("only root may have namespaces on a host")
    with filelock.FileLock(_LOCK):
        yield
        tenant.collect()


@dataclass(frozen=True)
class Traces:
    """What a supervisor noted while tests ran: by this, what is theirs is known from others'."""

    supervisor: int
    entries: list[journal.Entry]

    @classmethod
    def of(cls, supervisor: int) -> Traces:
        handle = os.open(f"{tenant.FOLDER}/{supervisor}/journal", os.O_RDONLY)
        try:
            return cls(supervisor, journal.entries(handle))
        finally:
            os.close(handle)

    def first(self, kind: str) -> list[str]:
        return [entry[1] for entry in self.entries if entry[0] == kind]

    def remains(self) -> list[str]:
        """What is still there of all that was noted, and of what never is to be seen outside."""
        found = [path for path in self.first("cgroup") if Path(path).exists()]
        found += [path for path in self.first("file") if Path(path).exists()]
        found += list(loops.ours(self.entries, None))
        for _, path, device, _ in (entry for entry in self.entries if entry[0] == "throttle"):
            if Path(path).exists() and device in Path(path).read_text().split():
                found.append(f"throttle of {device} in {path}")
        for _, _, name, value in (entry for entry in self.entries if entry[0] == "sysctl"):
            now = Path("/proc/sys", name.replace(".", "/")).read_text().strip()
            if now != value and not name.startswith("net."):
                found.append(f"sysctl {name} is {now}, and was {value}")
        if Path(f"{tenant.FOLDER}/{self.supervisor}").exists():
            found.append("the journal itself")
        found += [
            line
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if any(word.startswith("/run/kernelfs") for word in line.split())
        ]
        return found

    def assert_nothing_remains(self) -> None:
        """At once, or when the kernel has taken apart what killed processes held."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.remains():
            assert time.monotonic() < deadline, self.remains()
            time.sleep(0.05)


def processes_with(word: str) -> list[int]:
    """The processes that have a word in their command line, other than this one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if word.encode() in words.split(b"\0"):
            found.append(int(path.parent.name))
    return found


def until(happened: str, look: object) -> None:
    """Wait until ``look()`` is true."""
    deadline = time.monotonic() + _PATIENCE_S
    while not look():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{happened} did not happen within {_PATIENCE_S:g} s"
        time.sleep(0.02)


def start_pytest(folder: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    """Start a whole run of pytest on what is in a folder, apart from this one."""
    command = [sys.executable, "-m", "pytest", *_PLUGIN, "-p", "no:randomly", "-p", "no:cacheprovider"]
    wanted = [f"--kernelfs-cache={cache}", f"--rootdir={folder}", f"--kernelfs-artifacts={folder}/artifacts"]
    return subprocess.Popen(
        [*command, *wanted, *options],
        cwd=folder,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run_pytest(folder: Path, cache: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of a whole run."""
    process = start_pytest(folder, cache, *options)
    try:
        output, _ = process.communicate(timeout=900)
    finally:
        process.kill()
    return process.returncode, output


def outcomes(output: str) -> Sequence[str]:
    """The last line of a run: "1 failed, 2 passed in 3.0s"."""
    return [part.strip() for part in output.strip().splitlines()[-1].strip("= ").split(" in ")[0].split(",")]
