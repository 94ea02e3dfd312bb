"""``kernelfs run``: a command in a fresh machine, for scripts and people."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from pytest_kernelfs.cli.attachment import Attachment, Input, has_input
from pytest_kernelfs.cli.ending import TIME_IS_UP, MachineCommand, complain, exit_code_of, handled, tell
from pytest_kernelfs.cli.group import main
from pytest_kernelfs.cli.machines import Machines, Wanted, machine_options
from pytest_kernelfs.cli.numbers import Amount
from pytest_kernelfs.errors import GuestTimeout, KernelfsError
from pytest_kernelfs.guest import attached
from pytest_kernelfs.kernels import KernelSettings

if TYPE_CHECKING:
    from pytest_kernelfs.kernels import Candidate
    from pytest_kernelfs.machines.machine import Machine


@main.command(cls=MachineCommand, context_settings={"allow_interspersed_args": False})
@click.option(
    "--kernel", "specs", multiple=True, metavar="SPEC", help="Kernel to run it on, such as 6.1; repeatable."
)
@click.option(
    "--timeout",
    type=Amount(min=0, min_open=True),
    metavar="SECONDS",
    help="Kill the command after so long; what it takes to start the machine does not count.",
)
@machine_options
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def run(
    settings: KernelSettings,
    wanted: Wanted,
    specs: Sequence[str],
    command: Sequence[str],
    timeout: float | None,
) -> int:
    """Run a command in a fresh machine.

    What follows the COMMAND is for it. A COMMAND without arguments is a line for the shell, such as
    'dmesg | tail'.

    Its input, output and errors are those of kernelfs, and so is its exit code. kernelfs itself ends with 255
    if the kernel panicked, 124 if the time was up, 125 if it failed or was called wrongly. With several
    kernels the command runs on one after the other, and the exit code is the first that is not 0.
    """
    with closing(Machines(settings, wanted, specs)) as machines:
        kernels = machines.kernels()
        with _input(again=len(kernels) > 1) as source:
            codes = [_run_on(kernel, machines, command, source, timeout, len(kernels)) for kernel in kernels]
    if len(codes) > 1:
        told = (f"{kernel.version}: {code}" for kernel, code in zip(kernels, codes, strict=True))
        tell(f"kernelfs: exit codes: {', '.join(told)}")
    raise SystemExit(next((code for code in codes if code), 0))


@contextmanager
def _input(*, again: bool) -> Iterator[Input | None]:
    if not has_input():
        yield None
        return
    with closing(Input(again=again)) as source:
        yield source


def _run_on(
    kernel: Candidate,
    machines: Machines,
    command: Sequence[str],
    source: Input | None,
    timeout: float | None,
    of: int,
) -> int:
    """The exit code. Among several kernels, the failure of one is shown and leaves the others their turn."""
    if of == 1:
        with machines.started(kernel) as machine:
            return _attach(machine, command, machines.folder, source, timeout)
    tell(f"kernelfs: == {kernel.version} ({kernel.release}) ==")
    if source is not None:
        source.rewind()
    try:
        with machines.started(kernel) as machine:
            return _attach(machine, command, machines.folder, source, timeout)
    except BrokenPipeError:
        raise
    except (KernelfsError, OSError) as error:
        return complain(error)


def _attach(
    machine: Machine, command: Sequence[str], folder: str, source: Input | None, timeout: float | None
) -> int:
    words = list(command) if len(command) > 1 else ["sh", "-c", command[0]]
    exchange = machine.exchange(attached.run, words, folder)
    with closing(Attachment(exchange, source, timeout=timeout)) as attachment:

        def pass_on(*_: Any) -> None:
            """Ctrl-C is for the command; once more is for us, and ends the machine."""
            signal.signal(signal.SIGINT, signal.default_int_handler)
            attachment.request("signal", int(signal.SIGINT))

        with handled(signal.SIGINT, pass_on, attachment.waker):
            try:
                result = attachment.serve()
            except GuestTimeout as silent:
                result = {"rc": None, "stuck": str(silent)}
        if not attachment.timed_out and not attachment.unread:
            return exit_code_of(result["rc"])
    assert timeout is not None
    if attachment.timed_out:
        stuck = f"; SIGKILL did not end it: {result['stuck']}" if result["stuck"] else ""
        tell(f"kernelfs: the command did not end within {timeout:g} s and was killed{stuck}")
    if attachment.unread:
        tell(
            f"kernelfs: {timeout:g} s were up, and nobody read what the command had written: the rest of its "
            "output is lost"
        )
    return TIME_IS_UP
