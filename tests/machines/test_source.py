"""A test's function becomes a text that runs where the test's module is not."""

from __future__ import annotations

import functools
import math
import os
import os.path as paths
import xml.etree.ElementTree as Tree
from collections import OrderedDict
from collections.abc import Callable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pytest_kernelfs import sizes
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.machines.source import self_contained_source
from pytest_kernelfs.sizes import parse_size

LIMIT = 40
NAMES = ("a", "b")
ENDLESS = math.inf
WHERE = (Path("/proc"),)
NESTED = {"a": [1, {2}, (None, True)], b"b": frozenset(), "c": -math.inf}
machine_code: Any = None


class Local:
    """A class of the test's module."""

    def method(self) -> int:
        return LIMIT


def run(function: Callable[..., Any], *args: Any) -> Any:
    """Run the function's text in an empty module."""
    namespace: dict[str, Any] = {"__name__": "kernelfs_call"}
    exec(compile(self_contained_source(function), "<guest>", "exec"), namespace)
    return namespace[function.__name__](*args)


def helper(value: int) -> int:
    return value + LIMIT


def even(value: int) -> bool:
    return value == 0 or odd(value - 1)


def odd(value: int) -> bool:
    return value != 0 and even(value - 1)


def double(value: int) -> int:
    return 2 * value


another_name = double


def open(path: str) -> str:  # noqa: A001  (it is to hide the builtin)
    return f"not {path}"


def test_a_plain_function_runs() -> None:
    def add(left: int, right: int) -> int:
        return left + right

    assert run(add, 2, 3) == 5


def test_modules_come_along() -> None:
    def join() -> str:
        return os.fsdecode(b"a") + paths.sep

    assert run(join) == "a/"


def test_modules_in_packages_come_along() -> None:
    def tag() -> str:
        return Tree.fromstring("<a/>").tag

    assert run(tag) == "a"


def test_imported_names_come_along() -> None:
    def first() -> str:
        return next(iter(OrderedDict(x=1)))

    assert run(first) == "x"


def test_constants_come_along() -> None:
    def both() -> list[object]:
        return [LIMIT, NAMES]

    assert run(both) == [40, ("a", "b")]


def test_an_endless_number_comes_along() -> None:
    def limit() -> float:
        return ENDLESS

    assert run(limit) == math.inf


def test_nested_constants_come_along() -> None:
    def nested() -> object:
        return NESTED

    assert run(nested) == NESTED


def test_helpers_come_along_with_what_they_need() -> None:
    def calculate() -> int:
        return helper(2)

    assert run(calculate) == 42


def test_functions_that_call_each_other_come_along() -> None:
    assert run(even, 10) is True
    assert run(odd, 10) is False


def test_a_helper_under_another_name_comes_along() -> None:
    def calculate() -> int:
        return another_name(21)

    assert run(calculate) == 42


def test_a_function_that_hides_a_builtin_comes_along() -> None:
    def name() -> str:
        return open("a file")

    assert run(name) == "not a file"


def test_a_function_may_call_itself() -> None:
    assert run(factorial, 5) == 120


def factorial(value: int) -> int:
    return 1 if value < 2 else value * factorial(value - 1)


def test_defaults_are_kept() -> None:
    def limit(value: int = LIMIT, *, factor: int = 2) -> int:
        return value * factor

    assert run(limit) == 80


def test_annotations_need_not_be_known_in_the_guest() -> None:
    def count(names: Sequence[Local]) -> Local | int:
        return len(names)

    assert run(count, [1, 2]) == 2


def test_annotations_of_variables_need_not_be_known_either() -> None:
    def count() -> int:
        found: list[Local] = []
        return len(found)

    assert run(count) == 0


@pytest.mark.usefixtures("tmp_path")
def decorated() -> int:
    return LIMIT


def test_decorators_are_left_behind() -> None:
    assert "usefixtures" not in self_contained_source(decorated)
    assert run(decorated) == 40


def test_an_argument_hides_what_the_module_calls_the_same() -> None:
    def first(pattern: str) -> str:
        return pattern[0]

    assert run(first, "xyz") == "x"


def test_a_variable_hides_what_the_module_calls_the_same() -> None:
    def first() -> list[int]:
        pattern = [3]
        return [value for value in pattern]  # noqa: C416  (a scope of its own)

    assert run(first) == [3]


def test_inner_functions_may_use_the_module_too() -> None:
    def outer() -> int:
        def inner() -> int:
            return helper(1)

        return inner()

    assert run(outer) == 41


def refused(function: Any) -> str:
    with pytest.raises(UsageError) as caught:
        self_contained_source(function)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_lambda_is_refused() -> None:
    assert refused(lambda: 1).startswith("vm.call takes a plain function (def …), not <function")


@pytest.mark.parametrize("thing", [Local().method, print, Local, functools.partial(helper, 1), "text"])
def test_what_is_no_plain_function_is_refused(thing: object) -> None:
    assert refused(thing).startswith("vm.call takes a plain function")


def test_a_coroutine_is_refused() -> None:
    async def later() -> None:
        pass

    assert refused(later) == "vm.call takes a plain function, not later"


def test_a_closure_is_refused_by_the_names_it_uses() -> None:
    size = 3

    def grow() -> int:
        return size + 1

    assert refused(grow) == (
        "vm.call: the function grow uses size of the function around it; pass them as arguments"
    )


def test_modules_of_the_project_are_imported() -> None:
    def size() -> int:
        return sizes.parse_size("1M") + parse_size("1K")

    text = self_contained_source(size)
    assert "sizes = importlib.import_module('pytest_kernelfs.sizes')" in text
    assert "from pytest_kernelfs.sizes import parse_size as parse_size" in text
    assert run(size) == (1 << 20) + 1024


def test_a_class_of_the_project_is_imported() -> None:
    def wrong() -> str:
        return UsageError("no").message

    assert run(wrong) == "no"


def test_a_function_of_a_library_that_needs_its_module_is_imported_there() -> None:
    assert self_contained_source(parse_size) == "from pytest_kernelfs.sizes import parse_size"
    assert "def format_size" in self_contained_source(sizes.format_size)


def test_a_module_of_machine_code_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / f"compiled_thing{EXTENSION_SUFFIXES[0]}"
    path.touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(globals(), "machine_code", ModuleType("compiled_thing"))

    assert refused(use_machine_code) == (
        f"vm.call: the module compiled_thing is an extension in machine code ({path}); only modules of pure "
        "Python can be brought into the machine, and the function use_machine_code uses it"
    )


def use_machine_code() -> object:
    return machine_code.value


def test_a_module_without_a_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "machine_code", ModuleType("made_up"))
    assert refused(use_machine_code).startswith(
        "vm.call: the function use_machine_code uses the module made_up, which no import finds on this host"
    )


def test_a_class_of_the_test_is_refused() -> None:
    def make() -> object:
        return Local()

    assert refused(make).startswith("vm.call: the function make uses Local (type), which cannot be sent")


def test_a_constant_that_holds_an_object_is_refused() -> None:
    def where() -> object:
        return WHERE

    assert refused(where).startswith("vm.call: the function where uses WHERE (tuple), which cannot be sent")


def test_a_helper_is_refused_in_its_own_name() -> None:
    def use() -> object:
        return needs_a_class()

    assert "the function needs_a_class uses Local" in refused(use)


def needs_a_class() -> object:
    return Local()


def test_a_function_without_source_is_refused() -> None:
    namespace: dict[str, Any] = {}
    exec("def made(): return 1", namespace)
    assert refused(namespace["made"]).startswith("vm.call: the source of made cannot be read")
