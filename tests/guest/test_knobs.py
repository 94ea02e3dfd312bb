"""Settings of the kernel, in a copy of its folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.guest import attributes, knobs
from pytest_kernelfs.guest.dispatch import GuestError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders as /proc/sys and /sys/module."""
    for name, value in {
        "sys/vm/swappiness": "60",
        "sys/vm/dirty_ratio": "20",
        "sys/vm/dirty_bytes": "0",
        "sys/vm/dirty_background_ratio": "0",
        "sys/vm/dirty_background_bytes": "0",
        "sys/vm/drop_caches": "0",
        "sys/net/ipv4/tcp_rmem": "4096\t131072\t6291456",
        "module/overlay/parameters/metacopy": "N",
        "module/loop/refcnt": "0",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    monkeypatch.setattr(knobs, "_SYSCTLS", str(tmp_path / "sys"))
    monkeypatch.setattr(knobs, "_MODULES", str(tmp_path / "module"))
    return tmp_path


def value(tree: Path, name: str) -> str:
    return (tree / name).read_text().strip()


def test_a_sysctl_is_read(tree: Path) -> None:
    assert knobs.read_sysctl("vm.swappiness") == "60"
    assert knobs.read_sysctl("vm/swappiness") == "60"


def test_what_was_is_given_back_latest_first(tree: Path) -> None:
    undo = knobs.write_sysctls([("vm.swappiness", "7"), ("net.ipv4.tcp_rmem", "1 2 3")])
    assert undo == [
        ("net.ipv4.tcp_rmem", "net.ipv4.tcp_rmem", "4096\t131072\t6291456"),
        ("vm.swappiness", "vm.swappiness", "60"),
    ]
    assert value(tree, "sys/vm/swappiness").startswith("7")


@pytest.mark.parametrize("name", ["vm.dirty_bytes", "vm.dirty_ratio"])
def test_of_a_pair_the_one_in_force_is_given_back(tree: Path, name: str) -> None:
    assert knobs.write_sysctls([(name, "30")]) == [("vm.dirty_bytes", "vm.dirty_ratio", "20")]


def test_a_pair_in_bytes_is_given_back_in_bytes(tree: Path) -> None:
    (tree / "sys/vm/dirty_ratio").write_text("0\n")
    (tree / "sys/vm/dirty_bytes").write_text("4096\n")
    assert knobs.write_sysctls([("vm.dirty_ratio", "5")]) == [("vm.dirty_bytes", "vm.dirty_bytes", "4096")]


@pytest.mark.parametrize("name", ["vm.dirty_background_bytes", "vm.dirty_background_ratio"])
def test_a_pair_of_zeros_was_a_ratio_of_zero(tree: Path, name: str) -> None:
    assert knobs.write_sysctls([(name, "1")]) == [
        ("vm.dirty_background_bytes", "vm.dirty_background_ratio", "0")
    ]


def test_what_is_no_setting_has_nothing_to_go_back_to(tree: Path) -> None:
    assert knobs.write_sysctls([("vm.drop_caches", "3")]) == []


def test_an_unknown_name_is_told_with_what_comes_close(tree: Path) -> None:
    with pytest.raises(GuestError, match=r"no sysctl vm\.swapiness; did you mean vm\.swappiness\?"):
        knobs.write_sysctls([("vm.swappiness", "1"), ("vm.swapiness", "1")])
    assert value(tree, "sys/vm/swappiness") == "60"


def test_a_name_that_needs_an_option_of_the_kernel_says_which(tree: Path) -> None:
    with pytest.raises(GuestError, match="CONFIG_DETECT_HUNG_TASK=y"):
        knobs.read_sysctl("kernel.hung_task_timeout_secs")


def test_when_one_is_refused_those_before_are_put_back(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str]] = []

    def write(path: str, text: str) -> None:
        if text == "much":
            raise OSError(22, "Invalid argument")
        written.append((path.rpartition("/")[2], text))

    monkeypatch.setattr(attributes, "write", write)
    with pytest.raises(
        GuestError, match=r"vm\.dirty_bytes = 'much' was refused: Invalid argument \(EINVAL\)"
    ):
        knobs.write_sysctls([("vm.swappiness", "7"), ("vm.dirty_bytes", "much")])
    assert written == [("swappiness", "7"), ("swappiness", "60")]


def test_what_is_gone_is_not_restored(tree: Path) -> None:
    knobs.restore_sysctls([("fs.xfs.xfssyncd_centisecs", "3000"), ("vm.swappiness", "61")])
    assert value(tree, "sys/vm/swappiness") == "61"


def test_a_parameter_is_set_and_told_what_it_was(tree: Path) -> None:
    assert knobs.write_parameter("overlay", "metacopy", "Y") == "N"
    assert knobs.read_parameter("overlay", "metacopy").startswith("Y")
    knobs.restore_parameter("overlay", "metacopy", "N")
    assert knobs.read_parameter("overlay", "metacopy").startswith("N")


def test_a_missing_module_and_a_missing_parameter_are_told_apart(tree: Path) -> None:
    with pytest.raises(GuestError, match="module xfs is not loaded"):
        knobs.read_parameter("xfs", "x")
    with pytest.raises(GuestError, match="no parameter meta; it has metacopy"):
        knobs.read_parameter("overlay", "meta")
    with pytest.raises(GuestError, match="no parameter x; it has none"):
        knobs.read_parameter("loop", "x")
    knobs.restore_parameter("xfs", "x", "1")


def test_a_parameter_for_loading_only_says_how_to_give_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: str, text: str) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(attributes, "write", write)
    with pytest.raises(GuestError, match=r"EACCES.*vm\.modprobe\('overlay', metacopy=…\)"):
        knobs.write_parameter("overlay", "metacopy", "Y")


def test_caches_are_dropped_by_number(tree: Path) -> None:
    knobs.drop_caches(3)
    assert value(tree, "sys/vm/drop_caches").startswith("3")
