"""One call of the host is answered, whatever becomes of it."""

from __future__ import annotations

from typing import Any

from pytest_kernelfs.guest.dispatch import serve


class FakeChannel:
    """Holds one request; an answer that is a set cannot be sent."""

    def __init__(self, *request: Any) -> None:
        self.request = request
        self.sent: list[Any] = []

    def receive(self) -> Any:
        return self.request

    def send(self, answer: Any) -> None:
        if isinstance(answer[1], set):
            raise TypeError("a set is too much")
        self.sent.append(answer)


def answer(*request: Any) -> Any:
    channel = FakeChannel(*request)
    serve(channel)
    (sent,) = channel.sent
    return sent


def test_a_function_is_found_by_module_and_name() -> None:
    assert answer("name", ("posixpath", "join"), ["a", "b"], {}) == ("ok", "a/b")


def test_a_function_is_found_in_source() -> None:
    source = "FACTOR = 2\ndef double(value, *, plus=0):\n    return FACTOR * value + plus\n"
    assert answer("source", (source, "double"), [20], {"plus": 2}) == ("ok", 42)


def test_sources_do_not_see_each_other() -> None:
    answer("source", ("SEEN = 1\ndef work(): pass\n", "work"), [], {})
    reply = answer("source", ("def work(): return SEEN\n", "work"), [], {})
    assert reply[:2] == ("error", "NameError")


def test_an_exception_is_sent_with_kind_message_and_traceback() -> None:
    kind, name, message, trace = answer("source", ("def work(): raise ValueError('no')", "work"), [], {})
    assert (kind, name, message) == ("error", "ValueError", "no")
    assert trace.startswith("Traceback")
    assert '"<vm.call work>", line 1, in work' in trace


def test_a_function_that_exits_ends_nothing_but_itself() -> None:
    reply = answer("source", ("import sys\ndef work(): sys.exit(3)\n", "work"), [], {})
    assert reply[:3] == ("error", "SystemExit", "3")


def test_a_function_that_is_not_there_is_an_error() -> None:
    assert answer("name", ("posixpath", "missing"), [], {})[1] == "AttributeError"
    assert answer("name", ("no_such_module", "work"), [], {})[1] == "ModuleNotFoundError"


def test_source_that_cannot_be_compiled_is_an_error() -> None:
    assert answer("source", ("def work(:", "work"), [], {})[1] == "SyntaxError"


def test_a_value_that_cannot_be_sent_is_an_error() -> None:
    reply = answer("source", ("def work(): return {1}", "work"), [], {})
    assert reply == (
        "error",
        "DumpError",
        "work gave a value that cannot be sent back: a set is too much",
        "",
    )
