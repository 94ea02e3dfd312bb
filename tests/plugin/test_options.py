"""Options and ini settings: a wrong one is told in one line, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs import config as configuration
from pytest_kernelfs import plugin

from .conftest import Runner

TEST = "def test_x(vm): pass"

WRONG = [
    (
        ("--kernelfs-memory", "7"),
        "--kernelfs-memory: 7 is too little for a machine (7 B); give at least 384M",
    ),
    (("--kernelfs-memory", "much"), "--kernelfs-memory 'much' is no size"),
    (("--kernelfs-cpus", "x"), "--kernelfs-cpus: 'x' is no number from 1 to 255"),
    (("--kernelfs-cpus", "0"), "--kernelfs-cpus: '0' is no number from 1 to 255"),
    (("--kernelfs-cpus", "256"), "--kernelfs-cpus: '256' is no number from 1 to 255"),
    (("--kernelfs-cpus", "1.5"), "--kernelfs-cpus: '1.5' is no number from 1 to 255"),
    (("--kernelfs-isolation", "foo"), "--kernelfs-isolation: 'foo' is none of test, class, module, session"),
    (("--kernelfs-accel", "xen"), "--kernelfs-accel: 'xen' is none of auto, kvm, tcg"),
    (("--kernelfs-flavour", "big"), "--kernelfs-flavour: 'big' is none of cloud, amd64, rt"),
    (("--kernelfs-boot-timeout=-1",), "--kernelfs-boot-timeout: '-1' is no time in seconds above 0"),
    (("--kernelfs-boot-timeout=nan",), "--kernelfs-boot-timeout: 'nan' is no time in seconds above 0"),
    (("--kernelfs-boot-timeout=soon",), "--kernelfs-boot-timeout: 'soon' is no time in seconds above 0"),
    (("--kernelfs-provider", "cloud"), "kernelfs: --kernelfs-provider: 'cloud' is none of "),
    (
        ("--kernelfs-ssh", "root@lab-7"),
        "--kernelfs-ssh: it is for the provider ssh, and the provider of this run is qemu; add "
        "--kernelfs-provider ssh, or leave it out",
    ),
    (("--kernelfs-ssh-config=/x",), "--kernelfs-ssh-config: it is for the provider ssh"),
    (("--kernelfs-libvirt-uri=qemu:///system",), "--kernelfs-libvirt-uri: it is for the provider libvirt"),
    (("--kernelfs-vagrant-box=x/y",), "--kernelfs-vagrant-box: it is for the provider vagrant"),
    (("--kernelfs-vagrant-folder=/x",), "--kernelfs-vagrant-folder: it is for the provider vagrant"),
    (
        ("--kernelfs-vagrant-hypervisor=libvirt",),
        "--kernelfs-vagrant-hypervisor: it is for the provider vagrant",
    ),
    (("--kernelfs-allow-local",), "--kernelfs-allow-local: it is for the provider local"),
    (
        ("--kernelfs-provider=ssh", "--kernelfs-ssh=x", "--kernelfs-image=/x"),
        "--kernelfs-image: the provider ssh boots no disk image; leave it out, or choose",
    ),
    (
        ("--kernelfs-provider=local", "--kernelfs-allow-local", "--kernelfs-image-partition=1"),
        "--kernelfs-image-partition: the provider local boots no disk image",
    ),
    (("--kernelfs-image-partition=1",), "--kernelfs-image-partition: it is of a disk image; name that with"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_wrong_option_is_told_in_one_line(run: Runner, arguments: tuple[str, ...], told: str) -> None:
    result = run(TEST, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.errlines if line)
    assert line.startswith(f"ERROR: {told}")
    assert "Traceback" not in result.stdout.str()
    assert run.events() == []


def test_a_wrong_ini_setting_is_told_by_its_name(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nkernelfs_isolation = foo\n")
    result = run(TEST)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: the ini setting kernelfs_isolation: 'foo' is none of *"])


def test_what_other_providers_heed_may_stand_in_the_ini_file_and_the_environment(
    run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nkernelfs_ssh = lab\nkernelfs_image_partition = 1\n")
    monkeypatch.setenv("KERNELFS_VAGRANT_BOX", "x/y")
    run(TEST, "--kernelfs-libvirt-uri=").assert_outcomes(passed=1)


@pytest.mark.parametrize("written", ["5.10 6.1", "5.10,6.1", "5.10\n    6.1"])
def test_kernels_can_be_set_in_the_ini_file(run: Runner, pytester: pytest.Pytester, written: str) -> None:
    pytester.makeini(f"[pytest]\nkernelfs_kernels = {written}\n")
    run(TEST).assert_outcomes(passed=2)
    assert run.events("resolve") == ["5.10,6.1"]


def test_the_command_line_goes_before_the_ini_file(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nkernelfs_kernels = 5.10\nkernelfs_memory = 2G\nkernelfs_cpus = 4\n")
    run(TEST, "--kernel", "6.1", "--kernelfs-memory", "512M").assert_outcomes(passed=1)
    assert run.events("start") == ["6.1.176"]
    assert run.events("size") == ["512M 4"]


def test_how_kernels_are_found_can_be_set(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nkernelfs_offline = true\nkernelfs_flavour = rt\n")
    run(TEST, "--kernelfs-debian-mirror", "http://mirror.example/debian")
    assert run.events("settings") == [
        str({"flavour": "rt", "mirror": "http://mirror.example/debian", "offline": True})
    ]


def test_the_network_may_be_used_unless_it_is_forbidden(run: Runner) -> None:
    run(TEST)
    (settings,) = run.events("settings")
    assert "'offline': False" in settings


def test_the_cache_can_be_moved(run: Runner, pytester: pytest.Pytester) -> None:
    result = run(TEST, "--kernelfs-cache", "elsewhere")
    result.stdout.fnmatch_lines([f"kernelfs: cache {pytester.path}/elsewhere"])


@pytest.fixture
def below(run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below the root folder, which pytest is started from."""
    for name in ("KERNELFS_CACHE", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name)
    folder = pytester.mkdir("below")
    monkeypatch.chdir(folder)
    return folder


