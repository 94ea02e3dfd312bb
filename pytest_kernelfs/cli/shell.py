"""``kernelfs shell``: a terminal in a fresh machine."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import click

from pytest_kernelfs.cli import terminal
from pytest_kernelfs.cli.attachment import STDIN, Attachment, Input
from pytest_kernelfs.cli.ending import INTERRUPTED, MachineCommand, exit_code_of, handled
from pytest_kernelfs.cli.group import main
from pytest_kernelfs.cli.machines import HOME, Machines, Wanted, machine_options
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest import attached, files
from pytest_kernelfs.kernels import KernelSettings

if TYPE_CHECKING:
    from pytest_kernelfs.machines.machine import Machine

# A machine that has no bash has a plainer shell.
_SHELL = ["sh", "-c", "command -v bash >/dev/null && exec bash; exec sh"]
_TERMINFO = "/run/kernelfs/terminfo"
_CALL_TIMEOUT_S = 60.0


@main.command(cls=MachineCommand)
@click.argument("spec", required=False)
@machine_options
@click.pass_obj
def shell(settings: KernelSettings, wanted: Wanted, spec: str | None) -> None:
    """Open a terminal in a fresh machine.

    SPEC is its kernel, such as 6.1. 'exit' or Ctrl-D leaves, which ends the machine; Ctrl-] three times
    does so whatever state it is in.

    Where the input is no terminal, its lines are commands for the shell. The exit code is the shell's.
    kernelfs itself ends with 255 if the kernel panicked, 125 if it failed or was called wrongly, 130 after
    Ctrl-].
    """
    with closing(Machines(settings, wanted, [spec] if spec else [])) as machines:
        kernels = machines.kernels()
        if len(kernels) != 1:
            raise UsageError(f"{spec} names {len(kernels)} kernels; name one")
        with machines.started(kernels[0]) as machine:
            talk = _talk if os.isatty(STDIN) else _pipe
            raise SystemExit(talk(machine, machines.folder))


def _pipe(machine: Machine, folder: str) -> int:
    """Give the shell our input for commands."""
    exchange = machine.exchange(attached.run, _SHELL, folder)
    with closing(Attachment(exchange, Input())) as attachment:
        return exit_code_of(attachment.serve()["rc"])


def _talk(machine: Machine, folder: str) -> int:
    kernel = machine.kernel
    click.echo(
        f"kernel {kernel.version} ({kernel.release}) in a machine of its own: 'exit' or Ctrl-D leaves it and "
        "ends it; so does Ctrl-] three times, whatever state it is in",
        err=True,
    )
    exchange = machine.exchange(attached.run, _SHELL, folder, _environment(machine), terminal.size())
    with ExitStack() as stack:
        attachment = stack.enter_context(closing(Attachment(exchange, terminal.Keys())))

        def resized(*_: Any) -> None:
            attachment.request("size", *terminal.size())

        stack.enter_context(handled(signal.SIGWINCH, resized, attachment.waker))
        stack.enter_context(terminal.raw())
        resized()  # it may have been while nobody looked
        try:
            rc: int = attachment.serve()["rc"]
        except terminal.LeftMachine:
            rc = INTERRUPTED
    return exit_code_of(rc)


def _environment(machine: Machine) -> dict[str, str]:
    """What the shell has to know of our terminal, and a prompt that tells the kernel."""
    kernel = machine.kernel
    term = os.environ.get("TERM", "dumb")
    known = {"TERM": term, "HOME": HOME, "SHELL": "/bin/bash", "PS1": rf"({kernel.version}) \w \$ "}
    description = terminal.description(term)
    if description is not None:
        # Most machines know no terminal at all.
        path = f"{_TERMINFO}/{term[0]}/{term}"
        machine.call(files.put, path, description, 0o644, False, timeout=_CALL_TIMEOUT_S)
        known["TERMINFO"] = _TERMINFO
    return known
