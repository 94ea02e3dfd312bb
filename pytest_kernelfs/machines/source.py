"""Turns a function of a test into module text that runs without the test's module."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from pytest_kernelfs.errors import UsageError

_CONSTANTS = (type(None), bool, int, float, str, bytes, tuple, list, dict, set, frozenset)


def self_contained_source(function: Callable[..., Any]) -> str:
    """The function's source, after the imports, constants and functions of its module that it names.

    Raises: UsageError for a lambda, a closure, a method, or a name that cannot be brought along.
    """
    if not isinstance(function, FunctionType) or function.__name__ == "<lambda>":
        raise UsageError(f"vm.call takes a plain function (def …), not {function!r}")
    parts: dict[str, str] = {}
    _collect(function, parts)
    return "\n".join(parts.values())


def _collect(function: FunctionType, parts: dict[str, str]) -> None:
    if function.__closure__:
        names = ", ".join(function.__code__.co_freevars)
        raise UsageError(
            f"vm.call: the function {function.__name__} uses {names} of the function around it; "
            "pass them as arguments"
        )
    source = _source(function)
    for name in _global_names(source):
        if name in parts or name not in function.__globals__ or name == function.__name__:
            continue
        _bring(name, function.__globals__[name], function, parts)
    parts[function.__name__] = source


def _bring(name: str, value: object, function: FunctionType, parts: dict[str, str]) -> None:
    if isinstance(value, ModuleType):
        if value.__name__.partition(".")[0] not in sys.stdlib_module_names:
            raise UsageError(
                f"vm.call: the function {function.__name__} uses the module {value.__name__}, which the "
                "guest does not have: only the standard library is there"
            )
        parts[name] = (
            f"import {value.__name__} as {name}" if "." not in value.__name__ else _dotted(value, name)
        )
    elif isinstance(value, FunctionType) and value.__module__ == function.__module__:
        _collect(value, parts)
    elif getattr(value, "__module__", "").partition(".")[0] in sys.stdlib_module_names and hasattr(
        value, "__name__"
    ):
        parts[name] = f"from {value.__module__} import {value.__name__} as {name}"
    elif type(value) in _CONSTANTS:
        parts[name] = f"{name} = {value!r}"
    else:
        raise UsageError(
            f"vm.call: the function {function.__name__} uses {name} ({type(value).__name__}), which cannot "
            "be sent; pass what it needs as an argument, or import it inside the function"
        )


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
    definition.returns = None
    for argument in ast.walk(definition.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return ast.unparse(definition)


def _global_names(source: str) -> list[str]:
    found = (node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    return [name for name in dict.fromkeys(found) if not hasattr(builtins, name)]
