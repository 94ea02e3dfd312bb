"""A Debian mirror of our own: tiny packages, signed indexes, and a server that counts requests."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import struct
import subprocess
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

DAY = 86400


@dataclass(frozen=True)
class Deb:
    """A package as the stand-in serves it."""

    name: str
    version: str
    content: bytes
    depends: str = ""

    @property
    def file_name(self) -> str:
        return f"pool/main/l/linux/{self.name}_{self.version}_amd64.deb"

    def stanza(self) -> str:
        fields = [
            f"Package: {self.name}",
            f"Version: {self.version}",
            "Architecture: amd64",
            *([f"Depends: {self.depends}"] if self.depends else []),
            "Description: a kernel",
            f"Filename: {self.file_name}",
            f"Size: {len(self.content)}",
            f"SHA256: {hashlib.sha256(self.content).hexdigest()}",
        ]
        return "\n".join(fields) + "\n\n"


def bzimage(release: str, tail: str = "(someone@example) #1 SMP", padding: int = 0) -> bytes:
    """The least that has the header of a bzImage."""
    image = bytearray(0x400 + padding)
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x20E, 0x100)
    banner = f"{release} {tail}".encode() + b"\0"
    image[0x300 : 0x300 + len(banner)] = banner
    return bytes(image)


def tar(files: Mapping[str, bytes], suffix: str = ".xz") -> bytes:
    """A tar archive, compressed as ``suffix`` says."""
    buffer = io.BytesIO()
    mode = {".xz": "w:xz", ".gz": "w:gz", "": "w"}[suffix]
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def ar(members: Mapping[str, bytes]) -> bytes:
    """An ar archive."""
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def deb(
    name: str, version: str, files: Mapping[str, bytes], *, depends: str = "", suffix: str = ".xz"
) -> Deb:
    """A package with the given files."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n".encode()
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tar({"./control": control}),
        f"data.tar{suffix}": tar(files, suffix),
    }
    return Deb(name, version, ar(members), depends)


def module(name: str) -> bytes:
    """A stand-in for a module that depmod passes over without complaint."""
    return b""  # depmod skips an empty file; a real ELF object is not needed here


def old_kernel(release: str, version: str, *, suffix: str = ".xz") -> list[Deb]:
    """The layout up to 6.12: all in linux-image, modules not compressed."""
    files = {
        f"./boot/vmlinuz-{release}": bzimage(release),
        f"./boot/config-{release}": b'CONFIG_XFS_FS=m\nCONFIG_XFS_QUOTA=y\nCONFIG_LOCALVERSION="-x"\n'
        b"# CONFIG_BCACHEFS_FS is not set\n",
        f"./boot/System.map-{release}": b"ffff T x\n",
        f"./lib/modules/{release}/modules.order": b"kernel/fs/xfs/xfs.ko\n",
        f"./lib/modules/{release}/modules.builtin": b"kernel/fs/ext4/ext4.ko\n",
        f"./lib/modules/{release}/kernel/fs/xfs/xfs.ko": module("xfs"),
        f"./usr/share/doc/linux-image-{release}/copyright": b"text\n",
    }
    return [deb(f"linux-image-{release}", version, files, suffix=suffix)]


def merged_kernel(release: str, version: str) -> list[Deb]:
    """The layout in between: all in linux-image, modules below /usr."""
    files = {
        f"./boot/vmlinuz-{release}": bzimage(release),
        f"./boot/config-{release}": b"CONFIG_XFS_FS=m\n",
        f"./usr/lib/modules/{release}/modules.order": b"kernel/fs/xfs/xfs.ko\n",
        f"./usr/lib/modules/{release}/modules.builtin": b"",
        f"./usr/lib/modules/{release}/kernel/fs/xfs/xfs.ko.xz": lzma.compress(module("xfs")),
    }
    return [deb(f"linux-image-{release}", version, files)]


def split_kernel(release: str, version: str, *, without: Sequence[str] = ()) -> list[Deb]:
    """The layout from 6.19 on: an empty linux-image that depends on three packages."""
    base = f"./usr/lib/modules/{release}"
    contents = {
        "binary": {f"{base}/vmlinuz": bzimage(release)},
        "modules": {f"{base}/kernel/fs/xfs/xfs.ko.xz": lzma.compress(module("xfs"))},
        "base": {
            f"{base}/config": b"CONFIG_XFS_FS=m\n",
            f"{base}/System.map": b"",
            f"{base}/modules.order": b"kernel/fs/xfs/xfs.ko\n",
            f"{base}/modules.builtin": b"",
        },
    }
    parts = [deb(f"linux-{kind}-{release}", version, files) for kind, files in contents.items()]
    depends = ", ".join(f"linux-{kind}-{release} (= {version})" for kind in contents)
    parts.append(deb(f"linux-image-{release}", version, {}, depends=depends))
    parts.append(deb(f"linux-binary-unsigned-{release}", version, contents["binary"]))
    return [part for part in parts if not part.name.startswith(tuple(f"linux-{kind}-" for kind in without))]


