"""How long machines live that are being prepared."""

from __future__ import annotations

import pytest

from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.machines.machine import MachineSpec

from . import fakes
from .conftest import BOTH, Runner

ONE = ("--kernel", "6.1")


class PreparedMachine(fakes.NotedMachine):
    """A machine that can be saved."""

    def save(self) -> SavedMachine:
        fakes.note("prepared save")
        self.alive = False
        return SavedMachine(self.kernel)

    def destroy(self) -> None:
        if self.alive:
            self.alive = False
            fakes.note("prepared end")


class SavedMachine:
    """What was saved."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def discard(self) -> None:
        fakes.note("prepared discard")


@pytest.fixture
def run(run: Runner, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """Machines can be saved."""

    def start_writable(_: object, kernel: Kernel, spec: MachineSpec) -> PreparedMachine:
        fakes.note("prepared start")
        return PreparedMachine(kernel)

    def fork(_: object, saved: SavedMachine) -> fakes.NotedMachine:
        return fakes.NotedMachine(saved.kernel)

    monkeypatch.setattr(fakes.FakeProvider, "start_writable", start_writable, raising=False)
    monkeypatch.setattr(fakes.FakeProvider, "fork", fork)
    return run


def test_one_whose_preparation_fails_ends_at_once(run: Runner) -> None:
    source = """
        import pytest

        @pytest.fixture(params=["fails", "skips"])
        def checkpoint(prepare, request):
            prepare()
            prepare()
            if request.param == "skips":
                pytest.skip("not here")
            raise ValueError("no such file")

        def test_a(vm): pass
        def test_b(vm): pass
        """
    run(source, *BOTH).assert_outcomes(errors=4, skipped=4)
    assert run.events("prepared") == ["start", "start", "end", "end"] * 8


def test_one_that_is_saved_is_forked_until_the_kernels_tests_are_over(run: Runner) -> None:
    source = """
        import pytest

        @pytest.fixture(scope="module")
        def checkpoint(prepare):
            return prepare().checkpoint(word="said")

        def test_a(vm): assert vm.kept == {"word": "said"}
        def test_b(vm): assert vm.kept == {"word": "said"}
        """
    run(source, *BOTH).assert_outcomes(passed=4)
    assert run.events("prepared") == ["start", "save", "discard"] * 2


HANDED_ON = """
    import pytest
    from tests.plugin.fakes import note

    @pytest.fixture(scope="class")
    def prepared(prepare):
        machine = prepare()
        yield machine
        note(f"prepared alive={machine.vm.machine.alive}")

    @pytest.fixture(params=range(2))
    def checkpoint(prepared):
        CHECKPOINT

    class TestPrepared:
        def test_a(self, vm): pass

    def test_b(kernel): note("prepared later")
    """


def test_one_that_is_handed_on_ends_with_the_fixture_that_made_it(run: Runner) -> None:
    run(HANDED_ON.replace("CHECKPOINT", "raise ValueError('no such file')"), *ONE).assert_outcomes(
        errors=2, passed=1
    )
    assert run.events("prepared") == ["start", "alive=True", "end", "later"]


def test_one_belongs_to_the_fixture_that_was_set_up_while_another_was(run: Runner) -> None:
    ask = "prepared = request.getfixturevalue('prepared'); raise ValueError('no such file')"
    source = HANDED_ON.replace("checkpoint(prepared)", "checkpoint(request)").replace("CHECKPOINT", ask)
    run(source, *ONE).assert_outcomes(errors=2, passed=1)
    assert run.events("prepared") == ["start", "alive=True", "end", "later"]


def test_one_that_a_test_makes_lives_as_long_as_its_kernels_tests(run: Runner) -> None:
    source = """
        def test_a(prepare):
            global machine
            machine = prepare().vm.machine

        def test_b(vm): assert machine.alive
        """
    run(source, *ONE).assert_outcomes(passed=2)
    assert run.events("prepared") == ["start", "end"]


def test_an_error_of_a_fixture_is_shown_without_us(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def checkpoint(prepare):
            raise ValueError("no such file")

        @pytest.fixture
        def ready(vm):
            vm.run("fail", check=True)
        """
    )
    result = run("def test_a(vm): pass\n", *ONE)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ValueError: no such file"])
    result.stdout.no_fnmatch_line("*plugin.py*")
    source = """
        import pytest

        @pytest.fixture
        def checkpoint(): return None

        def test_a(ready): pass
        """
    result = run(source, *ONE)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['*vm.run("fail", check=True)', "conftest.py:*"])
    result.stdout.no_fnmatch_line("*plugin.py*")
