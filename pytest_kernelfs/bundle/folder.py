"""Where the artifacts of a test go: one folder for each test and kernel, replaced as a whole."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

# With a kernel's folder and the longest file name below it, this stays far from any limit of 255 bytes.
_LONGEST = 90
_HASH = 8


def safe_name(text: str) -> str:
    """A folder's name for any text: readable, short, and another for every other text."""
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-.")
    if readable == text and len(text) <= _LONGEST:
        return readable
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_HASH]
    if len(readable) > _LONGEST:
        # The end tells tests apart; the beginning is a path that they share.
        readable = readable[-_LONGEST:]
        readable = readable.partition("-")[2] or readable
    return f"{readable.strip('-.')}-{digest}".lstrip("-")


def place_of(root: Path, test: str, kernel: str) -> Path:
    """The folder for what is kept of a test (its id without the kernel) on a kernel."""
    return root / safe_name(test) / safe_name(kernel)


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files into the folder in place of what is there. Raises: OSError, and leaves nothing then."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        for name, text in files.items():
            (fresh / name).write_text(text, errors="replace")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def ignore_in_git(root: Path) -> None:
    """Have git pass the artifacts over, unless somebody decided about that already. Raises: OSError."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / ".gitignore"
    if not path.exists():
        path.write_text("# made by pytest-kernelfs\n*\n")
