"""The ``kernelfs`` command: prepare a host, run commands on kernels, look after kernels, clean up.

Exit codes: 0 all is well; 1 it could not be done, or something required is
missing; 2 the command line is wrong; 4 what it names does not exist or makes
no sense (as pytest's own code for wrong usage). ``run`` and ``shell`` end as
what they ran; for their own failures see ``ending``.
"""

from __future__ import annotations

from pytest_kernelfs.cli import host, kernels, leftovers, run, shell
from pytest_kernelfs.cli.group import main

__all__ = ["host", "kernels", "leftovers", "main", "run", "shell"]
