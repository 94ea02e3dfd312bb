"""Of which tests artifacts are kept, where they are, and that they change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_kernelfs.errors import GuestTimeout
from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.machines.vm import VM

from . import fakes
from .conftest import Runner

ONE = ("--kernel", "6.1")
TESTS = """
import pytest

def test_good(vm): pass

def test_bad(vm): assert vm.run("x").rc == 5

@pytest.mark.parametrize("name", ["a/b", "a-b"])
def test_panic(vm, name): vm.run("panic")

@pytest.fixture
def broken(vm): raise RuntimeError("no set-up")

def test_setup(broken): pass

def test_without_machine(): assert 0
"""
IN_TEARDOWN = """
def test_x(vm, kernelfs_resources):
    kernelfs_resources.findings.append("the file system is damaged")
"""


def kept(pytester: pytest.Pytester, root: str = "kernelfs-artifacts") -> dict[str, Path]:
    """The folders, by the test's name without its hash."""
    return {path.parent.name: path for path in (pytester.path / root).glob("*/*")}


def indexes(pytester: pytest.Pytester) -> list[str]:
    return sorted((path / "index.md").read_text().splitlines()[0] for path in kept(pytester).values())


def test_every_failure_with_a_machine_has_a_folder_of_its_own(run: Runner, pytester: pytest.Pytester) -> None:
    result = run(TESTS, *ONE)
    result.assert_outcomes(passed=1, failed=4, errors=1)
    assert indexes(pytester) == [
        "# error: test_it.py::test_setup",
        "# failed: test_it.py::test_bad",
        "# failed: test_it.py::test_panic[a-b]",
        "# failed: test_it.py::test_panic[a/b]",
    ]
    assert {path.name for path in kept(pytester).values()} == {"6.1.176"}
    result.stdout.fnmatch_lines(
        ["kernelfs: artifacts of this failure: kernelfs-artifacts/test_it.py-test_bad-*/6.1.176"]
    )
    result.stdout.fnmatch_lines(["artifacts of 4 tests: */kernelfs-artifacts"])


def test_a_folder_tells_of_the_failure_the_host_and_the_machine(
    run: Runner, pytester: pytest.Pytester
) -> None:
    run("def test_bad(vm): print('hello'); assert 0, 'so it is'", *ONE)
    (folder,) = kept(pytester).values()
    assert "AssertionError: so it is" in (folder / "index.md").read_text()
    failure = (folder / "failure.txt").read_text()
    assert ">" in failure
    assert "hello" in failure
    assert "machines: fake machines" in (folder / "host.txt").read_text()
    assert (folder / "dmesg.txt").exists()


def test_everything_is_gathered_before_the_machine_is_gone(run: Runner, pytester: pytest.Pytester) -> None:
    run("def test_bad(vm): assert 0", *ONE)
    assert run.events("destroy") == ["6.1.176"]
    (folder,) = kept(pytester).values()
    assert "the machine was destroyed" not in (folder / "index.md").read_text()


def test_what_is_found_after_the_test_is_kept_too(run: Runner, pytester: pytest.Pytester) -> None:
    run(IN_TEARDOWN, *ONE)
    (folder,) = kept(pytester).values()
    text = (folder / "index.md").read_text()
    assert "- phase: teardown" in text
    assert "the file system is damaged" in text
    assert (folder / "dmesg.txt").exists()


def test_never_keeps_nothing(run: Runner, pytester: pytest.Pytester) -> None:
    result = run(TESTS, *ONE, "--kernelfs-keep", "never")
    result.assert_outcomes(passed=1, failed=4, errors=1)
    result.stdout.no_fnmatch_line("*artifacts*")
    assert not (pytester.path / "kernelfs-artifacts").exists()


def test_always_keeps_of_tests_that_pass(run: Runner, pytester: pytest.Pytester) -> None:
    result = run("def test_good(vm): pass\ndef test_plain(): pass", *ONE, "--kernelfs-keep", "always")
    result.assert_outcomes(passed=2)
    assert indexes(pytester) == ["# passed: test_it.py::test_good"]
    result.stdout.fnmatch_lines(["artifacts of 1 test: *"])


def test_a_finding_after_a_test_that_passed_replaces_what_was_kept(
    run: Runner, pytester: pytest.Pytester
) -> None:
    run(IN_TEARDOWN, *ONE, "--kernelfs-keep", "always")
    assert indexes(pytester) == ["# failed: test_it.py::test_x"]


def test_an_expected_failure_is_none(run: Runner, pytester: pytest.Pytester) -> None:
    source = "import pytest\n@pytest.mark.xfail\ndef test_x(vm): assert 0"
    run(source, *ONE).assert_outcomes(xfailed=1)
    assert kept(pytester) == {}


def test_a_second_run_replaces_what_the_first_kept(run: Runner, pytester: pytest.Pytester) -> None:
    run("def test_bad(vm): assert 0, 'first'", *ONE)
    run("def test_bad(vm): assert 0, 'second'", *ONE)
    (folder,) = kept(pytester).values()
    assert "second" in (folder / "index.md").read_text()


