"""``kernelfs run``, in machines that are local processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_kernelfs.cli.attachment import Attachment
from pytest_kernelfs.errors import InfrastructureError, KernelPanic
from tests.cli.conftest import Kernelfs, LocalMachine, LocalProvider, calls, fill

Capture = pytest.CaptureFixture[bytes]
# For what would never come to an end otherwise.
PATIENCE_S = 300.0


def test_streams_and_exit_code_are_the_commands(
    kernelfs: Kernelfs, provider: LocalProvider, capfdbinary: Capture, feed: Callable[[bytes], None]
) -> None:
    feed(b"what was typed\n")
    result = kernelfs("run", "--", "sh", "-c", "cat; echo bad >&2; exit 3")
    assert result.exit_code == 3
    assert capfdbinary.readouterr() == (b"what was typed\n", b"bad\n")
    assert result.output == ""
    assert provider.closed


def test_one_word_is_a_line_for_the_shell(
    kernelfs: Kernelfs, provider: LocalProvider, capfdbinary: Capture
) -> None:
    assert kernelfs("run", "echo one; echo two | tr o 0").exit_code == 0
    assert capfdbinary.readouterr().out == b"one\ntw0\n"


def test_options_after_the_command_are_its_own(
    kernelfs: Kernelfs, provider: LocalProvider, capfdbinary: Capture
) -> None:
    assert kernelfs("run", "--kernel", "6.1", "echo", "--kernel", "-x").exit_code == 0
    assert capfdbinary.readouterr().out == b"--kernel -x\n"


def test_work_begins_at_home_or_in_the_first_share(
    kernelfs: Kernelfs, provider: LocalProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = []
    monkeypatch.setattr(
        "pytest_kernelfs.machines.sharing.bring", lambda machine, share: brought.append(share.host)
    )
    assert kernelfs("run", "true").exit_code == 0
    assert calls(provider.machines[0])[1] == str(tmp_path)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    result = kernelfs("run", "--share", f"{folders[0]}:{folders[1]}", "--share", f"{folders[1]}:/two", "true")
    assert result.exit_code == 0
    assert calls(provider.machines[1])[1] == str(folders[1])
    assert brought == folders


def test_the_machine_is_as_it_was_asked_for(
    kernelfs: Kernelfs, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNELFS_ACCEL", "tcg")
    options = ["--memory", "512M", "--kernelfs-cpus", "3", "--boot-timeout", "7"]
    assert kernelfs("run", *options, "true").exit_code == 0
    assert (provider.specs[0].memory, provider.specs[0].cpus) == (512 << 20, 3)
    assert provider.settings is not None
    assert (provider.settings.accel, provider.settings.boot_timeout) == ("tcg", 7.0)


@pytest.mark.parametrize(
    "words", [["run", "--kernel", "", "true"], ["run", "--kernel", "6.1,", "true"], ["shell", ""]]
)
def test_an_empty_kernel_is_not_the_default_one(kernelfs: Kernelfs, words: list[str]) -> None:
    """As of a variable that is not set."""
    result = kernelfs(*words)
    assert result.exit_code == 125
    assert result.stderr.startswith("kernelfs: error: the kernel spec '' is empty; write a series (6.1)")


@pytest.mark.parametrize("name", ["--cache", "--kernelfs-cache"])
def test_the_cache_may_be_named_after_the_command_as_errors_say(
    kernelfs: Kernelfs, provider: LocalProvider, tmp_path: Path, name: str
) -> None:
    above, mine = str(tmp_path / "above"), str(tmp_path / "mine")
    for words, root in [(["--cache", above, "run"], above), (["--cache", above, "run", name, mine], mine)]:
        assert kernelfs(*words, "true").exit_code == 0
        assert provider.settings is not None
        assert str(provider.settings.cache_root) == root


def test_when_the_time_is_up_it_is_killed(kernelfs: Kernelfs, provider: LocalProvider) -> None:
    result = kernelfs("run", "--timeout", "0.3", "sleep 100")
    assert result.exit_code == 124
    assert result.stderr == "kernelfs: the command did not end within 0.3 s and was killed\n"


@pytest.mark.parametrize("seconds", ["nan", "-nan", "0", "-1", "soon"])
def test_a_time_that_is_none_is_told_before_there_is_a_machine(
    kernelfs: Kernelfs, provider: LocalProvider, seconds: str
) -> None:
    result = kernelfs("run", f"--timeout={seconds}", "true")
    assert result.exit_code == 125
    assert "Error: Invalid value for '--timeout': " in result.stderr
    assert provider.machines == []


@pytest.mark.parametrize("seconds", ["inf", "1e300"])
def test_there_may_be_more_time_than_anything_takes(
    kernelfs: Kernelfs, provider: LocalProvider, seconds: str
) -> None:
    assert kernelfs("run", "--timeout", seconds, "exit 3").exit_code == 3


def test_a_machine_that_does_not_answer_does_not_hold_it_up(
    kernelfs: Kernelfs, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_kernelfs.cli.attachment._LAST_WORDS_S", 0.2)

    begin = LocalMachine.exchange

    def freeze_when_told_to_end(machine: LocalMachine, function: Callable[..., Any], *args: Any) -> Any:
        exchange = begin(machine, function, *args)
        send = exchange.send

        def freeze_and_send(item: Any) -> None:
            if item == ("end",):
                machine.guest.send_signal(signal.SIGSTOP)
            send(item)

        monkeypatch.setattr(exchange, "send", freeze_and_send)
        return exchange

    monkeypatch.setattr(LocalMachine, "exchange", freeze_when_told_to_end)
    result = kernelfs("run", "--timeout", "0.5", "sleep 100")
    assert result.exit_code == 124
    assert "SIGKILL did not end it: the machine does not answer any more" in result.stderr


def test_neither_does_one_that_takes_no_input_either(
    kernelfs: Kernelfs,
    provider: LocalProvider,
    monkeypatch: pytest.MonkeyPatch,
    feed: Callable[[bytes], None],
) -> None:
    feed(bytes(1 << 20))
    monkeypatch.setattr("pytest_kernelfs.cli.attachment._LAST_WORDS_S", 0.2)
    begin = LocalMachine.exchange

    def freeze_and_begin(machine: LocalMachine, function: Callable[..., Any], *args: Any) -> Any:
        machine.guest.send_signal(signal.SIGSTOP)
        return begin(machine, function, *args)

    monkeypatch.setattr(LocalMachine, "exchange", freeze_and_begin)
    result = kernelfs("run", "--timeout", "0.5", "cat > /dev/null")
    assert result.exit_code == 124
    assert "SIGKILL did not end it: the machine does not answer any more" in result.stderr


def test_the_death_of_a_kernel_has_a_code_of_its_own(kernelfs: Kernelfs, provider: LocalProvider) -> None:
    result = kernelfs("run", "kill -9 $PPID")
    assert result.exit_code == 255
    assert result.stderr.startswith("kernelfs: error: it panicked (the channel to the guest closed")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--memory", "1K", "true"], "--kernelfs-memory: 1K is too little"),
        (["--share", "/nowhere", "true"], "/nowhere is not there"),
        (["--bogus", "true"], "No such option"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage_is_no_exit_code_of_a_command(
    kernelfs: Kernelfs, provider: LocalProvider, arguments: list[str], said: str
) -> None:
    result = kernelfs("run", *arguments)
    assert result.exit_code == 125
    assert said in result.stderr


def test_neither_is_a_machine_that_does_not_start(kernelfs: Kernelfs, provider: LocalProvider) -> None:
    provider.failures["6.1.176"] = InfrastructureError("it does not boot")
    result = kernelfs("run", "true")
    assert (result.exit_code, result.stderr) == (125, "kernelfs: error: it does not boot\n")


def test_output_that_cannot_be_written_is_no_success(
    kernelfs: Kernelfs, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr("pytest_kernelfs.cli.attachment.STDOUT", full.fileno())
        result = kernelfs("run", "echo text")
    assert result.exit_code == 125
    assert "the command's output cannot be written: No space left on device" in result.stderr


def test_no_file_takes_the_place_of_a_stream_that_is_not_there() -> None:
    code = """
