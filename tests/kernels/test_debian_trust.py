"""Nothing that Debian did not sign is used, and what is wrong is said in one line."""

from __future__ import annotations

import base64
from email.utils import formatdate
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels import signature
from pytest_kernelfs.kernels.apt import AptFacts

from .conftest import MakeResolver, apt_is
from .standin import DAY, Key, Mirror, old_kernel

KERNEL = old_kernel("6.1.0-50-cloud-amd64", "6.1.176-1")
IN_RELEASE = "/debian/dists/bookworm/InRelease"
NOW = 1_800_000_000


def refusal(make_resolver: MakeResolver, spec: str = "debian:bookworm", **settings: object) -> str:
    with pytest.raises(InfrastructureError) as caught:
        make_resolver(**settings).resolve([spec])
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_unsigned_index_is_refused(mirror: Mirror, make_resolver: MakeResolver) -> None:
    mirror.files[IN_RELEASE] = b"Origin: Debian\nCodename: bookworm\n"
    message = refusal(make_resolver)
    assert f"{mirror.url}/dists/bookworm/InRelease is not signed" in message
    assert "--kernelfs-debian-mirror" in message


@pytest.mark.parametrize("spec", ["debian:bookworm", "6.1"])
def test_a_changed_index_is_refused(mirror: Mirror, make_resolver: MakeResolver, spec: str) -> None:
    mirror.publish("trixie", KERNEL)
    mirror.publish("bookworm", KERNEL)
    mirror.files[IN_RELEASE] = mirror.files[IN_RELEASE].replace(
        b"Acquire-By-Hash: yes", b"Acquire-By-Hash: no "
    )
    assert "was changed after Debian signed it" in refusal(make_resolver, spec)


def test_text_around_the_signed_part_is_refused(mirror: Mirror, make_resolver: MakeResolver) -> None:
    mirror.publish("bookworm", KERNEL)
    mirror.files[IN_RELEASE] = b"Origin: Debian\n\n" + mirror.files[IN_RELEASE]
    assert "is not signed as Debian's are" in refusal(make_resolver)


def test_a_strangers_signature_is_refused(
    mirror: Mirror, keys: tuple[Key, Key], make_resolver: MakeResolver
) -> None:
    mirror.publish("bookworm", KERNEL, key=keys[1])
    message = refusal(make_resolver)
    assert f"keys that {keys[0].keyring} does not hold" in message
    assert "debian-archive-keyring" in message


def test_a_suite_signed_by_a_stranger_is_left_out_with_a_note(
    mirror: Mirror, keys: tuple[Key, Key], make_resolver: MakeResolver
) -> None:
    mirror.publish("bookworm", KERNEL)
    mirror.publish("trixie", old_kernel("6.1.0-99-cloud-amd64", "6.1.999-1"), key=keys[1])
    resolver = make_resolver()
    assert resolver.resolve(["6.1"])[0].id == "6.1.176"
    (note,) = resolver.notes
    assert note.startswith("left out the suite trixie: ")


def test_one_suite_cannot_stand_in_for_another(mirror: Mirror, make_resolver: MakeResolver) -> None:
    mirror.publish("bullseye", KERNEL)
    mirror.files[IN_RELEASE] = mirror.files["/debian/dists/bullseye/InRelease"]
    assert "is the InRelease of bullseye (bullseye), not of bookworm" in refusal(make_resolver)


def test_an_index_that_is_not_the_signed_one_is_refused(mirror: Mirror, make_resolver: MakeResolver) -> None:
    mirror.publish("bookworm", KERNEL, by_hash=False)
    path = "/debian/dists/bookworm/main/binary-amd64/Packages.xz"
    mirror.files[path] = mirror.files[path][:-1] + b"?"
    message = refusal(make_resolver)
    assert "the package index of bookworm" in message
    assert "may be mid-update: try again" in message


@pytest.mark.parametrize(
    "options",
    [{"by_hash": False}, {"plain": False}, {"compression": ".gz"}, {"compression": ".gz", "by_hash": False}],
)
def test_every_way_to_publish_an_index_works(
    mirror: Mirror, make_resolver: MakeResolver, options: dict[str, object]
) -> None:
    mirror.publish("bookworm", KERNEL, **options)  # type: ignore[arg-type]
    assert make_resolver().resolve(["6.1"])[0].id == "6.1.176"


