"""The accelerator: KVM is proved, never taken on trust, and the answer is remembered for this boot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines import lease
from pytest_kernelfs.machines.accelerator import Accelerator
from pytest_kernelfs.machines.lease import ProcessId
from pytest_kernelfs.machines.qemu import accel
from pytest_kernelfs.machines.qemu.accel import choose, remembered_kvm_problem
from pytest_kernelfs.machines.qemu.binary import Qemu

from .conftest import Program

pytestmark = pytest.mark.usefixtures("temporary")

NO_ROOT = "[    0.9] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)"
WORKS = f'echo "{NO_ROOT}" > "$console"'
HANGS = "exec sleep 600"
DIES = "echo 'qemu-system-x86_64: error: failed to set MSR 0x48d' >&2; exit 1"
STOPS_SILENTLY = "exit 0"
MUST_NOT_RUN = "exit 99"
OWNER = """
import sys, tempfile
from pathlib import Path
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.machines.qemu import accel
from pytest_kernelfs.machines.qemu.binary import Qemu
kvm, qemu, cache, tempfile.tempdir = sys.argv[1:]
accel.KVM = Path(kvm)
accel.DEADLINE_S = 600.0
accel.choose("auto", Qemu(Path(qemu), "7.2.22", "first build"), Path("/boot/vmlinuz"), Cache(Path(cache)))
"""

MakeQemu = Callable[[str], Qemu]


@pytest.fixture(autouse=True)
def kvm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A KVM device that opens, on a host that may be busy."""
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(accel, "KVM", path)
    monkeypatch.setattr(accel, "DEADLINE_S", 120.0)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def qemu(program: Program, tmp_path: Path) -> MakeQemu:
    """A QEMU that notes each run, and then does what the script says with ``$console``."""

    def make(script: str) -> Qemu:
        find_console = 'for word; do case "$word" in file:*) console="${word#file:}";; esac; done'
        path = program(f'echo "$@" >> {tmp_path}/runs\n{find_console}\n{script}')
        return Qemu(path, "7.2.22", "first build")

    return make


@pytest.fixture
def runs(tmp_path: Path) -> Callable[[], int]:
    """How often QEMU was run."""
    log = tmp_path / "runs"
    return lambda: len(log.read_text().splitlines()) if log.exists() else 0


def auto(qemu: Qemu, cache: Cache) -> Accelerator:
    return choose("auto", qemu, Path("/boot/vmlinuz"), cache)


def test_a_guest_that_misses_its_root_proves_kvm(qemu: MakeQemu, cache: Cache) -> None:
    chosen = auto(qemu(WORKS), cache)
    assert str(chosen) == "KVM (proved by running a guest)"


@pytest.mark.parametrize("script", [WORKS, DIES])
def test_the_proof_leaves_no_files(qemu: MakeQemu, cache: Cache, script: str) -> None:
    auto(qemu(script), cache)
    assert list(lease.base_folder().iterdir()) == []