import os
from pytest_kernelfs.cli import ending
ending.occupy_streams()
with open(os.devnull) as ours:
    assert ours.fileno() > 2
assert os.read(0, 1) == b""
os.write(1, b"text")
"""
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" <&- >&-', sys.executable, code],
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.stderr.endswith(b"OSError: [Errno 9] Bad file descriptor\n")


def test_a_reader_that_had_enough_ends_it_quietly(
    kernelfs: Kernelfs, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr("pytest_kernelfs.cli.attachment.STDOUT", writer)
    result = kernelfs("run", "while echo more; do :; done")
    os.close(writer)
    assert (result.exit_code, result.stderr) == (141, "")


def test_output_that_nobody_reads_does_not_hold_it_up_when_the_time_is_up(
    kernelfs: Kernelfs, provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = Attachment._show

    def show_at_the_last_moment(attachment: Attachment) -> None:
        show(attachment)
        if not attachment.timed_out:
            attachment._deadline = time.monotonic()

    reader, writer = os.pipe()
    fill(writer)
    monkeypatch.setattr(Attachment, "_show", show_at_the_last_moment)
    monkeypatch.setattr("pytest_kernelfs.cli.attachment._LAST_WORDS_S", 0.3)
    monkeypatch.setattr("pytest_kernelfs.cli.attachment.STDOUT", writer)
    result = kernelfs("run", "--timeout", "1000", "echo more; exec sleep 1000")
    os.close(reader)
    os.close(writer)
    assert result.exit_code == 124
    assert result.stderr == (
        "kernelfs: the command did not end within 1000 s and was killed\n"
        "kernelfs: 1000 s were up, and nobody read what the command had written: "
        "the rest of its output is lost\n"
    )


def test_not_even_where_errors_go_into_the_same_pipe(tmp_path: Path) -> None:
    code = """
