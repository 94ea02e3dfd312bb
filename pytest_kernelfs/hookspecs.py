"""The hooks of this plugin, for other plugins and conftest files to implement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_kernelfs.machines.machine import MakeProvider


@pytest.hookspec
def pytest_kernelfs_providers(config: pytest.Config) -> Mapping[str, MakeProvider]:  # type: ignore[empty-body]
    """Offer machine providers: name for ``--kernelfs-provider`` -> what makes it from the settings.

    Only the one that is chosen is made, when the first test needs a machine. ``kernelfs run`` and ``shell``
    ask, too; their ``config`` has all options and settings, but ``pytest_configure`` was not called.
    """
