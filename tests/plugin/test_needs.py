"""What tests need is settled as early as it can be: from files, from memory, in a machine of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from . import fakes
from .conftest import BOTH, Runner
from .test_markers import marked

ONE = ("--kernel", "6.1")


@pytest.fixture
def config(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config file of all kernels."""
    path = pytester.path / "config"
    path.write_text("CONFIG_XFS_QUOTA=y\nCONFIG_HZ=250\n# CONFIG_DM_DUST is not set\n")
    monkeypatch.setenv(fakes.CONFIG, str(path))
    return path


@pytest.mark.usefixtures("config")
def test_a_setting_that_is_missing_skips_without_booting(run: Runner) -> None:
    result = run(marked("kernel_needs('config:DM_DUST')"), *BOTH, "-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*test_it.py:*kernel 5.10.262 was built without CONFIG_DM_DUST"])
    assert run.events("start") == []


@pytest.mark.usefixtures("config")
def test_a_setting_that_is_there_lets_the_test_run(run: Runner) -> None:
    run(marked("kernel_needs('config:XFS_QUOTA', 'config:HZ=250')"), *ONE).assert_outcomes(passed=1)
    assert len(run.events("start")) == 1


def test_a_setting_that_nobody_knows_is_no_setting(run: Runner) -> None:
    result = run(marked("kernel_needs('config:XFS_QUOTA')"), *ONE, "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*cannot be known: it came without its config file*"])


