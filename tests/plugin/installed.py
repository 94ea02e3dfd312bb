"""For ``pytest -p tests.plugin.installed`` in a process of its own: the plugin, with the fakes in place."""

from __future__ import annotations

from . import fakes

fakes.install(setattr)
pytest_plugins = ["pytest_kernelfs.plugin"]
