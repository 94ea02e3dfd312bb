"""Reading .deb files: who they are, and taking the kernel out of them."""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pytest_kernelfs import tools
from pytest_kernelfs.errors import InfrastructureError

if TYPE_CHECKING:
    from debian.debfile import DebFile

# What depmod makes anew, and what nobody boots: links into a source tree, symbol lists, debug objects.
_LEFT_OUT = re.compile(
    r"(?:System\.map|build|source|vdso/.*|modules\.(?:dep|alias|symbols|devname|softdep|weakdep)"
    r"|modules\.[a-z.]+\.bin)\Z"
)


@dataclass(frozen=True)
class DebInfo:
    """The name and the Debian version that a package gives itself."""

    package: str
    version: str


def read_info(path: Path) -> DebInfo:
    """Who the .deb says it is.

    Raises: InfrastructureError if the file is no intact .deb.
    """
    with _opened(path) as deb:
        control = deb.debcontrol()
        return DebInfo(control["Package"], control["Version"])


def unpack_kernel(path: Path, release: str, target: Path) -> None:
    """Write the .deb's part of the kernel ``release`` below ``target``.

    That is ``vmlinuz``, ``config`` and ``lib/modules/<release>/``, as far as
    the package has them. Links are never written, so no member can lead
    outside ``target``.

    Raises: InfrastructureError if the .deb is damaged or names an unsafe path; ProviderUnavailable if it
    is compressed with zstd and the host has no zstd.
    """
    with _opened(path) as deb:
        if "data.tar.zst" in deb.getnames():
            tools.need("unzstd")
        archive = deb.data.tgz()
        for member in archive:
            name = _checked(str(member.name), path)
            place = _place(name, release) if member.isfile() else None
            if place is None:
                continue
            content = archive.extractfile(member)
            if content is not None:
                file = target / place
                file.parent.mkdir(parents=True, exist_ok=True)
                with content, file.open("wb") as out:
                    shutil.copyfileobj(content, out, 1 << 20)


def _place(name: PurePosixPath, release: str) -> PurePosixPath | None:
    """Where a member belongs, relative to the target; None if it is not needed.

    Older packages use /boot and /lib, merged-/usr ones /usr/lib, and from 6.19
    on the image and the config lie among the modules.
    """
    parts = name.parts[1:] if name.parts[:1] == ("usr",) else name.parts
    if parts in (("boot", f"vmlinuz-{release}"), ("lib", "modules", release, "vmlinuz")):
        return PurePosixPath("vmlinuz")
    if parts in (("boot", f"config-{release}"), ("lib", "modules", release, "config")):
        return PurePosixPath("config")
    if parts[:3] != ("lib", "modules", release) or _LEFT_OUT.match("/".join(parts[3:])):
        return None
    return PurePosixPath(*parts)


def _checked(name: str, path: Path) -> PurePosixPath:
    member = PurePosixPath(name)
    if member.is_absolute() or ".." in member.parts or "\0" in name:
        raise InfrastructureError(
            f"{path.name} holds a file with the unsafe name {name!r} and was not unpacked; get the package "
            "from a source you trust"
        )
    return member


@contextmanager
def _opened(path: Path) -> Iterator[DebFile]:
    """The opened .deb; whatever can be wrong with one becomes one line."""
    import lzma
    import tarfile

    from debian.arfile import ArError
    from debian.debfile import DebFile

    damage = (ArError, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, ValueError, KeyError)
    try:
        with DebFile(path) as deb:
            _check_length(deb, path)
            yield deb
    except FileNotFoundError as error:
        raise InfrastructureError(f"there is no package file {path}; check the path") from error
    except damage as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        # Both python-debian and gzip report a wrong content as a bare OSError.
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InfrastructureError:
    detail = " ".join(str(error).split()) or type(error).__name__
    return InfrastructureError(f"{path} is no intact .deb file ({detail}); download or build it again")


def _check_length(deb: DebFile, path: Path) -> None:
    # An uncompressed tar that is cut between two members would otherwise pass as a shorter one.
    expected = 8 + sum(60 + member.size + member.size % 2 for member in deb.getmembers())
    if path.stat().st_size < expected - 1:
        raise EOFError("it is cut short")
