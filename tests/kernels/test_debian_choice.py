"""Which kernel a spec means, given what the suites offer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_kernelfs.errors import KernelNotFound, UsageError
from pytest_kernelfs.kernels import host, unique_ids
from pytest_kernelfs.kernels.apt import AptFacts, AptSource

from .conftest import MakeResolver, apt_is
from .standin import Mirror, meta, old_kernel


def one(make_resolver: MakeResolver, spec: str, **settings: object) -> str:
    (candidate,) = make_resolver(**settings).resolve([spec])
    return candidate.release


@pytest.mark.parametrize(
    ("spec", "release"),
    [
        ("6.1", "6.1.0-56-cloud-amd64"),  # not 6.1.0-9, which is older though its name sorts later
        ("6.1.176", "6.1.0-50-cloud-amd64"),
        ("6.12", "6.12.117+deb13-cloud-amd64"),  # trixie's own, not its backport to bookworm
        ("7.2", "7.2.12+deb13-cloud-amd64"),
        ("7.3", "7.3-cloud-amd64"),
        ("7.3-rc7", "7.3-cloud-amd64"),
        ("6.1.0-50-amd64", "6.1.0-50-amd64"),  # a release names its flavour itself
        ("7.2.12+deb13-rt-amd64", "7.2.12+deb13-rt-amd64"),
        ("debian:bookworm", "6.1.0-56-cloud-amd64"),  # what bookworm installs, though it also carries 6.12
        ("debian:trixie", "6.12.117+deb13-cloud-amd64"),
        ("debian:trixie-backports", "7.2.12+deb13-cloud-amd64"),
        ("debian:bookworm-security", "6.1.0-56-cloud-amd64"),
        ("debian:experimental", "7.3-cloud-amd64"),
    ],
)
def test_a_spec_means_one_kernel(
    stocked: Mirror, make_resolver: MakeResolver, spec: str, release: str
) -> None:
    assert one(make_resolver, spec) == release


def test_a_candidate_tells_all_about_itself(stocked: Mirror, make_resolver: MakeResolver) -> None:
    (candidate,) = make_resolver().resolve(["7.2"])
    assert candidate.spec == "7.2"
    assert candidate.id == "7.2.12"
    assert candidate.source == "debian trixie-backports"
    assert [package.name for package in candidate.packages] == [
        "linux-binary-7.2.12+deb13-cloud-amd64",
        "linux-modules-7.2.12+deb13-cloud-amd64",
        "linux-base-7.2.12+deb13-cloud-amd64",
    ]
    assert candidate.download_size == sum(package.size for package in candidate.packages) > 0
    assert type(candidate).from_dict(candidate.to_dict()) == candidate


def test_order_is_kept_and_the_same_kernel_listed_once(stocked: Mirror, make_resolver: MakeResolver) -> None:
    candidates = make_resolver().resolve(["7.2,6.1", "debian:bookworm", "6.1.192", "6.1.176"])
    assert [candidate.id for candidate in candidates] == ["7.2.12", "6.1.192", "6.1.176"]


def test_a_release_in_two_suites_is_one_kernel(mirror: Mirror, make_resolver: MakeResolver) -> None:
    kernel = old_kernel("6.1.0-50-cloud-amd64", "6.1.176-1")
    mirror.publish("bookworm", kernel)
    mirror.publish("bookworm-updates", kernel)
    assert len(make_resolver().available()) == 1


def test_the_flavour_is_a_setting(stocked: Mirror, make_resolver: MakeResolver) -> None:
    assert one(make_resolver, "6.1", flavour="amd64") == "6.1.0-50-amd64"
    assert one(make_resolver, "7.2", flavour="rt") == "7.2.12+deb13-rt-amd64"


def test_a_flavour_that_is_not_there_names_those_that_are(
    stocked: Mirror, make_resolver: MakeResolver
) -> None:
    with pytest.raises(KernelNotFound, match=r"'6\.1' has no flavour 'rt', only amd64, cloud; .*7\.2\.12"):
        make_resolver(flavour="rt").resolve(["6.1"])
    with pytest.raises(KernelNotFound, match=r"'debian:bookworm'.* only the flavours amd64, cloud;"):
        make_resolver(flavour="rt").resolve(["debian:bookworm"])


@pytest.mark.parametrize(
    ("spec", "lacking"),
    [
        ("6.19", "linux-modules-6.19.6"),
        ("6.19.6", "linux-base-6.19.6"),
        ("6.19.6+deb13-cloud-amd64", "linux-modules-6.19.6"),
        ("7.3.4+deb13-cloud-amd64", "linux-binary-7.3.4"),
    ],
)
def test_an_incomplete_release_is_never_chosen(
    stocked: Mirror, make_resolver: MakeResolver, spec: str, lacking: str
) -> None:
    with pytest.raises(
        KernelNotFound, match=r"not all of its packages are: .* in trixie-backports lacks"
    ) as caught:
        make_resolver().resolve([spec])
    assert lacking in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "near"),
    [
        ("6.5", "6.1.192, 6.12.117, 7.2.12"),
        ("4.19", "6.1.192, 6.12.117, 7.2.12"),
        ("9.0", "6.12.117, 7.2.12, 7.3-rc7"),
        ("6.1.180", "6.1.176, 6.1.192, 6.12.117"),
        ("6.1.0-99-amd64", "6.1.0-50-amd64"),
    ],
)
def test_an_unknown_kernel_names_its_neighbours(
    stocked: Mirror, make_resolver: MakeResolver, spec: str, near: str
) -> None:
    with pytest.raises(KernelNotFound) as caught:
        make_resolver().resolve([spec])
    assert f"the nearest are {near}; 'kernelfs kernels ls --available' lists all" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_suite_names_the_known_ones(stocked: Mirror, make_resolver: MakeResolver) -> None:
    with pytest.raises(KernelNotFound, match=r"no suite 'hamm'.*bullseye.*experimental"):
        make_resolver().resolve(["debian:hamm"])


def test_all_that_is_available_is_listed_in_order(stocked: Mirror, make_resolver: MakeResolver) -> None:
    listed = [candidate.id for candidate in make_resolver().available()]
    assert listed == ["6.1.99", "6.1.176", "6.1.192", "6.12.117", "6.12.117", "7.2.9", "7.2.12", "7.3-rc7"]
    assert len(make_resolver().available(all_flavours=True)) == len(listed) + 2


def test_ids_are_unique_where_versions_are_not(stocked: Mirror, make_resolver: MakeResolver) -> None:
    candidates = make_resolver().resolve(["6.12.117+deb12-cloud-amd64", "6.12.117+deb13-cloud-amd64", "7.2"])
    assert unique_ids(candidates) == ["6.12.117+deb12-cloud-amd64", "6.12.117+deb13-cloud-amd64", "7.2.12"]
    twins = unique_ids([candidates[0], replace(candidates[0], checksum="f" * 64)])
    assert len(set(twins)) == 2


def test_the_newer_of_two_builds_of_a_release_is_taken(mirror: Mirror, make_resolver: MakeResolver) -> None:
    old = old_kernel("6.1.0-50-cloud-amd64", "6.1.176-1")
    new = old_kernel("6.1.0-50-cloud-amd64", "6.1.176-10")
    mirror.publish("sid", [*new, *old])
    (candidate,) = make_resolver().resolve(["6.1"])
    assert candidate.packages[0].version == "6.1.176-10"


@pytest.mark.parametrize(
    ("os_release", "expected"),
    [
        ("ID=debian\nVERSION_CODENAME=bookworm\n", "6.1.0-56-cloud-amd64"),
        ('ID=linuxmint\nVERSION_CODENAME=gigi\nDEBIAN_CODENAME="bookworm"\n', "6.1.0-56-cloud-amd64"),
        ("ID=ubuntu\nVERSION_CODENAME=noble\n", "6.12.99+deb13-cloud-amd64"),
        (None, "6.12.99+deb13-cloud-amd64"),
    ],
)
def test_the_default_is_the_hosts_own_release(
    stocked: Mirror,
    make_resolver: MakeResolver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    os_release: str | None,
    expected: str,
) -> None:
    release = "6.12.99+deb13-cloud-amd64"
    stocked.publish("stable", [*old_kernel(release, "6.12.99-1"), meta("cloud", release, "6.12.99-1")])
    path = tmp_path / "os-release"
    if os_release is not None:
        path.write_text(os_release)
    monkeypatch.setattr(host, "OS_RELEASE", path)
    assert make_resolver().default().release == expected


def test_without_a_mirror_the_option_is_named(make_resolver: MakeResolver) -> None:
    with pytest.raises(UsageError, match=r"set --kernelfs-debian-mirror URL .ini: kernelfs_debian_mirror."):
        make_resolver(debian_mirror=None).resolve(["6.1"])


def test_a_mirror_that_is_no_url_is_refused(make_resolver: MakeResolver) -> None:
    with pytest.raises(UsageError, match=r"'mirror\.example' is no URL; write it like"):
        make_resolver(debian_mirror="mirror.example").resolve(["6.1"])


def test_apts_own_mirror_is_used_and_third_parties_are_not(
    stocked: Mirror, make_resolver: MakeResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Mirror(stocked.key)
    server = other.serve()
    try:
        # A third party's archive may use Debian's suite names, and be signed by whoever the user trusts.
        other.publish("bookworm", old_kernel("6.1.0-666-cloud-amd64", "6.1.666-1"), origin="Somebody")
        keyring = stocked.key.keyring
        sources = tuple(AptSource(url, "bookworm", keyring) for url in (other.url, stocked.url))
        apt_is(monkeypatch, AptFacts(sources))
        assert one(make_resolver, "6.1", debian_mirror=None, debian_keyring=None) == "6.1.0-56-cloud-amd64"
    finally:
        server.shutdown()
        server.server_close()
