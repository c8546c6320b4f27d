"""Synaptic layers of a plugin, shown in each host in the host's own form."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys

import pytest
import torch
from places import SAMPLE
from torch import nn

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import plugins


@pytest.fixture
def sample(monkeypatch):
    """The sample plugin, registered at run time."""
    monkeypatch.syspath_prepend(str(SAMPLE))
    import sample_neurons.plugin

    plugins.register_plugin(sample_neurons.plugin, "sample")
    yield sample_neurons
    plugins.unregister_plugin(sample_neurons.plugin)


def test_spikingjelly_has_the_layer_with_a_step_mode(sample):
    from sample_neurons.signed import SignedLinear
    from spikingjelly.activation_based import base, functional, layer, neuron

    made = layer.SignedLinear(4, 3, excitatory=2)
    assert isinstance(made, SignedLinear)
    assert isinstance(made, base.StepModule)
    assert made.step_mode == "s"
    assert list(inspect.signature(layer.SignedLinear).parameters) == [
        "in_features", "out_features", "excitatory", "step_mode",
    ]  # fmt: skip
    x = torch.rand(5, 2, 4)
    by_step = torch.stack([made(x_t) for x_t in x])
    net = nn.Sequential(made, neuron.LIFNode())
    functional.set_step_mode(net, "m")
    torch.testing.assert_close(made(x), by_step)
    assert net(x).shape == (5, 2, 3)
    assert "step_mode=m" in repr(made)
    with pytest.raises(ValueError, match=r"takes \[T, N, C, \*\]"):
        made(x[0])
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert type(twin) is layer.SignedLinear
        assert torch.equal(twin(x), made(x))


def test_snntorch_has_the_plain_layer(sample):
    import snntorch
    from sample_neurons.signed import SignedLinear

    assert snntorch.SignedLinear is SignedLinear


def test_layers_come_and_go_with_the_plugin_and_the_activation(sample):
    import snntorch
    from spikingjelly.activation_based import layer

    kept = layer.SignedLinear
    sdp.deactivate()
    try:
        assert not hasattr(layer, "SignedLinear")
        assert not hasattr(snntorch, "SignedLinear")
    finally:
        sdp.activate()
    assert layer.SignedLinear is kept
    plugins.unregister_plugin(sample.plugin)
    try:
        assert not hasattr(layer, "SignedLinear")
        assert layer.Linear is not None
    finally:
        plugins.register_plugin(sample.plugin, "sample")


def registering(**fields):
    class Plugin:
        @sdp.hookimpl
        def snn_dendrite_register_layers(self, register):
            register(target=nn.Linear, **fields)

    return Plugin()


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"name": "LNM"}, "neuron model 'snntorch.LNM' is registered by the plugins 'builtin' of"),
        ({"name": "Mine", "host_names": {"snntorch": "Dendritic"}}, "neuron model 'snntorch.Dendritic' is registered"),
        ({"name": "Conv2d"}, "layer 'Conv2d' is not shown in spikingjelly .*, which has a Conv2d of its own"),
        ({"name": "two words"}, "name must be a Python identifier, got 'two words'"),
    ],
)
def test_a_layer_takes_no_name_of_others(fields, warning):
    from spikingjelly.activation_based import layer

    before = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
    plugin = registering(**fields)
    try:
        with pytest.warns(plugins.PluginWarning, match=warning):
            plugins.register_plugin(plugin, "mine")
        assert {name: value for name, value in vars(layer).items() if not name.startswith("_")} == before
    finally:
        plugins.unregister_plugin(plugin)


def test_host_s_form_of_a_stateless_layer():
    from spikingjelly.activation_based import functional, layer

    adapter = plugins.adapters()["spikingjelly"].load()
    x = torch.rand(3, 2, 4)
    plain = nn.Linear(4, 5)
    made = adapter.layer(plain)
    assert type(made) is layer.Linear
    assert made.weight is plain.weight
    other = adapter.layer(nn.LayerNorm(4))  # SpikingJelly has none of that name
    functional.set_step_mode(other, "m")
    torch.testing.assert_close(other(x), torch.stack([other.layer(x_t) for x_t in x]))
    assert plugins.adapters()["snntorch"].load().layer(plain) is plain


def test_layer_of_an_installed_plugin_unpickles_where_no_host_is_imported_yet(sample, run_python, tmp_path):
    from spikingjelly.activation_based import layer

    file = tmp_path / "layer.pkl"
    file.write_bytes(pickle.dumps(layer.SignedLinear(4, 3)))
    code = (
        f"import pickle, sys\nimport snn_dendrite_plugin\nfrom snn_dendrite_plugin import plugins\n"
        f"import sample_neurons.plugin\nplugins.register_plugin(sample_neurons.plugin)\n"
        f"made = pickle.load(open({str(file)!r}, 'rb'))\n"
        f"from spikingjelly.activation_based import layer\nprint(type(made) is layer.SignedLinear)"
    )
    assert run_python(code, SAMPLE, torch=True) == "True"
    assert "sample_neurons" in sys.modules
