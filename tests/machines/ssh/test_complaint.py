"""What ssh prints, and what users are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.machines.ssh.complaint import explain

# As OpenSSH 9.2 printed them.
_CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Offending ED25519 key in /home/me/.ssh/known_hosts:1
Host key for box has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("printed", "what", "next_step"),
    [
        (_CHANGED, "its host key is not the one that is known", "ssh-keygen -R"),
        (
            "No ED25519 host key is known for box and you have requested strict checking.\n"
            "Host key verification failed.",
            "its host key is not known here",
            "'ssh me@box'",
        ),
        ("me@box: Permission denied (publickey).", "it refuses our key", "authorized_keys"),
        (
            "Received disconnect from ::1 port 22:2: Too many authentication failures\nDisconnected from ::1",
            "it refuses our key",
            "IdentityFile",
        ),
        (
            "Permissions 0644 for '/k' are too open.\nWARNING: UNPROTECTED PRIVATE KEY FILE!\n"
            "me@box: Permission denied (publickey).",
            "ssh refuses a file",
            "chmod 600",
        ),
        (
            "ssh: Could not resolve hostname box: Name or service not known",
            "no host of that name",
            "check the spelling",
        ),
        ("ssh: connect to host box port 22: Connection refused", "nothing listens there", "right port"),
        ("ssh: connect to host box port 22: Connection timed out", "it does not answer", "firewall"),
        ("ssh: connect to host box port 22: No route to host", "it does not answer", "firewall"),
        ("kex_exchange_identification: Connection closed by remote host", "before anybody logged in", "sshd"),
        ("/c: line 3: Bad configuration option: foo", "does not accept its configuration", "mend the file"),
        ("Unable to negotiate with ::1 port 22: no matching cipher found.", "no algorithm", "allow one"),
        ("something new", "cannot reach me@box over ssh", "'ssh -o BatchMode=yes me@box true'"),
    ],
)
def test_each_trouble_has_its_reason_and_next_step(printed: str, what: str, next_step: str) -> None:
    text = explain("me@box", printed)
    assert what in text
    assert next_step in text
    assert printed.splitlines()[-1] in text


def test_the_frames_are_left_out() -> None:
    assert "@@@" not in explain("box", _CHANGED)


def test_an_ssh_that_says_nothing() -> None:
    assert explain("box", "").endswith("ssh said nothing.")


@pytest.mark.parametrize(
    ("printed", "next_step"),
    [
        ("Host key verification failed.", "'ssh -F '/my lab/config' box'"),
        ("Permission denied (publickey).", "IdentityFile in /my lab/config"),
        ("Permission denied (publickey).", "'ssh -F '/my lab/config' -o BatchMode=yes box true'"),
        ("Could not resolve hostname box", "Host entries of /my lab/config"),
        ("something new", "'ssh -F '/my lab/config' -o BatchMode=yes box true'"),
    ],
)
def test_what_to_do_is_told_for_the_configuration_that_holds(printed: str, next_step: str) -> None:
    text = explain("box", printed, Path("/my lab/config"))
    assert next_step in text
    assert "~/.ssh/config" not in text
