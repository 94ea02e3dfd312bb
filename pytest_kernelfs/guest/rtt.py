"""Round trips, probed at fixed times in a process of its own."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import random
import select
import signal
import socket
import struct
import time
from array import array
from typing import Any, NoReturn

from pytest_kernelfs.guest import descriptors, netns
from pytest_kernelfs.guest.dispatch import GuestError
from pytest_kernelfs.guest.patience import Patience

_FOLDER = "/run/kernelfs"
_READY = b"ready"
_WARM_UP = 3
# Numbers above all that are measured.
_UNMEASURED = 1 << 31
_GRACE_S = 10.0
_BUFFER = 4 << 20
_LOOK_S = 0.05
_POLL_S = 0.005
# asm-generic/socket.h
_SO_ATTACH_FILTER, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 26, 32, 33


def start(
    namespace: str,
    kind: str,
    source: str,
    target: str,
    port: int,
    interval: float,
    duration: float,
    patience: float,
) -> dict[str, Any]:
    """Begin to probe from a namespace: ``kind`` is "icmp" or "tcp", times are seconds.

    One probe is sent every ``interval`` until ``duration`` is over or ``stop`` is called, whether or not
    answers come; what is not answered ``patience`` after the last was sent is lost. Gives what
    ``stop`` asks for.
    """
    os.makedirs(_FOLDER, exist_ok=True)
    load = softirq_load()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _probe_and_exit(writer, namespace, (kind, source, target, port), (interval, duration, patience))
    os.close(writer)
    try:
        said = os.read(reader, 1 << 12)
    finally:
        os.close(reader)
    if said != _READY:
        os.waitpid(pid, 0)
        why = said.decode(errors="replace") or "it was killed"
        raise GuestError(f"the {kind} probe in {namespace} could not begin: {why}")
    return {"pid": pid, "load": load, "longest": duration + patience}


def stop(started: dict[str, Any], early: bool) -> dict[str, Any]:
    """Wait until a probe is over, after telling it to end if ``early``.

    Gives a dict: ``start`` (clock of the first scheduled probe), ``sent`` and ``answered`` (clocks
    as packed doubles, 0 for lost), ``softirq`` (what the kernel counted meanwhile).
    """
    pid: int = started["pid"]
    if early:
        os.kill(pid, signal.SIGTERM)
    waiting = Patience(started["longest"] + _GRACE_S, _POLL_S)
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if not waiting.wait():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
    path = _result_path(pid)
    try:
        with open(path, "rb") as file:
            data = file.read()
        os.unlink(path)
    except FileNotFoundError:
        raise GuestError("the round-trip probe ended without a result: it was killed") from None
    half = (len(data) - 8) // 2
    now = softirq_load()
    return {
        "start": struct.unpack_from("=d", data)[0],
        "sent": data[8 : 8 + half],
        "answered": data[8 + half :],
        "softirq": {name: value - started["load"][name] for name, value in now.items()},
    }


def measure(*args: Any) -> dict[str, Any]:
    """``start``, and ``stop`` when its duration is over."""
    return stop(start(*args), early=False)


def softirq_load() -> dict[str, float]:
    """What the kernel counts of its network softirqs.

    ``ran`` and ``waited`` are seconds of all ksoftirqd threads on a processor, and runnable without one;
    ``squeezed`` and ``dropped`` come from softnet_stat: rounds that ended with work left, packets lost.
    """
    ran = waited = 0
    for pid in _ksoftirqd():
        try:
            with open(f"/proc/{pid}/schedstat") as file:
                fields = file.read().split()
        except OSError:
            continue  # a kernel without SCHED_INFO
        ran += int(fields[0])
        waited += int(fields[1])
    with open("/proc/net/softnet_stat") as file:
        rows = [line.split() for line in file]
    return {
        "ran": ran / 1e9,
        "waited": waited / 1e9,
        "squeezed": sum(int(row[2], 16) for row in rows),
        "dropped": sum(int(row[1], 16) for row in rows),
    }


def _ksoftirqd() -> list[str]:
    found = []
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                with open(f"/proc/{pid}/comm", errors="replace") as file:
                    if file.read().startswith("ksoftirqd/"):
                        found.append(pid)
            except OSError:
                continue
    return found


def _result_path(pid: int) -> str:
    return f"{_FOLDER}/rtt-{pid}"


def _probe_and_exit(
    writer: int, namespace: str, way: tuple[str, str, str, int], times: tuple[float, float, float]
) -> NoReturn:
    """The child: everything of its parent's is closed first, so that the channel ends with the parent."""
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        descriptors.close_all_but(writer)
        gc.disable()
        netns.enter(namespace)
        probe = _KINDS[way[0]](*way[1:])
        schedule = _Schedule(probe, *times)
        _go_first()
        schedule.warm_up()
        os.write(writer, _READY)
        os.close(writer)
        schedule.run()
        path = _result_path(os.getpid())
        with open(path + ".part", "wb") as file:
            file.write(
                struct.pack("=d", schedule.start) + schedule.sent.tobytes() + schedule.answered.tobytes()
            )
        os.rename(path + ".part", path)
    except BaseException as error:
        try:
            os.write(writer, str(error).encode() or repr(error).encode())
        except OSError:
            pass  # it had begun: that there is no result tells enough
    finally:
        os._exit(0)


