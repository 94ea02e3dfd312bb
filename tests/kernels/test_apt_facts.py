"""What is read out of the host's apt configuration."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.kernels import KernelSettings, apt
from pytest_kernelfs.kernels.apt import AptFacts, AptSource, read_apt
from pytest_kernelfs.kernels.mirrors import find_mirrors, known_suites, with_companions
from pytest_kernelfs.kernels.suite import Archive

MAIN, SECURITY = "http://mirror.example/debian", "http://mirror.example/debian-security"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What apt's two programs answer."""
    answers = {"apt-config": "", "apt-get": ""}
    monkeypatch.setattr(apt, "_ask", lambda command: answers[command[0]])
    return answers


def test_only_the_main_component_of_archives_we_can_reach_counts(says: dict[str, str], cache: Cache) -> None:
    says["apt-get"] = (
        f"{MAIN}/ bookworm main /nowhere.sources:1\n"
        f"{MAIN}/ bookworm contrib /nowhere.sources:1\n"
        "cdrom://[Disk]/ bookworm main /nowhere.list:1\n"
        "http://third.example/linux/debian bookworm stable /nowhere.list:1\n"
        "nonsense\n"
    )
    assert read_apt(cache).sources == (AptSource(MAIN, "bookworm"),)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.sources",
            f"URIs: http://other.example/x\nSigned-By: /b.gpg\n\nURIs: {MAIN}\nSigned-By: /a.gpg\n",
        ),
        (
            "a.list",
            f"deb http://other.example/x sid main\n# deb [signed-by=/b.gpg] {MAIN} sid main\n"
            f"deb [arch=amd64 signed-by=/a.gpg] {MAIN} sid main\n",
        ),
    ],
)
def test_a_source_may_name_its_keyring(
    says: dict[str, str], cache: Cache, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    says["apt-get"] = f"{MAIN}/ sid main {tmp_path / name}:1\n"
    assert read_apt(cache).sources == (AptSource(MAIN, "sid", Path("/a.gpg")),)


@pytest.mark.parametrize(
    ("line", "expected"), [("false", False), ("no", False), ("true", True), (None, True)]
)
def test_whether_expiry_counts(says: dict[str, str], cache: Cache, line: str | None, expected: bool) -> None:
    says["apt-config"] = f'Acquire::Check-Valid-Until "{line}";\n' if line else ""
    assert read_apt(cache).check_valid_until is expected


def test_proxies_are_read(says: dict[str, str], cache: Cache) -> None:
    says["apt-config"] = (
        'Acquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::http::Proxy::mirror.example "DIRECT";\n'
        'Acquire::https::Proxy "";\n'
    )
    assert read_apt(cache).proxies == {"http": "http://proxy.example:3128", "http://mirror.example": ""}


def test_the_answer_is_recalled_until_the_configuration_changes(
    says: dict[str, str], cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says.update({"apt-config": "x", "apt-get": f"{MAIN} sid main /nowhere:1\n"})
    first = read_apt(cache)
    says.update({"apt-config": "x", "apt-get": ""})
    assert read_apt(cache) == first
    monkeypatch.setenv("APT_CONFIG", "/another")
    assert read_apt(cache) == AptFacts()


def test_a_host_without_apt_has_the_defaults(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_kernelfs.tools.find", lambda command: None)
    monkeypatch.setenv("APT_CONFIG", "/for-a-fingerprint-of-its-own")
    assert read_apt(cache) == AptFacts()


def test_apt_that_hangs_or_fails_is_as_good_as_none(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **more: object) -> NoReturn:
        raise OSError("exec format error")

    monkeypatch.setattr("subprocess.run", fail)
    monkeypatch.setenv("APT_CONFIG", "/for-a-fingerprint-of-its-own")
    assert read_apt(cache) == AptFacts()


def test_the_security_archive_is_the_configured_one_or_the_sibling(cache: Cache) -> None:
    settings = KernelSettings(cache)
    derived = find_mirrors(settings, AptFacts((AptSource(MAIN, "bookworm"),)))
    assert derived.archives_for("trixie") == (Archive(MAIN),)
    assert derived.archives_for("trixie-security") == (Archive(SECURITY),)
    own = AptSource("http://security.example/debian-security", "bookworm-security")
    configured = find_mirrors(settings, AptFacts((AptSource(MAIN, "bookworm"), own)))
    assert configured.archives_for("trixie-security") == (Archive(own.uri),)


def test_suites_of_third_parties_are_no_mirrors(cache: Cache) -> None:
    foreign = AptFacts(
        (AptSource("http://third.example", "nodistro"), AptSource("http://u.example", "noble"))
    )
    with pytest.raises(UsageError, match="this host's apt has no Debian mirror"):
        find_mirrors(KernelSettings(cache), foreign)


def test_suites_that_only_the_host_uses_are_searched_too(cache: Cache) -> None:
    facts = AptFacts((AptSource(MAIN, "bookworm-proposed-updates"), AptSource(MAIN, "stable")))
    suites = find_mirrors(KernelSettings(cache), facts).suites
    assert "bookworm-proposed-updates" in suites
    assert "stable" not in suites


def test_a_suite_comes_with_those_that_update_it() -> None:
    assert with_companions("bookworm") == ["bookworm", "bookworm-security", "bookworm-updates"]
    assert with_companions("stable")[1] == "stable-security"
    assert with_companions("sid") == ["sid"]
    assert with_companions("trixie-backports") == ["trixie-backports"]
    assert {"bullseye-security", "duke-backports", "experimental"} <= set(known_suites())
