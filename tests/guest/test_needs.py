"""What a kernel is asked of cgroups, on a folder that looks like a hierarchy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_kernelfs.guest import dying, needs


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What /proc/cgroups says; version 2 shows the controller memory."""

    @contextmanager
    def mounted(*_args: str) -> Iterator[str]:
        yield str(tmp_path)

    found: list[list[str]] = [["memory", "0", "1", "1"], ["perf_event", "0", "1", "1"]]
    (tmp_path / "cgroup.controllers").write_text("memory\n")
    monkeypatch.setattr(needs, "_mounted", mounted)
    monkeypatch.setattr(dying, "_table", lambda: found)
    return found


def test_a_controller_that_is_shown_is_there(rows: list[list[str]]) -> None:
    assert needs.settle("cgroup", "memory") == (needs.MET, "")
    assert needs.settle("cgroup", "pids")[0] == needs.UNMET


def test_so_is_one_that_is_not_shown_because_all_cgroups_have_it(
    rows: list[list[str]], tmp_path: Path
) -> None:
    assert needs.settle("cgroup", "perf_event") == (needs.MET, "")
    assert needs.settle("cgroup", "v2:perf_event.no_such")[0] == needs.UNMET
    assert not (tmp_path / "cgroup.subtree_control").exists()


@pytest.mark.parametrize("row", [["perf_event", "3", "1", "1"], ["perf_event", "0", "1", "0"]])
def test_not_while_version_1_has_it_or_it_is_switched_off(rows: list[list[str]], row: list[str]) -> None:
    rows[1] = row
    assert needs.settle("cgroup", "perf_event")[0] == needs.UNMET
