"""What the tests of machine providers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.providers.hypervisor import Hypervisor, running


@pytest.fixture
def hypervisor() -> Iterator[Hypervisor]:
    """A libvirtd of the test's own, with nothing defined in it; see tests/vm/providers/hypervisor.py."""
    with running() as hypervisor:
        yield hypervisor
