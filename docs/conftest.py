"""The examples in the documents are tests."""

from __future__ import annotations

from tests.documented import pytest_collect_file

__all__ = ["pytest_collect_file"]
