"""Verifying a clearsigned file with gpgv; only the verified text is ever returned."""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pytest_kernelfs import tools
from pytest_kernelfs.errors import InfrastructureError

DEFAULT_KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)
_BEGIN = b"-----BEGIN PGP SIGNED MESSAGE-----"
_END = b"-----END PGP SIGNATURE-----"
# Headers, an empty line, the key in base64, and perhaps a checksum line that begins with "=".
_ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----.*?\n\s*\n(.*?)(?:^=[^\n]*\n)?^-----END PGP",
    re.DOTALL | re.MULTILINE,
)


class BadSignatureError(InfrastructureError):
    """The content is unsigned, or was changed after it was signed."""


class UnknownSignerError(InfrastructureError):
    """The signature may be right, but its keys are not in the keyring (or have expired)."""


def choose_keyring(*wanted: Path | None) -> Path:
    """The first keyring that is set, else Debian's.

    Raises: InfrastructureError if that file is not there.
    """
    for keyring in wanted:
        if keyring is not None:
            if keyring.is_file():
                return keyring
            raise InfrastructureError(
                f"the keyring {keyring} is not there; check the setting, or leave it out to use Debian's own"
            )
    for keyring in DEFAULT_KEYRINGS:
        if keyring.is_file():
            return keyring
    raise InfrastructureError(
        f"Debian's keyring {DEFAULT_KEYRINGS[0]} is not on this host, so nothing from a mirror can be "
        "verified; run 'kernelfs setup', or install the package 'debian-archive-keyring'"
    )


def verified_text(signed: bytes, keyring: Path, name: str) -> str:
    """The text inside a clearsigned file, after its signature was found good.

    ``name`` is what messages call the file.

    Raises: BadSignatureError; UnknownSignerError; ProviderUnavailable if the host lacks gpgv.
    """
    _check_shape(signed, name)
    with tempfile.TemporaryDirectory(prefix="kernelfs-verify-") as folder:
        source, text = Path(folder, "signed"), Path(folder, "text")
        source.write_bytes(signed)
        status = _gpgv(source, text, _binary_keyring(keyring, Path(folder)))
        _judge(status, keyring, name)
        return text.read_text("utf-8", errors="replace")


def _check_shape(signed: bytes, name: str) -> None:
    """One signed message and nothing around it: gpgv itself is more generous than that."""
    body = signed.strip()
    if body.startswith(_BEGIN) and body.endswith(_END) and body.count(_BEGIN) == body.count(_END) == 1:
        return
    raise BadSignatureError(
        f"{name} is not signed as Debian's are; a proxy or a captive portal may have answered in the "
        "mirror's place: look at that URL, or choose another mirror with --kernelfs-debian-mirror URL"
    )


def _gpgv(source: Path, text: Path, keyring: Path) -> Sequence[str]:
    gpgv = tools.need("gpgv")
    options = ["--status-fd", "1", "--weak-digest", "SHA1", "--weak-digest", "RIPEMD160"]
    result = subprocess.run(
        [str(gpgv), *options, "--keyring", str(keyring), "--output", str(text), str(source)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    return [line[9:] for line in result.stdout.splitlines() if line.startswith("[GNUPG:] ")]


def _judge(status: Sequence[str], keyring: Path, name: str) -> None:
    words = {line.split(" ", 1)[0] for line in status}
    if "BADSIG" in words or "NODATA" in words:
        raise BadSignatureError(
            f"the signature of {name} is wrong: it was changed after Debian signed it; do not use this "
            "mirror, choose another with --kernelfs-debian-mirror URL"
        )
    # VALIDSIG alone also stands beside expired and revoked keys.
    if {"GOODSIG", "VALIDSIG"} <= words:
        return
    untrusted = ("NO_PUBKEY ", "EXPKEYSIG ", "REVKEYSIG ")
    keys = sorted({line.split()[1] for line in status if line.startswith(untrusted)})
    raise UnknownSignerError(
        f"{name} is signed with keys that {keyring} does not hold or that have expired "
        f"({', '.join(keys) or 'none named'}); update the package 'debian-archive-keyring'"
    )


def _binary_keyring(keyring: Path, folder: Path) -> Path:
    """The keyring as gpgv wants it: armour, which apt allows, is taken off."""
    content = keyring.read_bytes()
    if not content.startswith(b"-----BEGIN PGP"):
        return keyring
    try:
        keys = b"".join(base64.b64decode(block) for block in _ARMOUR.findall(content))
    except binascii.Error as error:
        raise InfrastructureError(f"the keyring {keyring} is damaged; replace it") from error
    binary = folder / "keyring"
    binary.write_bytes(keys)
    return binary
