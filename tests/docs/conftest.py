"""Documentation is built and its examples run once: where the built wheel did so already, the suite skips them."""

from __future__ import annotations

import os

import pytest

#: What runs as well away from the sources.
FROM_THE_WHEEL = ("tests/docs/test_examples.py", "tests/docs/test_tutorial.py", "test_builds_without_warnings")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("COSMA_DOCS_READ"):
        for item in items:
            if any(name in item.nodeid for name in FROM_THE_WHEEL):
                item.add_marker(pytest.mark.skip(reason="ran from the built wheel"))
