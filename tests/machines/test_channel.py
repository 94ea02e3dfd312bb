"""The channel to a guest, which here is a local process that runs the guest's own code."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_kernelfs.errors import GuestCommandError, GuestTimeout, InfrastructureError, UsageError
from pytest_kernelfs.guest import files, meminfo
from pytest_kernelfs.machines.channel import ChannelLost, GuestChannel, call_payload, channel_timeout
from pytest_kernelfs.shortage import Shortage
from tests.local_guest import Guest, converse
from tests.no_threads import no_threads

PATIENCE_S = 120.0

Connect = Callable[..., tuple[GuestChannel, Guest]]


@pytest.fixture(scope="module")
def shared() -> Iterator[GuestChannel]:
    """A channel that every test leaves as it was."""
    channel, guest = converse()
    yield channel
    channel.close()
    guest.wait(PATIENCE_S)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make conversations with guests of the test's own."""
    made: list[tuple[GuestChannel, Guest]] = []

    def connect(predecessor: str = "none") -> tuple[GuestChannel, Guest]:
        made.append(converse(predecessor))
        return made[-1]

    yield connect
    for channel, guest in made:
        channel.close()
        guest.kill()
        guest.wait()


@pytest.fixture
def other() -> Iterator[tuple[GuestChannel, socket.socket]]:
    """A channel whose other end the test plays itself."""
    ours, theirs = socket.socketpair()
    channel = GuestChannel(ours)
    yield channel, theirs
    channel.close()
    theirs.close()


def run(channel: GuestChannel, body: str, *args: Any, timeout: float = PATIENCE_S) -> Any:
    """Run the body of a function in the guest; its arguments are ``args``."""
    source = "def work(*args):\n" + "".join(f"    {line}\n" for line in body.splitlines())
    return channel.call("source", (source, "work"), args, {}, timeout)


# execnet cannot send integers below this.
LEAST = -(1 << 31)
SCALARS = (
    st.none() | st.booleans() | st.integers(LEAST) | st.floats(allow_nan=False) | st.text() | st.binary()
)
KEYS = st.none() | st.booleans() | st.integers(LEAST) | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS | st.sets(KEYS),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=10,
)


@given(value=VALUES)
@settings(deadline=None, max_examples=60)
def test_plain_values_come_back_as_they_went(shared: GuestChannel, value: object) -> None:
    back = run(shared, "return args[0]", value)
    assert (type(back), back) == (type(value), value)


def test_large_values_pass() -> None:
    channel, guest = converse()
    data = os.urandom(1 << 16) * 64
    assert run(channel, "return args[0][::-1]", data) == data[::-1]
    channel.close()
    assert guest.wait(PATIENCE_S) == 0