def _go_first() -> None:
    """Let busy programs not pass for a stalled network: run before them."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        pass  # a group without real-time share


class _Schedule:
    """Sends by the clock, whatever comes back, and notes when answers come."""

    def __init__(self, probe: _Probe, interval: float, duration: float, patience: float) -> None:
        self._probe = probe
        self._interval = interval
        self._count = max(1, round(duration / interval))
        self._patience = patience
        self._ending = False
        self._awaited = 0
        self.start = 0.0
        self.sent = array("d")
        self.answered = array("d")
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, *_args: object) -> None:
        self._ending = True

    def warm_up(self) -> None:
        """A few probes that do not count: the first of anything takes longer."""
        for number in range(_WARM_UP):
            self._probe.send(_UNMEASURED + number)
            self._receive_until(time.monotonic() + self._interval)

    def run(self) -> None:
        parent = os.getppid()
        self.start = time.monotonic()
        # The first is sent even if the end comes before it: a run without probes would prove nothing.
        while not self.sent or self._goes_on(parent):
            self._receive_until(self.start + len(self.sent) * self._interval)
            self._send()
        # An answer that is late because the machine stood still is a late one, and no loss: the network in it
        # goes on where it stopped.
        waiting = Patience(self._patience, _LOOK_S)
        while self._awaited and waiting.wait(self._receive_for):
            pass
        self._receive_until(0.0)

    def _goes_on(self, parent: int) -> bool:
        return not self._ending and len(self.sent) < self._count and os.getppid() == parent

    def _send(self) -> None:
        number = len(self.sent)
        self.answered.append(0.0)
        self.sent.append(time.monotonic())
        self._awaited += self._probe.send(number)

    def _receive_for(self, seconds: float) -> None:
        self._receive_until(time.monotonic() + seconds)

    def _receive_until(self, end: float) -> None:
        """Take what comes until then; also when that is past, what is there already."""
        while True:
            left = max(0.0, end - time.monotonic())
            if not select.select([self._probe.socket], [], [], left)[0]:
                return
            self._take()

    def _take(self) -> None:
        number = self._probe.receive()
        if 0 <= number < len(self.sent) and not self.answered[number]:
            self.answered[number] = time.monotonic()
            self._awaited -= 1


class _Probe:
    """A raw socket that carries the questions of one kind and hears their answers only."""

    protocol = 0

    def __init__(self, source: str, target: str, port: int) -> None:
        self._source, self._target, self._port = source, target, port
        self._mark = random.randrange(1, 1 << 16)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, self.protocol)
        self.socket.setblocking(False)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            self.socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        rules = self._rules()
        program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
        address = ctypes.addressof(program)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(rules), address))

    def send(self, number: int) -> bool:
        """Send one question; False if the kernel does not take it: it is lost."""
        try:
            self.socket.sendto(self.question(number), (self._target, 0))
        except OSError as error:
            if error.errno in _LOST:
                return False
            raise
        return True

    def receive(self) -> int:
        """The number of the question that is answered; below 0 for anything else."""
        try:
            packet = self.socket.recv(1 << 12)
        except BlockingIOError:
            return -1
        return self.number_of(packet[(packet[0] & 15) * 4 :])

    def question(self, number: int) -> bytes:
        raise NotImplementedError

    def number_of(self, answer: bytes) -> int:
        raise NotImplementedError

    def _rules(self) -> list[tuple[int, int, int, int]]:
        raise NotImplementedError


class _Icmp(_Probe):
    """Echo requests."""

    protocol = socket.IPPROTO_ICMP

    def question(self, number: int) -> bytes:
        head = struct.pack("!BBHHH", 8, 0, 0, self._mark, number & 0xFFFF)
        return _with_checksum(head + struct.pack("!Q", number), 2)

    def number_of(self, answer: bytes) -> int:
        return int(struct.unpack_from("!Q", answer, 8)[0]) if len(answer) >= 16 else -1

    def _rules(self) -> list[tuple[int, int, int, int]]:
        # An echo reply (type 0) that has our identifier.
        return _filter((_LOAD_BYTE, 0, 0, 0), (_EQUAL, 0, 3, 0), 4, self._mark)


class _Tcp(_Probe):
    """SYN packets, each from a port of its own; they are answered by SYN-ACK, or by RST from a closed port.

    The kernel that sent them knows no such connection, and ends with RST what was accepted.
    """

    protocol = socket.IPPROTO_TCP

    def question(self, number: int) -> bytes:
        own_port = _PORTS[0] + number % len(_PORTS)
        head = struct.pack(
            "!HHIIBBHHH", own_port, self._port, self._sequence(number), 0, 5 << 4, 2, 0xFFFF, 0, 0
        )
        ends = socket.inet_aton(self._source) + socket.inet_aton(self._target)
        pseudo = ends + struct.pack("!BBH", 0, self.protocol, len(head))
        return _with_checksum(pseudo + head, len(pseudo) + 16)[len(pseudo) :]

    def number_of(self, answer: bytes) -> int:
        acknowledged = struct.unpack_from("!I", answer, 8)[0] if len(answer) >= 20 else 0
        return int((acknowledged - self._sequence(1)) & 0xFFFFFFFF)

    def _sequence(self, number: int) -> int:
        return ((self._mark << 16) + number) & 0xFFFFFFFF

    def _rules(self) -> list[tuple[int, int, int, int]]:
        # SYN or RST, from the port that was asked.
        return _filter((_LOAD_BYTE, 0, 0, 13), (_ANY_BIT, 0, 3, 2 | 4), 0, self._port)


_KINDS = {"icmp": _Icmp, "tcp": _Tcp}
# Below those that the kernel gives to connections.
_PORTS = range(10000, 30000)
_LOST = (errno.EAGAIN, errno.ENOBUFS, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENODEV)
# linux/filter.h: programs of the classic packet filter, that see a packet from its IP header on.
_SKIP_IP_HEADER = (0xB1, 0, 0, 0)
_LOAD_BYTE, _LOAD_HALF, _EQUAL, _ANY_BIT = 0x50, 0x48, 0x15, 0x45
_ACCEPT, _REFUSE = (0x06, 0, 0, 1 << 16), (0x06, 0, 0, 0)


def _filter(
    load: tuple[int, int, int, int], test: tuple[int, int, int, int], offset: int, value: int
) -> list[tuple[int, int, int, int]]:
    """Accept what passes the test, and has the value in the two bytes at that offset."""
    return [
        _SKIP_IP_HEADER,
        load,
        test,
        (_LOAD_HALF, 0, 0, offset),
        (_EQUAL, 0, 1, value),
        _ACCEPT,
        _REFUSE,
    ]


def _with_checksum(packet: bytes, offset: int) -> bytes:
    """The packet with the Internet checksum of all its bytes at that offset."""
    total = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total + (total >> 16)) & 0xFFFF
    return packet[:offset] + struct.pack("!H", ~total & 0xFFFF) + packet[offset + 2 :]
