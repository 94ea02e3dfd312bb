"""Turns a function of a test into module text that runs without the test's module."""

from __future__ import annotations

import ast
import inspect
import symtable
import sys
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.guest.importing import ABSENT, REFUSED, SOURCE
from pytest_kernelfs.machines.importing import module_for_guest


def self_contained_source(function: Callable[..., Any]) -> str:
    """The function's source, after the imports, constants and functions of its module that it names.

    A function of a library that needs more than that is imported there.

    Raises: UsageError for a lambda, a closure, a method, or a name that cannot be brought along.
    """
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise UsageError(f"vm.call takes a plain function (def …), not {function!r}")
    parts: dict[str, str] = {}
    try:
        _collect(function, parts)
    except UsageError:
        if not _in_a_library(function):
            raise
        return f"from {function.__module__} import {function.__name__}"
    return "\n".join(parts.values())


def _collect(function: FunctionType, parts: dict[str, str]) -> None:
    if function.__closure__:
        names = ", ".join(function.__code__.co_freevars)
        raise UsageError(
            f"vm.call: the function {function.__name__} uses {names} of the function around it; "
            "pass them as arguments"
        )
    source = _source(function)
    parts[function.__name__] = ""  # a helper may call back
    for name in _global_names(source):
        if name not in parts and name in function.__globals__:
            _bring(name, function.__globals__[name], function, parts)
    # Behind all that it names: its defaults are evaluated where it is defined.
    del parts[function.__name__]
    parts[function.__name__] = source


def _bring(name: str, value: object, function: FunctionType, parts: dict[str, str]) -> None:
    if isinstance(value, ModuleType):
        if not _is_standard(value.__name__):
            _check_module(value.__name__, function)
        parts[name] = (
            f"import {value.__name__} as {name}" if "." not in value.__name__ else _dotted(value, name)
        )
    elif isinstance(value, FunctionType) and value.__module__ == function.__module__:
        if value.__name__ not in parts:
            _collect(value, parts)
        if name != value.__name__:
            parts[name] = f"{name} = {value.__name__}"
    elif _is_of_the_standard_library(value):
        parts[name] = f"from {value.__module__} import {value.__name__} as {name}"  # type: ignore[attr-defined]
    elif (expression := _expression(value)) is not None:
        parts[name] = f"{name} = {expression}"
    elif (home := _home(value)) is not None and home != function.__module__:
        _check_module(home, function)
        parts[name] = f"from {home} import {value.__name__} as {name}"  # type: ignore[attr-defined]
    else:
        raise UsageError(
            f"vm.call: the function {function.__name__} uses {name} ({type(value).__name__}), which cannot "
            "be sent; pass what it needs as an argument, or import it inside the function"
        )


def _check_module(name: str, function: FunctionType) -> None:
    """Raises: UsageError if a module cannot be brought into a guest."""
    kind, *rest = module_for_guest(name)
    if kind == REFUSED:
        raise UsageError(f"{rest[0]}, and the function {function.__name__} uses it")
    if kind == ABSENT:
        raise UsageError(
            f"vm.call: the function {function.__name__} uses the module {name}, which no import finds on "
            "this host, so it cannot be brought into the machine; put it into a file"
        )


def _home(value: object) -> str | None:
    """The module from which a function or class can be imported by its name; None if there is none."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    name = getattr(value, "__name__", None)
    is_there = module is not None and isinstance(name, str) and vars(module).get(name) is value
    return module.__name__ if is_there and module is not None else None


def _in_a_library(function: FunctionType) -> bool:
    """Whether its module can be imported in a guest; test modules are made for pytest."""
    if _home(function) is None:
        return False
    name = function.__module__.rpartition(".")[2]
    if name == "conftest" or name.startswith("test_") or name.endswith("_test"):
        return False
    return bool(module_for_guest(function.__module__)[0] == SOURCE)


def _dotted(module: ModuleType, name: str) -> str:
    return f"import importlib\n{name} = importlib.import_module({module.__name__!r})"


def _source(function: FunctionType) -> str:
    """The function's text, without decorators and without annotations, which may name what is not there."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError) as error:
        raise UsageError(f"vm.call: the source of {function.__name__} cannot be read: {error}") from None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise UsageError(f"vm.call takes a plain function, not {function.__name__}")
    definition.decorator_list = []
    for node in ast.walk(definition):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
    return ast.unparse(definition)


def _global_names(source: str) -> list[str]:
    """The names that it takes from its module or from the builtins, in any scope within it."""
    tables = [symtable.symtable(source, "<vm.call>", "exec")]
    for table in tables:
        tables += table.get_children()
    symbols = (symbol for table in tables for symbol in table.get_symbols())
    found = (symbol.get_name() for symbol in symbols if symbol.is_global() and symbol.is_referenced())
    return list(dict.fromkeys(found))


def _is_of_the_standard_library(value: object) -> bool:
    module = getattr(value, "__module__", None) or ""
    return _is_standard(module) and hasattr(value, "__name__")


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _expression(value: object) -> str | None:
    """Python text that makes an equal value; None for a value that is not plain through and through."""
    if value is None or type(value) in (bool, int, str, bytes):
        return repr(value)
    if isinstance(value, float):
        return f"float({str(value)!r})"
    if type(value) is dict:
        inner = _expression([list(pair) for pair in value.items()])
        return None if inner is None else f"dict({inner})"
    if type(value) not in (tuple, list, set, frozenset):
        return None
    members = [_expression(member) for member in value]  # type: ignore[attr-defined]
    known = [member for member in members if member is not None]
    return f"{type(value).__name__}([{', '.join(known)}])" if len(known) == len(members) else None
