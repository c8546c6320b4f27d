"""Patches of a host's modules: now or when they are imported, taken back, and never in the host's way."""

from __future__ import annotations

import importlib
import logging
import sys
import types

import pytest

from snn_dendrite_plugin.adapters.patching import Patches


def twice(original):
    return lambda: 2 * original()


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A module ``some_tool`` that nobody has imported yet."""
    (tmp_path / "some_tool.py").write_text("def value():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: importlib.import_module("some_tool")
    sys.modules.pop("some_tool", None)


def test_a_module_is_patched_when_it_is_imported(tool):
    patches = Patches({"some_tool": lambda found, module: found.replace(module, "value", twice)})
    patches.patch()
    patches.patch()
    assert "some_tool" not in sys.modules
    module = tool()
    assert module.value() == 2
    patches.unpatch()
    assert module.value() == 1
    patches.patch()
    assert module.value() == 2
    patches.unpatch()


def test_what_is_not_wanted_any_more_is_not_patched(tool):
    patches = Patches({"some_tool": lambda found, module: found.replace(module, "value", twice)})
    patches.patch()
    patches.unpatch()
    assert tool().value() == 1


def test_a_wrapper_of_somebody_else_s_stays(tool):
    module = tool()
    patches = Patches({"some_tool": lambda found, module: found.replace(module, "value", twice)})
    patches.patch()
    module.value = twice(module.value)
    patches.unpatch()
    assert module.value() == 4


def test_another_version_of_the_host_imports_all_the_same(tool, caplog):
    patches = Patches({"some_tool": lambda found, module: found.replace(module, "gone", twice)})
    patches.patch()
    with caplog.at_level(logging.WARNING, "snn_dendrite_plugin"):
        assert tool().value() == 1
    assert "some_tool is left as it is: AttributeError: some_tool has no gone" in caplog.text
    patches.unpatch()


def test_only_a_name_of_its_own_is_replaced():
    class Base:
        value = 1

    with pytest.raises(AttributeError, match="Own has no value of its own"):
        Patches({}).replace(type("Own", (Base,), {}), "value", lambda original: 2)
    owner = types.SimpleNamespace(value=1)
    patches = Patches({})
    patches.replace(owner, "value", lambda original: original + 1)
    assert owner.value == 2
    patches.unpatch()
    assert owner.value == 1
