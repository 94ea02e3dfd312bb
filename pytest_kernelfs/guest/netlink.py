"""The little of rtnetlink that network namespaces need: links, addresses, neighbours, queueing disciplines.

Spoken directly, because each run of ip(8) or tc(8) costs a process.
A socket of netlink belongs to the network namespace that it was made in.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

# linux/netlink.h, linux/rtnetlink.h
_REQUEST, _ACK = 0x1, 0x4
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_ERROR = 2
_NEWLINK, _DELLINK, _SETLINK, _NEWADDR, _NEWNEIGH, _NEWQDISC, _DELQDISC = 16, 17, 19, 20, 28, 36, 37
_IFF_UP = 1
_NUD_PERMANENT = 0x80
_ROOT = 0xFFFFFFFF
_INDEX, _PEER_INDEX = 10, 11
# linux/if_link.h
_TX_QUEUES, _RX_QUEUES = 31, 32
# The handle of the qdisc that has one of its own for each queue of an interface.
_QUEUES = 1 << 16

# linux/pkt_sched.h
_PLUG_RELEASE_INDEFINITE = 2
_NETEM_RATE, _NETEM_RATE64, _NETEM_LATENCY64, _NETEM_JITTER64 = 6, 8, 10, 11
_TICK_NS = 64


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def ask(kind: int, flags: int, body: bytes) -> None:
    """Send one request to the kernel and wait for its answer. Raises: OSError with the kernel's errno."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.bind((0, 0))
        kernel.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, 1, 0) + body)
        _, answer, _, _, _, code = struct.unpack_from("=IHHIIi", kernel.recv(1 << 16))
    if answer == _ERROR and code:
        raise OSError(-code, os.strerror(-code))


def add_veth(
    interface: str, address: bytes, peer: str, peer_address: bytes, peer_namespace: int, queues: int
) -> None:
    """Make a pair of joined interfaces: one here, its peer in the namespace of that file descriptor.

    Each has so many queues to send through, and as many that what arrives comes from.
    """
    # Ends with different numbers count as urgent when they come up; others wait up to a second.
    number = struct.pack("=I", queues)
    common = attribute(_TX_QUEUES, number) + attribute(_RX_QUEUES, number) if queues > 1 else b""
    end = _link(_PEER_INDEX) + attribute(3, peer.encode() + b"\0") + attribute(1, peer_address) + common
    end += attribute(28, struct.pack("=i", peer_namespace))
    kind = attribute(1, b"veth\0") + attribute(2, attribute(1, end))
    body = _link(_INDEX) + attribute(3, interface.encode() + b"\0") + attribute(1, address) + common
    body += attribute(18, kind)
    ask(_NEWLINK, _CREATE | _EXCLUSIVE, body)


def delete_link(index: int) -> None:
    ask(_DELLINK, 0, _link(index))


def set_up(index: int) -> None:
    """Switch an interface on."""
    ask(_SETLINK, 0, _link(index, _IFF_UP))


def add_address(index: int, address: str, prefix: int) -> None:
    packed = socket.inet_aton(address)
    body = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index)
    ask(_NEWADDR, _CREATE | _EXCLUSIVE, body + attribute(2, packed) + attribute(1, packed))


def add_neighbour(index: int, address: str, hardware: bytes) -> None:
    """Tell for good where an address is found, so that nothing but the way there is measured."""
    body = struct.pack("=BBHiHBB", socket.AF_INET, 0, 0, index, _NUD_PERMANENT, 0, 0)
    ask(
        _NEWNEIGH, _CREATE | _REPLACE, body + attribute(1, socket.inet_aton(address)) + attribute(2, hardware)
    )


def set_netem(index: int, delay_ns: int, jitter_ns: int, loss: float, rate: int, limit: int) -> None:
    """Put netem at the root of an interface, or change the one that is there.

    ``loss`` is a fraction, ``rate`` bytes per second (0: no limit), ``limit`` packets.
    Raises: OSError; ENOENT if the kernel has no netem.
    """
    # The time in ticks is for kernels before 4.15, which do not know the attributes in nanoseconds.
    ticks = [min(value // _TICK_NS, 0xFFFFFFFF) for value in (delay_ns, jitter_ns)]
    options = struct.pack("=6I", ticks[0], limit, int(loss * 0xFFFFFFFF), 0, 0, ticks[1])
    options += attribute(_NETEM_LATENCY64, struct.pack("=q", delay_ns))
    options += attribute(_NETEM_JITTER64, struct.pack("=q", jitter_ns))
    # Also without a rate: a rate that is not mentioned stays as it was.
    options += attribute(_NETEM_RATE64, struct.pack("=Q", rate))
    options += attribute(_NETEM_RATE, struct.pack("=IiIi", min(rate, 0xFFFFFFFF), 0, 0, 0))
    _set_qdisc(index, "netem", options)


def set_plug(index: int, limit: int, queue: int) -> None:
    """Hold back what is sent through an interface, or one queue of it, up to ``limit`` bytes.

    A ``queue`` below 0 stands for all of them. Raises: OSError, as for netem.
    """
    # A plug that was there lets packets pass, and is to be closed anew.
    delete_qdisc(index)
    if queue >= 0:
        _set_qdisc(index, "mq", b"", handle=_QUEUES)
    _set_qdisc(index, "plug", struct.pack("=iI", 0, limit), _place(queue))


def release_plug(index: int, queue: int) -> None:
    """Send what was held back, in its order, and let pass all that follows."""
    options = struct.pack("=iI", _PLUG_RELEASE_INDEFINITE, 0)
    body = _qdisc(index, _place(queue)) + attribute(1, b"plug\0") + attribute(2, options)
    ask(_NEWQDISC, 0, body)


def delete_qdisc(index: int) -> None:
    """Take away what was put at the root of an interface; what it still held is lost."""
    try:
        ask(_DELQDISC, 0, _qdisc(index))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise


def _set_qdisc(index: int, kind: str, options: bytes, parent: int = _ROOT, handle: int = 0) -> None:
    body = _qdisc(index, parent, handle) + attribute(1, kind.encode() + b"\0") + attribute(2, options)
    ask(_NEWQDISC, _CREATE | _REPLACE, body)


def _link(index: int, flags: int = 0) -> bytes:
    return struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, index, flags, flags)


def _place(queue: int) -> int:
    """The parent of what a queue sends through; below 0, of what all do."""
    return _QUEUES + queue + 1 if queue >= 0 else _ROOT


def _qdisc(index: int, parent: int = _ROOT, handle: int = 0) -> bytes:
    return struct.pack("=BBHiIII", socket.AF_UNSPEC, 0, 0, index, handle, parent, 0)
