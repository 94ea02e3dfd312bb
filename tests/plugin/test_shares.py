"""Folders to share, as the command line and the ini file name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.fixtures.machines import RUN

from .conftest import Runner

TEST = "def test_x(vm): pass"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nowhere", "/nowhere is not there; write --kernelfs-share DIR, or DIR:GUEST with an absolute path"),
        (".:x", "'x' in '.:x' is no absolute path without '..'"),
    ],
)
def test_a_wrong_share_is_told_before_all_else(run: Runner, text: str, told: str) -> None:
    result = run(TEST, "--kernelfs-share", text)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.errlines if line)
    assert line.startswith("ERROR: kernelfs: --kernelfs-share: ")
    assert told in line
    assert run.events() == []


def test_folders_of_the_ini_file_lie_below_the_root_folder(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nkernelfs_share =\n    src\n    data:/opt/data\n    ~/own:/own\n")
    for name in ("src", "data", "typed", "home", "home/own"):
        pytester.mkdir(name)
    monkeypatch.setenv("HOME", str(pytester.path / "home"))
    monkeypatch.chdir(pytester.path / "typed")
    root = pytester.path
    configured = pytester.parseconfigure(f"--rootdir={root}", f"-c{root}/tox.ini")
    assert [(share.host, share.guest) for share in configured.stash[RUN].shares] == [
        (root / "src", "/run/kernelfs/share/src"),
        (root / "data", "/opt/data"),
        (root / "home/own", "/own"),
    ]
    typed = pytester.parseconfigure(f"--rootdir={root}", f"-c{root}/tox.ini", "--kernelfs-share=.:/x")
    (share,) = typed.stash[RUN].shares
    assert (share.host, share.guest) == (Path.cwd(), "/x")
