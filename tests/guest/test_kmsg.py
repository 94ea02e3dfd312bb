"""Records of the kernel's log, as /dev/kmsg gives them: one for each read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from pytest_kernelfs.guest import kmsg

Log = Callable[..., int]


@pytest.fixture
def log() -> Iterator[Log]:
    """Make an open log with these records in it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)

    def write(*records: bytes) -> int:
        for record in records:
            ours.send(record)
        return theirs.fileno()

    yield write
    ours.close()
    theirs.close()


def one(log: Log, record: bytes) -> dict[str, object]:
    (read,) = kmsg.read_from(log(record))
    return read


def test_a_record_has_number_level_time_and_text(log: Log) -> None:
    assert one(log, b"6,339,5140900,-;NET: Registered PF_INET protocol family\n") == {
        "seq": 339,
        "level": 6,
        "seconds": 5.1409,
        "text": "NET: Registered PF_INET protocol family",
    }


def test_the_level_is_told_from_the_facility(log: Log) -> None:
    assert one(log, b"30,340,5690716,-;udevd[80]: starting version 181\n")["level"] == 6


def test_facts_on_further_lines_are_left_out(log: Log) -> None:
    record = b"6,341,1,-;pci 0000:00:00.0: link\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:00.0\n"
    assert one(log, record)["text"] == "pci 0000:00:00.0: link"


def test_newer_kernels_tell_more_before_the_text(log: Log) -> None:
    record = one(log, b"4,342,1,-,caller=T1,future=x;text; with; semicolons\n")
    assert (record["seq"], record["text"]) == (342, "text; with; semicolons")


def test_bytes_that_are_no_text_do_not_stand_in_the_way(log: Log) -> None:
    assert one(log, b"4,343,1,-;name \xff\n")["text"] == "name \N{REPLACEMENT CHARACTER}"


def test_an_empty_line_is_a_record_too(log: Log) -> None:
    assert one(log, b"4,344,1,-;\n")["text"] == ""


def test_records_are_read_up_to_the_last(log: Log) -> None:
    handle = log(*(b"6,%d,1,-;x\n" % number for number in range(5)))
    assert [record["seq"] for record in kmsg.read_from(handle)] == [0, 1, 2, 3, 4]
    assert kmsg.read_from(handle) == []


def test_no_more_records_are_read_than_asked_for(log: Log) -> None:
    handle = log(*(b"6,%d,1,-;x\n" % number for number in range(5)))
    assert [record["seq"] for record in kmsg.read_from(handle, 2)] == [0, 1]
    assert [record["seq"] for record in kmsg.read_from(handle)] == [2, 3, 4]


def test_after_lost_records_reading_goes_on(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = log(b"6,9,1,-;x\n")
    real, lost = os.read, [BrokenPipeError()]

    def read(handle: int, size: int) -> bytes:
        if lost:
            raise lost.pop()
        return real(handle, size)

    monkeypatch.setattr(os, "read", read)
    assert [record["seq"] for record in kmsg.read_from(handle)] == [9]
