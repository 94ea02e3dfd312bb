"""Pressure stall information."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_kernelfs.guest import psi
from pytest_kernelfs.guest.dispatch import GuestError

TEXT = (
    "some avg10=1.50 avg60=0.20 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=10\n"
)


def test_both_lines_are_parsed_and_the_total_is_in_seconds() -> None:
    found = psi.parse(TEXT)
    assert found["some"] == {"avg10": 1.5, "avg60": 0.2, "avg300": 0.0, "total": 2.5}
    assert found["full"]["total"] == pytest.approx(1e-5)


def test_an_old_kernel_has_no_full_line_for_the_processor() -> None:
    assert list(psi.parse(TEXT.splitlines()[0])) == ["some"]


def test_a_file_of_a_cgroup_is_read(tmp_path: Path) -> None:
    (tmp_path / "io.pressure").write_text(TEXT)
    assert psi.read("io", str(tmp_path / "io.pressure"))["some"]["total"] == 2.5


def test_a_kernel_without_it_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(GuestError, match=r"CONFIG_PSI=y.*psi=1"):
        psi.read("io", str(tmp_path / "missing"))
