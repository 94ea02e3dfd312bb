"""The kernelfs command as a user calls it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_kernelfs import __version__, doctor, provision
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.cli import main
from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.kernels import Candidate, Kernel, KernelSettings, KernelVersion, Package, Resolver
from pytest_kernelfs.provision import Need
from tests.cli.conftest import Kernelfs, LocalProvider


class Host:
    """A host that lacks programs, until they are installed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, mends: bool = True) -> None:
        self.lacking: list[Need] = []
        self.installed: list[str] = []
        self.mends = mends
        monkeypatch.setattr(provision, "needs", lambda providers=(), for_tests=False: [])
        monkeypatch.setattr(provision, "missing", lambda needs: list(self.lacking))
        monkeypatch.setattr(provision, "package_manager", lambda: provision.APT)
        monkeypatch.setattr(provision, "install", self._install)
        self._patch = monkeypatch

    def lacks(self, name: str, package: str, *, required: bool = True) -> None:
        self.lacking.append(Need(name, package, package, "running kernels", required, lambda: False))

    def is_of_no_known_kind(self) -> None:
        self._patch.setattr(provision, "package_manager", lambda: None)

    def lets_nobody_install(self) -> None:
        def refuse(manager: object, names: Sequence[str]) -> None:
            raise ProviderUnavailable("cannot install packages: you are not root")

        self._patch.setattr(provision, "install", refuse)

    def _install(self, manager: object, names: Sequence[str]) -> None:
        self.installed += names
        if self.mends:
            self.lacking.clear()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def test_version(kernelfs: Kernelfs) -> None:
    result = kernelfs("--version")
    assert (result.exit_code, result.stdout) == (0, f"kernelfs, version {__version__}\n")


def test_every_command_has_help(kernelfs: Kernelfs) -> None:
    for command in main.commands:
        assert kernelfs(command, "--help").exit_code == 0


def test_setup_has_nothing_to_do_where_all_is_there(kernelfs: Kernelfs, host: Host) -> None:
    result = kernelfs("setup")
    assert (result.exit_code, result.stdout) == (0, "nothing to do: every program is there\n")


def test_setup_shows_the_command_and_asks(kernelfs: Kernelfs, host: Host) -> None:
    host.lacks("qemu-system-x86_64", "qemu-system-x86")
    result = kernelfs("setup", answer="y\n")
    assert "--no-install-recommends qemu-system-x86" in result.stdout
    assert host.installed == ["qemu-system-x86"]
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "done: every program is there")


@pytest.mark.parametrize(("answer", "exit_code"), [("n\n", 1), (None, 4)])
def test_setup_installs_nothing_unless_it_is_told_to(
    kernelfs: Kernelfs, host: Host, answer: str | None, exit_code: int
) -> None:
    host.lacks("depmod", "kmod")
    assert kernelfs("setup", answer=answer).exit_code == exit_code
    assert host.installed == []


def test_setup_yes_does_not_ask(kernelfs: Kernelfs, host: Host) -> None:
    host.lacks("depmod", "kmod")
    assert kernelfs("setup", "--yes").exit_code == 0
    assert host.installed == ["kmod"]


def test_setup_dry_run_only_tells(kernelfs: Kernelfs, host: Host) -> None:
    host.lacks("depmod", "kmod")
    result = kernelfs("setup", "--dry-run", "--yes")
    assert result.exit_code == 0
    assert "packages: kmod" in result.stdout
    assert host.installed == []


def test_setup_on_an_unknown_distribution_lists_the_programs(kernelfs: Kernelfs, host: Host) -> None:
    host.lacks("depmod", "kmod")
    host.is_of_no_known_kind()
    result = kernelfs("setup", "--yes")
    assert result.exit_code == 1
    assert result.stderr.startswith("kernelfs: error: this distribution has neither")
    assert "depmod (running kernels)" in result.stderr


@pytest.mark.parametrize(("required", "exit_code", "word"), [(True, 1, "error"), (False, 0, "warning")])
def test_setup_tells_what_is_still_missing(
    kernelfs: Kernelfs, monkeypatch: pytest.MonkeyPatch, required: bool, exit_code: int, word: str
) -> None:
    host = Host(monkeypatch, mends=False)
    host.lacks("mkfs.btrfs", "btrfs-progs", required=required)
    result = kernelfs("setup", "--yes")
    assert result.exit_code == exit_code
    assert f"kernelfs: {word}: still missing" in result.stderr


@pytest.mark.parametrize(("required", "exit_code", "word"), [(True, 1, "error"), (False, 0, "warning")])
def test_setup_without_privileges(
    kernelfs: Kernelfs, host: Host, required: bool, exit_code: int, word: str
) -> None:
    host.lacks("mkfs.btrfs", "btrfs-progs", required=required)
    host.lets_nobody_install()
    result = kernelfs("setup", "--yes")
    assert result.exit_code == exit_code
    assert f"kernelfs: {word}: cannot install packages" in result.stderr


