"""Kernel versions: reading, ordering and comparing them.

Neither PEP 440 nor Debian's own order fits: the first rejects ``6.1.0-50-amd64``
and ``7.3~rc7``, the second knows nothing of ``-rc7``.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, total_ordering

from pytest_kernelfs.errors import UsageError

_NUMBERS = r"v?([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:[-~]rc([0-9]{1,6}))?"
_VERSION = re.compile(rf"{_NUMBERS}\Z")
_RELEASE = re.compile(rf"{_NUMBERS}(?![0-9])")
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*([^\s<>=!]+)\s*\Z")
_COMPARE: dict[str, Callable[[KernelVersion, KernelVersion], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@total_ordering
@dataclass(frozen=True)
class KernelVersion:
    """An upstream kernel version; ``rc`` is None for a release, which comes after all its candidates."""

    major: int
    minor: int
    patch: int = 0
    rc: int | None = None

    @classmethod
    def parse(cls, text: str) -> KernelVersion:
        """Read ``6.1.176``, ``6.1``, ``7.3-rc7``, ``7.3~rc7`` or ``v4.14.60``.

        Raises: UsageError if ``text`` is anything else.
        """
        found = _VERSION.match(text.strip())
        if found is None:
            raise UsageError(f"{text!r} is no kernel version; write it like 6.1.176, 6.1 or 7.3-rc7")
        return cls._of(found)

    @classmethod
    def from_release(cls, release: str) -> KernelVersion:
        """Read the front of a ``uname -r`` string, such as ``6.12.117+deb13-cloud-amd64``.

        Debian's older releases hide the stable level: ``6.1.0-50-amd64`` reads
        as 6.1.0 here; use ``from_package`` where the package is known.

        Raises: UsageError if ``release`` does not begin with a version.
        """
        found = _RELEASE.match(release.strip())
        if found is None:
            raise UsageError(f"{release!r} does not begin with a kernel version such as 6.1.176")
        return cls._of(found)

    @classmethod
    def from_package(cls, package_version: str, release: str) -> KernelVersion:
        """The full version of the kernel ``release`` out of its package's version, e.g. ``6.1.176-1``.

        A package version that speaks of something else (a build number, say) is passed over.

        Raises: UsageError if neither begins with a version.
        """
        named = cls.from_release(release)
        upstream = package_version.partition(":")[2] or package_version
        found = _RELEASE.match(upstream)
        if found is None:
            return named
        told = cls._of(found)
        return told if (told.major, told.minor) == (named.major, named.minor) else named

    @classmethod
    def _of(cls, found: re.Match[str]) -> KernelVersion:
        major, minor, patch, rc = found.groups()
        return cls(int(major), int(minor), int(patch or 0), int(rc) if rc is not None else None)

    def __str__(self) -> str:
        base = f"{self.major}.{self.minor}"
        if self.patch or self.rc is None:
            base += f".{self.patch}"
        return base if self.rc is None else f"{base}-rc{self.rc}"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, KernelVersion):
            return NotImplemented
        return self._key < other._key

    @property
    def series(self) -> tuple[int, int]:
        """The stable series, e.g. ``(6, 1)``."""
        return self.major, self.minor

    @property
    def _key(self) -> tuple[int, int, int, float]:
        return self.major, self.minor, self.patch, math.inf if self.rc is None else self.rc

    def matches(self, constraint: str) -> bool:
        """Whether every clause of ``constraint`` holds, e.g. ``>=6.1,<6.12``.

        In ``==`` and ``!=`` a shorter version stands for all that begin with
        it: 6.1.176 matches ``==6.1``. The others compare, so 6.1.176 does not
        match ``<=6.1``, which means 6.1.0.

        Raises: UsageError if ``constraint`` is malformed.
        """
        return all(clause.holds(self) for clause in parse_constraint(constraint))


@dataclass(frozen=True)
class Clause:
    """One comparison of a constraint; ``given`` is how many numbers were written (1 to 4, 4 with rc)."""

    sign: str
    bound: KernelVersion
    given: int

    def holds(self, version: KernelVersion) -> bool:
        """Whether ``version`` satisfies this clause."""
        if self.sign == "==":
            return self._same(version)
        if self.sign == "!=":
            return not self._same(version)
        return _COMPARE[self.sign](version, self.bound)

    def _same(self, version: KernelVersion) -> bool:
        if self.given > 2:
            return version == self.bound
        return version._key[: self.given] == self.bound._key[: self.given]


def parse_constraint(text: str) -> tuple[Clause, ...]:
    """The clauses of a constraint such as ``>=6.1,<6.12``.

    Raises: UsageError, naming the malformed part.
    """
    if not isinstance(text, str):
        raise UsageError(f"the kernel constraint {text!r} is no text; write it like '>=6.1' or '==5.10'")
    return _clauses(text)


@lru_cache(maxsize=256)
def _clauses(text: str) -> tuple[Clause, ...]:
    return tuple(_parse_clause(part, text) for part in text.split(","))


def _parse_clause(part: str, whole: str) -> Clause:
    found = _CLAUSE.match(part)
    if found is None:
        raise UsageError(
            f"{part.strip()!r} in the kernel constraint {whole!r} is malformed; write it like "
            "'>=6.1,<6.12' or '==5.10' (comparisons: >= <= > < == !=)"
        )
    sign, number = found.groups()
    if number.isascii() and number.isdigit():
        return Clause(sign, KernelVersion(int(number[:6]), 0), 1)
    version = KernelVersion.parse(number)
    return Clause(sign, version, 4 if version.rc is not None else number.count(".") + 1)
