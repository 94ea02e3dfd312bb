"""Who made what lies on a hypervisor, so that it can be told what nobody owns any more.

The hypervisor may be another host, where process numbers of this one mean nothing. So an owner's name tells
the host, its boot and the PID namespace besides the process and since when; it can be judged only there.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from pytest_kernelfs.machines.lease import ProcessId

# Who cannot be judged is taken to be gone when no run takes so long.
_WEEK_S = 7 * 86400
_TOKEN = re.compile(r"([0-9a-f]{6})-([0-9a-f]{6})-([0-9a-f]{4})-([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]+)")


@dataclass(frozen=True)
class Owner:
    """A process of some host; ``since`` in seconds since the epoch."""

    host: str
    boot: str
    namespace: str
    process: ProcessId
    since: int

    @classmethod
    def this_process(cls) -> Owner:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
        process = ProcessId.of(os.getpid())
        return cls(_digest(_host(), 6), _digest(boot, 6), _digest(namespace, 4), process, int(time.time()))

    @property
    def token(self) -> str:
        """Its name, good for files; short, because sockets lie in a folder of that name."""
        numbers = (self.process.pid, self.process.start, self.since)
        return "-".join([self.host, self.boot, self.namespace, *(f"{number:x}" for number in numbers)])

    @classmethod
    def parse(cls, token: str) -> Owner | None:
        """The owner of that name; None if it is none."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        pid, start, since = (int(match[number], 16) for number in (4, 5, 6))
        return cls(match[1], match[2], match[3], ProcessId(pid, start), since)

    def is_gone(self, *, local: bool) -> bool:
        """Whether nobody owns it any more; ``local`` if the hypervisor is this very host."""
        here = Owner.this_process()
        if local and here.host == self.host and here.boot != self.boot:
            return True
        if (here.host, here.boot, here.namespace) == (self.host, self.boot, self.namespace):
            return not self.process.alive
        return here.since - self.since > _WEEK_S


def _host() -> str:
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return f"{machine} {socket.gethostname()}"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