@pytest.mark.parametrize(("state", "exit_code"), [("ok", 0), ("missing", 1)])
def test_doctor(
    kernelfs: Kernelfs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: doctor.State, exit_code: int
) -> None:
    seen: list[Path] = []

    def examine(settings: KernelSettings) -> list[doctor.Check]:
        seen.append(settings.cache.root)
        return [doctor.Check("qemu", state, "looked at", required=True)]

    monkeypatch.setattr(doctor, "examine", examine)
    table, for_programs = kernelfs("doctor"), kernelfs("--cache", str(tmp_path / "mine"), "doctor", "--json")
    assert (table.exit_code, for_programs.exit_code) == (exit_code, exit_code)
    assert "looked at" in table.stdout
    assert json.loads(for_programs.stdout)["ok"] is (exit_code == 0)
    assert seen == [tmp_path / "cache", tmp_path / "mine"]


def test_doctor_asks_a_provider_whether_it_works(
    kernelfs: Kernelfs, monkeypatch: pytest.MonkeyPatch, provider: LocalProvider
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda settings: [])
    result = kernelfs("doctor", "--provider", "ssh", "--json")
    (check,) = json.loads(result.stdout)["checks"]
    assert (result.exit_code, check["name"], check["detail"]) == (0, "provider ssh, asked", "fake")
    assert provider.closed

    def refuse() -> str:
        raise ProviderUnavailable("the lab is closed")

    monkeypatch.setattr(provider, "describe", refuse)
    result = kernelfs("doctor", "--provider", "ssh")
    assert result.exit_code == 1
    assert "the lab is closed" in result.stdout