def test_an_index_may_lie_at_its_plain_path_only(mirror: Mirror, make_resolver: MakeResolver) -> None:
    mirror.publish("bookworm", KERNEL)
    for path in [path for path in mirror.files if "/by-hash/" in path]:
        del mirror.files[path]
    assert make_resolver().resolve(["6.1"])[0].id == "6.1.176"
    for path in [path for path in mirror.files if path.endswith("/Packages.xz")]:
        del mirror.files[path]
    assert "is promised by its InRelease, but" in refusal(
        make_resolver,
        cache=type(make_resolver().settings.cache)(make_resolver().settings.cache.root / "other"),
    )


@pytest.mark.parametrize("what", ["content", "size"])
def test_a_package_that_is_not_the_promised_one_is_refused(
    mirror: Mirror, make_resolver: MakeResolver, what: str
) -> None:
    mirror.publish("bookworm", KERNEL)
    path = f"/debian/{KERNEL[0].file_name}"
    content = mirror.files[path]
    mirror.files[path] = content[:-1] + b"?" if what == "content" else content + b"?"
    resolver = make_resolver()
    (candidate,) = resolver.resolve(["6.1"])
    with pytest.raises(InfrastructureError) as caught:
        resolver.fetch(candidate)
    message = str(caught.value)
    assert "the package linux-image-6.1.0-50-cloud-amd64 from" in message
    assert "expected" in message
    assert "seen" in message
    assert "may be mid-update: try again" in message
    assert resolver.cached() == []
    assert not any((resolver.settings.cache.root / "kernels").iterdir())


def test_a_missing_keyring_names_its_package(
    stocked: Mirror, make_resolver: MakeResolver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signature, "DEFAULT_KEYRINGS", (tmp_path / "none.gpg",))
    message = refusal(make_resolver, debian_keyring=None)
    assert "run 'kernelfs setup', or install the package 'debian-archive-keyring'" in message


def test_a_keyring_that_was_set_must_be_there(
    stocked: Mirror, make_resolver: MakeResolver, tmp_path: Path
) -> None:
    assert "the keyring /nowhere.gpg is not there" in refusal(
        make_resolver, debian_keyring=Path("/nowhere.gpg")
    )


@pytest.mark.parametrize("checksum", [b"", b"=AbCd\n"])
def test_a_keyring_may_be_armoured(
    stocked: Mirror, make_resolver: MakeResolver, tmp_path: Path, checksum: bytes
) -> None:
    armoured = tmp_path / "key.asc"
    body = base64.encodebytes(stocked.key.keyring.read_bytes())
    head, tail = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", b"-----END PGP PUBLIC KEY BLOCK-----\n"
    armoured.write_bytes(head + b"Comment: x\n\n" + body + checksum + tail)
    assert make_resolver(debian_keyring=armoured).resolve(["debian:bookworm"])


@pytest.mark.parametrize("checked", [True, False])
def test_an_expired_index_counts_as_apt_is_told(
    mirror: Mirror, make_resolver: MakeResolver, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    mirror.publish("bookworm", KERNEL, valid_until=formatdate(NOW - DAY, usegmt=True).replace("GMT", "UTC"))
    monkeypatch.setattr("time.time", lambda: NOW)
    apt_is(monkeypatch, AptFacts(check_valid_until=checked))
    if not checked:
        assert make_resolver().resolve(["debian:bookworm"])
        return
    message = refusal(make_resolver)
    assert "the package index of bookworm at" in message
    assert "expired at 2027-01-14" in message
    assert "Acquire::Check-Valid-Until" in message


def test_an_expired_suite_is_left_out_with_a_note(
    mirror: Mirror, make_resolver: MakeResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.publish("bookworm", KERNEL, valid_until=formatdate(NOW + DAY, usegmt=True))
    mirror.publish("sid", old_kernel("6.1.0-99-cloud-amd64", "6.1.999-1"), valid_until=formatdate(NOW - DAY))
    monkeypatch.setattr("time.time", lambda: NOW)
    resolver = make_resolver()
    assert resolver.resolve(["6.1"])[0].id == "6.1.176"
    (note,) = resolver.notes
    assert note.startswith("left out the suite sid: the package index of sid")
