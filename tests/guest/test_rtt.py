"""The questions of round-trip probes, and the answers that belong to them."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from typing import Any

import pytest

from pytest_kernelfs.guest import rtt
from pytest_kernelfs.guest.dispatch import GuestError

MARK = 0x1234


@pytest.fixture(params=["icmp", "tcp"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def probe(kind: str, port: int = 1) -> Any:
    """A probe without its socket, which only root may open."""
    made = object.__new__(rtt._KINDS[kind])
    made._source, made._target, made._port, made._mark = "10.0.0.1", "10.0.0.2", port, MARK
    return made


def ones_sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo_header(packet: bytes) -> bytes:
    return socket.inet_aton("10.0.0.1") + socket.inet_aton("10.0.0.2") + struct.pack("!HH", 6, len(packet))


def answer(kind: str, question: bytes) -> bytes:
    """What the other end sends back."""
    if kind == "icmp":
        return b"\0" + question[1:]
    own, other, sequence = struct.unpack_from("!HHI", question)
    return struct.pack("!HHIIBBHHH", other, own, 0, (sequence + 1) & 0xFFFFFFFF, 5 << 4, 0x14, 0, 0, 0)


def accepts(kind: str, packet: bytes) -> bool:
    """Run the probe's filter over a packet, as the kernel does."""
    data = bytes([0x45]) + b"\0" * 19 + packet
    rules = probe(kind, port=80)._rules()
    at, value = 0, 0
    while True:
        code, true, false, k = rules[at]
        at += 1
        if code == rtt._LOAD_BYTE:
            value = data[20 + k]
        elif code == rtt._LOAD_HALF:
            value = struct.unpack_from("!H", data, 20 + k)[0]
        elif code == rtt._EQUAL:
            at += true if value == k else false
        elif code == rtt._ANY_BIT:
            at += true if value & k else false
        elif (code, true, false, k) in (rtt._ACCEPT, rtt._REFUSE):
            return bool(k)


@pytest.mark.parametrize("number", [0, 1, 65535, 65536, 1 << 20, rtt._UNMEASURED])
def test_an_answer_has_the_number_of_its_question(kind: str, number: int) -> None:
    made = probe(kind)
    assert made.number_of(answer(kind, made.question(number))) == number


def test_checksums_are_right() -> None:
    assert ones_sum(probe("icmp").question(70000)) == 0xFFFF
    packet = probe("tcp").question(70000)
    assert ones_sum(pseudo_header(packet) + packet) == 0xFFFF


def test_each_syn_comes_from_a_port_of_its_own() -> None:
    ports = [struct.unpack_from("!H", probe("tcp").question(number))[0] for number in range(1000)]
    assert len(set(ports)) == 1000
    assert 10000 <= min(ports) < max(ports) < 30000


def test_what_is_too_short_to_be_an_answer_is_none() -> None:
    assert probe("icmp").number_of(b"\0" * 8) < 0
    assert probe("tcp").number_of(b"") > rtt._UNMEASURED


def test_the_filter_lets_answers_pass(kind: str) -> None:
    assert accepts(kind, answer(kind, probe(kind, port=80).question(5)))


def test_the_filter_refuses_questions_of_icmp() -> None:
    assert not accepts("icmp", probe("icmp").question(5))


def test_the_filter_refuses_answers_to_another() -> None:
    other = probe("icmp")
    other._mark = MARK + 1
    assert not accepts("icmp", answer("icmp", other.question(5)))
    assert not accepts("tcp", answer("tcp", probe("tcp", port=81).question(5)))


def test_the_filter_refuses_data_of_other_connections() -> None:
    data = bytearray(answer("tcp", probe("tcp", port=80).question(5)))
    data[13] = 0x18  # PSH, ACK
    assert not accepts("tcp", bytes(data))


