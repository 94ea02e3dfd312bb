"""The requests to rtnetlink, byte by byte where the kernel counts them."""

from __future__ import annotations

import errno
import struct

import pytest

from pytest_kernelfs.guest import netlink

Asked = list[tuple[int, int, bytes]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    calls: Asked = []
    monkeypatch.setattr(netlink, "ask", lambda kind, flags, body: calls.append((kind, flags, body)))
    return calls


def attributes(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


@pytest.mark.parametrize(("payload", "size"), [(b"", 4), (b"a", 8), (b"abcd", 8), (b"abcde", 12)])
def test_attributes_are_padded_but_tell_their_own_length(payload: bytes, size: int) -> None:
    made = netlink.attribute(7, payload)
    assert len(made) == size
    assert attributes(made) == {7: payload}


def test_netem_is_given_in_nanoseconds_and_in_ticks(asked: Asked) -> None:
    netlink.set_netem(10, 100_000_000, 5_000_000, 0.5, 1 << 33, 1000)
    ((kind, _, body),) = asked
    assert kind == 36
    assert struct.unpack_from("=BBHiIII", body) == (0, 0, 0, 10, 0, 0xFFFFFFFF, 0)
    top = attributes(body[20:])
    assert top[1] == b"netem\0"
    ticks, limit, loss, _, _, jitter = struct.unpack_from("=6I", top[2])
    assert (ticks * 64, limit, jitter * 64) == (100_000_000, 1000, 5_000_000)
    assert loss / 0xFFFFFFFF == pytest.approx(0.5)
    options = attributes(top[2][24:])
    assert struct.unpack("=q", options[10])[0] == 100_000_000
    assert struct.unpack("=q", options[11])[0] == 5_000_000
    assert struct.unpack("=Q", options[8])[0] == 1 << 33
    assert struct.unpack_from("=I", options[6])[0] == 0xFFFFFFFF


def test_a_rate_that_is_gone_is_said_to_be_gone(asked: Asked) -> None:
    netlink.set_netem(10, 0, 0, 0.0, 0, 1000)
    options = attributes(attributes(asked[0][2][20:])[2][24:])
    assert (options[8], options[6]) == (b"\0" * 8, b"\0" * 16)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EINVAL])
def test_nothing_to_take_away_is_no_error(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(kind: int, flags: int, body: bytes) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(netlink, "ask", refuse)
    netlink.delete_qdisc(10)


def test_another_refusal_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: int, flags: int, body: bytes) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(netlink, "ask", refuse)
    with pytest.raises(OSError, match="no"):
        netlink.delete_qdisc(10)
