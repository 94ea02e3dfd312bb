"""Two network namespaces, joined by a pair of veth interfaces, with netem between them if asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import AddressValueError, IPv4Address
from typing import Any, final

from pytest_kernelfs.assertions.rtt import budget_of, rtt_under
from pytest_kernelfs.errors import GuestCommandError, UsageError
from pytest_kernelfs.guest import netns, rtt
from pytest_kernelfs.machines.source import self_contained_source
from pytest_kernelfs.machines.vm import DEFAULT_TIMEOUT_S, CommandResult
from pytest_kernelfs.probes.rtt import RttRun, decode
from pytest_kernelfs.resources.stack import Resources
from pytest_kernelfs.sizes import Size, format_size, parse_size
from pytest_kernelfs.times import Time, parse_time

_CLOSED_PORT = 1
_GRACE_S = 30.0
# netem's own default, in packets; and what a stall may hold, in bytes.
_NETEM_LIMIT = 1000
_STALL_LIMIT = 64 << 20
_LONGEST_WATCH_S = 3600.0
_MOST_QUEUES = 64


@final
class Netns:
    """One end of a pair: a network namespace with its ``name``, ``path``, ``interface`` and ``address``.

    What it sends goes through one of ``queues``, which the kernel chooses for each flow.
    """

    def __init__(self, resources: Resources, name: str, address: str, queues: int) -> None:
        self.resources = resources
        self.name = name
        self.path = netns.path_of(name)
        self.interface = netns.INTERFACE
        self.address = address
        self.queues = queues
        self.shaped = ""
        """What was asked of netem for the packets that leave here; "" for none."""

    def __repr__(self) -> str:
        shaped = f" netem {self.shaped}" if self.shaped else ""
        return f"<netns {self.name} {self.address}{shaped}>"

    def run(self, command: str | Sequence[str], **options: Any) -> CommandResult:
        """``vm.run`` in this namespace, with the same options. /sys still shows the machine's own network."""
        words = ["sh", "-c", command] if isinstance(command, str) else list(command)
        return self.resources.vm.run(["nsenter", f"--net={self.path}", "--", *words], **options)

    def call(self, function: Callable[..., Any], *args: Any, timeout: float = DEFAULT_TIMEOUT_S) -> Any:
        """``vm.call`` in this namespace: sockets that it opens, and processes that it starts, are here."""
        source = self_contained_source(function)
        name = function.__name__
        return self.resources.vm.guest(
            netns.call_source, self.name, source, name, list(args), timeout=timeout
        )

    def netem(self, *, delay: Time = 0, jitter: Time = 0, loss: float | str = 0, rate: Size = 0) -> None:
        """Shape what leaves here from now on; without arguments, take netem away.

        ``delay`` and ``jitter`` are seconds or "100ms"; ``loss`` is a fraction or "10%"; ``rate`` bytes per
        second. What is not named is none. A change keeps the packets on their way, the end loses them.

        Raises: UsageError; GuestCommandError if the kernel has no netem.
        """
        wanted = _Shape(delay, jitter, loss, rate)
        if not wanted.text:
            self.resources.vm.guest(netns.clear, self.name)
        else:
            self._with_module("sch_netem", netns.netem, *wanted.arguments)
        self.shaped = wanted.text

    def stall(self, seconds: Time, *, queue: int | None = None) -> None:
        """Hold back what leaves here for so long, then send it all in order; returns when it is over.

        With ``queue`` (the first is 0), that one alone stands still, with the flows that go through it.

        Raises: UsageError if netem is on here; GuestCommandError if the kernel has no sch_plug.
        """
        length = parse_time(seconds, "stall")
        if queue is not None and (type(queue) is not int or not 0 <= queue < self.queues > 1):
            raise UsageError(
                f"stall: {self!r} has no queue {queue!r} to stall alone, its queues being {self.queues}; "
                "see netns_pair_factory(queues=2)"
            )
        if self.shaped:
            raise UsageError(
                f"{self!r} cannot stall while netem is on there: take it away with netem(), "
                "or stall the other end"
            )
        number = -1 if queue is None else queue
        self._with_module("sch_plug", netns.stall, length, _STALL_LIMIT, number, timeout=length + _GRACE_S)

    def steer(self, processor: int | None) -> None:
        """Have what arrives here handled in softirq on that processor, instead of on that of the sender.

        With a busy processor there, packets fare as they do with a network card whose interrupts go to it.
        None ends it. Raises: GuestCommandError if there is no such processor.
        """
        if processor is not None and (type(processor) is not int or processor < 0):
            raise UsageError(f"steer: {processor!r} is no number of a processor, the first of which is 0")
        self.resources.vm.guest(netns.steer, self.name, -1 if processor is None else processor)

    def _with_module(
        self, module: str, function: Callable[..., bool], *args: Any, timeout: float = DEFAULT_TIMEOUT_S
    ) -> None:
        """The kernel loads what it knows itself; else the module is brought, or its lack told."""
        vm = self.resources.vm
        if not vm.guest(function, self.name, *args, timeout=timeout):
            vm.modprobe(module)
            if not vm.guest(function, self.name, *args, timeout=timeout):
                raise GuestCommandError(
                    f"kernel {vm.kernel.release} has the module {module}, but no use for it"
                )


