"""The names that users type, and that each is what it says."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import sys
import types

import pytest

import snn_dendrite_plugin as sdp

PUBLIC = {
    "ConversionReport",
    "Firing",
    "NeuronModel",
    "__version__",
    "activate",
    "check_finite",
    "convert",
    "deactivate",
    "hookimpl",
    "report",
    "revert",
    "use_provider",
}


def test_public_names_are_fixed():
    assert set(sdp.__all__) == PUBLIC
    assert set(dir(sdp)) >= PUBLIC


def test_version_is_the_distribution_s():
    assert sdp.__version__ == importlib.metadata.version("snn-dendrite-plugin")


def test_unknown_name_raises():
    with pytest.raises(AttributeError, match="'snn_dendrite_plugin' has no attribute 'Convert'"):
        sdp.Convert  # noqa: B018


def test_model_base_and_firing_are_those_of_the_neurons():
    base = importlib.import_module("snn_dendrite_plugin.neurons.base")
    assert sdp.NeuronModel is base.NeuronModel
    assert sdp.Firing is base.Firing


@pytest.fixture
def conversion(monkeypatch):
    """A stand-in for the conversion functions, seen however the package is reached."""
    api = types.ModuleType("snn_dendrite_plugin.convert.api")

    def convert(model, to, *, dry_run=False):
        return "converted", model, to, dry_run

    api.convert, api.revert, api.report = convert, lambda model: ("reverted", model), lambda model: ("report", model)
    api.ConversionReport = dict
    package = importlib.import_module("snn_dendrite_plugin.convert")
    monkeypatch.setitem(sys.modules, api.__name__, api)
    monkeypatch.setattr(package, "api", api, raising=False)
    for name in ("revert", "report", "ConversionReport"):
        monkeypatch.delitem(vars(sdp), name, raising=False)  # what an earlier test may have looked up
    yield api
    for name in ("revert", "report", "ConversionReport"):
        vars(sdp).pop(name, None)


def test_convert_is_callable_after_its_subpackage_was_imported(conversion):
    package = importlib.import_module("snn_dendrite_plugin.convert")
    assert sys.modules["snn_dendrite_plugin.convert"] is package
    assert sdp.convert("net", to="LNM") == ("converted", "net", "LNM", False)
    assert package.convert("net", "LNM", dry_run=True) == ("converted", "net", "LNM", True)
    assert sdp.revert("net") == package.revert("net") == ("reverted", "net")
    assert sdp.report("net") == package.report("net") == ("report", "net")
    assert sdp.ConversionReport is package.ConversionReport is dict


def test_convert_has_the_function_s_signature(conversion):
    assert str(inspect.signature(sdp.convert)) == "(model, to, *, dry_run=False)"


def test_a_wrong_argument_to_convert_is_refused_as_by_the_function(conversion):
    with pytest.raises(TypeError, match="unexpected keyword argument 'towards'"):
        sdp.convert("net", towards="LNM")


def test_convert_is_callable_whichever_import_comes_first(run_python):
    api = "import sys, types\napi = types.ModuleType('snn_dendrite_plugin.convert.api')\n"
    api += "api.convert = lambda model: f'converted {model}'\n"
    orders = [
        "import snn_dendrite_plugin as sdp\nsys.modules[api.__name__] = api\nprint(sdp.convert('net'))",
        "import snn_dendrite_plugin.convert as c\nsys.modules[api.__name__] = api\n"
        "import snn_dendrite_plugin as sdp\nprint(sdp.convert('net'))\nassert sdp.convert is c",
        "from snn_dendrite_plugin import convert\nsys.modules[api.__name__] = api\nprint(convert('net'))",
        "import snn_dendrite_plugin.convert\nsys.modules[api.__name__] = api\n"
        "from snn_dendrite_plugin.convert import convert\nprint(convert('net'))",
    ]
    assert [run_python(api + order) for order in orders] == ["converted net"] * 4


def test_public_functions_win_over_submodules_of_their_name(conversion):
    package = importlib.import_module("snn_dendrite_plugin.convert")
    package.report = types.ModuleType("snn_dendrite_plugin.convert.report")  # as the import of a submodule does
    assert package.report("net") == sdp.report("net") == ("report", "net")
