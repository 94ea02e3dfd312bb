"""A guest that is a local process, which runs the guest's own code."""

from __future__ import annotations

import socket
import subprocess
import sys

from pytest_kernelfs.machines.channel import GuestChannel

# The guest's own conversation, on a socket for a port.
GUEST = """
import sys
from pytest_kernelfs.guest import conversation, init
init._wait_for_host = lambda to_speak: int(sys.argv[1])
# No console: that is root's. Neither is an ordinary user let into the kernel's log, which is told here.
log = lambda line: print(line, file=sys.stderr)
conversation.converse_and_exit(init.PortIO(last_was_killed=sys.argv[2] == "killed"), log)
"""

Guest = subprocess.Popen[bytes]


def start_guest(predecessor: str) -> tuple[socket.socket, Guest]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-c", GUEST, str(theirs.fileno()), predecessor]
        return ours, subprocess.Popen(command, pass_fds=[theirs.fileno()])


def converse(predecessor: str = "none") -> tuple[GuestChannel, Guest]:
    connection, guest = start_guest(predecessor)
    return GuestChannel(connection), guest
