"""The bar that the terminal shows while something is downloaded."""

from __future__ import annotations

import pytest

from pytest_kernelfs.kernels.progress import terminal_progress


def report_two_files() -> None:
    with terminal_progress() as progress:
        for done in (1, 50, 100):
            progress("the package a", done, 100)
            progress("the package b", done // 2, 100)


def test_nothing_is_written_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    report_two_files()
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_the_names(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    report_two_files()
    out, err = capfd.readouterr()
    assert out == ""
    assert "the package a" in err