class Wire:
    """A probe whose answers lie ready after a while, on a clock that only waiting moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, delays: list[float | None]) -> None:
        self.now = 1000.0
        self.socket = self
        self.delays = delays
        self.sent: list[tuple[int, float]] = []
        self.coming: list[tuple[float, int]] = []
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("select.select", self.select)
        monkeypatch.setattr("signal.signal", lambda *_: None)

    def send(self, number: int) -> bool:
        self.sent.append((number, self.now))
        if number < len(self.delays):
            delay = self.delays[number]
            if delay is not None:
                self.coming.append((self.now + delay, number))
                self.coming.sort()
        return True

    def receive(self) -> int:
        return self.coming.pop(0)[1]

    def select(self, readers: Any, writers: Any, failed: Any, timeout: float) -> tuple[list[Any], ...]:
        if self.coming and self.coming[0][0] <= self.now + timeout:
            self.now = max(self.now, self.coming[0][0])
            return [self], [], []
        self.now += timeout
        return [], [], []


def schedule(wire: Wire, duration: float, patience: float = 1.0) -> rtt._Schedule:
    made = rtt._Schedule(wire, 0.01, duration, patience)  # type: ignore[arg-type]
    made.run()
    return made


def test_probes_are_sent_by_the_clock_whatever_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, [0.5] * 20)
    made = schedule(wire, 0.2)
    assert [number for number, _ in wire.sent] == list(range(20))
    assert [at - made.start for _, at in wire.sent] == pytest.approx([0.01 * n for n in range(20)])
    assert list(made.sent) == [at for _, at in wire.sent]
    assert [got - sent for sent, got in zip(made.sent, made.answered, strict=True)] == pytest.approx(
        [0.5] * 20
    )


def test_it_ends_with_the_last_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, [0.001] * 10)
    made = schedule(wire, 0.1, patience=60.0)
    assert wire.now - made.start < 0.2


def test_what_is_not_answered_in_time_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, [0.001, None, 7.0, 0.001])
    made = schedule(wire, 0.04)
    assert [bool(clock) for clock in made.answered] == [True, False, False, True]
    assert wire.now - made.start == pytest.approx(1.03, abs=0.11)


class StandingWire(Wire):
    """Once all is sent, the machine stands still for longer than anybody waits, as its host lets it."""

    def select(self, readers: Any, writers: Any, failed: Any, timeout: float) -> tuple[list[Any], ...]:
        seen = super().select(readers, writers, failed, timeout)
        if len(self.sent) == len(self.delays) and not seen[0]:
            self.now += 3600.0
        return seen


def test_what_came_while_the_machine_stood_still_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    made = schedule(StandingWire(monkeypatch, [0.5] * 4), 0.04)
    assert all(made.answered)


class StillWire(Wire):
    """When all is sent and nothing has come, machine and network stand still once, and then go on."""

    stalled = False

    def select(self, readers: Any, writers: Any, failed: Any, timeout: float) -> tuple[list[Any], ...]:
        seen = super().select(readers, writers, failed, timeout)
        if not (self.stalled or seen[0]) and len(self.sent) == len(self.delays):
            self.stalled = True
            self.now += 3600.0
            self.coming = [(at + 3600.0, number) for at, number in self.coming]
        return seen


def test_what_comes_after_the_machine_stood_still_is_late_and_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = schedule(StillWire(monkeypatch, [0.4] * 4), 0.04)
    assert min(got - sent for sent, got in zip(made.sent, made.answered, strict=True)) > 3600
    made = schedule(StillWire(monkeypatch, [7.0] * 4), 0.04)
    assert not any(made.answered)


def test_an_answer_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, [0.001] * 3)
    wire.coming.append((1000.005, 0))
    made = schedule(wire, 0.03)
    assert made.answered[0] == pytest.approx(1000.001)
    assert all(made.answered)


def test_the_warm_up_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, [])
    made = rtt._Schedule(wire, 0.01, 0.01, 0.1)  # type: ignore[arg-type]
    made.warm_up()
    wire.coming.append((wire.now, rtt._UNMEASURED))
    made.run()
    assert len(made.sent) == 1
    assert not made.answered[0]


def test_a_run_that_ends_before_it_began_has_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(monkeypatch, [0.001])
    made = rtt._Schedule(wire, 0.01, 10.0, 1.0)  # type: ignore[arg-type]
    made._end()
    made.run()
    assert [number for number, _ in wire.sent] == [0]
    assert made.answered[0]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_probe_that_does_not_end_is_killed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtt, "_GRACE_S", 0.0)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(60)
        os._exit(0)
    with pytest.raises(GuestError, match="it was killed"):
        rtt.stop({"pid": pid, "load": {}, "longest": 0.0}, early=False)
