"""Device-mapper devices that are slow, or lose data and fail at times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.resources.block import BlockDevice
from pytest_kernelfs.resources.dm import DmDevice, Line, whole
from pytest_kernelfs.resources.stack import Resources


@final
class Delay(DmDevice):
    """A device that takes its time: ``read_ms``, ``write_ms`` and ``flush_ms`` are added to each request."""

    def __init__(
        self, resources: Resources, on: BlockDevice, read_ms: int, write_ms: int, flush_ms: int
    ) -> None:
        self.read_ms = read_ms
        self.write_ms = write_ms
        self.flush_ms = flush_ms
        line = self._line(on, read_ms, write_ms, flush_ms)
        super().__init__(resources, resources.name("delay"), [line], [on])

    def set(
        self, *, read_ms: int | None = None, write_ms: int | None = None, flush_ms: int | None = None
    ) -> None:
        """Change delays while the device is in use; None leaves one as it is. What waits is let go."""
        wanted = [
            old if new is None else new
            for old, new in ((self.read_ms, read_ms), (self.write_ms, write_ms), (self.flush_ms, flush_ms))
        ]
        self._set_lines([self._line(self.on[0], *wanted)])
        self.read_ms, self.write_ms, self.flush_ms = wanted

    @staticmethod
    def _line(on: BlockDevice, *delays: int) -> Line:
        for delay in delays:
            if isinstance(delay, bool) or not isinstance(delay, int) or delay < 0:
                raise UsageError(f"dm_factory.delay: {delay!r} is no number of milliseconds; give 0 or more")
        return 0, whole(on), "delay", " ".join(f"{on.path} 0 {delay}" for delay in delays)


@final
class Flakey(DmDevice):
    """A device that is up for ``up`` seconds, then down for ``down``, in turns.

    Down, it does its ``features``. ``fail`` makes it down for good, ``heal`` up for good.
    """

    def __init__(
        self, resources: Resources, on: BlockDevice, up: int, down: int, features: Sequence[str]
    ) -> None:
        self.up = up
        self.down = down
        self.features = list(features)
        line = self._line(on, up, down, features)
        super().__init__(resources, resources.name("flakey"), [line], [on])

    def set(
        self, *, up: int | None = None, down: int | None = None, features: Sequence[str] | None = None
    ) -> None:
        """Change what it does while it is in use; None leaves a thing as it is. The turns begin anew, up."""
        up = self.up if up is None else up
        down = self.down if down is None else down
        features = self.features if features is None else list(features)
        lines = [self._line(self.on[0], up, down, features)]
        self._switch(lines)
        self._lines = lines
        self.up, self.down, self.features, self.failing = up, down, list(features), False

    def heal(self) -> None:
        """From now on it is up."""
        self.set(up=1, down=0)

    def _healthy_lines(self) -> list[Line]:
        return [self._line(self.on[0], 1, 0, self.features)]

    def _failing_lines(self) -> list[Line]:
        return [self._line(self.on[0], 0, 1, self.features)]

    @staticmethod
    def _line(on: BlockDevice, up: int, down: int, features: Sequence[str]) -> Line:
        if isinstance(features, str):
            raise UsageError(f"dm_factory.flakey: features are a list of texts, such as [{features!r}]")
        if min(up, down) < 0 or not up + down:
            raise UsageError(
                f"dm_factory.flakey: up={up!r} and down={down!r} are seconds, 0 or more, and not both 0"
            )
        words = " ".join(features).split()
        arguments = [on.path, "0", str(up), str(down), *([str(len(words)), *words] if words else [])]
        return 0, whole(on), "flakey", " ".join(arguments)
