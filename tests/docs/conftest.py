"""Tests of documentation run once: where they ran against the built wheel already, the suite skips them."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("COSMA_DOCS_READ"):
        for item in items:
            if "tests/docs" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="ran from the built wheel"))
