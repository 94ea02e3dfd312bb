"""How an overlay is put to the kernel, and how its refusal is told; the mounts are in tests/vm."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pytest_kernelfs.guest import kmsg, overlay
from pytest_kernelfs.guest.dispatch import GuestError


def plan(
    lower: list[str], data: tuple[str, ...] = (), upper: str = "/u", options: str = "", api: str = "auto"
) -> overlay.Plan:
    return overlay.Plan("/m", lower, list(data), upper, "/w" if upper else "", options, api)


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of short links, instead of one in the root."""
    folder = tmp_path / "l"
    folder.mkdir()
    monkeypatch.setattr(overlay, "_short_folder", lambda: str(folder))
    return folder


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (plan(["/a", "/b"]), "lowerdir=/a:/b,upperdir=/u,workdir=/w"),
        (plan(["/a", "/b"], upper=""), "lowerdir=/a:/b"),
        (
            plan(["/a"], ("/c", "/d"), options="metacopy=on"),
            "lowerdir=/a::/c::/d,upperdir=/u,workdir=/w,metacopy=on",
        ),
    ],
)
def test_the_options_of_mount(asked: overlay.Plan, text: str) -> None:
    assert asked.text(asked.stack(), asked.options) == text


def test_what_fits_is_named_as_it_is() -> None:
    seen: list[str] = []
    overlay._with_stack(plan(["/a", "/b"], ("/c",)), 100, seen.append)
    assert seen == ["/a:/b::/c"]


@pytest.mark.parametrize("lower", [["/a" * 30, "/b"], ["/a:b", "/b"], ["/a,b", "/b"]])
def test_what_does_not_fit_goes_through_links_for_a_while(links: Path, lower: list[str]) -> None:
    def look(stack: str) -> None:
        assert stack == f"{links}/0:{links}/1::{links}/2"
        assert [str((links / name).readlink()) for name in "012"] == [*lower, "/c"]

    overlay._with_stack(plan(lower, ("/c",)), 40, look)
    assert not links.exists()


def test_links_have_short_names() -> None:
    names = [overlay._short(number) for number in range(1296)]
    assert len(set(names)) == 1296
    assert max(map(len, names)) == 2


@pytest.mark.parametrize(("known", "way"), [(True, 'use api="new"'), (False, r"has no lowerdir\+")])
def test_too_many_layers_are_told(
    links: Path, monkeypatch: pytest.MonkeyPatch, known: bool, way: str
) -> None:
    monkeypatch.setattr(overlay, "appends", lambda: known)
    asked = plan([f"/{number}" for number in range(3000)], api="old")
    with pytest.raises(GuestError, match=rf"3000 layers need \d+ bytes .* takes 4095; .*{way}"):
        overlay.attempt(asked)


@pytest.mark.parametrize(
    ("count", "known", "api"), [(2, True, "old"), (900, True, "new"), (900, False, "old")]
)
def test_the_api_is_chosen_by_what_fits(
    monkeypatch: pytest.MonkeyPatch, count: int, known: bool, api: str
) -> None:
    monkeypatch.setattr(overlay, "appends", lambda: known)
    assert overlay._choose(plan(["/layer"] * count)) == api
    assert overlay._choose(plan(["/layer"] * count, api="new")) == "new"


def test_a_refusal_has_the_words_of_context_and_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmsg, "read_from", lambda log: [{"text": "overlayfs: no"}])
    refused = overlay.Refused("new", errno.EINVAL, ["e overlay: bad"])
    told = overlay.explain(plan(["/a"], options="x"), refused, -1)
    assert told == (
        "mount -t overlay -o 'lowerdir=/a,upperdir=/u,workdir=/w,x' overlay /m (new mount API): Invalid "
        "argument; the kernel said: e overlay: bad | overlayfs: no"
    )


def test_many_layers_are_not_all_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmsg, "read_from", lambda log: [])
    asked = plan([f"/layer-{number}" for number in range(500)], ("/data",))
    told = overlay.explain(asked, overlay.Refused("old", errno.EINVAL, []), -1)
    assert "lowerdir=(500 layers from /layer-0 on and 1 for data only),upperdir=/u" in told
    assert told.endswith("the kernel logged nothing about it")


def test_what_a_volatile_overlay_left_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmsg, "read_from", lambda log: [])
    asked = plan(["/a"])._replace(work=str(tmp_path))
    refused = overlay.Refused("old", errno.EINVAL, [])
    assert "is there" not in overlay.explain(asked, refused, -1)
    (tmp_path / "work/incompat/volatile").mkdir(parents=True)
    assert f"; {tmp_path}/work/incompat/volatile is there: " in overlay.explain(asked, refused, -1)


def test_a_kernel_without_the_new_api_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmsg, "read_from", lambda log: [])
    told = overlay.explain(plan(["/a"]), overlay.Refused("new", errno.ENOSYS, []), -1)
    assert told.endswith("the kernel has no such mount API (Linux 5.2 and later do)")


def test_layers_are_made(tmp_path: Path) -> None:
    overlay.make_layers(
        [(f"{tmp_path}/one", {"a/b": "text", "empty/": ""}), (f"{tmp_path}/two", {"c": b"\0"})]
    )
    assert (tmp_path / "one/a/b").read_text() == "text"
    assert (tmp_path / "one/empty").is_dir()
    assert (tmp_path / "two/c").read_bytes() == b"\0"


def test_layers_can_belong_to_somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "lchown", lambda path, user, group: owned.append((str(path), user)))
    overlay.make_layers([(f"{tmp_path}/one", {"a/b": "text"})], 7)
    assert sorted(owned) == [(f"{tmp_path}/one{below}", 7) for below in ("", "/a", "/a/b")]
