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
# The console is root's, where an ordinary user's guest would say that it cannot read the kernel's log.
conversation.converse_and_exit(init.PortIO(last_was_killed=sys.argv[2] == "killed"), lambda line: None)
"""

Guest = subprocess.Popen[bytes]


def start_guest(predecessor: str) -> tuple[socket.socket, Guest]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", GUEST, str(theirs.fileno()), predecessor]
    try:
        with theirs:
            return ours, subprocess.Popen(command, pass_fds=[theirs.fileno()])
    except BaseException:
        ours.close()
        raise


def converse(predecessor: str = "none") -> tuple[GuestChannel, Guest]:
    connection, guest = start_guest(predecessor)
    return GuestChannel(connection), guest
