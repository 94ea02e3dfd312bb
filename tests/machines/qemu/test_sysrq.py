"""Keys on a serial console: pressed one by one, and what is printed told from what was there before."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.errors import GuestTimeout
from pytest_kernelfs.machines import serial_keys
from pytest_kernelfs.machines.channel import ChannelLost
from pytest_kernelfs.machines.qemu.sysrq import ConsoleLine, make_console
from pytest_kernelfs.machines.serial_keys import SerialKeys

# Not a key.
END = "!"
WORDS = {
    "9": "sysrq: Changing Loglevel\r\n[ 1.0] sysrq: Loglevel set to 9",
    "5": "sysrq: Changing Loglevel\r\n[ 1.0] sysrq: Loglevel set to 5",
    "w": "sysrq: Show Blocked State\r\n[ 1.0] task:sync state:D",
    "l": "sysrq: Show backtrace of all active CPUs\r\n[ 1.0] NMI backtrace for cpu 0",
}


class Kernel:
    """Prints what the keys ask for, after a BREAK each, on the console of the machine in ``folder``."""

    def __init__(self, folder: Path, words: dict[str, str]) -> None:
        self.pressed: list[str] = []
        self.ended = False
        self._words = words
        self._breaks = 0
        make_console(folder)
        self._log = folder / "console.out"
        self._log.write_text("[ 0.1] sysrq: sysrq always enabled.\n")
        self._input = os.open(folder / "console.in", os.O_RDWR)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def execute(self, command: str, timeout: float, **arguments: Any) -> None:
        assert (command, arguments) == ("chardev-send-break", {"id": "console"})
        self._breaks += 1

    def _run(self) -> None:
        while (key := os.read(self._input, 1).decode()) != END:
            self.pressed.append(key)
            assert self._breaks == len(self.pressed)
            if key in self._words:
                with self._log.open("a") as log:
                    log.write(f"[ 1.0] {self._words[key]}\r\n")

    def end(self) -> None:
        self.ended = True

    def close(self) -> None:
        os.write(self._input, END.encode())
        self._thread.join()
        os.close(self._input)


@pytest.fixture
def words() -> dict[str, str]:
    return dict(WORDS)


@pytest.fixture
def kernel(tmp_path: Path, words: dict[str, str]) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path, words)
    yield kernel
    kernel.close()


@pytest.fixture
def keys(kernel: Kernel, tmp_path: Path) -> Iterator[SerialKeys]:
    with closing(ConsoleLine(kernel, tmp_path, lambda: kernel.ended)) as line:  # type: ignore[arg-type]
        yield SerialKeys(line)


def test_what_a_key_prints_is_given_alone(keys: SerialKeys, kernel: Kernel) -> None:
    assert keys.ask("w", 120) == "[ 1.0] sysrq: Show Blocked State\n[ 1.0] task:sync state:D\n"
    assert kernel.pressed == ["9", "w", "5"]
    assert keys.level_is_back


def test_several_keys_are_pressed_in_their_order(keys: SerialKeys, kernel: Kernel) -> None:
    text = keys.ask("lw", 120)
    assert text.index("NMI backtrace") < text.index("Blocked State")
    assert kernel.pressed == ["9", "l", "w", "5"]


def test_the_next_answer_does_not_hold_the_last(keys: SerialKeys) -> None:
    keys.ask("w", 120)
    assert "Blocked" not in keys.ask("l", 120)


class Clock:
    """Time passes only once a key was pressed, however busy this host is before."""

    def __init__(self, kernel: Kernel, key: str) -> None:
        self._kernel, self._key = kernel, key
        self._now = 0.0
        self.sleep = time.sleep

    def monotonic(self) -> float:
        self._now += 0.01 if self._key in self._kernel.pressed else 0.0
        return self._now


def test_a_kernel_that_takes_no_key_is_told(
    keys: SerialKeys, words: dict[str, str], kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    words.clear()
    monkeypatch.setattr(serial_keys, "time", Clock(kernel, "9"))
    with pytest.raises(GuestTimeout, match=r"took no sysrq key .* within 0\.2 s.*CONFIG_MAGIC_SYSRQ_SERIAL"):
        keys.ask("w", 0.2)
    assert kernel.pressed == ["9"]
    assert not keys.level_is_back


def test_what_does_not_come_to_its_end_is_cut_off(
    keys: SerialKeys, words: dict[str, str], kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    del words["5"]
    monkeypatch.setattr(serial_keys, "time", Clock(kernel, "5"))
    text = keys.ask("w", 0.5)
    assert "task:sync" in text
    assert text.endswith("[cut off after 0.5 s]\n")
    assert not keys.level_is_back


def test_a_machine_that_ends_is_told(keys: SerialKeys, kernel: Kernel, words: dict[str, str]) -> None:
    del words["w"]
    threading.Timer(0.2, kernel.end).start()
    with pytest.raises(ChannelLost):
        keys.ask("w", 300)
