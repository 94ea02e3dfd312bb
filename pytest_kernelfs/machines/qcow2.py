"""Writes and reads the beginning of qcow2 files: an empty one takes no program, and a millisecond.

Format: docs/interop/qcow2.rst of QEMU.
"""

from __future__ import annotations

import struct
from pathlib import Path

from pytest_kernelfs.cache import explain_os_errors

MAGIC = b"QFI\xfb"
_CLUSTER_BITS = 16
_CLUSTER = 1 << _CLUSTER_BITS
# magic, version; offset and size of the backing file's name; cluster_bits, size, crypt_method, l1_size,
# l1_table_offset, refcount_table_offset, refcount_table_clusters, nb_snapshots, snapshots_offset, three words
# of features, refcount_order, header_length
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_SIZE = struct.Struct(">24xQ")
_BACKING = struct.Struct(">8xQI")
SHORTEST = _SIZE.size
"""What a beginning has to have for the functions here."""
# What one entry of the first table leads to: a cluster of entries of eight bytes, each for a cluster.
_PER_ENTRY = _CLUSTER * (_CLUSTER // 8)


def make_empty(path: Path, size: int) -> None:
    """Write a file of ``size`` bytes to the guest that holds nothing; what is below it is QEMU's to be told.

    Raises: InfrastructureError.
    """
    entries = -(-size // _PER_ENTRY)
    tables = -(-entries * 8 // _CLUSTER)
    refcounts, block, first = _CLUSTER, 2 * _CLUSTER, 3 * _CLUSTER
    header = _HEADER.pack(
        MAGIC, 3, 0, 0, _CLUSTER_BITS, size, 0, entries, first, refcounts, 1, 0, 0, 0, 0, 0, 4, _HEADER.size
    )  # fmt: skip
    with explain_os_errors("make a disk", path.parent), path.open("wb") as file:
        file.truncate(first + tables * _CLUSTER)
        file.write(header)
        file.seek(refcounts)
        file.write(struct.pack(">Q", block))
        file.seek(block)
        file.write(struct.pack(">H", 1) * (3 + tables))


def size_of(head: bytes) -> int:
    """The size that a guest sees, of a file that begins with these bytes."""
    return int(_SIZE.unpack_from(head)[0])


def backing_of(head: bytes) -> str:
    """The file below, as the file itself names it; "" if there is none."""
    offset, length = _BACKING.unpack_from(head)
    return head[offset : offset + length].decode(errors="surrogateescape") if offset else ""
