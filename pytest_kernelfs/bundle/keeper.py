"""Decides of which tests something is kept, sees that it is gathered in time, and shows where it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from pytest_kernelfs.bundle import facts, folder, index
from pytest_kernelfs.bundle.evidence import TOOLS, Evidence, gather
from pytest_kernelfs.errors import KernelfsError
from pytest_kernelfs.fixtures.machines import RESOURCES, RUN
from pytest_kernelfs.markers import machine_spec_of
from pytest_kernelfs.news import tell
from pytest_kernelfs.report.results import (
    ARTIFACTS_PROPERTY,
    KERNEL_PROPERTY,
    MEASUREMENT_PROPERTY,
    verdict_of,
    without_kernel,
)
from pytest_kernelfs.report.verdicts import parts_of

if TYPE_CHECKING:
    from pytest_kernelfs.machines.vm import VM


class _Kept(NamedTuple):
    """What became of the artifacts of a test: their folder, if any, and what is shown with its failures."""

    path: Path | None
    note: str
    of_failure: bool


_EVIDENCE: pytest.StashKey[Evidence] = pytest.StashKey()
_KEPT: pytest.StashKey[_Kept] = pytest.StashKey()
_TOLD: pytest.StashKey[bool] = pytest.StashKey()


@contextmanager
def gathered_on_failure(item: pytest.Item) -> Iterator[None]:
    """For the time after a test: if the block fails, gather before its machine is taken down."""
    try:
        yield
    except Exception:
        kept = item.stash.get(_KEPT, None)
        if _keeps(item) != "never" and (kept is None or not kept.of_failure):
            item.stash[_EVIDENCE] = gather(item.stash[RESOURCES].vm, programs=_programs(item))
        raise


def attend(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Keep what the run wants kept of a phase that is over; the report gets a line that says where it is.

    Whatever goes wrong with that becomes such a line: the verdict stays.
    """
    if report.when == "setup":
        _forget(item)
    wanted = report.failed or (_keeps(item) == "always" and report.when == "call")
    if _keeps(item) == "never" or RESOURCES not in item.stash or not wanted:
        return
    kept = item.stash.get(_KEPT, None)
    if kept is None or (report.failed and not kept.of_failure):
        kept = item.stash[_KEPT] = _keep(item, call, report)
    if kept.path is not None:
        for properties in (item.user_properties, report.user_properties):
            if (ARTIFACTS_PROPERTY, str(kept.path)) not in properties:
                properties.append((ARTIFACTS_PROPERTY, str(kept.path)))
    if report.failed:
        report.sections.append(("kernelfs", kept.note))


def _forget(item: pytest.Item) -> None:
    """Forget an earlier run of the same test."""
    if _EVIDENCE in item.stash:
        del item.stash[_EVIDENCE]
    if _KEPT in item.stash:
        del item.stash[_KEPT]


def _keep(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> _Kept:
    try:
        path = _write(item, call, report)
    except OSError as error:
        reason = f"cannot write {error.filename or _root(item)}: {error.strerror}"
        _tell_once(item, f"{reason}; no artifacts are kept: choose another folder, --kernelfs-artifacts DIR")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        return _Kept(path, f"kernelfs: artifacts of this failure: {_shown(item, path)}", report.failed)
    return _Kept(None, f"kernelfs: no artifacts of this failure: {reason}", report.failed)


def _write(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> Path:
    """Gather, if that is not done yet, and write the bundle; gives its folder. Raises: OSError."""
    run = item.config.stash[RUN]
    resources = item.stash[RESOURCES]
    folder.ignore_in_git(_root(item))
    programs = _programs(item)
    evidence = item.stash.get(_EVIDENCE, None) or gather(
        resources.vm, failed=report.failed, programs=programs
    )
    kernel = dict(item.user_properties).get(KERNEL_PROPERTY) or str(resources.vm.kernel.version)
    test = without_kernel(item.nodeid, str(kernel))
    files = dict(evidence.files)
    files[TOOLS] = _tools(files.get(TOOLS, ""), lifted=not programs)
    files["measurements.json"] = _measurements(item)
    files["host.txt"] = facts.host_facts(run)
    files["failure.txt"] = _failure(report)
    files = {name: text for name, text in files.items() if text}
    case = index.Case(
        test=test,
        verdict=verdict_of(report),
        phase=str(report.when),
        kernel=_kernel(resources.vm),
        machine=_machine(item),
        failure=_in_short(call.excinfo),
        findings=list(resources.findings),
        when=time.strftime("%Y-%m-%d %H:%M:%S %z"),
    )
    files[index.NAME] = index.render(case, evidence, files)
    place = folder.place_of(_root(item), test, str(kernel))
    folder.write(place, files)
    return place


def _in_short(excinfo: pytest.ExceptionInfo[BaseException] | None) -> str:
    if excinfo is None:
        return ""
    parts = parts_of(excinfo.value)
    if any(not isinstance(part, KernelfsError) for part in parts):
        return excinfo.exconly()
    return "\n".join(str(part) for part in parts)


def _failure(report: pytest.TestReport) -> str:
    """The failure as pytest shows it, with what the test printed; empty for a test that passed."""
    if not report.failed:
        return ""
    sections = [f"---- {name} ----\n{text}" for name, text in report.sections]
    return "\n".join([report.longreprtext, *sections]) + "\n"


def _kernel(vm: VM) -> str:
    return f"{vm.kernel.version}, {vm.kernel.release} ({vm.kernel.source})"


def _machine(item: pytest.Item) -> str:
    """What it was given; one that ran before has a size of its own, a checkpoint's that of the run."""
    run = item.config.stash[RUN]
    if run.provider.own_kernel() is not None:
        return run.provider.describe()
    kept = getattr(item, "funcargs", {}).get("checkpoint") is not None
    spec = run.machine_spec if kept else machine_spec_of(item, run.machine_spec)
    more = f", boot parameters {spec.boot_parameters!r}" if spec.boot_parameters else ""
    return f"memory {spec.memory >> 20}M, cpus {spec.cpus}{more}"


def _programs(item: pytest.Item) -> tuple[tuple[str, str], ...]:
    """The programs to ask for their versions in the machine: none where it has copies of this host's."""
    return () if item.config.stash[RUN].provider.userland() == "" else facts.PROGRAMS


def _tools(in_machine: str, *, lifted: bool) -> str:
    if lifted:
        return facts.tool_versions()
    own = in_machine or "unknown: see the index for what was not collected\n"
    return f"in the machine:\n{own}\non this host:\n{facts.tool_versions()}"


def _measurements(item: pytest.Item) -> str:
    found = [value for name, value in item.user_properties if name == MEASUREMENT_PROPERTY]
    return json.dumps(found, indent=1) + "\n" if found else ""


def _keeps(item: pytest.Item) -> str:
    return item.config.stash[RUN].config.keep


def _root(item: pytest.Item) -> Path:
    return item.config.stash[RUN].config.artifacts


def _shown(item: pytest.Item, path: Path) -> str:
    """The path as one would type it where pytest was started."""
    here = item.config.invocation_params.dir
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _tell_once(item: pytest.Item, text: str) -> None:
    if not item.config.stash.get(_TOLD, False):
        item.config.stash[_TOLD] = True
        tell(text)
