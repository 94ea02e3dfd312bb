"""Needs that files and programs settle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kernelfs import Kernel, tools
from pytest_kernelfs.needs.files import settle, unmet
from pytest_kernelfs.needs.need import parse
from tests.fake_machine import kernel as nowhere


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel with a config and modules."""
    (tmp_path / "config").write_text('CONFIG_A=y\nCONFIG_B=m\nCONFIG_HZ=250\nCONFIG_N=n\nCONFIG_T="text"\n')
    (tmp_path / "modules.dep").write_text(
        "kernel/drivers/md/dm-delay.ko.xz: kernel/drivers/md/dm-mod.ko.xz\n"
    )
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\nkernel/drivers/md/dm-mod.ko\n")
    return replace(nowhere(), config=tmp_path / "config", modules=tmp_path)


@pytest.mark.parametrize(
    "need", ["A", "B", "CONFIG_A", "A=y", "B=m", "HZ=250", "T=text"], ids=lambda need: str(need)
)
def test_settings_that_are_there(kernel: Kernel, need: str) -> None:
    assert unmet(parse(f"config:{need}"), kernel) is None


@pytest.mark.parametrize(
    ("need", "told"),
    [
        ("C", "kernel 6.1.176 was built without CONFIG_C"),
        ("N", "kernel 6.1.176 was built without CONFIG_N"),
        ("HZ=100", "kernel 6.1.176 has CONFIG_HZ 250, not 100"),
        ("C=y", "kernel 6.1.176 has CONFIG_C not set, not y"),
    ],
)
def test_settings_that_are_not(kernel: Kernel, need: str, told: str) -> None:
    assert unmet(parse(f"config:{need}"), kernel) == told


def test_modules_are_loadable_or_built_in(kernel: Kernel) -> None:
    for name in ("dm_delay", "dm-delay", "ext4", "dm_mod"):
        assert unmet(parse(f"module:{name}"), kernel) is None
    told = unmet(parse("module:dm_dust"), kernel)
    assert told == "kernel 6.1.176 has no module dm_dust, neither loadable nor built in"


@pytest.mark.parametrize("need", ["config:A", "module:ext4"])
def test_what_a_bare_image_does_not_tell(need: str) -> None:
    told = unmet(parse(need), nowhere())
    assert told is not None
    assert "cannot be known: it came without its" in told


def test_programs_are_those_of_the_host(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find", {"ls": Path("/bin/ls")}.get)
    assert unmet(parse("command:ls"), kernel) is None
    told = unmet(parse("command:mkfs.xfs"), kernel)
    assert told is not None
    assert told.startswith("machines lack it: the program 'mkfs.xfs'")


@pytest.mark.parametrize(
    ("need", "ours", "others", "bare"),
    [
        ("config:A", True, True, True),
        ("module:ext4", True, True, False),
        ("command:ls", True, False, False),
        ("overlay:volatile", False, False, False),
    ],
)
def test_files_tell_less_of_machines_with_programs_of_their_own(
    kernel: Kernel, need: str, ours: bool, others: bool, bare: bool
) -> None:
    assert settle(parse(need), kernel, lifted=True) is ours
    assert settle(parse(need), kernel, lifted=False) is others
    assert settle(parse(need), nowhere(), lifted=False) is bare
