"""Entering cgroups between fork and exec: a program is in them before its first instruction."""

from __future__ import annotations

import os

from pytest_kernelfs.guest.dispatch import GuestError


class Entry:
    """Lets a child enter cgroups, inside a with-block around its start, and knows why it could not."""

    refusal = "the command could not be started in the cgroup"
    """Why the child could not enter; to be asked when the block has ended."""

    def __init__(self, folders: list[str]) -> None:
        self._folders = folders
        self._doors: list[int] = []
        self._pipe: tuple[int, ...] = ()

    def __enter__(self) -> Entry:
        if self._folders:
            self._pipe = os.pipe()
            os.set_blocking(self._pipe[0], False)
        for folder in self._folders:
            try:
                self._doors.append(os.open(folder + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
            except OSError as error:
                self.__exit__()
                raise GuestError(f"no process can enter the cgroup {folder}: {error.strerror}") from None
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._pipe:
            try:
                self._read_refusal(os.read(self._pipe[0], 256).decode(errors="replace"))
            except BlockingIOError:
                pass  # nothing was refused
        for handle in (*self._doors, *self._pipe):
            os.close(handle)
        self._doors, self._pipe = [], ()

    def enter(self) -> None:
        """To be called in the child: 0 stands for the process that writes it."""
        for index, door in enumerate(self._doors):
            try:
                os.write(door, b"0")
            except OSError as error:
                os.write(self._pipe[1], f"{index} {error.strerror}".encode())
                raise

    def _read_refusal(self, text: str) -> None:
        index, _, reason = text.partition(" ")
        folder = self._folders[int(index)]
        self.refusal = f"no process can enter the cgroup {folder}: {reason}"
        if _gives_controllers(folder):
            self.refusal += (
                "; in version 2 one that gives controllers to its children holds no processes itself"
            )


def _gives_controllers(folder: str) -> bool:
    try:
        with open(folder + "/cgroup.subtree_control") as file:
            return bool(file.read().strip())
    except OSError:
        return False
