from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.kernels import KernelSpec, parse_specs


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("6.1", "series", "6.1"),
        ("v6.1", "series", "6.1"),
        ("debian:6.1", "series", "6.1"),
        ("6.1.176", "version", "6.1.176"),
        ("7.3~rc7", "version", "7.3-rc7"),
        ("6.1.0-50-amd64", "release", "6.1.0-50-amd64"),
        ("6.12.117+deb13-cloud-amd64", "release", "6.12.117+deb13-cloud-amd64"),
        ("7.3-cloud-amd64", "release", "7.3-cloud-amd64"),
        ("debian:bullseye", "suite", "bullseye"),
        ("debian:bookworm-backports", "suite", "bookworm-backports"),
        ("./bzImage", "path", "./bzImage"),
        ("/boot/vmlinuz-6.1.0-50-amd64", "path", "/boot/vmlinuz-6.1.0-50-amd64"),
        ("~/linux", "path", "~/linux"),
        ("foo.deb", "deb", "foo.deb"),
    ],
)
def test_each_form_is_told_from_the_others(text: str, kind: str, value: str) -> None:
    (spec,) = parse_specs([text])
    assert (spec.text, spec.kind, spec.value) == (text, kind, value)


def test_commas_and_lines_join_specs_in_order() -> None:
    specs = parse_specs(["6.1, 6.12", "debian:sid", "\n./bzImage\n5.10\n"])
    assert [spec.text for spec in specs] == ["6.1", "6.12", "debian:sid", "./bzImage", "5.10"]


def test_nothing_given_is_nothing() -> None:
    assert parse_specs([]) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ",",
        "6",
        "six",
        "6.x",
        "debian:",
        "debian:Sid",
        "debian:../x",
        "6.1:modules=x",
        "ubuntu:jammy",
    ],
)
def test_a_malformed_spec_is_named_with_the_grammar(text: str) -> None:
    with pytest.raises(UsageError, match="the kernel spec ") as caught:
        parse_specs([text])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["./bzImage:modules=", "./x:modules=a:modules=b", ":modules=./x", "./a.deb:modules=b"]
)
def test_malformed_options_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="malformed"):
        parse_specs([text])


def test_options_follow_the_path() -> None:
    (spec,) = parse_specs(["/x/bzImage:modules=/y/mods:config=/z/.config"])
    assert spec.paths == (Path("/x/bzImage"),)
    assert (spec.modules, spec.config) == (Path("/y/mods"), Path("/z/.config"))


def test_a_plus_joins_packages_but_not_the_parts_of_a_name() -> None:
    (spec,) = parse_specs(["/d/linux-image-6.12.1+deb13-amd64.deb+/d/linux-modules-6.12.1+deb13.deb"])
    assert [path.name for path in spec.paths] == [
        "linux-image-6.12.1+deb13-amd64.deb",
        "linux-modules-6.12.1+deb13.deb",
    ]


def test_a_file_in_the_current_folder_needs_no_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bzImage").touch()
    (tmp_path / "6.1").mkdir()
    assert parse_specs(["bzImage"])[0].paths == (tmp_path / "bzImage",)
    assert parse_specs(["6.1"])[0].kind == "series"


def test_a_file_whose_name_has_a_comma_is_not_split(tmp_path: Path) -> None:
    odd = tmp_path / "bz,Image"
    odd.touch()
    assert parse_specs([str(odd)]) == [KernelSpec(str(odd), "path", str(odd), (odd,))]