class Shelf:
    """Kernels in a cache of real files, and those that could be had; no mirror is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.root = root
        self.settings: list[KernelSettings] = []
        self.offered: list[Candidate] = []
        monkeypatch.setattr(Resolver, "available", lambda resolver: self.offered)
        monkeypatch.setattr(Resolver, "resolve", lambda resolver, specs: self._resolve(resolver, specs))
        monkeypatch.setattr(Resolver, "fetch", lambda resolver, one: self._fetch(resolver, one))

    def offer(self, version: str) -> Candidate:
        package = Package(f"linux-image-{version}", version, "http://mirror.example/x.deb", 35 << 20, "0")
        release = f"{version}-cloud-amd64"
        candidate = Candidate(
            version, KernelVersion.parse(version), release, "debian sid", version, (package,)
        )
        self.offered.append(candidate)
        return candidate

    def put(self, version: str, *, days_unused: float = 0) -> Kernel:
        entry = self.root / "kernels" / version
        entry.mkdir(parents=True)
        (entry / "vmlinuz").write_bytes(b"x" * 50_000)
        release = f"{version}-cloud-amd64"
        kernel = Kernel(KernelVersion.parse(version), release, "debian sid", version, entry / "vmlinuz")
        record = kernel.to_dict() | {"image": "vmlinuz"}
        (entry / "kernel.json").write_text(json.dumps(record))
        then = time.time() - days_unused * 86400
        os.utime(entry, (then, then))
        return kernel

    def releases(self) -> list[str]:
        return sorted(folder.name for folder in (self.root / "kernels").iterdir() if folder.name[0] != ".")

    def _resolve(self, resolver: Resolver, specs: Sequence[str]) -> list[Candidate]:
        self.settings.append(resolver.settings)
        return [candidate for candidate in self.offered if candidate.spec in specs]

    def _fetch(self, resolver: Resolver, candidate: Candidate) -> Kernel:
        assert resolver.settings.progress is not None
        resolver.settings.progress(candidate.packages[0].name, 0, candidate.download_size)
        return self.put(str(candidate.version))


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shelf:
    return Shelf(monkeypatch, tmp_path / "cache")


def test_kernels_ls_shows_the_cache_the_oldest_version_first(kernelfs: Kernelfs, shelf: Shelf) -> None:
    shelf.put("6.12.94")
    shelf.put("6.1.176", days_unused=3)
    lines = kernelfs("kernels", "ls").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["6.1.176", "6.12.94"]
    assert "6.1.176-cloud-amd64  debian sid" in lines[0]
    assert lines[0].endswith("used 3 days ago")


def test_kernels_ls_on_an_empty_cache_says_so(kernelfs: Kernelfs) -> None:
    result = kernelfs("kernels", "ls")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no kernel is in the cache" in result.stderr


def test_kernels_ls_available_marks_what_is_here(kernelfs: Kernelfs, shelf: Shelf) -> None:
    shelf.put(shelf.offer("6.1.176").checksum)
    shelf.offer("7.2.13")
    here, there = kernelfs("kernels", "ls", "--available").stdout.splitlines()
    assert here.endswith("in the cache")
    assert there.endswith("35.0 MiB to download")


def test_kernels_fetch_names_the_image(kernelfs: Kernelfs, shelf: Shelf, tmp_path: Path) -> None:
    shelf.offer("6.1.176")
    mirror = "http://mirror.example/debian"
    result = kernelfs("--debian-mirror", mirror, "kernels", "--flavour", "rt", "fetch", "6.1.176")
    assert result.stdout.split() == [
        "6.1.176",
        "6.1.176-cloud-amd64",
        str(shelf.root / "kernels/6.1.176/vmlinuz"),
    ]
    assert result.stderr == "downloading linux-image-6.1.176 (35.0 MiB)\n"
    assert (shelf.settings[0].flavour, shelf.settings[0].debian_mirror) == ("rt", mirror)


def test_a_keyring_may_be_below_the_home_folder(
    kernelfs: Kernelfs, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shelf.offer("6.1.176")
    kernelfs("--debian-keyring", "~/lab.gpg", "kernels", "fetch", "6.1.176")
    assert shelf.settings[0].debian_keyring == tmp_path / "lab.gpg"


def test_kernels_fetch_of_nonsense_is_wrong_usage(kernelfs: Kernelfs) -> None:
    result = kernelfs("kernels", "fetch", "nonsense")
    assert result.exit_code == 4
    assert "'nonsense' is malformed" in result.stderr


def test_kernels_fetch_needs_a_spec(kernelfs: Kernelfs) -> None:
    assert kernelfs("kernels", "fetch").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ([], ["6.12.94"]),
        (["--older-than", "100"], ["6.1.176", "6.12.94"]),
        (["--all"], []),
        (["--all", "--dry-run"], ["6.1.176", "6.12.94"]),
    ],
)
def test_kernels_prune(kernelfs: Kernelfs, shelf: Shelf, arguments: list[str], kept: list[str]) -> None:
    shelf.put("6.1.176", days_unused=40)
    shelf.put("6.12.94", days_unused=10)
    result = kernelfs("kernels", "prune", *arguments)
    assert result.exit_code == 0
    assert shelf.releases() == kept


def test_kernels_prune_removes_what_holds_no_kernel(kernelfs: Kernelfs, shelf: Shelf) -> None:
    shelf.put("6.12.94")
    damaged = shelf.put("6.1.176").boot_image.parent
    (damaged / "kernel.json").write_text("{")
    half = shelf.root / "kernels" / ".7.2.13.abc"
    half.mkdir()
    (half / "linux-image.deb").write_bytes(b"x" * 50_000)
    would, did = kernelfs("kernels", "prune", "--dry-run"), kernelfs("kernels", "prune")
    said = [f"removed {half}, which was never finished", f"removed {damaged}, which is damaged, or whose mod"]
    for line, start in zip(did.stdout.splitlines(), [*said, "0 kernels, "], strict=True):
        assert line.startswith(start)
    assert "0 B" not in did.stdout
    assert would.stdout == did.stdout.replace("removed", "would remove").replace("freed", "to be freed")
    assert [path.name for path in (shelf.root / "kernels").iterdir()] == ["6.12.94"]
    assert "0 kernels, 0 B freed" in kernelfs("kernels", "prune").stdout


def test_kernels_prune_leaves_a_kernel_that_is_being_fetched(kernelfs: Kernelfs, shelf: Shelf) -> None:
    half = shelf.root / "kernels" / ".7.2.13.abc"
    half.mkdir(parents=True)
    with Cache(shelf.root).lock("kernels", "7.2.13"):
        assert kernelfs("kernels", "prune", "--all").stdout == "0 kernels, 0 B freed\n"
        assert kernelfs("gc").stdout == "nothing to remove\n"
    assert half.exists()


@pytest.mark.parametrize("days", ["nan", "-1", "long"])
def test_kernels_prune_takes_a_number_of_days(kernelfs: Kernelfs, shelf: Shelf, days: str) -> None:
    shelf.put("6.1.176", days_unused=40)
    result = kernelfs("kernels", "prune", f"--older-than={days}")
    assert (result.exit_code, shelf.releases()) == (2, ["6.1.176"])
    assert "Error: Invalid value for '--older-than': " in result.stderr


def test_kernels_prune_says_what_it_removed(kernelfs: Kernelfs, shelf: Shelf) -> None:
    shelf.put("6.1.176", days_unused=40)
    would, did = kernelfs("kernels", "prune", "--dry-run"), kernelfs("kernels", "prune")
    assert would.stdout.startswith("would remove 6.1.176-cloud-amd64 (debian sid)\n1 kernel, ")
    assert did.stdout == would.stdout.replace("would remove", "removed").replace("to be freed", "freed")


@pytest.mark.parametrize("command", [["gc"], ["kernels", "prune", "--all"], ["kernels", "ls"]])
def test_a_cache_of_another_user_is_told_in_one_line(
    kernelfs: Kernelfs, shelf: Shelf, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    shelf.put("6.1.176")
    folder = shelf.root / "kernels"
    listed = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(os, "access", lambda path, _mode: path != shelf.root)
    result = kernelfs(*command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"kernelfs: error: cannot {'look' if len(command) > 1 else 'remove any'}")
    assert result.stderr.count("\n") == 1