@final
class RttWatch:
    """Round trips probed beside a test; ``run`` once its block has ended."""

    def __init__(self) -> None:
        self._run: RttRun | None = None

    @property
    def run(self) -> RttRun:
        """All that was probed. Raises: UsageError inside the block, or if its machine ended in it."""
        if self._run is None:
            raise UsageError(
                "rtt_watch: the probes are known when the with-block has ended, not inside it; they are lost "
                "if the machine dies in it, or loses its power"
            )
        return self._run


@final
class NetnsPair:
    """Two namespaces, ``left`` and ``right``, that reach each other and nothing else."""

    def __init__(self, resources: Resources, queues: int = 1) -> None:
        self.resources = resources
        name = resources.name("netns")
        vm = resources.vm
        self.left, self.right = (
            Netns(resources, f"{name}-{side}", address, queues)
            for side, address in zip(("left", "right"), netns.ADDRESSES, strict=True)
        )
        names = [self.left.name, self.right.name]
        if not vm.guest(netns.create_pair, *names, queues):
            vm.modprobe("veth")
            if not vm.guest(netns.create_pair, *names, queues):
                raise GuestCommandError(
                    f"kernel {vm.kernel.release} has the module veth, but makes no veth pair"
                )
        resources.on_teardown(f"netns pair {name}", lambda: vm.guest(netns.remove, names))

    def __repr__(self) -> str:
        return f"<netns pair {self.left!r} {self.right!r}>"

    @property
    def reversed(self) -> NetnsPair:
        """The same two the other way round: what it probes, shapes and stalls goes from right to left."""
        other = copy.copy(self)
        other.left, other.right = self.right, self.left
        return other

    def netem(self, *, delay: Time = 0, jitter: Time = 0, loss: float | str = 0, rate: Size = 0) -> None:
        """Shape the way from left to right, which each round trip takes once: ``left.netem``."""
        self.left.netem(delay=delay, jitter=jitter, loss=loss, rate=rate)

    def stall(self, seconds: Time, *, queue: int | None = None) -> None:
        """Hold back the way from left to right for so long, or one queue of it: ``left.stall``."""
        self.left.stall(seconds, queue=queue)

    def rtt(
        self,
        *,
        kind: str = "icmp",
        duration: Time = 2.0,
        interval: Time = 0.01,
        threshold: Time = 0.1,
        patience: Time = 2.0,
        port: int = _CLOSED_PORT,
        address: str | None = None,
    ) -> RttRun:
        """Probe round trips from left to right.

        ``kind`` is "icmp" (echo) or "tcp" (SYN to ``port``, answered by RST if it is closed). A probe is sent
        every ``interval``, by the clock, whether or not the one before was answered. Answers of ``threshold``
        or more are slow; what is not answered ``patience`` after the last was sent is lost. ``address`` is
        that of the right end unless another is named, to which the left has a route.

        Raises: UsageError, GuestCommandError.
        """
        plan = _Plan(kind, duration, interval, threshold, patience, port, address)
        netem = self._netem
        raw = self.resources.vm.guest(rtt.measure, *self._arguments(plan), timeout=plan.longest)
        return self._keep(plan, raw, netem)

    @contextmanager
    def rtt_watch(
        self,
        *,
        kind: str = "icmp",
        interval: Time = 0.01,
        threshold: Time = 0.1,
        patience: Time = 2.0,
        port: int = _CLOSED_PORT,
        address: str | None = None,
    ) -> Iterator[RttWatch]:
        """Probe as ``rtt`` does while the block runs: ``with pair.rtt_watch() as watch``, then ``watch.run``.

        Raises: UsageError, GuestCommandError.
        """
        plan = _Plan(kind, _LONGEST_WATCH_S, interval, threshold, patience, port, address)
        vm = self.resources.vm
        machine, netem = vm.machine, self._netem
        started = vm.guest(rtt.start, *self._arguments(plan))
        watch = RttWatch()
        try:
            yield watch
        finally:
            if vm.is_still(machine):
                raw = vm.guest(rtt.stop, started, True, timeout=plan.patience + _GRACE_S)
                watch._run = self._keep(plan, raw, netem)

    def assert_rtt_under(
        self,
        seconds: Time,
        *,
        kind: str = "icmp",
        duration: Time = 2.0,
        interval: Time = 0.01,
        patience: Time = 2.0,
        port: int = _CLOSED_PORT,
        address: str | None = None,
        lost: int = 0,
        run: RttRun | None = None,
    ) -> RttRun:
        """Probe, and fail the test if one takes longer than ``seconds``, or more than ``lost`` are lost.

        With ``run`` that one is judged, and nothing is probed. Raises: AssertionError, UsageError,
        GuestCommandError.
        """
        __tracebackhide__ = True
        budget = budget_of(seconds)
        measured = run or self.rtt(
            kind=kind,
            duration=duration,
            interval=interval,
            threshold=budget,
            patience=max(parse_time(patience, "patience"), 2 * budget),
            port=port,
            address=address,
        )
        rtt_under(measured, budget, lost=lost, kernel=str(self.resources.vm.kernel.version))
        return measured

    @property
    def _netem(self) -> str:
        ends = [f"netem on {end.name}: {end.shaped}" for end in (self.left, self.right) if end.shaped]
        return ", ".join(ends)

    def _arguments(self, plan: _Plan) -> tuple[Any, ...]:
        return (
            self.left.name,
            plan.kind,
            self.left.address,
            plan.address or self.right.address,
            plan.port,
            plan.interval,
            plan.duration,
            plan.patience,
        )

    def _keep(self, plan: _Plan, raw: dict[str, Any], netem: str) -> RttRun:
        """``netem`` is what the ends were asked for when the probes began."""
        way = f"{self.left.name} to {plan.address or self.right.name}"
        way += f", {netem}" if netem else ""
        if self._netem != netem:
            way += f", at the end {self._netem or 'no netem'}"
        run = decode(plan.kind, plan.interval, plan.threshold, raw, way)
        if self.resources.record is not None and run.lost < len(run.samples):
            self.resources.record(run.measurement)
        return run


