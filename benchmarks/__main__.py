"""Measure on one kernel, in one run, what a test waits for, and what it replaces."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import measure, report
from pytest_kernelfs.cache import Cache, default_root
from pytest_kernelfs.kernels import KernelSettings, Resolver
from pytest_kernelfs.machines.machine import MachineSpec, Settings
from pytest_kernelfs.machines.qemu.provider import QemuProvider

_DOCS = Path(__file__).resolve().parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--kernel", default="6.1.0-56-amd64", help="a kernel with 9p, which virtme-ng needs")
    parser.add_argument("--matrix", default="5.10,6.1,6.12,7.2", help="kernels of the matrix")
    parser.add_argument("--forks", type=int, default=50)
    parser.add_argument("--cache", type=Path, default=default_root())
    options = parser.parse_args()
    resolver = Resolver(KernelSettings(Cache(options.cache), flavour="amd64"))
    kernel = resolver.fetch(resolver.resolve([options.kernel])[0])
    provider = QemuProvider(Settings(options.cache))
    spec = MachineSpec(1 << 30, 1)
    print(f"measuring on {kernel.release}; this takes some minutes", flush=True)
    rows = [
        *measure.boots(provider, kernel, spec, 5),
        *measure.virtme_ng(provider, kernel, 5),
        *measure.forks(provider, kernel, spec, options.forks),
        *measure.spares(provider, kernel, spec, options.forks),
        *measure.suites(options.cache, kernel.release, options.matrix),
    ]
    share = measure.memory(provider, kernel, spec, 10)
    report.write(_DOCS, kernel, provider.describe(), rows, share)
    print(f"wrote {_DOCS / 'benchmarks.md'}")


if __name__ == "__main__":
    main()
