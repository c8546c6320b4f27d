"""Processes that import Triton their own way, each started once and asked by the tests of both operations."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from triton_worker import Ask, worker


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from worker(tmp_path_factory.mktemp("interpreter"), TRITON_INTERPRET="1")


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    yield from worker(tmp_path_factory.mktemp("compiler"))
