"""How machines are accelerated, settled alike for every hypervisor: KVM is proved, never taken on trust."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError, ProviderUnavailable

# What a kernel without a root says last, which proves that the guest ran.
REACHED = b"VFS: Unable to mount root fs"
# With KVM a kernel misses its root after less than a second; a host under heavy load may need some more.
DEADLINE_S = 10.0


@dataclass(frozen=True)
class Accelerator:
    """``name`` is "kvm" or "tcg"; ``reason`` says why, for people."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name.upper()} ({self.reason})"


def settle(preference: str, problem_with_kvm: Callable[[], str]) -> Accelerator:
    """The accelerator for ``preference``, one of auto, kvm, tcg; ``problem_with_kvm`` gives "" if it works.

    Raises: ProviderUnavailable if KVM is demanded and does not work.
    """
    if preference == "tcg":
        return Accelerator("tcg", "as asked")
    problem = problem_with_kvm()
    if not problem:
        return Accelerator("kvm", "proved by running a guest")
    if preference == "kvm":
        raise ProviderUnavailable(
            f"--kernelfs-accel=kvm was asked for, but {problem}; "
            "use --kernelfs-accel=auto or tcg, or mend KVM"
        )
    return Accelerator("tcg", problem)


@final
class Memory:
    """What was found out about KVM, kept in a file for as long as ``identity`` stays what it is."""

    def __init__(self, cache: Cache, name: str, identity: Mapping[str, str | int]) -> None:
        self._cache = cache
        self._path: Path = cache.root / "accel" / f"{name}.json"
        self._identity = dict(identity)

    def recall(self) -> str | None:
        """ "" for a working KVM, else what was wrong with it; None if nobody looked yet."""
        try:
            record = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return None
        return str(record["problem"]) if record.get("identity") == self._identity else None

    def remember(self, problem: str) -> None:
        """Keep it for later runs."""
        try:
            self._cache.write_text(self._path, json.dumps({"identity": self._identity, "problem": problem}))
        except InfrastructureError:
            pass  # it will be found out again
