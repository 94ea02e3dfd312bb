"""The index of a bundle: the failure in short, and which file says more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_kernelfs.bundle.evidence import DESCRIPTIONS, Evidence

NAME = "index.md"
_MOST_FAILURE_LINES = 30
_MOST_LOG_LINES = 20
_MOST_BLOCKED = 20


@dataclass(frozen=True)
class Case:
    """A test on a kernel: ``test`` is its id without the kernel, ``phase`` one of setup, call, teardown.

    ``kernel`` and ``machine`` are as people want to read them; ``failure`` is the error in short,
    ``findings`` what the checks after the test found; ``when`` is the time.
    """

    test: str
    verdict: str
    phase: str
    kernel: str
    machine: str
    failure: str
    findings: Sequence[str]
    when: str


def render(case: Case, evidence: Evidence, files: Mapping[str, str]) -> str:
    """The index, in Markdown that reads as plain text; ``files`` are those of the bundle."""
    parts = [
        f"# {case.verdict}: {case.test}\n",
        f"- kernel: {case.kernel}\n- machine: {case.machine}\n- phase: {case.phase}\n"
        f"- gathered: {case.when}, in {evidence.seconds:.1f} s, before the machine was taken down\n",
    ]
    if case.failure:
        parts.append(f"## Failure\n\n{_block(case.failure.splitlines()[:_MOST_FAILURE_LINES])}")
    if case.findings:
        parts.append("## Found after the test\n\n" + _block("\n".join(case.findings).splitlines()))
    parts.append("## Tasks in uninterruptible sleep\n\n" + _blocked(evidence))
    source = "dmesg.txt" if "dmesg.txt" in files else "console.log"
    log = (evidence.loud or [])[-_MOST_LOG_LINES:]
    told = f"{_block(log)}\nMore in {source}.\n" if log else "none\n"
    parts.append(f"## The kernel's log since the machine started, warnings and worse\n\n{told}")
    listed = [name for name in DESCRIPTIONS if name in files]
    width = max((len(name) for name in listed), default=0)
    parts.append("## Files\n\n" + _block([f"{name.ljust(width)}  {DESCRIPTIONS[name]}" for name in listed]))
    problems = [f"- {name}: {reason}" for name, reason in evidence.problems.items()]
    parts.append("## Not collected\n\n" + ("\n".join(problems) if problems else "nothing is missing") + "\n")
    return "\n".join(parts)


def _blocked(evidence: Evidence) -> str:
    if evidence.blocked is None:
        return "unknown: neither the agent nor the kernel told\n"
    shown = [f"- {task}" for task in evidence.blocked[:_MOST_BLOCKED]]
    if len(evidence.blocked) > _MOST_BLOCKED:
        shown.append(f"- and {len(evidence.blocked) - _MOST_BLOCKED} more")
    return ("\n".join(shown) or "none") + "\n"


def _block(lines: Sequence[str]) -> str:
    # Indented by four, so that whatever a kernel prints stays what it is.
    return "".join(f"    {line}\n" for line in lines)
