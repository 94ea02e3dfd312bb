"""Writes what was measured: a table and a plot in docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from pytest_kernelfs.kernels import Kernel
from pytest_kernelfs.measure import Measurement

_PLOT = "images/benchmarks.svg"


def write(docs: Path, kernel: Kernel, provider: str, rows: Sequence[Measurement], share: Measurement) -> None:
    """Write ``benchmarks.md`` and its plot below ``docs``."""
    _plot(docs / _PLOT, [row for row in rows if "kernels" not in row.name])
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. All rows were measured in one run on one machine; compare them with each",
        "other, not with another machine's.",
        "",
        f"- Kernel: {kernel.release} ({kernel.version})",
        f"- Machines: {provider}; 1 GiB of memory, 1 processor",
        f"- Host: {os.cpu_count()} cores, {_memory()} of memory, Linux {_series(platform.release())}, "
        f"Python {platform.python_version()}",
        "",
        "| what | n | median | p99 | max |",
        "|---|---:|---:|---:|---:|",
        *(_row(row) for row in rows),
        _row(share),
        "",
        *_ratios(rows),
        "",
        f"![Seconds until a first command or call is answered, on a logarithmic scale]({_PLOT})",
        "",
        "`vng` is virtme-ng from PyPI, run with `--force-9p`: Debian 12 has no virtiofsd that it can use. A",
        "trivial test runs the command `true`, which under emulation takes 0.1 s in a fresh fork.",
        "",
    ]
    (docs / "benchmarks.md").write_text("\n".join(lines))


def _series(release: str) -> str:
    """The rest of a release names the build of one host."""
    return ".".join(release.split(".")[:2])


def _row(row: Measurement) -> str:
    digits = 0 if row.unit == "MiB" else 3
    values = " | ".join(f"{value:.{digits}f} {row.unit}" for value in (row.median, row.p99, row.max))
    return f"| {row.name} | {len(row.samples)} | {values} |"


def _ratios(rows: Sequence[Measurement]) -> list[str]:
    named = {row.name: row.median for row in rows}
    fork = named["fork to first call"]
    slower = [name for name in ("cold boot to first call", "vng -r … uname -r") if name in named]
    return [f"A fork is {named[name] / fork:.0f} times as fast as: {name}.  " for name in slower]


def _plot(path: Path, rows: Sequence[Measurement]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "kernelfs"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.6 * len(rows) + 1))
    for place, row in enumerate(reversed(rows)):
        axes.plot(row.samples, [place] * len(row.samples), "o", alpha=0.35, color="tab:blue")
        axes.plot([row.median], [place], "|", markersize=22, color="black")
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    axes.set_xscale("log")
    axes.set_xlabel("seconds (each dot a sample, the bar the median)")
    axes.grid(visible=True, axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _memory() -> str:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return f"{int(line.split()[1]) >> 20} GiB"
    return "unknown"
