"""``kernelfs run`` on providers of other plugins, found by a pytest that runs no test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Its provider says what it was told, and that is the end of it.
PLUGIN = """
import pytest
from pytest_kernelfs.errors import ProviderUnavailable

def pytest_addoption(parser):
    print("noise")
    parser.addoption("--lab", default="one")

def pytest_kernelfs_providers(config):
    def theirs(settings):
        raise ProviderUnavailable(f"the lab {config.getoption('lab')} is closed, {settings.boot_timeout:g}")
    return {"theirs": theirs}
"""


def run(folder: Path, provider: str, *, command: str = "run", **environment: str) -> str:
    """What a command says that ends because of its provider."""
    words = [command, "--kernelfs-boot-timeout", "7", "--provider", provider]
    done = subprocess.run(
        [sys.executable, "-m", "pytest_kernelfs.cli", *words, *(["true"] if command == "run" else [])],
        cwd=folder,
        env={**os.environ, "KERNELFS_CACHE": str(folder / "cache"), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.removeprefix("kernelfs: error: ").rstrip()


@pytest.mark.parametrize("command", ["run", "shell"])
def test_that_of_a_conftest(tmp_path: Path, command: str) -> None:
    (tmp_path / "conftest.py").write_text(PLUGIN)
    assert run(tmp_path, "theirs", command=command) == "the lab one is closed, 7"


def test_that_of_an_installed_plugin_with_an_option_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "lab_plugin.py").write_text(PLUGIN)
    information = tmp_path / "lab-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[pytest11]\nlab = lab_plugin\n")
    said = run(tmp_path, "theirs", PYTHONPATH=str(tmp_path), PYTEST_ADDOPTS="--lab=two")
    assert said == "the lab two is closed, 7"
    (tmp_path / "lab_plugin.py").write_text("import nothing_of_the_kind")
    said = run(tmp_path, "theirs", PYTHONPATH=str(tmp_path))
    assert said.endswith("cannot be loaded here: ModuleNotFoundError: No module named 'nothing_of_the_kind'")


@pytest.mark.parametrize(
    ("conftest", "options", "reason"),
    [
        ("import nothing_of_the_kind", "", "ModuleNotFoundError: No module named 'nothing_of_the_kind'"),
        ("def pytest_kernelfs_providers(config): return {}['x']", "", "KeyError: 'x'"),
        ("", "--lab=two", "error: unrecognized arguments: --lab=two"),
    ],
    ids=["import", "hook", "option"],
)
def test_what_cannot_be_loaded_is_told_in_a_line(
    tmp_path: Path, conftest: str, options: str, reason: str
) -> None:
    (tmp_path / "conftest.py").write_text(conftest)
    said = run(tmp_path, "theirs", PYTEST_ADDOPTS=options)
    assert said.startswith("--kernelfs-provider: 'theirs' is none of qemu, ")
    assert said.endswith(reason)


BROKEN = """
from pytest_kernelfs import PlainProvider

class Broken(PlainProvider):
    name, isolation = "theirs", "test"

    def describe(self):
        return {}["lab"]

    own_kernel = describe

def pytest_kernelfs_providers(config):
    return {"theirs": lambda settings: Broken()}
"""


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("Broken()", "'own_kernel' of the provider 'theirs' raised KeyError: 'lab' ("),
        ("Broken(settings)", "making the provider 'theirs' raised TypeError: Broken() takes no arguments ("),
    ],
)
def test_a_mistake_in_it_is_told_in_a_line(tmp_path: Path, mistake: str, told: str) -> None:
    (tmp_path / "conftest.py").write_text(BROKEN.replace("Broken()", mistake))
    assert run(tmp_path, "theirs").startswith(told)


def test_so_does_doctor(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(BROKEN)
    done = subprocess.run(
        [sys.executable, "-m", "pytest_kernelfs.cli", "doctor", "--json", "--provider", "theirs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    check = json.loads(done.stdout)["checks"][-1]
    assert (done.returncode, check["state"], done.stderr) == (1, "missing", "")
    assert check["detail"].startswith("'describe' of the provider 'theirs' raised KeyError: 'lab' (")


def test_doctor_asks_it(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(PLUGIN)
    done = subprocess.run(
        [sys.executable, "-m", "pytest_kernelfs.cli", "doctor", "--json", "--provider", "theirs"],
        cwd=tmp_path,
        env={**os.environ, "KERNELFS_BOOT_TIMEOUT": "9"},
        capture_output=True,
        text=True,
        check=False,
    )
    check = json.loads(done.stdout)["checks"][-1]
    assert (done.returncode, check["state"]) == (1, "missing")
    assert check["detail"] == "the lab one is closed, 9"


def test_a_name_that_nobody_has(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(PLUGIN)
    assert run(tmp_path, "bogus") == (
        "--kernelfs-provider: 'bogus' is none of libvirt, local, qemu, ssh, theirs, vagrant"
    )