def test_the_guest_of_the_proof_ends_when_its_owner_is_killed(
    qemu: MakeQemu, cache: Cache, kvm: Path, temporary: Path, tmp_path: Path
) -> None:
    fake = qemu(f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; exec sleep 600")
    command = [sys.executable, "-c", OWNER, *map(str, (kvm, fake.path, cache.root, temporary))]
    with subprocess.Popen(command) as owner:
        wait_until((tmp_path / "pid").exists)
        guest = ProcessId.of(int((tmp_path / "pid").read_text()))
        assert guest.alive
        owner.kill()
    try:
        wait_until(lambda: not guest.alive)
    finally:
        guest.kill()
    assert len(lease.collect()) == 1
    assert list(temporary.iterdir()) == [lease.base_folder()]
    assert list(lease.base_folder().iterdir()) == []


def test_the_proof_runs_the_kernel_under_test_with_kvm(qemu: MakeQemu, cache: Cache, tmp_path: Path) -> None:
    auto(qemu(WORKS), cache)
    ran = (tmp_path / "runs").read_text()
    assert "-accel kvm" in ran
    assert "-kernel /boot/vmlinuz" in ran


def test_a_guest_that_hangs_means_tcg(
    qemu: MakeQemu, cache: Cache, monkeypatch: pytest.MonkeyPatch, kvm: Path
) -> None:
    monkeypatch.setattr(accel, "DEADLINE_S", 0.1)
    chosen = auto(qemu(HANGS), cache)
    assert chosen == Accelerator("tcg", f"{kvm} opens, but a guest on it did not boot within 0.1 s")


def test_a_qemu_that_dies_means_tcg_in_its_own_words(qemu: MakeQemu, cache: Cache, kvm: Path) -> None:
    chosen = auto(qemu(DIES), cache)
    assert chosen.name == "tcg"
    assert chosen.reason == f"{kvm} opens, but a guest on it fails: error: failed to set MSR 0x48d"


def test_a_qemu_that_stops_silently_means_tcg(qemu: MakeQemu, cache: Cache) -> None:
    chosen = auto(qemu(STOPS_SILENTLY), cache)
    assert chosen.name == "tcg"
    assert chosen.reason.endswith("it stopped silently")


def test_a_long_complaint_is_cut(qemu: MakeQemu, cache: Cache, kvm: Path) -> None:
    chosen = auto(qemu(f"echo {'x' * 300} >&2; exit 1"), cache)
    assert chosen.reason.endswith("xxx...")
    assert len(chosen.reason.removeprefix(str(kvm))) < 200


def test_without_the_device_nothing_is_run(
    qemu: MakeQemu, cache: Cache, kvm: Path, runs: Callable[[], int]
) -> None:
    kvm.unlink()
    assert auto(qemu(WORKS), cache) == Accelerator("tcg", f"{kvm} does not exist")
    assert runs() == 0


def test_a_device_that_does_not_open_means_tcg(
    qemu: MakeQemu, cache: Cache, kvm: Path, runs: Callable[[], int]
) -> None:
    kvm.unlink()
    kvm.mkdir()
    assert auto(qemu(WORKS), cache) == Accelerator("tcg", f"{kvm} cannot be opened: Is a directory")
    assert runs() == 0


def test_tcg_on_request_looks_at_nothing(qemu: MakeQemu, cache: Cache, runs: Callable[[], int]) -> None:
    chosen = choose("tcg", qemu(WORKS), Path("/boot/vmlinuz"), cache)
    assert str(chosen) == "TCG (as asked)"
    assert runs() == 0


def test_kvm_on_request_is_proved_too(qemu: MakeQemu, cache: Cache) -> None:
    assert choose("kvm", qemu(WORKS), Path("/boot/vmlinuz"), cache).name == "kvm"


def test_kvm_on_request_that_does_not_work_is_an_error(qemu: MakeQemu, cache: Cache, kvm: Path) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        choose("kvm", qemu(DIES), Path("/boot/vmlinuz"), cache)
    assert str(caught.value) == (
        f"--kernelfs-accel=kvm was asked for, but {kvm} opens, but a guest on it fails: "
        "error: failed to set MSR 0x48d; use --kernelfs-accel=auto or tcg, or mend KVM"
    )


@pytest.mark.parametrize(("script", "name"), [(WORKS, "kvm"), (DIES, "tcg")])
def test_the_answer_is_remembered(
    qemu: MakeQemu, cache: Cache, runs: Callable[[], int], script: str, name: str
) -> None:
    first = auto(qemu(script), cache)
    again = auto(qemu(MUST_NOT_RUN), cache)
    assert first == again
    assert again.name == name
    assert runs() == 1


def test_nothing_is_remembered_before_somebody_looked(qemu: MakeQemu, cache: Cache) -> None:
    assert remembered_kvm_problem(qemu(WORKS), cache) is None


def test_a_device_that_went_away_is_noticed_though_kvm_worked(
    qemu: MakeQemu, cache: Cache, kvm: Path
) -> None:
    auto(qemu(WORKS), cache)
    kvm.unlink()
    assert auto(qemu(WORKS), cache).name == "tcg"


def test_the_answer_is_forgotten_when_the_host_boots(
    qemu: MakeQemu, cache: Cache, runs: Callable[[], int]
) -> None:
    auto(qemu(DIES), cache)
    (memory,) = (cache.root / "accel").iterdir()
    record = json.loads(memory.read_text())
    record["identity"]["boot"] = "an-earlier-boot"
    memory.write_text(json.dumps(record))
    assert auto(qemu(WORKS), cache).name == "kvm"
    assert runs() == 2


def test_the_answer_is_forgotten_for_another_qemu(
    qemu: MakeQemu, cache: Cache, runs: Callable[[], int]
) -> None:
    auto(qemu(DIES), cache)
    assert auto(replace(qemu(WORKS), fingerprint="second build"), cache).name == "kvm"
    assert runs() == 2


@pytest.mark.parametrize("text", ["", "{", '{"identity": {}}'])
def test_a_damaged_memory_is_no_memory(
    qemu: MakeQemu, cache: Cache, runs: Callable[[], int], text: str
) -> None:
    auto(qemu(DIES), cache)
    (memory,) = (cache.root / "accel").iterdir()
    memory.write_text(text)
    assert auto(qemu(WORKS), cache).name == "kvm"
    assert runs() == 2


def test_a_cache_that_cannot_be_written_does_not_stand_in_the_way(qemu: MakeQemu, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert auto(qemu(WORKS), Cache(tmp_path / "file" / "cache")).name == "kvm"


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        os.sched_yield()