import sys
from pytest_kernelfs import providers
from pytest_kernelfs.cli import attachment, ending, machines, main
from pytest_kernelfs.run import Run
from tests.cli import conftest
provider = conftest.LocalProvider()
provider.versions *= 2
providers.choose = lambda name, offered: provider
Run.resolve = lambda run: [conftest._candidate(version) for version in provider.versions]
Run.kernel = lambda run, candidate: conftest.FakeMachine().kernel
machines.HOME = "/"
attachment._LAST_WORDS_S = ending._READER_S = 0.2
main(["--cache", sys.argv[1], "run", "--timeout", "0.5", "yes"])
"""
    reader, writer = os.pipe()
    command = [sys.executable, "-c", code, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    try:
        assert process.wait(PATIENCE_S) == 124, os.read(reader, 1 << 16)
    finally:
        process.kill()
        process.wait()
        os.close(reader)


class TestSeveralKernels:
    @pytest.fixture(autouse=True)
    def kernels(self, provider: LocalProvider) -> None:
        provider.versions = ["5.10.257", "6.1.176", "6.12.48"]

    def test_each_gets_the_same_input(
        self,
        kernelfs: Kernelfs,
        provider: LocalProvider,
        capfdbinary: Capture,
        feed: Callable[[bytes], None],
    ) -> None:
        feed(b"first\nsecond\n")
        # The first machine reads a line, the others all.
        line = "if mkdir begun; then head -n 1; else cat; fi"
        result = kernelfs("run", line)
        assert result.exit_code == 0
        assert capfdbinary.readouterr().out == b"first\n" + 2 * b"first\nsecond\n"
        assert result.stderr == (
            "kernelfs: == 5.10.257 (5.10.257-test) ==\n"
            "kernelfs: == 6.1.176 (6.1.176-test) ==\n"
            "kernelfs: == 6.12.48 (6.12.48-test) ==\n"
            "kernelfs: exit codes: 5.10.257: 0, 6.1.176: 0, 6.12.48: 0\n"
        )

    def test_the_failure_of_one_leaves_the_others_their_turn(
        self, kernelfs: Kernelfs, provider: LocalProvider
    ) -> None:
        provider.failures = {"5.10.257": KernelPanic("it panicked")}
        result = kernelfs("run", "exit 7")
        assert result.exit_code == 255
        assert "kernelfs: error: it panicked\n" in result.stderr
        assert result.stderr.endswith("exit codes: 5.10.257: 255, 6.1.176: 7, 6.12.48: 7\n")

    def test_the_exit_code_is_the_first_that_is_not_0(
        self, kernelfs: Kernelfs, provider: LocalProvider
    ) -> None:
        assert kernelfs("run", "mkdir begun || mkdir again || exit 9; true").exit_code == 9


def test_what_another_provider_heeds_is_refused(kernelfs: Kernelfs, provider: LocalProvider) -> None:
    for option in ("--ssh=root@lab-7", "--allow-local"):
        result = kernelfs("run", option, "true")
        assert result.exit_code == 125
        name = option.partition("=")[0].replace("--", "--kernelfs-")
        assert result.stderr.startswith(f"kernelfs: error: {name}: it is for the provider ")
        assert result.stderr.count("\n") == 1
    assert provider.machines == []
