"""The first words with a machine, and what is wrong if they are not as they should be."""

from __future__ import annotations

import subprocess

import pytest

from pytest_kernelfs.errors import ProviderUnavailable
from pytest_kernelfs.machines.ssh.greeting import GREETING, Greeting


def _answer(sudo: str = "", root: str = "yes", python: str = "3 9", end: str = "kernelfs:end\n") -> str:
    return f"Welcome!\nkernelfs:before {sudo}\nkernelfs:root {root}\nkernelfs:python {python}\n{end}"


def test_root_needs_nothing() -> None:
    assert Greeting.read("box", _answer(), "") == Greeting((), (3, 9))


def test_others_go_through_sudo_whatever_it_warns_of() -> None:
    answer = _answer(sudo="sudo -n --", root="sudo: unable to resolve host box yes")
    assert Greeting.read("box", answer, "sudo: unable to resolve host").become_root == ("sudo", "-n", "--")


@pytest.mark.parametrize(
    ("answer", "stderr", "message"),
    [
        (_answer(sudo="sudo -n --", root="sudo: a password is required"), "", "NOPASSWD"),
        (_answer(sudo="sudo -n --", root="sh: 1: sudo: not found"), "", "log in as root"),
        (_answer(python=""), "", "has no python3"),
        (_answer(python="3 6"), "", "has Python 3.6; 3.8 or newer"),
        ("This account is for file transfer only\n", "", "runs no commands"),
        ("", "", "runs no commands"),
        ("", "Connection closed by ::1 port 22", "closed the connection"),
    ],
)
def test_what_has_to_be_mended_there(answer: str, stderr: str, message: str) -> None:
    with pytest.raises(ProviderUnavailable, match="box") as caught:
        Greeting.read("box", answer, stderr)
    assert message in str(caught.value)


def test_a_real_shell_answers_it() -> None:
    done = subprocess.run(["sh", "-c", GREETING], capture_output=True, text=True, check=True)
    answers = done.stdout.splitlines()
    assert answers[0] == ""
    assert answers[-1] == "kernelfs:end"
    assert any(line.startswith("kernelfs:python 3 ") for line in answers)
