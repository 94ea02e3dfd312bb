"""The embedded default provider: QEMU, a direct kernel boot, no root, no network, no daemon."""
