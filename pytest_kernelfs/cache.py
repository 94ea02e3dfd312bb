"""The cache folder: entries are built once, published by rename, and safe under many processes.

An entry is a folder at ``<root>/<kind>/<key>``. Its key names its content, so
an entry that exists is right and is never changed, only removed.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.shortage import shortage

# Below the root, beside the kinds: the files of machines that run.
SCRATCH = "scratch"

_NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
}
_NO_WAY = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.ENOTDIR: "a part of the path is not a folder",
}


def default_root() -> Path:
    """The cache folder used when none is configured: ``kernelfs`` under the XDG cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("kernelfs"))


@contextmanager
def explain_os_errors(action: str, path: Path, setting: str = "--kernelfs-cache DIR") -> Iterator[None]:
    """Turn an OSError that means "no room", "not allowed" or "no more of that" into one clear line.

    Raises: InfrastructureError, naming the action, the path and what to do.
    """
    try:
        yield
    except OSError as error:
        lacking = shortage(f"{action} in {path}", error)
        if lacking is not None:
            raise lacking from error
        code = error.errno or 0
        reason = _NO_ROOM.get(code) or _NO_WAY.get(code)
        if error.errno == errno.ENOENT and Path(str(error.filename)) in (path, *path.parents):
            reason = "it cannot be made there"  # as below /proc
        if reason is None:
            raise
        room = "make room there, or " if code in _NO_ROOM else ""
        raise InfrastructureError(
            f"cannot {action} in {path}: {reason}; {room}choose another folder with {setting}"
        ) from error


class Cache:
    """One cache folder.

    ``root`` is made on first use. Several processes may share it: each entry
    is built under its own lock, in a temporary folder beside its final place.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, key: str) -> Path:
        """Where the entry is, or would be."""
        return self.root / kind / key

    def entry(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        """The entry's folder, built by ``build(temporary_folder)`` if it is not there yet.

        Raises: InfrastructureError if the folder cannot be written; whatever ``build`` raises, in
        which case nothing is left behind.
        """
        final = self.path(kind, key)
        if final.is_dir():
            touch(final)
            return final
        with explain_os_errors("write", self.root), self.lock(kind, key):
            if final.is_dir():
                return final
            prefix = f".{key[:40]}."
            for left in final.parent.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)  # by a process that was killed: we hold the lock
            temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
            try:
                build(temporary)
                temporary.chmod(0o755)
                temporary.rename(final)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        return final

    @contextmanager
    def lock(self, kind: str, key: str) -> Iterator[None]:
        """Hold the entry's lock: one process at a time, released by the system if the process dies."""
        import filelock

        folder = self.root / kind
        with explain_os_errors("write", self.root):
            folder.mkdir(parents=True, exist_ok=True)
            self._locks.mkdir(exist_ok=True)
            lock = filelock.FileLock(self._locks / f"{kind}-{key}.lock")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @property
    def _locks(self) -> Path:
        return self.root / "locks"

    def unfinished(self, kind: str) -> list[Path]:
        """What was left of entries by processes that were killed as they built or removed them.

        Nobody is at work on it, nor will be: it may be removed without a lock.
        """
        hidden = sorted(path for path in (self.root / kind).glob(".*") if path.is_dir())
        return [path for path in hidden if not self._is_worked_on(kind, path.name)]

    def _is_worked_on(self, kind: str, name: str) -> bool:
        """Whether somebody holds the lock of the entry that a hidden folder is to be, or was."""
        import filelock

        key = name[1:].rpartition(".")[0]
        locks = [path for path in self._locks.glob("*.lock") if path.name.startswith(f"{kind}-{key}")]
        for path in locks if key else ():
            try:
                with filelock.FileLock(path, timeout=0):
                    pass
            except (filelock.Timeout, OSError):
                return True  # or nobody can tell
        return False

    def write_text(self, path: Path, text: str) -> None:
        """Write a small file so that a reader sees the old content or the new, never a part."""
        with explain_os_errors("write", self.root):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "w") as file:
                    file.write(text)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise


def touch(path: Path) -> None:
    """Note the use, for least-recently-used pruning; a read-only cache stays usable."""
    try:
        os.utime(path)
    except OSError:
        pass