@pytest.mark.usefixtures("config")
def test_nothing_is_probed_for_a_test_that_files_rule_out(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.kernel_needs("overlay:volatile", "config:DM_DUST")
        def test_config(vm): pass

        @pytest.mark.kernel(">=99")
        @pytest.mark.kernel_needs("overlay:metacopy")
        def test_version(vm): pass

        @pytest.mark.skip
        @pytest.mark.kernel_needs("overlay:index")
        def test_skip(vm): pass

        @pytest.mark.skipif("True", reason="never")
        @pytest.mark.kernel_needs("overlay:index")
        def test_skipif(vm): pass

        @pytest.mark.xfail(run=False)
        @pytest.mark.kernel_needs("overlay:index")
        def test_not_run(vm): pass
        """
    run(source, *ONE).assert_outcomes(skipped=4, xfailed=1)
    assert run.events("start") == []
    source += "\n        def test_plain(vm): pass"
    run(source, *ONE).assert_outcomes(passed=1, skipped=4, xfailed=1)
    assert run.events("probe") == []
    assert run.events("start") == ["6.1.176"]
    run(source, *ONE, "--runxfail").assert_outcomes(passed=2, skipped=4)
    assert [event.split()[-1] for event in run.events("probe")] == ["overlay:index"]


def test_a_condition_that_cannot_be_evaluated_is_pytests_to_tell(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.skipif("no_such_name", reason="who knows")
        @pytest.mark.kernel_needs("overlay:index")
        def test_x(vm): pass
        """
    result = run(source, *ONE)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Error evaluating 'skipif' condition*"])


def test_a_probed_need_is_settled_before_the_tests_own_machine(run: Runner) -> None:
    result = run(marked("kernel_needs('overlay:userxattr')"), *BOTH, "-rs")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*test_it.py:*kernel 5.10.262 does not know the overlay option*"])
    kept = [event for event in run.events() if event.split()[0] in ("start", "probe", "destroy")]
    assert kept == [
        *("start 5.10.262", "probe 5.10.262 overlay:userxattr", "destroy 5.10.262"),
        *("start 6.1.176", "probe 6.1.176 overlay:userxattr", "destroy 6.1.176"),
        *("start 6.1.176", "destroy 6.1.176"),
    ]


def test_it_is_remembered_for_other_runs(run: Runner) -> None:
    source = marked("kernel_needs('overlay:userxattr')")
    run(source, *BOTH).assert_outcomes(passed=1, skipped=1)
    before = len(run.events("start"))
    run(source, *BOTH).assert_outcomes(passed=1, skipped=1)
    assert len(run.events("probe")) == 2
    assert run.events("start")[before:] == ["6.1.176"]


def test_the_first_test_settles_the_needs_of_all(run: Runner) -> None:
    source = """
        import pytest

        pytestmark = pytest.mark.isolation("module")

        def test_a(vm): pass

        @pytest.mark.kernel_needs("overlay:metacopy", "cgroup:v1:memory")
        def test_b(vm): pass

        @pytest.mark.kernel_needs("cgroup:memory", "overlay:metacopy")
        def test_c(vm): pass
        """
    run(source, *ONE).assert_outcomes(passed=3)
    probes = run.events("probe")
    assert probes == [f"6.1.176 {n}" for n in ("cgroup:memory", "overlay:metacopy", "cgroup:v1:memory")]
    # One machine for that, and one that the module's tests share.
    events = [event for event in run.events() if event.startswith(("start", "probe"))]
    assert events == ["start 6.1.176", *(f"probe {event}" for event in probes), "start 6.1.176"]


def test_boot_parameters_count_for_cgroups_alone(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.kernel_needs("cgroup:memory", "overlay:metacopy")
        def test_a(vm): pass

        @pytest.mark.vm(boot_parameters="cgroup_no_v1=all")
        @pytest.mark.kernel_needs("cgroup:memory", "overlay:metacopy")
        def test_b(vm): pass
        """
    run(source, *ONE).assert_outcomes(passed=2)
    assert sorted(run.events("probe")) == [
        *("6.1.176 cgroup:memory", "6.1.176 cgroup:memory"),
        "6.1.176 overlay:metacopy",
    ]


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize("need", ["overlay:userxattr", "config:DM_DUST", "command:mkfs.vfat"])
def test_an_unmet_need_can_be_made_an_error(run: Runner, need: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_kernelfs import tools

    monkeypatch.setattr(tools, "find", lambda command: None)
    source = marked(f"kernel_needs({need!r})")
    result = run(source, "--kernel", "5.10", "--kernelfs-require")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*--kernelfs-require makes it an error*"])
    result.stdout.no_fnmatch_line("*Traceback*")
    assert [line for line in result.outlines if line.strip().startswith("test_x")][-1].split()[-1] == "ERROR"
    assert len(run.events("start")) == (1 if need == "overlay:userxattr" else 0)


def test_it_can_be_required_in_the_ini_file(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nkernelfs_require = true\n")
    run(marked("kernel_needs('config:XFS_QUOTA')"), *ONE).assert_outcomes(errors=1)


def test_a_probe_that_tells_neither_is_an_error_and_not_remembered(run: Runner) -> None:
    source = marked("kernel_needs('overlay:uuid', 'overlay:index')")
    for _ in range(2):
        result = run(source, *ONE)
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["overlay:uuid could be settled neither way: kernel 6.1.176 mounts *"])
    assert run.events("probe").count("6.1.176 overlay:uuid") == 2
    assert run.events("probe").count("6.1.176 overlay:index") == 1


def test_a_kernel_that_panics_when_it_is_probed_failed(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.kernel_needs("overlay:verity")
        def test_x(vm): pass

        def test_y(vm): pass
        """
    result = run(source, *ONE)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*Kernel panic - not syncing*"])
    assert len(run.events("destroy")) == len(run.events("start"))


def test_workers_ask_once(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.kernel_needs("overlay:userxattr")
        @pytest.mark.parametrize("number", range(6))
        def test_x(vm, number): pass
        """
    run.apart(source, *BOTH, "-p", "xdist", "-n", "2").assert_outcomes(passed=6, skipped=6)
    assert sorted(run.events("probe")) == ["5.10.262 overlay:userxattr", "6.1.176 overlay:userxattr"]


def test_nothing_is_probed_when_nothing_is_run(run: Runner) -> None:
    source = marked("kernel_needs('overlay:userxattr')")
    run(source, *ONE, "--setup-plan")
    run(source, *ONE, "--collect-only")
    assert run.events("start") == []


def test_a_need_of_a_test_without_kernel_says_nothing(run: Runner) -> None:
    source = """
        import pytest

        @pytest.mark.kernel_needs("overlay:userxattr")
        def test_x(): pass
        """
    run(source, *BOTH).assert_outcomes(passed=1)


MALFORMED = [
    ("kernel_needs", "write kernel_needs("),
    ("kernel_needs()", "write kernel_needs("),
    ("kernel_needs('overlay:volatile', reason='x')", "write kernel_needs("),
    ("kernel_needs(5)", "a need is text such as 'overlay:volatile'"),
    ("kernel_needs('volatile')", "of no known kind; known are cgroup:v1:memory, command:mkfs.btrfs"),
    ("kernel_needs('overlays:volatile')", "(did you mean 'overlay'?)"),
    ("kernel_needs('overlay:')", "of no known kind"),
    ("kernel_needs('overlay:volatil')", "names nothing of overlay (did you mean 'volatile'?)"),
    ("kernel_needs('cgroup:memroy')", "names nothing of cgroups (did you mean 'memory'?)"),
    ("kernel_needs('command:mkfs.btrf')", "never given a program 'mkfs.btrf' (did you mean 'mkfs.btrfs'?)"),
    ("kernel_needs('config:XFS QUOTA')", "names no build setting"),
    ("kernel_needs('module:')", "of no known kind"),
]


@pytest.mark.parametrize(("marker", "told"), MALFORMED, ids=[marker for marker, _ in MALFORMED])
def test_a_malformed_need_is_told_in_one_line(run: Runner, marker: str, told: str) -> None:
    result = run(marked(marker), *BOTH)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = (line for line in result.errlines if line)
    assert line.startswith("ERROR: kernelfs: ")
    assert told in line
    assert run.events("fetch") == run.events("start") == []


def test_the_needs_lie_in_the_cache(run: Runner) -> None:
    run(marked("kernel_needs('overlay:metacopy')"), *ONE).assert_outcomes(passed=1)
    assert len(list(Path(os.environ["KERNELFS_CACHE"]).glob("needs/*.json"))) == 1
