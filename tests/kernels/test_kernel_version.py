from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kernelfs.errors import UsageError
from pytest_kernelfs.kernels import KernelVersion, parse_constraint

numbers = st.integers(0, 400)
versions = st.builds(KernelVersion, numbers, numbers, numbers, st.none() | numbers)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6.1.176", KernelVersion(6, 1, 176)),
        ("6.1", KernelVersion(6, 1, 0)),
        ("7.3-rc7", KernelVersion(7, 3, 0, 7)),
        ("7.3~rc7", KernelVersion(7, 3, 0, 7)),
        ("v4.14.60", KernelVersion(4, 14, 60)),
    ],
)
def test_it_is_read_as_people_write_it(text: str, expected: KernelVersion) -> None:
    assert KernelVersion.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "6", "6.", "6.1.", "6.1.0-50-amd64", "six.one", "6.1.2.3", "6.1-rc", "\u0666.\u0661"]
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"is no kernel version; write it like 6\.1\.176"):
        KernelVersion.parse(text)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.1.0-50-amd64", KernelVersion(6, 1, 0)),
        ("6.12.117+deb13-cloud-amd64", KernelVersion(6, 12, 117)),
        ("7.2.0-rc3+", KernelVersion(7, 2, 0, 3)),
        ("7.3-cloud-amd64", KernelVersion(7, 3, 0)),
        ("5.4.0-150-generic", KernelVersion(5, 4, 0)),
        ("6.8.0-rc1-00123-gdeadbeef", KernelVersion(6, 8, 0, 1)),
    ],
)
def test_a_release_is_read_up_to_its_version(release: str, expected: KernelVersion) -> None:
    assert KernelVersion.from_release(release) == expected


@pytest.mark.parametrize(
    ("package", "release", "expected"),
    [
        ("6.1.176-1", "6.1.0-50-amd64", "6.1.176"),
        ("6.12.117-1~deb12u1", "6.12.117+deb12-cloud-amd64", "6.12.117"),
        ("7.3~rc7-1~exp1", "7.3-cloud-amd64", "7.3-rc7"),
        ("1:6.1.176-1", "6.1.0-50-amd64", "6.1.176"),
        ("42", "6.1.7-mine", "6.1.7"),
        ("5.0-1", "6.1.7-mine", "6.1.7"),
    ],
)
def test_the_package_tells_the_level_that_the_release_hides(
    package: str, release: str, expected: str
) -> None:
    assert str(KernelVersion.from_package(package, release)) == expected


@given(versions)
def test_what_is_written_reads_back_the_same(version: KernelVersion) -> None:
    assert KernelVersion.parse(str(version)) == version
    assert KernelVersion.from_release(f"{version}-cloud-amd64") == version


@given(versions, versions, versions)
def test_the_order_is_total(a: KernelVersion, b: KernelVersion, c: KernelVersion) -> None:
    assert (a < b) + (a == b) + (a > b) == 1
    assert not (a <= b <= c) or a <= c
    assert (a == b) <= (hash(a) == hash(b))


@given(numbers, numbers, numbers, numbers, numbers)
def test_a_candidate_comes_before_its_release(
    major: int, minor: int, patch: int, rc: int, later: int
) -> None:
    candidate = KernelVersion(major, minor, patch, rc)
    assert candidate < KernelVersion(major, minor, patch)
    assert candidate < KernelVersion(major, minor, patch, rc + 1 + later)


def test_it_does_not_compare_with_text() -> None:
    with pytest.raises(TypeError):
        _ = KernelVersion(6, 1) < "6.2"


@given(versions, versions)
def test_opposite_signs_never_agree(version: KernelVersion, bound: KernelVersion) -> None:
    assert version.matches(f">={bound}") != version.matches(f"<{bound}")
    assert version.matches(f"<={bound}") != version.matches(f">{bound}")
    assert version.matches(f"=={bound}") != version.matches(f"!={bound}")


@given(versions, versions, versions)
def test_a_comma_means_and(version: KernelVersion, low: KernelVersion, high: KernelVersion) -> None:
    both = version.matches(f">={low},<{high}")
    assert both == (version.matches(f">={low}") and version.matches(f"<{high}"))


@given(versions)
def test_every_version_matches_its_own_series(version: KernelVersion) -> None:
    assert version.matches(f"=={version.major}.{version.minor}")
    assert version.matches(f"=={version.major}")
    assert not version.matches(f"!={version.major}.{version.minor}")


@pytest.mark.parametrize(
    ("version", "constraint", "expected"),
    [
        ("6.1.176", ">=6.1,<6.12", True),
        ("6.12.1", ">=6.1,<6.12", False),
        ("6.1.176", "==6.1", True),
        ("6.11.0", "==6.1", False),
        ("6.1.176", "==6.1.17", False),
        ("6.1.176", "<=6.1", False),
        ("7.3-rc7", ">=7.3", False),
        ("7.3-rc7", "==7.3", True),
        ("7.3-rc7", "==7.3.0", False),
        ("7.3-rc7", " >= 7.3-rc5 , < 7.3 ", True),
        ("6.1.176", ">=6", True),
    ],
)
def test_constraints_hold_or_not(version: str, constraint: str, expected: bool) -> None:
    assert KernelVersion.parse(version).matches(constraint) is expected


@pytest.mark.parametrize("text", ["", ",", "6.1", ">=", "=>6.1", "~=6.1", ">=6.1,", ">=6.1 <6.12", ">=six"])
def test_a_malformed_constraint_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="write it like"):
        parse_constraint(text)


def test_a_list_is_no_constraint() -> None:
    with pytest.raises(UsageError, match=r"\[\] is no text"):
        parse_constraint([])  # type: ignore[arg-type]
