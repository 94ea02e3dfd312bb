"""What every hypervisor does alike to boot a kernel: its arguments, and who a machine is told that it is."""

from __future__ import annotations

import itertools
import os
import time

_ENTROPY_BYTES = 64
_numbers = itertools.count(1)

# Warnings and worse reach the console.
CONSOLE_LOGLEVEL = 5
# With panic=-1 a machine that may not reboot ends when it panics. Distributions forbid most sysrq keys.
# The log is read after a test: one of 128 KiB, as most have, may have lost its beginning by then.
KERNEL_ARGUMENTS = (
    f"console=ttyS0 panic=-1 loglevel={CONSOLE_LOGLEVEL} sysrq_always_enabled log_buf_len=1M "
    "random.trust_cpu=on net.ifnames=0"
)
# An emulated processor counts its host's cycles, also while the host lets it stand still. The kernel takes
# that for an unstable counter, and goes over to a clock of 24 bits that loses the time: what clock a machine
# has, and how long things take in it, would depend on how busy its host was at the boot.
EMULATED_ARGUMENTS = "tsc=reliable"


def kernel_arguments(accel: str) -> str:
    """What each kernel is told, on processors of ``accel``: kvm or tcg."""
    return KERNEL_ARGUMENTS if accel == "kvm" else f"{KERNEL_ARGUMENTS} {EMULATED_ARGUMENTS}"


def identity() -> tuple[str, float, bytes]:
    """Name, time and randomness for a machine that starts now; see ``guest.fork.adopt``."""
    return f"kernelfs-{next(_numbers)}", time.time(), os.urandom(_ENTROPY_BYTES)