def test_the_folder_is_chosen_by_option_environment_or_ini(
    run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nkernelfs_artifacts = from-ini\n")
    run("def test_bad(vm): assert 0", *ONE)
    assert len(kept(pytester, "from-ini")) == 1
    monkeypatch.setenv("KERNELFS_ARTIFACTS", "from-environment")
    run("def test_bad(vm): assert 0", *ONE)
    assert len(kept(pytester, "from-environment")) == 1
    run("def test_bad(vm): assert 0", *ONE, "--kernelfs-artifacts", str(pytester.path / "typed"))
    assert len(kept(pytester, "typed")) == 1


@pytest.mark.parametrize("warnings", ["default", "error"])
def test_a_folder_that_cannot_be_written_is_told_and_changes_no_verdict(
    run: Runner, pytester: pytest.Pytester, warnings: str
) -> None:
    (pytester.path / "file").touch()
    result = run(
        "def test_bad(vm): assert 0\ndef test_worse(vm): assert 0\ndef test_good(vm): pass",
        *ONE,
        *("--kernelfs-artifacts", "file/below", "-W", warnings),
    )
    result.assert_outcomes(failed=2, passed=1, warnings=0)
    result.stdout.fnmatch_lines(["kernelfs: no artifacts of this failure: cannot write *Not a directory"])
    # Where it was found out, and below the results; not again for the next test.
    told = [line for line in result.outlines if "; no artifacts are kept: choose another folder" in line]
    assert len(told) == 2
    result.stdout.no_fnmatch_line("artifacts of *")


def test_what_goes_wrong_while_gathering_changes_no_verdict(
    run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytest_kernelfs.bundle import facts

    def refuse() -> str:
        raise RuntimeError("no versions")

    monkeypatch.setattr(facts, "tool_versions", refuse)
    result = run("def test_bad(vm): assert 0", *ONE)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["kernelfs: no artifacts of this failure: RuntimeError: no versions"])


def test_workers_write_and_the_controller_shows(run: Runner, pytester: pytest.Pytester) -> None:
    result = run.apart(TESTS, *ONE, "-p", "xdist.plugin", "-n", "2")
    result.assert_outcomes(passed=1, failed=4, errors=1)
    assert len(indexes(pytester)) == 4
    result.stdout.fnmatch_lines(["kernelfs: artifacts of this failure: kernelfs-artifacts/*/6.1.176"])
    result.stdout.fnmatch_lines(["artifacts of 4 tests: */kernelfs-artifacts"])


def test_a_wrong_choice_is_told(run: Runner) -> None:
    result = run(TESTS, "--kernelfs-keep", "sometimes")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --kernelfs-keep: 'sometimes' is none of never, failed, always"])


def test_what_was_measured_is_kept(run: Runner, pytester: pytest.Pytester) -> None:
    source = """
        from pytest_kernelfs.measure import Measurement

        def test_bad(vm, record_measurement):
            record_measurement(Measurement.of("umount", "s", [0.5, 0.25]))
            assert 0
        """
    run(source, *ONE)
    (folder,) = kept(pytester).values()
    (measured,) = json.loads((folder / "measurements.json").read_text())
    assert (measured["name"], measured["samples"]) == ("umount", [0.5, 0.25])
    assert "measurements.json" in (folder / "index.md").read_text()


def test_a_machine_with_programs_of_its_own_is_asked_for_their_versions(
    run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        def test_bad(vm):
            vm.machine.answers["told"] = "mkfs.xfs: /sbin/mkfs.xfs version 9\\n"
            assert 0
        """
    run(source, *ONE)
    (folder,) = kept(pytester).values()
    assert "version 9" not in (folder / "tools.txt").read_text()
    monkeypatch.setattr(fakes.FakeProvider, "userland", lambda _: None)
    run(source, *ONE)
    text = (folder / "tools.txt").read_text()
    assert text.startswith("in the machine:\nmkfs.xfs: /sbin/mkfs.xfs version 9\n\non this host:\npython: ")


def test_a_machine_that_ran_before_has_no_size_of_ours(
    run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "import pytest\n@pytest.mark.vm(memory='2G')\ndef test_bad(vm): assert 0"
    run(source, *ONE)
    (folder,) = kept(pytester).values()
    assert "- machine: memory 2048M, cpus 1\n" in (folder / "index.md").read_text()
    own = fakes.candidate("6.1.176")
    kernel = Kernel(own.version, own.release, "fake", own.checksum, None)
    monkeypatch.setattr(fakes.FakeProvider, "own_kernel", lambda _: kernel)
    run(source)
    (folder,) = kept(pytester).values()
    assert "- machine: fake machines\n" in (folder / "index.md").read_text()


def test_a_set_up_that_fails_on_a_shared_machine_is_kept(
    run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = VM.begin_test, []

    def begin_second(vm: VM, test: str) -> None:
        begun.append(test)
        if len(begun) == 2:
            raise GuestTimeout("the guest did not answer")
        begin(vm, test)

    monkeypatch.setattr(VM, "begin_test", begin_second)
    source = "def test_a(vm): pass\ndef test_b(vm): pass"
    run(source, *ONE, "--kernelfs-isolation", "module").assert_outcomes(passed=1, failed=1)
    assert indexes(pytester) == ["# failed: test_it.py::test_b"]


def test_an_attempt_without_a_machine_leaves_the_artifacts_of_the_one_before(
    run: Runner, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fakes.BROKEN, "")  # so that it is put back
    source = f"""
        import os

        def test_bad(vm):
            os.environ[{fakes.BROKEN!r}] = "6.1.176"
            assert 0, "so it is"
        """
    again = ("-p", "pytest_rerunfailures", "--reruns", "1")
    run(source, *ONE, *again).assert_outcomes(errors=1)
    (folder,) = kept(pytester).values()
    assert "so it is" in (folder / "index.md").read_text()
