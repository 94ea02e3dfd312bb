"""A command that the host is attached to, with the test for the host."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.guest import attached
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.exchange import Exchange

PATIENCE_S = 120.0


class Host:
    """The other end of the channel: what it received, and how to send."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.received: list[tuple[Any, ...]] = []
        self.result: Any = None

    def setcallback(self, callback: Callable[[Any], None], endmarker: object) -> None:
        self.tell, self._end = callback, endmarker

    def send(self, message: tuple[str, Any]) -> None:
        with self._changed:
            self.received.append(message[1])
            self._changed.notify_all()

    def go(self) -> None:
        self.tell(self._end)

    def attach(self, script: str, **options: Any) -> None:
        """Have a script run with this for its host."""
        exchange = Exchange(self)

        def run() -> None:
            try:
                self.result = attached.run(exchange, ["sh", "-c", script], **options)
            except GuestError as error:
                self.result = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def wait_for(self, text: bytes, name: str = "out") -> None:
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while text not in self.got(name):
                assert self._changed.wait(deadline - time.monotonic()), self.received

    def wait_until(self, count: int) -> None:
        """Wait for so many bytes of both streams."""
        deadline = time.monotonic() + PATIENCE_S
        with self._changed:
            while len(self.got("out")) + len(self.got("err")) < count:
                assert self._changed.wait(deadline - time.monotonic()), len(self.received)

    def got(self, name: str = "out") -> bytes:
        return b"".join(value for kind, value in self.received if kind == name)

    def wait(self) -> Any:
        """What the call gave."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), self.received
        return self.result


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.go()
    host.wait()


def test_output_and_errors_are_kept_apart_and_come_while_it_runs(host: Host) -> None:
    host.attach("echo out; echo err >&2; read line; echo got $line; exit 3")
    host.wait_for(b"out\n")
    host.wait_for(b"err\n", "err")
    host.tell(("in", b"it\n"))
    assert host.wait() == {"rc": 3, "stuck": ""}
    assert host.got() == b"out\ngot it\n"
    assert ("took", 3) in host.received


def test_the_end_of_the_input_comes_after_all_of_it(host: Host) -> None:
    host.attach("wc -c")
    for _ in range(20):
        host.tell(("in", b"x" * 10_000))
    host.tell(("eof",))
    assert host.wait()["rc"] == 0
    assert host.got().strip() == b"200000"
    assert sum(value for kind, value in host.received if kind == "took") == 200_000


def test_no_more_output_is_sent_than_the_host_has_room_for(host: Host) -> None:
    host.attach("head -c 1000000 /dev/zero; echo done >&2")
    host.wait_for(b"\0" * attached.WINDOW)
    assert b"done" not in host.got("err")
    assert len(host.got()) == attached.WINDOW
    host.tell(("took", 1_000_000))
    assert host.wait()["rc"] == 0
    assert len(host.got()) == 1_000_000


def test_of_two_streams_both_go_on_after_there_was_no_room(host: Host) -> None:
    """Both have something to read when there is room for one of them only."""
    size = 4 * attached.WINDOW
    host.attach(f"head -c {size} /dev/zero & head -c {size} /dev/zero >&2; wait")
    sent = 0
    while sent < 2 * size:
        sent += attached.WINDOW
        host.wait_until(sent)
        host.tell(("took", attached.WINDOW))
    assert host.wait()["rc"] == 0
    assert (len(host.got("out")), len(host.got("err"))) == (size, size)


def test_input_that_nobody_reads_any_more_is_dropped(host: Host) -> None:
    host.attach("exec <&-; echo closed; exec 2>&-; sleep 0.2")
    host.wait_for(b"closed")
    host.tell(("in", b"x" * 1000))
    host.tell(("in", b"x" * 1000))
    assert host.wait()["rc"] == 0


def test_a_signal_reaches_the_whole_group(host: Host) -> None:
    host.attach("trap 'echo trapped; exit 5' INT; echo ready; sleep 100 & wait")
    host.wait_for(b"ready")
    host.tell(("signal", int(signal.SIGINT)))
    assert host.wait()["rc"] == 5
    assert host.got() == b"ready\ntrapped\n"


def test_it_can_be_ended(host: Host) -> None:
    host.attach("trap '' INT TERM HUP; echo ready; while :; do sleep 100; done")
    host.wait_for(b"ready")
    host.tell(("end",))
    assert host.wait() == {"rc": -signal.SIGKILL, "stuck": ""}


def test_what_even_that_does_not_end_is_left(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(attached, "kill_group", killed.append)
    monkeypatch.setattr(attached, "_GRACE_S", 0.2)
    host.attach("echo $$; exec sleep 1000")
    host.wait_for(b"\n")
    host.tell(("end",))
    result = host.wait()
    (pid,) = killed
    assert result["rc"] is None
    assert result["stuck"].startswith(f"pid {pid} waits in ")
    assert host.got() == f"{pid}\n".encode()
    os.kill(pid, signal.SIGKILL)


def test_it_ends_when_the_host_goes(host: Host) -> None:
    host.attach("echo ready; sleep 100")
    host.wait_for(b"ready")
    host.go()
    assert host.wait()["rc"] == -signal.SIGKILL


def test_what_stays_behind_does_not_hold_it_up(host: Host) -> None:
    host.attach("sleep 100 & echo started $!")
    assert host.wait()["rc"] == 0
    os.kill(int(host.got().split()[1]), signal.SIGKILL)


@pytest.mark.parametrize(
    ("command", "rc", "said"),
    [(["no-such-command"], 127, b"No such file"), (["/"], 126, b"Permission denied")],
)
def test_what_cannot_be_started_has_the_code_that_shells_give(
    command: list[str], rc: int, said: bytes
) -> None:
    host = Host()
    assert attached.run(Exchange(host), command) == {"rc": rc, "stuck": ""}
    assert said in host.got("err")


def test_a_folder_that_is_not_there_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=f"cannot run a command in the folder {tmp_path}/none"):
        attached.run(Exchange(Host()), ["true"], str(tmp_path / "none"))


def test_a_terminal_has_a_size_that_can_change(host: Host) -> None:
    script = "stty size; tty; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done"
    host.attach(script, size=(30, 100))
    host.wait_for(b"ready")
    host.tell(("size", 40, 120))
    assert host.wait()["rc"] == 0
    size, name, _, changed = host.got().split(b"\r\n")[:4]
    assert (size, changed) == (b"30 100", b"40 120")
    assert name.startswith(b"/dev/pts/")


def test_keys_of_a_terminal_reach_the_command(host: Host) -> None:
    host.attach("echo ready; cat", size=(24, 80))
    host.wait_for(b"ready")
    host.tell(("in", b"typed\r"))
    host.wait_for(b"typed\r\ntyped\r\n")
    host.tell(("in", b"\x03"))
    assert host.wait()["rc"] in (-signal.SIGINT, 128 + signal.SIGINT)


def test_all_that_a_terminal_shows_arrives(host: Host) -> None:
    host.attach("seq 1 2000; exit 4", size=(24, 80))
    assert host.wait()["rc"] == 4
    assert host.got().split() == [str(number).encode() for number in range(1, 2001)]
