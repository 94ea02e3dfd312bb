"""Arguments of the wrong kind are named, and refused before anything happens."""

from __future__ import annotations

from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

import pytest

from pytest_kernelfs.arguments import check_command, check_environment, check_seconds, check_texts
from pytest_kernelfs.errors import UsageError


def test_texts_are_a_list() -> None:
    assert check_texts("options", ("noatime", "discard")) == ["noatime", "discard"]
    assert check_texts("options", ()) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("noatime", r"options: 'noatime' is one text, not a list of them; write \['noatime'\]"),
        (None, "options: None is no list of texts"),
        (["uid", 5], r"options: 5 \(int\) is no text"),
    ],
)
def test_what_are_no_texts(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_texts("options", given)


def test_seconds_are_a_number() -> None:
    assert check_seconds("within", 0.5) == 0.5
    number = check_seconds("within", Fraction(3, 2))
    assert (number, type(number)) == (1.5, float)
    for wrong in ("5s", None, True, float("nan"), float("inf"), [1]):
        with pytest.raises(UsageError, match=r"within: .* is no number of seconds"):
            check_seconds("within", wrong)


def test_a_command_is_text_or_a_list_with_paths() -> None:
    assert check_command("vm.run", "ls | wc") == "ls | wc"
    assert check_command("vm.run", ("ls", PurePosixPath("/mnt"))) == ["ls", "/mnt"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], r"vm.run: \[\] is no command; write text for the shell, or a list"),
        (None, "vm.run: None is no command"),
        (b"ls", "vm.run: b'ls' is no command"),
        (["sleep", 1], r"vm.run: 1 \(int\) is no text"),
    ],
)
def test_what_is_no_command(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_command("vm.run", given)


def test_an_environment_is_of_texts() -> None:
    assert check_environment("vm.run", None) is None
    assert check_environment("vm.run", {"A": "1"}) == {"A": "1"}
    for wrong in ({"A": 1}, {1: "a"}, ["A=1"]):
        with pytest.raises(UsageError, match=r"vm.run: env"):
            check_environment("vm.run", wrong)
