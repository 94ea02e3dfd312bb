"""How commands are led to a machine, and what is said of one that cannot be reached."""

from __future__ import annotations

import pickle

from pytest_kernelfs.machines.tenant.access import Access, Unreachable


def test_words_stay_apart_on_their_way() -> None:
    words = ["python3", "-c", "print('x y')\n"]
    assert Access("x", "here").command(words) == words
    prefix = ("incus", "exec", "lab", "--")
    assert Access("x", "lab", prefix).command(words) == [*prefix, *words]
    shell = Access("x", "lab", ("ssh", "lab"), shell=True).command(words)
    assert shell == ["ssh", "lab", "python3", "-c", "'print('\"'\"'x y'\"'\"')\n'"]


def test_what_was_seen_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(Unreachable("no way there", 255, "refused")))
    assert isinstance(error, Unreachable)
    assert (str(error), error.code, error.said) == ("no way there", 255, "refused")
