"""From a candidate to a kernel that is ready to boot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_kernelfs.errors import InfrastructureError
from pytest_kernelfs.kernels import Candidate, Kernel, KernelVersion

from .conftest import MakeResolver
from .standin import Deb, Mirror, bzimage, deb, old_kernel


def fetch(make_resolver: MakeResolver, spec: str) -> Kernel:
    resolver = make_resolver()
    return resolver.fetch(resolver.resolve([spec])[0])


@pytest.mark.parametrize(
    ("spec", "module"),
    [("6.1", "xfs.ko"), ("6.12", "xfs.ko.xz"), ("7.2", "xfs.ko.xz")],
    ids=["old", "merged", "split"],
)
def test_every_layout_ends_the_same(
    stocked: Mirror, make_resolver: MakeResolver, spec: str, module: str
) -> None:
    kernel = fetch(make_resolver, spec)
    assert kernel.boot_image.read_bytes() == bzimage(kernel.release)
    assert kernel.config is not None
    assert "CONFIG_XFS_FS=m" in kernel.config.read_text()
    assert kernel.modules is not None
    assert kernel.modules.parts[-3:] == ("lib", "modules", kernel.release)
    assert (kernel.modules / "kernel" / "fs" / "xfs" / module).is_file()
    assert {"modules.dep", "modules.order", "modules.builtin"} <= {
        path.name for path in kernel.modules.iterdir()
    }


def test_only_what_is_needed_is_kept(stocked: Mirror, make_resolver: MakeResolver) -> None:
    entry = fetch(make_resolver, "7.2").boot_image.parent
    assert {path.name for path in entry.iterdir()} == {"vmlinuz", "config", "kernel.json", "lib"}
    assert not list(entry.rglob("System.map*"))


def test_the_kernel_says_what_it_is(stocked: Mirror, make_resolver: MakeResolver) -> None:
    kernel = fetch(make_resolver, "6.1.176")
    assert kernel.version == KernelVersion(6, 1, 176)
    assert (kernel.id, kernel.release) == ("6.1.176", "6.1.0-50-cloud-amd64")
    assert kernel.source == "debian bookworm"
    assert len(kernel.checksum) == 64
    assert Kernel.from_dict(kernel.to_dict()) == kernel


def test_config_options(stocked: Mirror, make_resolver: MakeResolver) -> None:
    kernel = fetch(make_resolver, "6.1")
    assert kernel.config_option("XFS_FS") == "m"
    assert kernel.config_option("CONFIG_XFS_QUOTA") == "y"
    assert kernel.config_option("LOCALVERSION") == "-x"
    assert kernel.config_option("BCACHEFS_FS") is None
    assert kernel.config_option("NO_SUCH_THING") is None
    assert Kernel(kernel.version, "x", "y", "z", kernel.image).config_option("XFS_FS") is None


def test_a_candidate_can_be_fetched_by_another_process(stocked: Mirror, make_resolver: MakeResolver) -> None:
    (candidate,) = make_resolver().resolve(["6.1"])
    elsewhere = Candidate.from_dict(candidate.to_dict())
    assert make_resolver().fetch(elsewhere).checksum == candidate.checksum


@pytest.mark.parametrize("suffix", [".xz", ".gz", ""])
def test_packages_may_be_compressed_in_several_ways(
    mirror: Mirror, make_resolver: MakeResolver, suffix: str
) -> None:
    mirror.publish("sid", old_kernel("6.1.0-50-cloud-amd64", "6.1.176-1", suffix=suffix))
    assert fetch(make_resolver, "6.1").boot_image.is_file()


def test_a_package_without_an_image_is_refused(mirror: Mirror, make_resolver: MakeResolver) -> None:
    mirror.publish("sid", [deb("linux-image-6.1.0-50-cloud-amd64", "6.1.176-1", {"./etc/x": b""})])
    with pytest.raises(
        InfrastructureError, match=r"debian sid has no kernel image of 6\.1\.0-50-cloud-amd64"
    ):
        fetch(make_resolver, "6.1")


@pytest.mark.parametrize("name", ["./../../evil", "/etc/evil", "./lib/modules/x/../../../../evil"])
def test_an_unsafe_name_is_refused(
    mirror: Mirror, make_resolver: MakeResolver, tmp_path: Path, name: str
) -> None:
    mirror.publish("sid", [deb("linux-image-6.1.0-50-cloud-amd64", "6.1.176-1", {name: b"x"})])
    with pytest.raises(InfrastructureError, match="unsafe name"):
        fetch(make_resolver, "6.1")
    assert not list(tmp_path.rglob("evil"))


def test_a_package_that_was_broken_from_the_start_is_named(
    mirror: Mirror, make_resolver: MakeResolver
) -> None:
    (whole,) = old_kernel("6.1.0-50-cloud-amd64", "6.1.176-1")
    mirror.publish("sid", [Deb(whole.name, whole.version, whole.content[:-200])])
    with pytest.raises(
        InfrastructureError, match=r"linux-image-6\.1\.0-50-cloud-amd64\.deb is no intact \.deb"
    ):
        fetch(make_resolver, "6.1")


def test_a_download_that_breaks_off_goes_on_where_it_was(mirror: Mirror, make_resolver: MakeResolver) -> None:
    kernel = old_kernel("6.1.0-50-cloud-amd64", "6.1.176-1")
    mirror.publish("sid", kernel)
    mirror.cut[f"/debian/{kernel[0].file_name}"] = 300
    assert fetch(make_resolver, "6.1").boot_image.is_file()
    assert len(mirror.downloads(".deb")) == 2


def test_a_download_that_breaks_off_for_good_is_given_up(mirror: Mirror, make_resolver: MakeResolver) -> None:
    mirror.publish("sid", old_kernel("6.1.0-50-cloud-amd64", "6.1.176-1"))
    resolver = make_resolver()
    (candidate,) = resolver.resolve(["6.1"])
    mirror.interfere = lambda path: path.endswith(".deb")
    with pytest.raises(InfrastructureError, match=r"cannot get http://127.*\.deb: .*check the network"):
        resolver.fetch(candidate)


def test_progress_is_told(stocked: Mirror, make_resolver: MakeResolver) -> None:
    seen: list[tuple[str, int, int]] = []
    resolver = make_resolver(progress=lambda what, done, total: seen.append((what, done, total)))
    (candidate,) = resolver.resolve(["debian:trixie"])
    seen.clear()
    resolver.fetch(candidate)
    what, done, total = seen[-1]
    assert what == "the package linux-image-6.12.117+deb13-cloud-amd64"
    assert done == total == candidate.download_size


_FETCH = """
import sys
from pathlib import Path
from pytest_kernelfs.cache import Cache
from pytest_kernelfs.kernels import KernelSettings, Resolver
root, url, keyring = sys.argv[1:]
resolver = Resolver(KernelSettings(Cache(Path(root)), debian_mirror=url, debian_keyring=Path(keyring)))
print(resolver.fetch(resolver.resolve(["debian:trixie"])[0]).image)
"""


def test_several_processes_download_once(stocked: Mirror, make_resolver: MakeResolver) -> None:
    settings = make_resolver().settings
    arguments = [str(settings.cache.root), stocked.url, str(stocked.key.keyring)]
    command = [sys.executable, "-c", _FETCH, *arguments]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    images = {child.communicate(timeout=300)[0] for child in children}
    assert len(images) == 1
    assert Path(images.pop().strip()).is_file()
    assert len(stocked.downloads(".deb")) == 1
    assert len([path for path in stocked.requests if "/by-hash/" in path]) == 1
