"""Whole pytest runs inside a test, with a cache and a folder for machines of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

_PARTS = ("kernels", "userland", "modules", "initramfs", "indexes", "suites", "apt", "accel")
# For what takes a boot, on a host that has much else to do.
_PATIENCE_S = 300.0
# An installed plugin is found by its entry point; from a bare checkout it has to be named.
_INSTALLED = "kernelfs" in {point.name for point in entry_points(group="pytest11")}
_PLUGIN = [] if _INSTALLED else ["-p", "pytest_kernelfs.plugin"]


def copy_entries(source: Path, target: Path) -> None:
    """What a folder of a cache has, without what others are making in it just now.

    Links: the files are many and large, and nobody changes them in place.
    """

    def unfinished(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name.startswith(".")] if Path(folder) == source else []

    shutil.copytree(source, target, copy_function=os.link, symlinks=True, ignore=unfinished)


def hear_signals() -> None:
    """To be called in a child: what a shell starts in the background, or nohup, is told to ignore these."""
    for one in (signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)


class InnerRun:
    """Runs of pytest on tests in ``folder``, which their machines have in their command lines.

    ``inside`` goes before the command, to have it run in other namespaces.
    """

    def __init__(self, folder: Path, outer_cache: Path, release: str, inside: Sequence[str] = ()) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.cache.mkdir()
        for part in _PARTS:
            if (outer_cache / part).is_dir():
                copy_entries(outer_cache / part, self.cache / part)
        self.target = folder / "test_inner.py"
        self._release = release
        self._inside = inside
        self._started: list[subprocess.Popen[str]] = []

    def write(self, source: str) -> None:
        self.target.write_text(source)

    def bring(self, tests: Path) -> None:
        """Have a copy of a folder with tests run from now on."""
        self.target = self.folder / tests.name
        shutil.copytree(tests, self.target, ignore=shutil.ignore_patterns("__pycache__"))

    def start(self, *options: str, kernel: str = "") -> subprocess.Popen[str]:
        """Start pytest, in a process group of its own, on this run's kernel or another spec."""
        command = [
            *self._inside,
            sys.executable,
            "-m",
            "pytest",
            *_PLUGIN,
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
        ]
        spec = kernel or self._release
        wanted = [f"--kernel={spec}", f"--kernelfs-cache={self.cache}", f"--rootdir={self.folder}"]
        process = subprocess.Popen(
            [*command, *wanted, *options, str(self.target)],
            cwd=self.folder,
            env={**os.environ, "TMPDIR": str(self.folder), "PYTEST_ADDOPTS": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=hear_signals,
        )
        self._started.append(process)
        return process

    def run(self, *options: str, kernel: str = "", timeout: float = 900) -> tuple[int, str]:
        """Exit code and output of a whole run."""
        process = self.start(*options, kernel=kernel)
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output

    def machines(self) -> list[int]:
        """The process numbers of this run's QEMUs."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes()
            except OSError:
                continue
            if b"qemu-system" in words and str(self.folder).encode() in words:
                found.append(int(path.parent.name))
        return found

    def templates(self) -> list[Path]:
        """The folders of finished templates."""
        folder = self.cache / "templates"
        return [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []

    def leftovers(self) -> list[str]:
        """Machine folders, scratch folders and unfinished templates."""
        places = [self.folder / f"kernelfs-{os.getuid()}", self.cache / "scratch", self.cache / "templates"]
        names = [path.name for place in places if place.is_dir() for path in place.iterdir()]
        return [name for name in names if name != "slots" and not (len(name) == 32 and name.isalnum())]

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with its workers
            process.communicate()
        for pid in self.machines():
            with contextlib.suppress(ProcessLookupError):  # they end with the run, too
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def until(happened: Callable[[], object], what: str) -> None:
    """Wait until something happened; fail if it does not."""
    deadline = time.monotonic() + _PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"{what} did not happen within {_PATIENCE_S:g} s"
        time.sleep(0.02)
