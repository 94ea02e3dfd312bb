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
_SHELL = "command -v bash >/dev/null && exec bash {options}; exec sh"
_TERMINFO = "/run/kernelfs/terminfo"
_RC = "/run/kernelfs/bashrc"
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
    with closing(Machines(settings, wanted, [] if spec is None else [spec])) as machines:
        kernels = machines.kernels()
        if len(kernels) != 1:
            raise UsageError(f"{spec} names {len(kernels)} kernels; name one")
        with machines.started(kernels[0]) as machine:
            talk = _talk if os.isatty(STDIN) else _pipe
            raise SystemExit(talk(machine, machines.folder))


def _pipe(machine: Machine, folder: str) -> int:
    """Give the shell our input for commands."""
    exchange = machine.exchange(attached.run, _command(), folder)
    with closing(Attachment(exchange, Input())) as attachment:
        return exit_code_of(attachment.serve()["rc"])


def _talk(machine: Machine, folder: str) -> int:
    kernel = machine.kernel
    click.echo(
        f"kernel {kernel.version} ({kernel.release}) in a machine of its own: 'exit' or Ctrl-D leaves it and "
        "ends it; so does Ctrl-] three times, whatever state it is in",
        err=True,
    )
    _introduce(machine)
    command = _command(f"--rcfile {_RC}")
    exchange = machine.exchange(attached.run, command, folder, _environment(), terminal.size())
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


def _command(options: str = "") -> list[str]:
    return ["sh", "-c", _SHELL.format(options=options)]


def _introduce(machine: Machine) -> None:
    """Tell the machine what our terminal can do, and its shell a prompt that names the kernel."""
    # What the machine's own shells read sets a prompt, too.
    rc = f"[ -r ~/.bashrc ] && . ~/.bashrc\nPS1='({machine.kernel.version}) \\w \\$ '\n"
    brought = [(_RC, rc.encode())]
    description = terminal.description(_term())
    if description is not None:
        # Most machines know no terminal at all.
        brought.append((f"{_TERMINFO}/{_term()[0]}/{_term()}", description))
    for path, content in brought:
        machine.call(files.put, path, content, 0o644, False, timeout=_CALL_TIMEOUT_S)


def _environment() -> dict[str, str]:
    # Where that folder lacks the terminal, the machine's own are looked at.
    return {"TERM": _term(), "TERMINFO": _TERMINFO, "HOME": HOME, "SHELL": "/bin/bash"}


def _term() -> str:
    return os.environ.get("TERM", "dumb")
