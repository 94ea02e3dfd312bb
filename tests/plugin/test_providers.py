"""Providers of other plugins: found by their name, checked against --kernel, and free to lack things."""

from __future__ import annotations

import pytest

from .conftest import Runner

# A provider whose one machine runs a kernel of its own.
CONFTEST = """
import pytest
from pytest_kernelfs.kernels import Kernel, KernelVersion
from pytest_kernelfs.machines.plain import PlainMachine, PlainProvider
from tests.plugin.fakes import NotedMachine, note

KERNEL = Kernel(KernelVersion.parse("6.5.3"), "6.5.3-own", "a cloud", "c" * 64, image=None)

class Machine(NotedMachine):
    provider_name = "cloud"
    attach_disk = PlainMachine.attach_disk

class Provider(PlainProvider):
    name = "cloud"

    def __init__(self, settings):
        note(f"made with {settings.boot_timeout}")
        note(f"name {settings.run}")

    def describe(self):
        return "a cloud"

    def own_kernel(self):
        return KERNEL

    def start(self, kernel, spec):
        note(f"start {kernel.release}")
        return Machine(kernel)

    def close(self):
        note("close")

def pytest_kernelfs_providers(config):
    return {"cloud": Provider}
"""
CLOUD = ("--kernelfs-provider", "cloud")
TESTS = "def test_one(vm, kernel): assert kernel.image is None\n\ndef test_two(vm): pass\n"


@pytest.fixture
def cloud(run: Runner, pytester: pytest.Pytester) -> Runner:
    pytester.makeconftest(CONFTEST)
    return run


def test_it_is_found_by_its_name_and_ends_with_the_run(cloud: Runner) -> None:
    result = cloud(TESTS, *CLOUD, "--kernelfs-boot-timeout", "7", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_one?6.5.3?*PASSED*"])
    assert cloud.events("made") == ["with 7.0"]
    # Its machine serves the whole session, because it did not say otherwise.
    assert cloud.events("start") == ["6.5.3-own"]
    assert cloud.events()[-1] == "close"


def test_it_is_not_made_unless_it_is_chosen(cloud: Runner) -> None:
    cloud(TESTS.replace("is None", "is not None"), "--kernel", "6.1").assert_outcomes(passed=2)
    assert cloud.events("made") == []


@pytest.mark.parametrize("spec", ["6.5", "6.5.3", "6.5.3-own"])
def test_its_own_kernel_may_be_asked_for(cloud: Runner, spec: str) -> None:
    result = cloud(TESTS, *CLOUD, "--kernel", spec)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["kernelfs: kernel 6.5.3: 6.5.3-own (a cloud)", "kernelfs: a cloud; isolation session"]
    )


@pytest.mark.parametrize("spec", ["6.1", "6.5.4", "6.5,6.1", "debian:sid"])
def test_it_cannot_be_asked_for_another_kernel(cloud: Runner, spec: str) -> None:
    result = cloud(TESTS, *CLOUD, "--kernel", spec)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.errlines if line)
    asked = spec.rpartition(",")[2]
    assert line.startswith(
        f"ERROR: kernelfs: --kernel {asked}: the provider cloud boots no kernels, and its "
    )
    assert "runs 6.5.3-own" in line


def test_two_workers_agree_on_its_kernel(cloud: Runner) -> None:
    result = cloud.apart(TESTS, "-p", "xdist", *CLOUD, "-n", "2")
    result.assert_outcomes(passed=2)
    names = [name for name in cloud.events("name") if name]
    assert len(names) == 2
    assert len(set(names)) == 1, "they know that they are of one run"


def test_what_it_cannot_do_skips_the_test(cloud: Runner) -> None:
    result = cloud(
        "def test_disk(vm, disk): pass\n\ndef test_in_it(disk_factory): disk_factory()\n", *CLOUD, "-rs"
    )
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(
        ["SKIPPED * test_it.py:*: the provider cloud cannot attach disks to its machines*"]
    )


def test_what_it_cannot_do_is_an_error_where_needs_must_be_met(cloud: Runner) -> None:
    result = cloud("def test_in_it(disk_factory): disk_factory()\n", *CLOUD, "--kernelfs-require")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the provider cloud cannot attach disks to its machines*"])


@pytest.mark.parametrize(
    "source",
    ["def test_it(vm): vm.power_cut()", "def test_it(prepare): prepare()"],
    ids=["power cut", "prepare"],
)
def test_a_plain_provider_saves_nothing_and_cuts_no_power(cloud: Runner, source: str) -> None:
    cloud(source, *CLOUD).assert_outcomes(skipped=1)


