"""What is said of a KVM that does not work."""

from __future__ import annotations

from pytest_kernelfs.machines.libvirt.proof import brief

SAID = (
    "internal error: qemu unexpectedly closed the monitor: 2026-01-02T03:04:05Z qemu-system-x86_64: error: "
    "failed to set MSR 0x10a to 0x69 qemu-system-x86_64: kvm.c:3183: kvm_buf_set_msrs: Assertion failed."
)


def test_qemus_first_complaint_is_told() -> None:
    assert brief(SAID) == "error: failed to set MSR 0x10a to 0x69"


def test_libvirts_own_words_are_told_as_they_are() -> None:
    assert brief("invalid argument: no KVM") == "invalid argument: no KVM"


def test_a_long_complaint_is_cut() -> None:
    assert brief("x" * 300) == "x" * 77 + "..."
