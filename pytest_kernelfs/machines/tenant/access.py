"""How a machine that runs already is reached, and what tests may do there."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_kernelfs.errors import InfrastructureError


@dataclass(frozen=True)
class Access:
    """How commands are run as root on a machine.

    ``provider`` and ``label`` ("lab-7") name it in messages. ``prefix`` goes before a command to have it run
    there as root: ``("ssh", "root@lab-7")``; nothing, to run it here. ``shell`` says that what the prefix
    starts joins its words and gives them to a shell there, as ssh does: they are quoted then. ``python`` is
    the interpreter there, 3.8 or newer.
    """

    provider: str
    label: str
    prefix: tuple[str, ...] = ()
    shell: bool = False
    python: str = "python3"

    def command(self, words: Sequence[str]) -> list[str]:
        """The command to start here, so that ``words`` run there."""
        return [*self.prefix, *(map(shlex.quote, words) if self.shell else words)]


@dataclass(frozen=True)
class Tenancy:
    """What tests may do on a machine, and get of it.

    ``namespaces`` gives them mount, cgroup, network, PID, IPC and UTS namespaces of their own: right where
    nothing else on the machine has to see what they mount. ``owned`` says that the machine is ours alone, so
    that they may reboot or crash it by sysrq keys. ``wait`` is how many seconds they wait for another
    run to be done with it. ``run`` names this one: others of that name, its workers, are waited for as long
    as they take.
    """

    namespaces: bool = False
    owned: bool = False
    wait: float = 60.0
    run: str = ""


class Busy(InfrastructureError):
    """Tests of another run work on the machine, and were not done in time."""


class Unreachable(InfrastructureError):
    """The command that leads to a machine ended, or answered nothing.

    ``code`` is its exit code, None if it had to be ended; ``said`` is what it printed as errors.
    """

    def __init__(self, message: str, code: int | None = None, said: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.said = said