def read(pytester: pytest.Pytester, *arguments: str) -> configuration.Config:
    pytester.plugins = [plugin]
    return configuration.read(pytester.parseconfig(*arguments))


def test_paths_of_the_ini_file_are_below_the_root_folder(pytester: pytest.Pytester, below: Path) -> None:
    pytester.makeini("[pytest]\nkernelfs_cache = cache\nkernelfs_debian_keyring = lab.gpg\n")
    config = read(pytester)
    assert config.cache_root == pytester.path / "cache"
    assert config.debian_keyring == pytester.path / "lab.gpg"
    config = read(pytester, "--kernelfs-cache=cache", "--kernelfs-debian-keyring=lab.gpg")
    assert config.cache_root == below / "cache"
    assert config.debian_keyring == below / "lab.gpg"


def test_paths_may_be_below_the_home_folder(
    pytester: pytest.Pytester, below: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pytester.makeini("[pytest]\nkernelfs_cache = ~/cache\nkernelfs_debian_keyring = ~/lab.gpg\n")
    config = read(pytester)
    assert (config.cache_root, config.debian_keyring) == (tmp_path / "cache", tmp_path / "lab.gpg")


def test_without_a_path_the_cache_is_the_users(
    pytester: pytest.Pytester, below: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pytester.makeini("[pytest]\nkernelfs_cache =\nkernelfs_debian_keyring =\n")
    config = read(pytester)
    assert (config.cache_root, config.debian_keyring) == (tmp_path / "kernelfs", None)


def test_an_ini_file_that_a_path_hides_from_pytest_is_told(
    run: Runner, pytester: pytest.Pytester, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The folder is one of tests to pytest, so the root folder is above both."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    ini = pytester.makeini("[pytest]\nkernelfs_memory = 7\n")
    hidden = run.apart(TEST, "--kernel", "6.1", "--kernelfs-artifacts", str(elsewhere))
    told = f"kernelfs: {ini} is not read: pytest takes the {elsewhere} of '--kernelfs-artifacts' *"
    hidden.stdout.fnmatch_lines([told])
    assert run.apart(TEST, "--kernel", "6.1", f"--kernelfs-artifacts={elsewhere}").ret == 4