def meta(flavour: str, release: str, version: str) -> Deb:
    """The package that always depends on a suite's own kernel."""
    name = "linux-image-amd64" if flavour == "amd64" else f"linux-image-{flavour}-amd64"
    return deb(name, version, {}, depends=f"linux-image-{release} (= {version})")


@dataclass(frozen=True)
class Key:
    """A throw-away signing key: gpg's folder, and the public part as a keyring file."""

    home: Path
    keyring: Path

    def sign(self, text: str) -> bytes:
        """``text``, clearsigned."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--clearsign", "--digest-algo", "SHA512"]
        return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout


def make_key(folder: Path) -> Key:
    """Generate a key; the folder must have a short path, for gpg's socket."""
    folder.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(folder), "--batch", "--quiet", "--passphrase", ""]
    who = "Stand-in <archive@mirror.example>"
    subprocess.run(
        [*gpg, "--quick-gen-key", who, "ed25519", "sign", "never"], check=True, capture_output=True
    )
    exported = subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout
    (folder / "public.gpg").write_bytes(exported)
    return Key(folder, folder / "public.gpg")


def stop_agent(key: Key) -> None:
    """gpg leaves an agent behind; it belongs to this home only."""
    subprocess.run(["gpgconf", "--homedir", str(key.home), "--kill", "all"], check=False, capture_output=True)


@dataclass
class Mirror:
    """The files of a mirror by URL path, served on loopback; ``requests`` lists what was asked for."""

    key: Key
    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict, repr=False)
    requests: list[str] = field(default_factory=list)
    #: Called with the path before each answer; True means the connection is dropped without one.
    interfere: Callable[[str], bool] = lambda path: False
    #: Bytes after which the answer for a path breaks off, once.
    cut: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/debian"

    def publish(
        self,
        suite: str,
        debs: Sequence[Deb],
        *,
        codename: str | None = None,
        origin: str = "Debian",
        valid_until: str | None = None,
        by_hash: bool = True,
        plain: bool = True,
        compression: str = ".xz",
        key: Key | None = None,
    ) -> None:
        """Put a suite with these packages on the mirror."""
        root = "/debian-security" if suite.endswith("-security") else "/debian"
        for package in debs:
            self.files[f"{root}/{package.file_name}"] = package.content
        text = "Package: zsh\nVersion: 1\nDepends: linux-image-amd64\n\n"
        text += "".join(package.stanza() for package in debs)
        packed = (lzma.compress if compression == ".xz" else gzip.compress)(text.encode())
        digest = hashlib.sha256(packed).hexdigest()
        place = f"{root}/dists/{suite}/main/binary-amd64"
        if by_hash:
            self.files[f"{place}/by-hash/SHA256/{digest}"] = packed
        if plain:
            self.files[f"{place}/Packages{compression}"] = packed
        release = [
            f"Origin: {origin}",
            f"Suite: {suite}",
            f"Codename: {codename or suite}",
            *([f"Valid-Until: {valid_until}"] if valid_until else []),
            *(["Acquire-By-Hash: yes"] if by_hash else []),
            "SHA256:",
            f" {digest} {len(packed)} main/binary-amd64/Packages{compression}",
            f" {'0' * 64} 0 main/binary-arm64/Packages{compression}",
        ]
        signed = (key or self.key).sign("\n".join(release) + "\n")
        self.files[f"{root}/dists/{suite}/InRelease"] = signed

    def write_to(self, folder: Path) -> str:
        """The same mirror as files; returns its file:// URL."""
        for path, content in self.files.items():
            file = folder / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return (folder / "debian").as_uri()

    def downloads(self, ending: str) -> list[str]:
        """The requests for paths with that ending."""
        return [path for path in self.requests if path.endswith(ending)]

    def serve(self) -> ThreadingHTTPServer:
        """Start answering, in a thread."""
        server = _Server(("127.0.0.1", 0), _handler(self))
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server


class _Server(ThreadingHTTPServer):
    # The default of 5 makes a client that connects eight times at once wait a second.
    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """A client that goes away early is part of the tests."""


def _handler(mirror: Mirror) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms for the client

        def do_GET(self) -> None:
            path = unquote(self.path)
            mirror.requests.append(path)
            if mirror.interfere(path):
                self.close_connection = True
                return
            content = mirror.files.get(path)
            if content is None:
                self._answer(404, b"no such file")
                return
            asked = self.headers.get("Range")
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            self._answer(206 if start else 200, content[start:], mirror.cut.pop(path, None))

        def _answer(self, status: int, content: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if cut is not None:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content[:cut])

        def log_message(self, *args: object) -> None:
            pass

    return Handler
