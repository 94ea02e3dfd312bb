"""The needs of tests: who is skipped, or ends in an error, because a need is not met."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn, final

import pytest

from pytest_kernelfs.errors import KernelfsError, NeedUnmet, UsageError
from pytest_kernelfs.markers import is_left_out
from pytest_kernelfs.needs import files
from pytest_kernelfs.needs.need import Need, parse

if TYPE_CHECKING:
    from pytest_kernelfs.kernels import Candidate, Kernel
    from pytest_kernelfs.needs.probed import Answer, Probes
    from pytest_kernelfs.run import Run

MARKER = "kernel_needs"
_NEEDS = pytest.StashKey[tuple[Need, ...]]()
_UNMET = pytest.StashKey[str]()


def read_needs(item: pytest.Item, *, lifted: bool) -> None:
    """Read the item's markers; ``lifted`` tells that machines have programs of this host.

    Raises: UsageError for one that is not written as it must be.
    """
    needs: dict[Need, None] = {}
    for mark in item.iter_markers(MARKER):
        if not mark.args or mark.kwargs:
            raise UsageError(f'{item.nodeid}: write {MARKER}("overlay:volatile", "config:XFS_QUOTA")')
        for text in mark.args:
            try:
                needs[parse(text, lifted=lifted)] = None
            except UsageError as error:
                raise UsageError(f"{item.nodeid}: {error}") from None
    if needs:
        item.stash[_NEEDS] = tuple(needs)


def is_unmet(item: pytest.Item) -> bool:
    """Whether it is known that a need of the item is not met, so that no machine is wanted for it."""
    return _UNMET in item.stash


@final
class Needs:
    """Settles needs of a run's tests: as early as they can be, and with as few machines as possible."""

    def __init__(self, run: Run, candidate_of: Callable[[pytest.Item], Candidate | None]) -> None:
        self._run = run
        self._candidate_of = candidate_of
        self._asked: set[str] = set()

    @cached_property
    def _probes(self) -> Probes:
        from pytest_kernelfs.cache import Cache
        from pytest_kernelfs.needs.probed import Probes

        run = self._run
        return Probes(Cache(run.config.cache_root), lambda: run.provider, self._make_room)

    def _make_room(self) -> None:
        self._run.pool.sweep()
        self._run.pool.make_room()

    def mark(self, items: Sequence[pytest.Item]) -> None:
        """Skip the tests of which it is known by now that a need is not met; nothing boots for that.

        A kernel that cannot be fetched is left to the tests' turn.
        """
        for item in items:
            needs = item.stash.get(_NEEDS, ())
            candidate = self._candidate_of(item) if needs and not _is_out(item) else None
            if candidate is None:
                continue
            try:
                reason = self._known_reason(item, self._run.kernel(candidate), needs)
            except KernelfsError:
                continue
            if reason:
                item.stash[_UNMET] = reason
                if not self._run.config.require:
                    item.add_marker(pytest.mark.skip(reason=reason))

    def settle(self, item: pytest.Item) -> None:
        """To be called before the item is set up: find out what is not known yet.

        The first test on a kernel settles the needs of all, before any test has a machine that another
        may want to share.

        Raises: pytest's skip, or NeedUnmet if the run demands that needs be met; what probing raised.
        """
        if is_unmet(item):
            self._refuse(item)
        candidate = self._candidate_of(item)
        if candidate is None:
            return
        first = candidate.checksum not in self._asked
        self._asked.add(candidate.checksum)
        if not first and _NEEDS not in item.stash:
            return
        items = [other for other in item.session.items if first and self._candidate_of(other) == candidate]
        items = [other for other in [*items, item] if not _is_out(other)]
        if not any(_NEEDS in other.stash for other in items):
            return
        kernel = self._run.kernel(candidate)
        wanted = [(need, self._boot(other)) for other in items for need in self._to_probe(other, kernel)]
        self._probes.ask(kernel, self._run.machine_spec, wanted)
        self.mark(items)
        if is_unmet(item):
            self._refuse(item)
        for need in item.stash.get(_NEEDS, ()):
            answer = self._answer(item, kernel, need)
            if isinstance(answer, KernelfsError):
                raise copy.copy(answer)  # others may raise it too

    def _known_reason(self, item: pytest.Item, kernel: Kernel, needs: Sequence[Need]) -> str | None:
        """Why a need is not met; files first."""
        for need in sorted(needs, key=lambda need: not self._in_files(need, kernel)):
            answer = self._answer(item, kernel, need)
            if answer and not isinstance(answer, KernelfsError):
                return answer
        return None

    def _answer(self, item: pytest.Item, kernel: Kernel, need: Need) -> Answer | None:
        if self._in_files(need, kernel):
            return files.unmet(need, kernel) or ""
        return self._probes.answer(kernel, need, self._boot(item))

    def _in_files(self, need: Need, kernel: Kernel) -> bool:
        return files.settle(need, kernel, lifted=self._run.provider.userland() == "")

    def _to_probe(self, item: pytest.Item, kernel: Kernel) -> list[Need]:
        """The needs that a machine has to settle; none if files tell already that the test cannot run."""
        to_probe = []
        for need in item.stash.get(_NEEDS, ()):
            if not self._in_files(need, kernel):
                to_probe.append(need)
                continue
            try:
                if files.unmet(need, kernel):
                    return []
            except KernelfsError:
                return []  # told when it is that test's turn
        return to_probe

    def _boot(self, item: pytest.Item) -> str:
        """The boot parameters of the item's machine."""
        from pytest_kernelfs.markers import machine_spec_of

        return machine_spec_of(item, self._run.machine_spec).boot_parameters

    def _refuse(self, item: pytest.Item) -> NoReturn:
        reason = item.stash[_UNMET]
        if self._run.config.require:
            raise NeedUnmet(f"{reason}; the test needs that, and --kernelfs-require makes it an error")
        # Told as being at the test, as for a marker, not here.
        raise pytest.skip.Exception(reason, _use_item_location=True)


def _is_out(item: pytest.Item) -> bool:
    return is_unmet(item) or is_left_out(item)
