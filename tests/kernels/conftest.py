from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_kernelfs.cache import Cache
from pytest_kernelfs.kernels import KernelSettings, Resolver
from pytest_kernelfs.kernels import debian as debian_source
from pytest_kernelfs.kernels.apt import AptFacts
from pytest_kernelfs.kernels.download import Web

from .standin import Key, Mirror, make_key, merged_kernel, meta, old_kernel, split_kernel, stop_agent

MakeResolver = Callable[..., Resolver]


@pytest.fixture(scope="session")
def keys() -> Iterator[tuple[Key, Key]]:
    """The mirror's key and a stranger's."""
    # Not tmp_path, nor where TMPDIR leads: gpg's socket needs a short path.
    with tempfile.TemporaryDirectory(prefix="kfs-", dir="/tmp") as folder:
        pair = make_key(Path(folder, "a")), make_key(Path(folder, "b"))
        yield pair
        for key in pair:
            stop_agent(key)


@pytest.fixture
def mirror(keys: tuple[Key, Key]) -> Iterator[Mirror]:
    """An empty mirror on loopback."""
    mirror = Mirror(keys[0])
    server = mirror.serve()
    yield mirror
    server.shutdown()
    server.server_close()


@pytest.fixture
def stocked(mirror: Mirror, stock: dict[str, bytes]) -> Mirror:
    """A mirror with every layout, several suites and flavours, and releases that are incomplete."""
    mirror.files.update(stock)
    return mirror


@pytest.fixture(scope="session")
def stock(keys: tuple[Key, Key]) -> dict[str, bytes]:
    """The files of ``stocked``; made once, for signing takes its time."""
    mirror = Mirror(keys[0])
    bookworm = [
        *old_kernel("6.1.0-50-cloud-amd64", "6.1.176-1"),
        *old_kernel("6.1.0-50-amd64", "6.1.176-1"),
        meta("cloud", "6.1.0-50-cloud-amd64", "6.1.176-1"),
    ]
    security = [
        *old_kernel("6.1.0-9-cloud-amd64", "6.1.99-1"),
        *old_kernel("6.1.0-56-cloud-amd64", "6.1.192-2"),
        *merged_kernel("6.12.117+deb12-cloud-amd64", "6.12.117-1~deb12u1"),
        meta("cloud", "6.1.0-56-cloud-amd64", "6.1.192-2"),
    ]
    trixie = [*merged_kernel("6.12.117+deb13-cloud-amd64", "6.12.117-1")]
    backports = [
        *split_kernel("7.2.12+deb13-cloud-amd64", "7.2.12-1~bpo13+1"),
        *split_kernel("7.2.9+deb13-cloud-amd64", "7.2.9-1~bpo13+1"),
        *split_kernel("6.19.6+deb13-cloud-amd64", "6.19.6-2~bpo13+1", without=("modules", "base")),
        *split_kernel("7.3.4+deb13-cloud-amd64", "7.3.4-1~bpo13+1", without=("binary", "image")),
        *split_kernel("7.2.12+deb13-rt-amd64", "7.2.12-1~bpo13+1"),
    ]
    mirror.publish("bookworm", bookworm, codename="bookworm")
    mirror.publish("bookworm-security", security)
    mirror.publish("trixie", trixie)
    mirror.publish("trixie-backports", backports, origin="Debian Backports")
    mirror.publish("experimental", split_kernel("7.3-cloud-amd64", "7.3~rc7-1~exp1"), codename="rc-buggy")
    return mirror.files


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def make_resolver(mirror: Mirror, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> MakeResolver:
    """Make a resolver for the stand-in mirror; keyword arguments change its settings."""
    monkeypatch.setattr(Web, "pause", 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    apt_is(monkeypatch, AptFacts())

    def make(**changes: object) -> Resolver:
        settings: dict[str, object] = {
            "cache": cache,
            "debian_mirror": mirror.url,
            "debian_keyring": mirror.key.keyring,
        }
        return Resolver(KernelSettings(**{**settings, **changes}))  # type: ignore[arg-type]

    return make


def apt_is(monkeypatch: pytest.MonkeyPatch, facts: AptFacts) -> None:
    """Let the host's apt have this configuration."""
    monkeypatch.setattr(debian_source, "read_apt", lambda cache: facts)


@pytest.fixture(autouse=True)
def _needs_gpg(request: pytest.FixtureRequest) -> None:
    if "keys" in request.fixturenames and shutil.which("gpg") is None:
        pytest.fail("the program 'gpg' signs the stand-in mirror; install the package 'gnupg'")
