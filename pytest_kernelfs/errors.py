"""The exception family.

Every message says what was tried, what was seen and what to do next. All of
them survive pickling, because xdist carries them between processes.
"""

from __future__ import annotations

import warnings


class KernelfsError(Exception):
    """Base of every error this package raises on purpose.

    ``message`` is complete in itself: reports show it without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class KernelfsWarning(UserWarning):
    """A check is worth less than it should be; the message says which, and why."""


def warn(text: str) -> None:
    """Warn of that, where this was called."""
    warnings.warn(KernelfsWarning(text), stacklevel=2)


class UsageError(KernelfsError):
    """An option, setting, marker or argument is wrong; nothing was started."""


class KernelNotFound(UsageError):
    """A kernel spec is well-formed but names no kernel that can be had."""


class ProviderUnavailable(KernelfsError):
    """The machine provider cannot work on this host (a tool is missing, KVM was demanded and fails)."""


class NeedUnmet(KernelfsError):
    """A test needs what this kernel does not have, and the run demands that needs be met."""


class Unsupported(KernelfsError):
    """The machine provider cannot do what a test asked for; such a test is skipped."""


class InfrastructureError(KernelfsError):
    """We failed, not the kernel under test: a download, a cache, a boot, the channel."""


class GuestCommandError(KernelfsError):
    """A command or call inside the guest failed."""


class GuestTimeout(KernelfsError):
    """A command or call inside the guest did not end within its deadline."""


class KernelMisbehaved(KernelfsError):
    """The kernel under test did what it must not: it panicked or stopped answering during a test."""


class KernelPanic(KernelMisbehaved):
    """The kernel under test panicked; the message holds the panic's own text."""