def test_functions_of_the_guest_are_called_by_name(shared: GuestChannel, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    shared.call("name", call_payload(files.put), (str(path), b"content"), {"mode": 0o600}, PATIENCE_S)
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o600


def test_values_of_the_guests_functions_come_back(shared: GuestChannel) -> None:
    read = shared.call("name", call_payload(meminfo.read), ("MemTotal",), {}, PATIENCE_S)
    assert read == meminfo.read("MemTotal")


def test_an_error_of_the_guest_is_told_in_its_own_words(shared: GuestChannel) -> None:
    body = "from pytest_kernelfs.guest.dispatch import GuestError\nraise GuestError('umount /mnt: busy')"
    with pytest.raises(GuestCommandError) as caught:
        run(shared, body)
    assert str(caught.value) == "umount /mnt: busy"


def test_any_other_exception_is_told_with_its_traceback(shared: GuestChannel) -> None:
    with pytest.raises(GuestCommandError) as caught:
        run(shared, "value = {}\nreturn value['missing']")
    message = str(caught.value)
    assert message.startswith("work raised KeyError in the guest: 'missing'\nTraceback")
    assert 'File "<vm.call work>", line 3, in work' in message


def test_a_value_that_cannot_be_sent_back_is_told(shared: GuestChannel) -> None:
    with pytest.raises(GuestCommandError) as caught:
        run(shared, "return object()")
    message = str(caught.value)
    assert message.startswith("work gave a value that cannot be sent back: ")
    assert message.endswith(
        "; have it give None, bool, int, float, str, bytes, list, tuple, dict and set only"
    )


def test_what_is_no_exception_ends_the_call_alone(shared: GuestChannel) -> None:
    """pytest's own outcomes are such."""
    with pytest.raises(GuestCommandError) as caught:
        run(shared, "class Outcome(BaseException): pass\nraise Outcome('that will do')")
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("work was ended in the guest: ")
    assert lines[0].endswith("Outcome: that will do")
    assert lines[1].startswith("Traceback")
    with pytest.raises(GuestCommandError, match=r"\Awork was ended in the guest: keyboard-interrupted\Z"):
        run(shared, "raise KeyboardInterrupt")
    assert run(shared, "return 2") == 2


@pytest.mark.parametrize(
    "value", [object(), Path("/"), "\ud800", LEAST - 1], ids=["object", "path", "half a letter", "int"]
)
def test_an_argument_that_cannot_be_sent_is_told(shared: GuestChannel, value: object) -> None:
    with pytest.raises(UsageError, match="the arguments of work cannot be sent"):
        run(shared, "return 1", value)
    assert run(shared, "return 2") == 2


def test_a_call_that_takes_too_long_is_given_up(connect: Connect, tmp_path: Path) -> None:
    channel, _ = connect()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(GuestTimeout, match=r"did not answer a call of work within 0\.05 s"):
        run(channel, "open(args[0]).close()", str(fifo), timeout=0.05)


def test_after_a_call_that_was_given_up_others_are_answered(connect: Connect, tmp_path: Path) -> None:
    channel, _ = connect()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(GuestTimeout):
        run(channel, "open(args[0]).close(); return 'late'", str(fifo), timeout=0.05)
    assert run(channel, "return 'next'") == "next"
    fifo.write_text("")  # ends the first call; its answer is nobody's
    assert run(channel, "return 'after'") == "after"


def test_calls_from_several_threads_run_at_the_same_time(shared: GuestChannel, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # Each side of a fifo waits for the other to be opened.
    bodies = ["return open(args[0]).read()", "open(args[0], 'w').write('met')"]
    with ThreadPoolExecutor(2) as pool:
        reader, writer = (pool.submit(run, shared, body, str(fifo)) for body in bodies)
        assert (reader.result(), writer.result()) == ("met", None)


def test_each_thread_gets_its_own_answer(shared: GuestChannel) -> None:
    together = threading.Barrier(8)

    def ask(number: int) -> list[int]:
        together.wait()
        return [run(shared, "return args[0] * args[1]", number, factor) for factor in range(10)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert answers == [[number * factor for factor in range(10)] for number in range(8)]


def test_a_guest_that_ends_during_a_call_is_lost(connect: Connect) -> None:
    channel, _ = connect()
    with pytest.raises(ChannelLost, match="closed during a call of work"):
        run(channel, "import os\nos._exit(3)")


def test_a_guest_that_is_lost_stays_lost(connect: Connect) -> None:
    channel, guest = connect()
    guest.kill()
    guest.wait()
    for _ in range(2):
        with pytest.raises(ChannelLost):
            run(channel, "return 1")


def test_a_guest_whose_predecessor_was_killed_hangs_up(connect: Connect) -> None:
    channel, _ = connect("killed")
    with pytest.raises(ChannelLost, match="closed during a call of work"):
        run(channel, "return 1")


def test_the_guest_ends_its_process_when_the_host_hangs_up(connect: Connect) -> None:
    channel, guest = connect()
    channel.close()
    assert guest.wait(PATIENCE_S) == 0


def test_a_channel_may_be_closed_twice(connect: Connect) -> None:
    channel, _ = connect()
    channel.close()
    channel.close()
    with pytest.raises(ChannelLost):
        run(channel, "return 1")


def test_nothing_is_said_before_the_first_call(other: tuple[GuestChannel, socket.socket]) -> None:
    other[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        other[1].recv(1)


def test_a_silent_guest_is_given_up(other: tuple[GuestChannel, socket.socket]) -> None:
    with pytest.raises(GuestTimeout, match=r"did not answer a call of work within 0\.05 s"):
        run(other[0], "return 1", timeout=0.05)


def test_a_guest_that_does_not_even_take_a_call_is_given_up(
    other: tuple[GuestChannel, socket.socket],
) -> None:
    with pytest.raises(GuestTimeout, match=r"did not answer a call of work within 0\.05 s"):
        run(other[0], "return 1", bytes(8 << 20), timeout=0.05)


def test_time_counts_from_when_a_large_call_was_taken(
    other: tuple[GuestChannel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    now = 1000.0

    def receive(_channel: object, timeout: float) -> object:
        nonlocal now
        waits.append(timeout)
        now += timeout
        other[0]._io.took_at = 1004.0  # at some time during the first wait
        raise channel_timeout()()

    monkeypatch.setattr("execnet.gateway_base.Channel.receive", receive)
    monkeypatch.setattr("pytest_kernelfs.machines.channel.time.monotonic", lambda: now)
    with pytest.raises(GuestTimeout):
        run(other[0], "return 1", timeout=10.0)
    assert waits == [10.0, 4.0]


def test_a_guest_that_hangs_up_before_it_answers_is_lost(other: tuple[GuestChannel, socket.socket]) -> None:
    other[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ChannelLost):
        run(other[0], "return 1")


def test_a_guest_that_is_gone_already_is_lost(other: tuple[GuestChannel, socket.socket]) -> None:
    other[1].close()
    with pytest.raises(ChannelLost):
        run(other[0], "return 1")


def test_something_else_than_our_guest_is_given_up(other: tuple[GuestChannel, socket.socket]) -> None:
    other[1].sendall(b"Debian GNU/Linux 12 guest ttyS0\nguest login: ")
    with pytest.raises(GuestTimeout):
        run(other[0], "return 1", timeout=0.05)


def test_one_that_cannot_be_listened_to_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with no_threads(monkeypatch), pytest.raises(Shortage, match=r"thread.*ulimit -u"):
        GuestChannel(ours)
    assert theirs.recv(1) == b""
    theirs.close()


def test_a_call_that_no_thread_could_send_leaves_the_channel_usable(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    channel, guest = connect()
    assert channel.call("name", call_payload(meminfo.read), (), {}, PATIENCE_S)
    large = (str(tmp_path / "large"), bytes(8 << 20))
    guest.send_signal(signal.SIGSTOP)
    with no_threads(monkeypatch), pytest.raises(InfrastructureError, match="thread"):
        channel.call("name", call_payload(files.put), large, {}, PATIENCE_S)
    guest.send_signal(signal.SIGCONT)
    assert channel.call("name", call_payload(meminfo.read), (), {}, PATIENCE_S)
