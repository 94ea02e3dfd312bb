"""The examples in the documents are tests."""

from __future__ import annotations

import pytest

from tests.documented import in_the_documents_order, pytest_collect_file

__all__ = ["pytest_collect_file"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    in_the_documents_order(items)
