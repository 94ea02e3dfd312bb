"""An ini file that pytest did not read is told, with the option that is at fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.report.lost_ini import lost_ini

LOST = ("-q", "--kernelfs-cache", "/", "tests")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytest.ini", ""),
        ("pyproject.toml", "[project]\n[tool.pytest.ini_options]\n"),
        ("tox.ini", "[tox]\n[pytest]\n"),
        ("setup.cfg", "[tool:pytest]\n"),
    ],
)
def test_a_path_after_a_blank_hides_the_ini_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    below = tmp_path / "below"
    below.mkdir()
    told = f"{tmp_path / name} is not read: pytest takes the / of '--kernelfs-cache' for a folder of tests"
    assert lost_ini(LOST, below).startswith(told)
    assert lost_ini(LOST, below).endswith("Write --kernelfs-cache=/")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--kernelfs-cache=/",),
        ("--kernel", "6.1"),
        ("--kernelfs-cache", "/no/such/folder"),
        ("--kernel", ",".join(["6.1.0-50-cloud-amd64"] * 30)),  # longer than a name of a file may be
        ("--kernel", "6.1\0"),
        ("--kernelfs-memory", "/"),
        ("tests", "--kernelfs-cache"),
    ],
)
def test_nothing_is_told_where_nothing_is_hidden(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "pytest.ini").touch()
    assert lost_ini(arguments, tmp_path) == ""


def test_an_ini_file_without_settings_of_pytest_is_none(tmp_path: Path) -> None:
    (tmp_path / "setup.cfg").write_text("[metadata]\n")
    assert str(tmp_path) not in lost_ini(LOST, tmp_path)


def test_the_files_of_newer_pytests_count(tmp_path: Path) -> None:
    (tmp_path / "pytest.toml").touch()
    assert lost_ini(LOST, tmp_path).startswith(f"{tmp_path / 'pytest.toml'} is not read")
