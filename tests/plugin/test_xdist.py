"""With several workers there is still one run: its kernels, its table."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import BOTH, Runner, environment, read_events

WORKERS = ("-p", "xdist.plugin", "-n", "2")
TESTS = """
import os
import pytest

@pytest.mark.parametrize("number", range(4))
def test_x(vm, number):
    vm.run("x")

def test_worker():
    assert "PYTEST_XDIST_WORKER" in os.environ
"""


@dataclass(frozen=True)
class Spread:
    """A run that is over."""

    output: pytest.LineMatcher
    folder: Path

    def events(self, kind: str = "") -> list[str]:
        return read_events(self.folder / "events", kind)


@pytest.fixture(scope="module")
def spread(tmp_path_factory: pytest.TempPathFactory) -> Spread:
    """Nine tests over two workers."""
    folder = tmp_path_factory.mktemp("spread")
    (folder / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.plugin.installed", *WORKERS, *BOTH]
    done = subprocess.run(
        [*command, "--kernelfs-isolation", "session"],
        cwd=folder,
        env={**os.environ, **environment(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Spread(pytest.LineMatcher((done.stdout + done.stderr).splitlines()), folder)


def lines_with(output: pytest.LineMatcher, text: str) -> list[str]:
    return [line for line in output.lines if text in line]


def test_all_tests_run_once_in_workers(spread: Spread) -> None:
    spread.output.fnmatch_lines(["2 workers ?9 items?", "=* 9 passed in *"])


def test_kernels_are_resolved_once_for_all_workers(spread: Spread) -> None:
    assert spread.events("resolve") == ["5.10,6.1"]


def test_kernels_are_fetched_and_proved_before_the_workers_need_them(spread: Spread) -> None:
    events = spread.events()
    first_start = next(index for index, event in enumerate(events) if event.startswith("start"))
    wanted = {f"{what} {version}" for what in ("fetch", "prove") for version in ("5.10.262", "6.1.176")}
    assert wanted <= set(events[:first_start])


def test_every_machine_of_every_worker_ends(spread: Spread) -> None:
    assert sorted(spread.events("start")) == sorted(spread.events("destroy"))
    assert 2 <= len(spread.events("start")) <= 4


def test_table_and_header_are_printed_once(spread: Spread) -> None:
    assert len(lines_with(spread.output, "= kernels =")) == 1
    assert len(lines_with(spread.output, "kernelfs: cache")) == 1
    spread.output.fnmatch_lines(["*5.10.262*6.1.176", "*test_x?0?*passed*passed"])
    spread.output.fnmatch_lines(["total", "*passed*4*4"])


def test_verdicts_and_measurements_come_through(run: Runner) -> None:
    source = """
        def test_panic(vm): vm.run("panic")
        def test_lost(vm): vm.run("lost")
        def test_slow(overlay, assert_umount_under): assert_umount_under(0.1)
        """
    result = run.apart(source, "--kernel", "6.1", *WORKERS)
    result.assert_outcomes(failed=2, errors=1)
    result.stdout.fnmatch_lines_random(["*test_panic*FAILED", "*test_lost*ERROR", "*test_slow*FAILED 0.25s"])


def test_a_kernel_that_is_not_to_be_had_is_told_once_before_workers_start(run: Runner) -> None:
    result = run.apart(TESTS, "--kernel", "9.9", *WORKERS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert len([line for line in result.outlines + result.errlines if "no kernel 9.9" in line]) == 1
    result.stdout.no_fnmatch_line("created: *")


def test_kernels_of_the_ini_file_are_the_same_for_all_workers(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nkernelfs_kernels = 5.10 6.1\n")
    result = run.apart(TESTS, *WORKERS)
    result.assert_outcomes(passed=9)
    assert run.events("resolve") == ["5.10,6.1"]


def test_without_kernels_workers_resolve_nothing(run: Runner) -> None:
    run.apart("def test_x(): pass\ndef test_y(): pass\n", *WORKERS).assert_outcomes(passed=2)
    assert run.events() == []
