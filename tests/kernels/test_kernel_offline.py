"""What happens without a network, and how little of it is used with one."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels.apt import AptFacts

from .conftest import MakeResolver, apt_is
from .standin import Mirror, old_kernel

HOUR = 3600.0


def refused_port() -> int:
    """A port of loopback where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def age(cache: Cache, hours: float) -> None:
    """Let what was learned about suites be that old."""
    import json

    for record in (cache.root / "suites").iterdir():
        facts = json.loads(record.read_text())
        facts["checked"] -= hours * HOUR
        record.write_text(json.dumps(facts))


def test_a_second_run_asks_for_nothing(stocked: Mirror, make_resolver: MakeResolver) -> None:
    first = make_resolver()
    kernels = [first.fetch(candidate) for candidate in first.resolve(["6.1", "7.2"])]
    stocked.requests.clear()
    second = make_resolver()
    assert [second.fetch(candidate) for candidate in second.resolve(["6.1", "7.2"])] == kernels
    assert stocked.requests == []
    assert second.notes == []


def test_an_old_index_is_looked_at_again_but_not_downloaded_again(
    stocked: Mirror, make_resolver: MakeResolver, cache: Cache
) -> None:
    make_resolver().resolve(["6.1"])
    age(cache, hours=25)
    stocked.requests.clear()
    make_resolver().resolve(["6.1"])
    assert stocked.downloads("/bookworm/InRelease")
    assert not [path for path in stocked.requests if "/by-hash/" in path]


def test_an_old_index_is_replaced_by_a_newer_one(
    stocked: Mirror, make_resolver: MakeResolver, cache: Cache
) -> None:
    assert make_resolver().resolve(["6.1"])[0].id == "6.1.192"
    stocked.publish("bookworm-security", old_kernel("6.1.0-60-cloud-amd64", "6.1.200-1"))
    assert make_resolver().resolve(["6.1"])[0].id == "6.1.192"
    age(cache, hours=25)
    assert make_resolver().resolve(["6.1"])[0].id == "6.1.200"


def test_how_old_an_index_may_be_is_a_setting(stocked: Mirror, make_resolver: MakeResolver) -> None:
    make_resolver().resolve(["6.1"])
    stocked.requests.clear()
    make_resolver(index_max_age=0.0).resolve(["6.1"])
    assert stocked.requests


def test_offline_uses_the_cache_whatever_its_age(
    stocked: Mirror, make_resolver: MakeResolver, cache: Cache
) -> None:
    online = make_resolver()
    kernel = online.fetch(online.resolve(["6.1"])[0])
    age(cache, hours=50)
    stocked.requests.clear()
    offline = make_resolver(offline=True)
    assert offline.fetch(offline.resolve(["6.1"])[0]) == kernel
    assert stocked.requests == []
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 50 * HOUR))
    assert offline.notes == [f"offline: the package index is from {day}, 50 hours old"]


def test_offline_with_an_empty_cache_says_what_to_do(make_resolver: MakeResolver) -> None:
    with pytest.raises(
        InfrastructureError, match=r"offline, and the package index of .* was never fetched; run once"
    ):
        make_resolver(offline=True).resolve(["6.1"])


def test_offline_cannot_download_a_kernel(stocked: Mirror, make_resolver: MakeResolver) -> None:
    make_resolver().resolve(["6.1"])
    offline = make_resolver(offline=True)
    (candidate,) = offline.resolve(["6.1"])
    with pytest.raises(
        InfrastructureError, match=r"6\.1\.0-56-cloud-amd64 is not in the cache \(offline\); run once"
    ):
        offline.fetch(candidate)


def test_offline_without_the_index_itself(stocked: Mirror, make_resolver: MakeResolver, cache: Cache) -> None:
    make_resolver().resolve(["6.1"])
    (cache.root / "indexes").rename(cache.root / "gone")
    with pytest.raises(InfrastructureError, match="is not in the cache; run once with the network"):
        make_resolver(offline=True).resolve(["6.1"])


def test_a_mirror_that_is_down_is_named(make_resolver: MakeResolver) -> None:
    url = f"http://user:secret@127.0.0.1:{refused_port()}/debian"
    with pytest.raises(InfrastructureError) as caught:
        make_resolver(debian_mirror=url).resolve(["6.1"])
    message = str(caught.value)
    assert "/debian/dists/bullseye/InRelease: the connection was refused;" in message
    assert "--kernelfs-debian-mirror URL" in message
    assert "secret" not in message
    assert "\n" not in message


def test_a_server_that_is_no_mirror_is_named(mirror: Mirror, make_resolver: MakeResolver) -> None:
    with pytest.raises(
        InfrastructureError, match=rf"{mirror.url} has none of Debian's suites, .* a Debian mirror\?"
    ):
        make_resolver().resolve(["6.1"])


def test_a_mirror_that_is_down_leaves_the_cache_in_use(
    stocked: Mirror, make_resolver: MakeResolver, cache: Cache
) -> None:
    make_resolver().resolve(["6.1"])
    age(cache, hours=25)
    stocked.interfere = lambda path: True
    resolver = make_resolver()
    assert resolver.resolve(["6.1"])[0].id == "6.1.192"
    (note,) = resolver.notes
    assert note.startswith(f"cannot reach {stocked.url.removesuffix('/debian')}/debian")
    assert note.endswith("25 hours old")


def test_one_archive_that_is_down_is_noted(stocked: Mirror, make_resolver: MakeResolver) -> None:
    stocked.interfere = lambda path: "-security" in path and "bookworm" in path
    resolver = make_resolver()
    assert resolver.resolve(["6.1"])[0].id == "6.1.176"
    assert resolver.notes[0].startswith("left out the suite bookworm-security: cannot get ")


def test_what_was_never_fetched_is_left_out_offline_in_one_note(
    stocked: Mirror, make_resolver: MakeResolver
) -> None:
    make_resolver().resolve(["debian:trixie"])
    offline = make_resolver(offline=True)
    assert offline.resolve(["6.12"])[0].id == "6.12.117"
    (note,) = offline.notes
    assert note.startswith("left out the suites bullseye, bullseye-security, ")


def test_a_cached_release_needs_no_index(stocked: Mirror, make_resolver: MakeResolver, cache: Cache) -> None:
    online = make_resolver()
    kernel = online.fetch(online.resolve(["7.2"])[0])
    for folder in ("suites", "indexes"):
        (cache.root / folder).rename(cache.root / f"{folder}-gone")
    stocked.requests.clear()
    for spec in ("7.2.12+deb13-cloud-amd64", "7.2.12"):
        (candidate,) = make_resolver().resolve([spec])
        assert make_resolver().fetch(candidate) == kernel
    assert stocked.requests == []


def test_files_serve_as_a_mirror_too(stocked: Mirror, make_resolver: MakeResolver, tmp_path: Path) -> None:
    url = stocked.write_to(tmp_path / "files")
    resolver = make_resolver(debian_mirror=url)
    assert resolver.fetch(resolver.resolve(["7.2"])[0]).boot_image.is_file()
    assert stocked.requests == []


def test_a_proxy_of_apts_is_used(
    stocked: Mirror, make_resolver: MakeResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt_is(monkeypatch, AptFacts(proxies={"http": f"http://127.0.0.1:{refused_port()}"}))
    with pytest.raises(
        InfrastructureError, match="the proxy cannot be reached; check the network and the proxy"
    ):
        make_resolver().resolve(["debian:trixie"])
