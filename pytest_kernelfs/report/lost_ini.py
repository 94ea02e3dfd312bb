"""Tells of an ini file that pytest did not read, because it took the value of an option for a test folder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

# Those of our options that take a path, which may be given after a blank.
_OPTIONS = (
    "--kernel",
    "--kernelfs-artifacts",
    "--kernelfs-cache",
    "--kernelfs-debian-keyring",
    "--kernelfs-image",
    "--kernelfs-share",
    "--kernelfs-ssh-config",
    "--kernelfs-vagrant-folder",
)
# Where pytest looks for settings, and what a file must have in it to count; a pytest.ini always does. A
# pytest.toml is read from pytest 9 on.
_INI_FILES = {
    "pytest.toml": "",
    ".pytest.toml": "",
    "pytest.ini": "",
    ".pytest.ini": "",
    "pyproject.toml": "[tool.pytest",
    "tox.ini": "[pytest]",
    "setup.cfg": "[tool:pytest]",
}


def lost_ini(arguments: Sequence[str], folder: Path) -> str:
    """What to tell of a run in ``folder`` that has read no ini file; "" if none was lost."""
    for option, value in pairwise(arguments):
        if option in _OPTIONS and _is_there(folder / value):
            ini = _ini_file(folder)
            if ini is None:
                return ""
            return (
                f"{ini} is not read: pytest takes the {value} of {option!r} for a folder of tests. "
                f"Write {option}={value}"
            )
    return ""


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False  # in a folder that may not be read, or no path at all


def _ini_file(folder: Path) -> Path | None:
    for place in (folder, *folder.parents):
        for name, needed in _INI_FILES.items():
            try:
                if needed in (place / name).read_text("utf-8", "replace"):
                    return place / name
            except OSError:
                continue
    return None
