"""News of the run reach whoever watches it, and no verdict."""

from __future__ import annotations

import pytest

from pytest_kernelfs import news

from .conftest import Runner

TESTS = """
import pytest
from pytest_kernelfs.news import tell

@pytest.fixture
def crowded():
    tell("waiting for room: the host is full")
    yield
    tell("something was left on the host")

@pytest.mark.parametrize("number", range(2))
def test_waits(vm, crowded, number):
    print("out of the test")
    tell("waiting for room: the host is full")
"""
WAITING = "kernelfs: waiting for room: the host is full"
LEFT = "kernelfs: something was left on the host"


def told(lines: list[str]) -> list[str]:
    return [line for line in lines if line in (WAITING, LEFT)]


def test_news_are_shown_at_once_and_at_the_end_and_are_no_warnings(run: Runner) -> None:
    result = run(TESTS, "--kernel", "6.1", "-v")
    result.assert_outcomes(passed=2, warnings=0)
    assert told(result.outlines) == [WAITING, LEFT, WAITING, LEFT]
    result.stdout.fnmatch_lines(["test_it.py::test_waits*", WAITING, "*PASSED*", "total", WAITING, LEFT])
    assert "out of the test" not in result.stdout.str()


def test_news_of_workers_are_shown_by_the_controller(run: Runner) -> None:
    result = run.apart(TESTS, "--kernel", "6.1", "-W", "error", "-p", "xdist.plugin", "-n", "2")
    result.assert_outcomes(passed=2, warnings=0)
    assert told(result.outlines) == [WAITING, LEFT, WAITING, LEFT]


def test_without_a_terminal_nothing_is_shown(run: Runner) -> None:
    result = run(TESTS, "--kernel", "6.1", "-p", "no:terminal")
    assert result.ret == 0
    assert told([*result.outlines, *result.errlines]) == []


def test_without_a_run_news_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[str] = []
    with news.heard_by(heard.append):
        news.tell("to a listener")
    with news.heard_by(news.print_news):
        news.tell("to nobody in particular")
    assert heard == ["to a listener"]
    assert capsys.readouterr().err == "kernelfs: to nobody in particular\n"
