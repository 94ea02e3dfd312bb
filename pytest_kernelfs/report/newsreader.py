"""Shows the run's news: on the terminal at once, and once more below the results.

The workers of pytest-xdist have no terminal: theirs travel with the next report.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, nullcontext
from typing import final

import pytest

from pytest_kernelfs import news

_ATTRIBUTE = "kernelfs_news"


@final
class Newsreader:
    """A plugin of pytest that hears all news from when it is made until the session is over."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_worker = hasattr(config, "workerinput")
        self._to_send: list[str] = []
        self._seen: dict[str, None] = {}
        self._listening = ExitStack()
        self._listening.enter_context(news.heard_by(self.hear))

    def hear(self, text: str) -> None:
        if self._is_worker:
            self._to_send.append(text)
        elif text not in self._seen:
            self._seen[text] = None
            self._write(text)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if self._to_send:
            setattr(report, _ATTRIBUTE, self._to_send)
            self._to_send = []
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not self._is_worker:
            for text in getattr(report, _ATTRIBUTE, ()):
                self.hear(text)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for text in self._seen:
            terminalreporter.write_line(f"kernelfs: {text}")

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """When all machines have ended: what a worker heard since its last report has no other way."""
        self._listening.close()
        for text in self._to_send:
            news.tell(text)

    def _write(self, text: str) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            terminal.ensure_newline()
            # With xdist it does not see that dots stand in the line.
            if self._config.get_terminal_writer().width_of_current_line:
                terminal.write_line("")
            terminal.write_line(f"kernelfs: {text}")
