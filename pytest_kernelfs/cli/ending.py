"""The exit codes of commands that run machines, and the signals that end them."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from pytest_kernelfs.errors import InfrastructureError, KernelfsError, KernelMisbehaved

TIME_IS_UP = 124
OUR_FAILURE = 125
KERNEL_DIED = 255
_BY_SIGNAL = 128
# For whoever reads what we say, when the time is up.
_READER_S = 5.0
INTERRUPTED = _BY_SIGNAL + signal.SIGINT


class Ended(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP unwind the block, so that what it holds is given back. Raises: Ended."""
    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN  # as nohup has it
    ]

    def end(number: int, _: Any) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)  # to clean up takes a moment, and is to be done
        raise Ended(number)

    previous = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def handled(number: signal.Signals, handler: Callable[..., Any], waker: int) -> Iterator[None]:
    """Have ``handler`` called for a signal, which wakes up whoever waits for the pipe of ``waker``."""
    previous = signal.signal(number, handler)
    before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(number, previous)


def exit_code_of(rc: int) -> int:
    """The exit code that shells give to a command whose ``rc`` is negative for a signal."""
    return rc if rc >= 0 else _BY_SIGNAL - rc


def complain(error: KernelfsError | OSError) -> int:
    """Show an error; gives the exit code for it."""
    if isinstance(error, OSError):
        error = InfrastructureError(f"the host refused something that was needed: {error}")
    tell(f"kernelfs: error: {error}")
    return KERNEL_DIED if isinstance(error, KernelMisbehaved) else OUR_FAILURE


def tell(text: str) -> None:
    """Show a line on the stream for errors, unless the command has a ``timeout`` and nobody reads there."""
    context = click.get_current_context(silent=True)
    if context is None or context.params.get("timeout") is None:
        click.echo(text, err=True)
        return
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):
        click.echo(text, err=True)  # it leads nowhere outside of this process
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    left = f"{text}\n".encode(errors="replace")
    # A pipe that takes anything takes so much at once.
    while left and poll.poll(_READER_S * 1000):
        left = left[os.write(descriptor, left[: select.PIPE_BUF]) :]


def occupy_streams() -> None:
    """Have no file of ours opened in the place of a stream that we were started without.

    Such an input is empty, and what is written to such an output is refused, as without a file there.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest that is free


class MachineCommand(click.Command):
    """A command whose exit code is that of what runs in a machine; its own failures have codes apart."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            vars(error)["exit_code"] = OUR_FAILURE
            raise

    def invoke(self, ctx: click.Context) -> Any:
        occupy_streams()
        try:
            with ended_by_signals():
                return super().invoke(ctx)
        except BrokenPipeError:
            sys.exit(_BY_SIGNAL + signal.SIGPIPE)
        except (KernelfsError, OSError) as error:
            sys.exit(complain(error))
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except Ended as ended:
            sys.exit(_BY_SIGNAL + ended.number)
