"""The first words with a machine: who we are there, how to become root, and whether it has a Python."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines.ssh.complaint import explain

OLDEST_PYTHON = (3, 8)
_HELLO = "kernelfs:"
# One line, for whatever shell the user has there. Each answer is a line of its own, marked.
_SCRIPT = (
    # Startup files may have printed something before, and left the line open.
    "echo; "
    'root="sudo -n --"; test "$(id -u)" != 0 || root=; '
    f"echo {_HELLO}before $root; "
    f"echo {_HELLO}root $($root true 2>&1 && echo yes); "
    f"echo {_HELLO}python $($root python3 -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null); "
    f"echo {_HELLO}end"
)
GREETING = f"sh -c {shlex.quote(_SCRIPT)}"


@dataclass(frozen=True)
class Greeting:
    """``become_root`` goes before a command that is to run as root; ``python`` is its version there."""

    become_root: tuple[str, ...]
    python: tuple[int, int]

    @classmethod
    def read(cls, host: str, stdout: str, stderr: str) -> Greeting:
        """From what the machine answered. Raises: ProviderUnavailable, with what has to be mended there."""
        answers = dict(re.findall(rf"^{_HELLO}(\w+) ?(.*)$", stdout, re.MULTILINE))
        if "end" not in answers:
            raise ProviderUnavailable(_no_answer(host, stdout, stderr))
        if not answers["root"].endswith("yes"):
            raise ProviderUnavailable(
                f"cannot become root on {host}: 'sudo -n true' says {answers['root'] or 'nothing'!r}; log in "
                "as root, or let this user use sudo there without a password (NOPASSWD: ALL)"
            )
        version = re.fullmatch(r"(\d+) (\d+)", answers["python"])
        if version is None:
            raise ProviderUnavailable(
                f"{host} has no python3 that root can run; install it there, nothing else is needed"
            )
        python = (int(version[1]), int(version[2]))
        if python < OLDEST_PYTHON:
            raise ProviderUnavailable(
                f"{host} has Python {python[0]}.{python[1]}; "
                f"{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer is needed there"
            )
        return cls(tuple(answers["before"].split()), python)


def _no_answer(host: str, stdout: str, stderr: str) -> str:
    """Logged in, but the command did not run."""
    if stdout or not stderr:
        shown = stdout.strip()[:200] or "nothing"
        return (
            f"{host} lets us in but runs no commands (it printed {shown!r}); the user's shell there "
            "has to be a POSIX shell, with no forced command and no restriction to file transfer"
        )
    return explain(host, stderr)
