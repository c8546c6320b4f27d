"""The names that users type, and that each is what it says."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect

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
    "summary",
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


def test_conversion_functions_are_those_of_their_package():
    package = importlib.import_module("snn_dendrite_plugin.conversion")
    for name in ("convert", "revert", "report", "ConversionReport"):
        assert getattr(sdp, name) is getattr(package, name)


def test_convert_has_a_signature_and_refuses_what_it_does_not_take():
    assert list(inspect.signature(sdp.convert).parameters)[:2] == ["model", "to"]
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    with pytest.raises(TypeError, match="towards"):
        sdp.convert(neuron.LIFNode(), towards="LNM")


def test_modules_that_the_docs_name_are_found_without_an_import_of_their_own(run_python):
    code = "import snn_dendrite_plugin as sdp\nprint(sdp.plotting.raster.__name__, sdp.layers.TTFSLinear.__name__)"
    assert run_python(code, torch=True) == "raster TTFSLinear"
    assert {"layers", "plotting"} <= set(dir(sdp))
