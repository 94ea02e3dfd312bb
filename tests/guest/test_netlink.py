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


def test_a_plug_is_at_the_root_or_at_one_queue(asked: Asked) -> None:
    netlink.set_plug(10, 1 << 20, -1)
    netlink.set_plug(10, 1 << 20, 1)
    netlink.release_plug(10, 1)
    places = [
        (kind, attributes(body[20:]).get(1), struct.unpack_from("=II", body, 8)) for kind, _, body in asked
    ]
    root, queues = 0xFFFFFFFF, 0x10000
    assert places == [
        (37, None, (0, root)),
        (36, b"plug\0", (0, root)),
        (37, None, (0, root)),
        (36, b"mq\0", (queues, root)),
        (36, b"plug\0", (0, queues + 2)),
        (36, b"plug\0", (0, queues + 2)),
    ]


def test_both_ends_have_as_many_queues(asked: Asked) -> None:
    netlink.add_veth("veth0", b"\x02\0\0\0\0\x01", "veth0", b"\x02\0\0\0\0\x02", 5, queues=3)
    own = attributes(asked[0][2][16:])
    peer = attributes(attributes(attributes(own[18])[2])[1][16:])
    three = struct.pack("=I", 3)
    assert [end[number] for end in (own, peer) for number in (31, 32)] == [three] * 4
