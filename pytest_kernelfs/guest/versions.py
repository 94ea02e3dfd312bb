"""What the programs of a machine, or of the host, say of their versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
_EACH_S = 3.0


def told(asked: list[list[str]], seconds: float) -> str:
    """A line for each [program, option] of ``asked``: its path, and the first line that it prints.

    Those that it comes to later than after so many seconds are not asked.
    """
    limit = time.monotonic() + seconds
    path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_SBIN}"
    lines = []
    for name, option in asked:
        found = shutil.which(name, path=path)
        left = limit - time.monotonic()
        if found is None:
            lines.append(f"{name}: not there")
        elif left <= 0:
            lines.append(f"{name}: {found} (not asked: there was no time left)")
        else:
            lines.append(f"{name}: {version_of(found, option, min(_EACH_S, left))}")
    return "\n".join(lines) + "\n"


def version_of(path: str, option: str, seconds: float = _EACH_S) -> str:
    """The program's path, and the first line that it prints within so many seconds."""
    try:
        done = subprocess.run(
            [path, option],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} (does not tell: {error})"
    printed = (done.stdout + done.stderr).decode(errors="replace").strip().splitlines()
    return f"{path} {printed[0] if printed and not done.returncode else '(does not tell)'}"
