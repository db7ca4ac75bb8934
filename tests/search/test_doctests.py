"""The examples in the docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import l1ad.search

MODULES = sorted(m.name for m in pkgutil.walk_packages(l1ad.search.__path__, "l1ad.search."))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0
