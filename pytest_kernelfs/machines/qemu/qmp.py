"""The QEMU monitor, for synchronous callers in any thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar, cast

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.threads import start
from pytest_kernelfs.shortage import Shortage

_T = TypeVar("_T")
DEFAULT_TIMEOUT_S = 10.0
# Two of a block device's properties, unlike all else, are spelled so.
_WITH_UNDERSCORES = frozenset({"logical_block_size", "physical_block_size"})


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for all monitors, in a thread of its own: a test may be running a loop itself."""
    loop = asyncio.new_event_loop()
    try:
        start(threading.Thread(target=loop.run_forever, name="kernelfs-qmp", daemon=True))
    except BaseException:
        loop.close()
        raise
    return loop


class Monitor:
    """A connection to a QEMU monitor socket."""

    def __init__(self, connection: socket.socket) -> None:
        """Negotiate over a connected socket, which is closed with the monitor.

        Raises: InfrastructureError.
        """
        from qemu.qmp import EventListener, QMPClient

        try:
            _loop()
        except InfrastructureError:
            connection.close()
            raise
        self._events = EventListener(names=["DEVICE_DELETED"])
        self._client = QMPClient("kernelfs")
        self._client.register_listener(self._events)
        self._await(self._client.connect(connection), DEFAULT_TIMEOUT_S, "connect")

    def execute(self, command: str, timeout: float = DEFAULT_TIMEOUT_S, **arguments: Any) -> Any:
        """Run one command and give what it returns; underscores in argument names stand for dashes.

        Raises: InfrastructureError with QEMU's own words if it refuses; Shortage if it takes longer.
        """
        named = {
            name if name in _WITH_UNDERSCORES else name.replace("_", "-"): value
            for name, value in arguments.items()
        }
        return self._await(self._client.execute(command, named), timeout, command)

    def wait_deleted(self, device: str, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Wait until the guest has let go of a device.

        Raises: InfrastructureError.
        """

        async def deleted() -> None:
            async for event in self._events:
                if cast("dict[str, Any]", event["data"]).get("device") == device:
                    return

        self._await(deleted(), timeout, f"wait for the end of device {device}")

    def finish_job(self, job: str, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Wait for a job to end. Raises: InfrastructureError if it failed or takes longer."""

        async def concluded() -> str:
            while True:
                jobs = cast("list[dict[str, Any]]", await self._client.execute("query-jobs"))
                mine = next((entry for entry in jobs if entry["id"] == job), None)
                if mine is None or mine["status"] == "concluded":
                    return "" if mine is None else str(mine.get("error", ""))
                await asyncio.sleep(0.002)

        error = self._await(concluded(), timeout, f"job {job}")
        self.execute("job-dismiss", id=job)
        if error:
            raise InfrastructureError(f"QEMU's job {job} failed: {error}")

    def close(self) -> None:
        """Disconnect; a QEMU that is gone already is no error."""
        try:
            self._await(self._client.disconnect(), 2.0, "disconnect")
        except InfrastructureError:
            pass

    def _await(self, work: Coroutine[Any, Any, _T], timeout: float, what: str) -> _T:
        from qemu.qmp import QMPError

        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout), _loop())
        try:
            return future.result()
        except (asyncio.TimeoutError, TimeoutError):  # one class only from Python 3.11 on
            raise Shortage(f"QEMU did not answer '{what}' within {timeout:g} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise InfrastructureError(f"QEMU refused '{what}': {error}") from error