def test_two_plugins_that_offer_the_same_name_are_told(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST.replace('{"cloud"', '{"ssh"'))
    result = run(TESTS, "--kernelfs-provider", "ssh")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.errlines if line)
    assert (
        line
        == "ERROR: kernelfs: --kernelfs-provider: two plugins offer a provider 'ssh'; disable one of them"
    )


def test_an_error_of_its_own_is_told_without_a_traceback(run: Runner, pytester: pytest.Pytester) -> None:
    raising = 'note(f"start {kernel.release}")\n        raise InfrastructureError("the cloud is full")'
    assert 'note(f"start {kernel.release}")' in CONFTEST
    source = "from pytest_kernelfs.errors import InfrastructureError\n" + CONFTEST
    pytester.makeconftest(source.replace('note(f"start {kernel.release}")', raising))
    result = run("def test_one(vm): pass\n", *CLOUD)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*the cloud is full*"])
    result.stdout.no_fnmatch_line("*conftest.py*")


def broken(where: str) -> str:
    """The same provider, where a method begins with a mistake."""
    assert f"{where}\n" in CONFTEST
    indent = "    " if where.startswith("def pytest") else "        "
    return CONFTEST.replace(f"{where}\n", f"{where}\n{indent}raise ValueError('a typo')\n")


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("def __init__(self, settings):", "making the provider 'cloud'"),
        ("def own_kernel(self):", "'own_kernel' of the provider 'cloud'"),
        ("def describe(self):", "'describe' of the provider 'cloud'"),
        ("def pytest_kernelfs_providers(config):", "a plugin's hook pytest_kernelfs_providers"),
    ],
)
@pytest.mark.parametrize("kernel", [[], ["--kernel", "6.5"]], ids=["", "typed"])
def test_a_mistake_in_it_is_no_traceback_at_the_start(
    run: Runner, pytester: pytest.Pytester, where: str, what: str, kernel: list[str]
) -> None:
    pytester.makeconftest(broken(where))
    result = run(TESTS, *CLOUD, *kernel)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.errlines if line)
    assert line.startswith(f"ERROR: kernelfs: {what} raised ValueError: a typo (")
    assert "conftest.py:" in line
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    ("offers", "told"),
    [
        ("['cloud']", "gave ?'cloud'?; it has to give a dict"),
        ("{'cloud': lambda settings: None}", "'own_kernel' of the provider 'cloud' raised *NoneType*"),
    ],
)
def test_what_is_no_offer_is_told(run: Runner, pytester: pytest.Pytester, offers: str, told: str) -> None:
    pytester.makeconftest(CONFTEST.replace('{"cloud": Provider}', offers))
    result = run(TESTS, *CLOUD)
    result.stderr.fnmatch_lines([f"ERROR: kernelfs: *{told}*"])


def test_a_mistake_when_it_starts_a_machine_is_an_error_of_each_test(
    run: Runner, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(broken("def start(self, kernel, spec):"))
    result = run(
        "def test_one(vm): pass\n\ndef test_two(prepare): pass\n\ndef test_three(vm): pass\n", *CLOUD
    )
    result.assert_outcomes(errors=2, passed=1)
    result.stdout.fnmatch_lines(["'start' of the provider 'cloud' raised ValueError: a typo (*conftest.py:*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_mistake_of_its_machine_in_a_test_is_an_error_with_both_places(
    run: Runner, pytester: pytest.Pytester
) -> None:
    wrong = "    def behave(self, *args):\n        raise ValueError('a typo')\n\nclass Provider"
    pytester.makeconftest(CONFTEST.replace("class Provider", wrong))
    result = run("def test_one(vm):\n    vm.run(['true'])  # here\n", *CLOUD)
    assert result.parseoutcomes()["errors"] >= 1
    assert "failed" not in result.parseoutcomes()
    result.stdout.fnmatch_lines(
        ["*vm.run(?'true'?)  # here*", "*'call' of a machine of the provider 'cloud'*"]
    )


def test_a_mistake_at_the_end_is_told_when_the_tests_have_passed(
    run: Runner, pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(broken("def close(self):"))
    result = run(TESTS, *CLOUD)
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: kernelfs: 'close' of the provider 'cloud' raised ValueError: a typo*"]
    )
    assert not [line for line in result.errlines if "Traceback" in line]


def test_a_mistake_at_the_end_does_not_hide_what_ended_the_run(
    run: Runner, pytester: pytest.Pytester
) -> None:
    broken_end = broken("def close(self):")
    pytester.makeconftest(broken_end.replace("return KERNEL", "raise ValueError('another')"))
    result = run(TESTS, *CLOUD)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = [line for line in result.errlines if line]
    assert ["raised ValueError: a typo" in line for line in told] == [True, False]
    assert told[1].startswith("ERROR: kernelfs: 'own_kernel' of the provider 'cloud' raised ValueError: anot")
