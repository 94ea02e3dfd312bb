"""``python -m pytest_kernelfs.cli`` is the ``kernelfs`` command."""

from __future__ import annotations

from pytest_kernelfs.cli import main

if __name__ == "__main__":
    main(prog_name="kernelfs")