class NetnsPairFactory:
    """Makes pairs of network namespaces: the ``netns_pair_factory`` fixture."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def __call__(
        self,
        *,
        delay: Time = 0,
        jitter: Time = 0,
        loss: float | str = 0,
        rate: Size = 0,
        queues: int = 1,
    ) -> NetnsPair:
        """Make a pair; the arguments are those of ``pair.netem``, by default none.

        With several ``queues``, each end sends like a network card that has so many: packets of one flow
        go through one of them, and ``stall`` can hold back one alone.

        Raises: UsageError; GuestCommandError if the kernel lacks what it takes.
        """
        if type(queues) is not int or not 1 <= queues <= _MOST_QUEUES:
            raise UsageError(
                f"netns_pair_factory: queues is a number from 1 to {_MOST_QUEUES}, not {queues!r}"
            )
        wanted = _Shape(delay, jitter, loss, rate)
        pair = NetnsPair(self._resources, queues)
        if wanted.text:
            pair.netem(delay=delay, jitter=jitter, loss=loss, rate=rate)
        return pair


class _Shape:
    """What netem is to do: ``arguments`` for the guest, ``text`` for people ("" for nothing at all)."""

    def __init__(self, delay: Time, jitter: Time, loss: float | str, rate: Size) -> None:
        seconds = [parse_time(delay, "netem: delay"), parse_time(jitter, "netem: jitter")]
        if seconds[1] > seconds[0]:
            raise UsageError(
                f"netem: a jitter of {jitter} needs a delay that is at least as long, not {delay}"
            )
        fraction = _parse_loss(loss)
        per_second = parse_size(rate, "netem: rate")
        self.arguments = (*(int(value * 1e9) for value in seconds), fraction, per_second, _NETEM_LIMIT)
        parts = [
            f"{name} {value * 1000:g} ms"
            for name, value in zip(("delay", "jitter"), seconds, strict=True)
            if value
        ]
        parts += [f"loss {fraction:.3g}"] if fraction else []
        parts += [f"rate {format_size(per_second)}/s"] if per_second else []
        self.text = " ".join(parts)


def _parse_loss(loss: float | str) -> float:
    try:
        text = str(loss).strip()
        fraction = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1 or isinstance(loss, bool):
        raise UsageError(f"netem: loss {loss!r} is no share of the packets; write 0.1, or '10%'")
    return fraction


def _checked(address: str) -> str:
    try:
        return str(IPv4Address(address))
    except AddressValueError as error:
        raise UsageError(f"rtt: the address {address!r} is no IPv4 address: {error}") from None


class _Plan:
    """The settings of a probe, checked."""

    def __init__(
        self,
        kind: str,
        duration: Time,
        interval: Time,
        threshold: Time,
        patience: Time,
        port: int,
        address: str | None,
    ) -> None:
        if kind not in ("icmp", "tcp"):
            raise UsageError(f'rtt: kind is "icmp" or "tcp", not {kind!r}')
        if type(port) is not int or not 0 < port < 1 << 16:
            raise UsageError(f"rtt: port is a number from 1 to 65535, not {port!r}")
        self.kind = kind
        self.port = port
        self.address = _checked(address) if address is not None else ""
        self.duration = parse_time(duration, "rtt: duration")
        self.interval = parse_time(interval, "rtt: interval")
        self.threshold = parse_time(threshold, "rtt: threshold")
        self.patience = parse_time(patience, "rtt: patience")
        if not 0 < self.interval <= self.duration:
            raise UsageError(
                f"rtt: an interval of {interval} is not above 0 and within the duration, {duration}"
            )
        if not 0 < self.threshold < self.patience:
            raise UsageError(
                f"rtt: a threshold of {threshold} is not above 0 and below the patience, {patience}: "
                "no answer could be as slow as that"
            )
        self.longest = self.duration + self.patience + _GRACE_S
