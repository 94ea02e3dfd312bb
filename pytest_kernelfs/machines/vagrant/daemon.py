"""Whether the libvirtd that Vagrant will ask for machines listens: found out before it is needed."""

from __future__ import annotations

import os
import socket
from urllib.parse import parse_qs, urlsplit

from pytest_kernelfs.errors import ProviderUnavailable

_DEFAULT = "qemu:///system"
# libvirtd's, and that of the daemon for QEMU alone, which newer distributions have instead.
_SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
_PATIENCE_S = 10.0


def require_libvirt() -> None:
    """Raises: ProviderUnavailable if nobody listens there, or we may not connect.

    Of a daemon on another host, or one of a user's own, which libvirt starts itself, Vagrant has to tell.
    """
    uri = os.environ.get("LIBVIRT_DEFAULT_URI") or _DEFAULT
    parts = urlsplit(uri)
    if parts.hostname or parts.path != "/system" or parts.scheme not in ("qemu", "qemu+unix"):
        return
    refusals = [_refusal(path) for path in parse_qs(parts.query).get("socket", _SOCKETS)]
    if "" in refusals:
        return
    if any("Permission denied" in refusal for refusal in refusals):
        advice = "become a member of the group libvirt (and log in anew)"
    else:
        advice = "start it (systemctl start libvirtd), or have LIBVIRT_DEFAULT_URI name one that runs"
    raise ProviderUnavailable(
        f"the provider vagrant needs libvirtd, which does not answer at {uri} ({'; '.join(refusals)}): "
        f"{advice}"
    )


def _refusal(path: str) -> str:
    """Why nobody can be connected to there; "" if somebody can."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_PATIENCE_S)
        try:
            connection.connect(path)
        except OSError as error:
            return f"{path}: {error.strerror or error}"
    return ""
