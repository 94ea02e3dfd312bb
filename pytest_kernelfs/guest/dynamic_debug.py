"""Debug messages that are compiled in and switched off: dynamic_debug/control."""

from __future__ import annotations

import os
import re
from typing import List, Tuple  # noqa: UP035  (Python 3.8)

from pytest_kernelfs.guest import attributes, journal
from pytest_kernelfs.guest.dispatch import GuestError

# fs/xfs/xfs_log.c:123 [xfs]xfs_log_force =p "text\012"
_SITE = re.compile(r"(\S+):(\d+) \[(\S+?)\](\S+) =(\S+) ")
_PLACES = ("/proc/dynamic_debug/control", "/sys/kernel/debug/dynamic_debug/control")
# The kernel takes a page at a time.
_MOST_BYTES = 3500

# module, file, line, function; and the flags it has
Sites = List[Tuple[Tuple[str, str, str, str], str]]  # noqa: UP006


def apply(query: str) -> Sites:
    """Switch messages, as "module xfs +p" says; gives the sites that changed, with the flags they had.

    Raises: GuestError for a query that the kernel refuses, or that changes nothing.
    """
    control = _control()
    before = _sites(control)
    try:
        attributes.write(control, query)
    except OSError as error:
        raise GuestError(f"dynamic debug: the query {query!r} was refused: {error.strerror}") from None
    after = dict(_sites(control))
    changed = [(site, flags) for site, flags in before if after.get(site, flags) != flags]
    if not changed:
        raise GuestError(
            f"dynamic debug: the query {query!r} changed none of {len(before)} messages: nothing matches "
            "(a module must be loaded), or all that does is as asked for already"
        )
    journal.note("debug", changed)
    return changed


def restore(sites: Sites) -> None:
    """Give sites the flags they had; those of modules that are gone have none."""
    control = _control()
    batch: list[str] = []
    for (module, file, line, function), flags in sites:
        batch.append(f"module {module} file {file} line {line} func {function} ={flags}")
        if sum(map(len, batch)) > _MOST_BYTES:
            attributes.write(control, "\n".join(batch))
            batch.clear()
    if batch:
        attributes.write(control, "\n".join(batch))
    journal.forget("debug", sites)


def set_back(sites: Sites) -> bool:
    """As ``restore``; False if they have those flags already."""
    now = {":".join(site): flags for site, flags in _sites(_control())}
    if all(now.get(":".join(site), flags) == flags for site, flags in sites):
        return False
    restore(sites)
    return True


def _control() -> str:
    for place in _PLACES:
        if os.path.exists(place):
            return place
    raise GuestError("this kernel has no dynamic debug: it needs CONFIG_DYNAMIC_DEBUG=y")


def _sites(control: str) -> Sites:
    with open(control, errors="replace") as file:
        found = (_SITE.match(line) for line in file)
        return [((match[3], match[1], match[2], match[4]), match[5]) for match in found if match]
