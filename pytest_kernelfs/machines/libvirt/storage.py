"""Where what machines are made of lies at the hypervisor: a storage pool for each run, gone with it.

Everything goes through libvirt, so that it works wherever the hypervisor is. A pool is a folder, and its name
tells who owns it.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, final
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.machines.libvirt.api import explained, is_gone, library, parse
from pytest_kernelfs.machines.libvirt.connection import Connection
from pytest_kernelfs.sizes import format_size

PREFIX = "kernelfs-"
_PIECE = 1 << 18
_AVAILABLE = 3
# Where images lie that every hypervisor of a system may read, and where any user may write.
_SYSTEM_FOLDER = "/var/lib/libvirt/images"
_USER_FOLDER = "/var/tmp"  # noqa: S108  (libvirt sets the mode of our folder there, or fails if it is not ours)


@final
class Storage:
    """The pool of this run."""

    def __init__(self, connection: Connection, token: str, folder: Path | None = None) -> None:
        """Make it, in ``folder`` if that is given, else where the hypervisor keeps images.

        Raises: InfrastructureError.
        """
        self.connection = connection
        self.name = f"{PREFIX}{token}"
        # Where others may write, a name that can be foreseen may be theirs already.
        unforeseen = f"{self.name}-{os.urandom(4).hex()}"
        self.path = str(folder) if folder is not None else f"{_base(connection)}/{unforeseen}"
        self._numbers = itertools.count(1)
        self._uploaded: dict[Path, str] = {}
        with self._explained("make a storage pool for machines"):
            pool = connection.handle.storagePoolDefineXML(_pool_xml(self.name, self.path))
            try:
                pool.build()
                pool.create()
            except library().libvirtError:
                pool.undefine()
                raise

    def _explained(self, what: str) -> Any:
        return explained(what, uri=self.connection.uri)

    @property
    def _pool(self) -> Any:
        return self.connection.handle.storagePoolLookupByName(self.name)

    def new_path(self, kind: str) -> str:
        """A path in the pool that nothing has yet."""
        return f"{self.path}/{kind}{next(self._numbers)}"

    def check_room(self, needed: int, what: str) -> None:
        """Raises: InfrastructureError if there is less room than ``needed`` bytes."""
        with self._explained("tell how much room there is"):
            free = self._pool.info()[_AVAILABLE]
        if free < needed:
            raise InfrastructureError(
                f"there is no room for {what} in {self.path} at {self.connection.uri}: {format_size(free)} "
                f"are free, {format_size(needed)} are needed; make room there"
            )

    def upload(self, file: Path) -> str:
        """Bring a file of ours there, once; gives its path. Raises: InfrastructureError."""
        if file not in self._uploaded:
            size = file.stat().st_size
            self.check_room(size, file.name)
            path = self.make_disk("file", size)
            with self._explained(f"store {file.name}"), file.open("rb") as content:
                stream = self.connection.handle.newStream()
                self._volume(path).upload(stream, 0, size)
                stream.sendAll(lambda _stream, count, _opaque: content.read(min(count, _PIECE)), None)
                stream.finish()
            self._uploaded[file] = path
        return self._uploaded[file]

    def make_disk(self, kind: str, size: int) -> str:
        """An empty, sparse raw file; gives its path. Raises: InfrastructureError."""
        path = self.new_path(kind)
        with self._explained("make a disk"):
            self._pool.createXML(_volume_xml(path, size))
        return path

    def make_layer(self, below: str, form: str, size: int) -> str:
        """A qcow2 file on top of another file there, of the format ``form``; gives its path.

        Raises: InfrastructureError.
        """
        path = self.new_path("layer")
        with self._explained("make a layer on top of a disk image"):
            self._pool.createXML(_volume_xml(path, size, below, form))
        return path

    def copy_disk(self, source: str, size: int, kind: str) -> str:
        """A copy of a raw file there; gives its path. Raises: InfrastructureError."""
        path = self.new_path(kind)
        with self._explained("copy a disk"):
            self._pool.createXMLFrom(_volume_xml(path, size), self._volume(source))
        return path

    def _volume(self, path: str) -> Any:
        return self.connection.handle.storageVolLookupByPath(path)

    def remove(self, *paths: str) -> None:
        """Remove files there; what cannot be removed goes with the pool."""
        libvirt = library()
        for path in filter(None, paths):
            try:
                try:
                    volume = self._volume(path)
                except libvirt.libvirtError:
                    self._pool.refresh()  # it was made by somebody else than the pool
                    volume = self._volume(path)
                volume.delete()
            except libvirt.libvirtError:
                continue

    def close(self) -> None:
        """Remove the pool and all in it. Raises: InfrastructureError."""
        with self._explained("remove the storage pool of this run"):
            remove_pool(self._pool)


def remove_pool(pool: Any) -> None:
    """Remove a pool and all that lies in it. Raises: libvirtError."""
    libvirt = library()
    try:
        if not pool.isActive():
            pool.create()
        pool.refresh()
    except libvirt.libvirtError:
        # Its folder is gone already.
        if pool.isActive():
            pool.destroy()
        pool.undefine()
        return
    for volume in pool.listAllVolumes():
        try:
            volume.delete()
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise
    pool.destroy()
    try:
        pool.delete()
    finally:
        pool.undefine()


def _base(connection: Connection) -> str:
    """Where the hypervisor keeps images: in the folder of its pool "default", if it has one."""
    libvirt = library()
    try:
        pool = parse(connection.handle.storagePoolLookupByName("default").XMLDesc())
        target = pool.findtext("target/path")
        if pool.get("type") == "dir" and target:
            return target
    except libvirt.libvirtError:
        pass  # it has none
    return _USER_FOLDER if urlsplit(connection.uri).path == "/session" else _SYSTEM_FOLDER


def _pool_xml(name: str, path: str) -> str:
    pool = ET.Element("pool", type="dir")
    ET.SubElement(pool, "name").text = name
    target = ET.SubElement(pool, "target")
    ET.SubElement(target, "path").text = path
    # Machines may run as another user, who has to get at the files in it, and at nothing else.
    ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = "0711"
    return ET.tostring(pool, encoding="unicode")


def _volume_xml(path: str, size: int, below: str = "", form: str = "raw") -> str:
    volume = ET.Element("volume")
    ET.SubElement(volume, "name").text = path.rpartition("/")[2]
    ET.SubElement(volume, "capacity").text = str(size)
    ET.SubElement(volume, "allocation").text = "0"
    target = ET.SubElement(volume, "target")
    ET.SubElement(target, "format", type="qcow2" if below else "raw")
    if below:
        backing = ET.SubElement(volume, "backingStore")
        ET.SubElement(backing, "path").text = below
        ET.SubElement(backing, "format", type=form)
    return ET.tostring(volume, encoding="unicode")
