"""What a machine that runs already tells of its kernel."""

from __future__ import annotations

import gzip
import os
import sys
from typing import Any


def read() -> dict[str, Any]:
    """``release`` and ``build`` (uname -r and -v), ``config`` (text, "" if there is none), ``python``."""
    system = os.uname()
    return {
        "release": system.release,
        "build": system.version,
        "config": _config(system.release),
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def _config(release: str) -> str:
    for path in (
        f"/boot/config-{release}",
        f"/lib/modules/{release}/config",
        f"/usr/lib/modules/{release}/config",
    ):
        try:
            with open(path, errors="replace") as file:
                return file.read()
        except OSError:
            continue
    try:
        with gzip.open("/proc/config.gz", "rt", errors="replace") as packed:
            return packed.read()
    except OSError:
        return ""
