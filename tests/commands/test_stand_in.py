"""The stand-in for a neuron that is swapped behaves as the host's own name for it."""

from __future__ import annotations

import abc
import copy
import inspect
import io
import pickle
import typing

import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.neuron import lif

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import swap


@pytest.fixture
def swapped():
    rules = swap.plan_swaps({"LIFNode": "DendSN", "ParametricLIFNode": "LNM", "Leaky": "Dendritic"}, {})
    with swap.swapping(rules):
        yield {rule.neuron: rule for rule in rules}


POINT = neuron.LIFNode
LEAKY = snn.Leaky


def test_arguments_of_the_point_neuron_reach_the_node(swapped):
    shape = surrogate.ATan(3.0)
    node = neuron.LIFNode(
        4.0, False, v_threshold=0.7, v_reset=None, surrogate_function=shape, detach_reset=True, step_mode="m"
    )
    assert type(node).__name__ == "DendSN"
    assert (node.tau, node.v_threshold, node.v_reset, node.detach_reset, node.step_mode) == (4.0, 0.7, None, True, "m")
    assert node.surrogate_function.alpha == 3.0
    x = torch.rand(6, 2, 5, dtype=torch.float64) * 2
    point = POINT(4.0, False, v_threshold=0.7, v_reset=None, step_mode="m")
    assert torch.equal(node(x), point(x))
    assert neuron.ParametricLIFNode(init_tau=3.0).tau == pytest.approx(3.0)
    leaky = snn.Leaky(beta=0.8, threshold=0.5, init_hidden=True, reset_mechanism="zero")
    assert type(leaky) is snn.Dendritic
    stock = LEAKY(beta=0.8, threshold=0.5, init_hidden=True, reset_mechanism="zero")
    y = torch.rand(6, 2, 5)
    assert torch.equal(torch.stack([leaky(step) for step in y]), torch.stack([stock(step) for step in y]))
    assert (swapped["LIFNode"].built, swapped["ParametricLIFNode"].built, swapped["Leaky"].built) == (1, 1, 1)


def test_a_name_that_is_swapped_behaves_as_the_hosts_class(swapped):
    node, point = neuron.LIFNode(), POINT()
    assert isinstance(node, neuron.LIFNode)
    assert isinstance(node, (neuron.IFNode, neuron.LIFNode))
    assert isinstance(node, neuron.BaseNode)
    assert isinstance(point, neuron.LIFNode)
    assert not isinstance(node, neuron.ParametricLIFNode)
    assert not isinstance(neuron.IFNode(), neuron.LIFNode)
    assert not isinstance(neuron.DendSN(), neuron.LIFNode)
    assert not isinstance(3, neuron.LIFNode)
    assert issubclass(POINT, neuron.LIFNode)
    assert issubclass(neuron.LIFNode, neuron.BaseNode)
    assert type(point) == neuron.LIFNode  # noqa: E721 - as scripts write it
    assert {POINT: 1}[neuron.LIFNode] == 1
    assert inspect.signature(neuron.LIFNode) == inspect.signature(POINT)
    assert neuron.LIFNode.__name__ == "LIFNode"

    def annotated(cell: neuron.LIFNode | None = None) -> type[neuron.LIFNode]: ...

    assert typing.get_type_hints(annotated)["return"] == type[neuron.LIFNode]
    assert pickle.loads(pickle.dumps(neuron.LIFNode)) is neuron.LIFNode
    # Where the class is defined, and what was imported before, stays.
    assert lif.LIFNode is POINT
    assert type(POINT()) is POINT


def test_subclasses_are_the_scripts_own_and_not_swapped(swapped, caplog):
    class Mine(neuron.LIFNode, abc.ABC):
        def __init__(self, gain=2.0):
            super().__init__(tau=3.0)
            self.gain = gain

        def forward(self, x):
            return super().forward(self.gain * x)

    mine, again = Mine(), Mine()
    assert type(mine) is Mine
    assert isinstance(mine, neuron.LIFNode)
    assert issubclass(Mine, neuron.LIFNode)
    assert not isinstance(neuron.LIFNode(), Mine)
    assert list(inspect.signature(Mine).parameters) == ["gain"]
    assert torch.equal(again(torch.ones(2, 3)), POINT(tau=3.0)(2 * torch.ones(2, 3)))
    assert [record.getMessage() for record in caplog.records if "Mine" in record.getMessage()] == [
        f"LIFNode is not swapped: {Mine.__qualname__}, a subclass of LIFNode: what it computes is not known"
    ]
    assert "2 kept" in str(swapped["LIFNode"])

    class Own(snn.Leaky):
        pass

    assert type(Own(beta=0.5)) is Own


def test_names_and_defaults_inside_the_host_are_swapped(swapped, monkeypatch):
    from spikingjelly.activation_based.model import spikformer

    net = spikformer.Spikformer(
        T=1, img_size_h=16, img_size_w=16, patch_size=16, embed_dims=32, num_heads=2, num_classes=4, depths=1
    )
    found = {type(module).__name__ for module in net.modules() if isinstance(module, neuron.BaseNode)}
    assert found == {"DendSN"}


def test_function_defaults_of_the_host_are_swapped_and_given_back(monkeypatch):
    def builder(cell=POINT, *, other=POINT):
        return cell, other

    builder.__module__ = layer.__name__
    monkeypatch.setattr(layer, "builder_of_this_test", builder, raising=False)
    with swap.swapping(swap.plan_swaps({"LIFNode": "DendSN"})):
        assert {type(cell()).__name__ for cell in builder()} == {"DendSN"}
    assert builder() == (POINT, POINT)
    assert type(builder()[0]()) is POINT


def test_everything_is_given_back():
    rules = swap.plan_swaps({"LIFNode": "DendSN", "Leaky": "LNM"}, {})
    with swap.swapping(rules):
        kept, node = neuron.LIFNode, neuron.LIFNode()
        leaky = snn.Leaky
    assert neuron.LIFNode is POINT
    assert snn.Leaky is LEAKY
    assert type(kept()) is POINT  # a name bound meanwhile makes the host's neuron again
    assert type(leaky(beta=0.5)) is LEAKY
    assert not isinstance(node, neuron.LIFNode)
    with pytest.raises(RuntimeError, match="stop"), swap.swapping(rules):
        raise RuntimeError("stop")
    assert neuron.LIFNode is POINT


def test_swapped_networks_copy_pickle_reset_and_revert(swapped):
    net = torch.nn.Sequential(layer.Linear(4, 3), neuron.LIFNode(surrogate_function=surrogate.ATan()))
    x = torch.rand(2, 4)
    expected = net(x)
    functional.reset_net(net)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x), expected)
    assert isinstance(twin[1], neuron.LIFNode)
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert type(loaded[1]) is neuron.DendSN
    assert torch.equal(loaded(x), expected)
    point = torch.nn.Sequential(layer.Linear(4, 3), POINT())
    assert net.load_state_dict(point.state_dict()).missing_keys == []
    assert type(sdp.revert(net)[1]) is POINT


def test_the_host_sees_nodes_as_what_they_are(swapped):
    """Its own isinstance chains reset, count and export by class: there a dendritic node is no point neuron."""
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), snn.Leaky(beta=0.9, init_hidden=True))
    net(torch.ones(2, 4))
    snn.utils.reset(net)
    assert float(net[1].mem.abs().sum()) == 0
    asks = "def asks(x, cls): return isinstance(x, cls)"
    outside, inside = {}, {"__name__": "snntorch.export"}
    exec(asks, outside)
    exec(asks, inside)
    assert outside["asks"](net[1], snn.Leaky)
    assert not inside["asks"](net[1], snn.Leaky)
    assert inside["asks"](LEAKY(beta=0.5), snn.Leaky)


def test_settings_go_to_the_nodes_that_take_them_and_win():
    rules = swap.plan_swaps({"LIFNode": "DendSN", "IFNode": "LNM"}, {"branches": 2, "strength_init": 0.5, "degree": 2})
    assert rules[0].settings == {"branches": 2, "strength_init": 0.5, "degree": 2}
    assert rules[1].settings == {"degree": 2}
    assert "strength_init is 0.5, which changes what the network computes" in rules[0].notes[0]
    assert not rules[1].notes
    with swap.swapping(rules):
        node = neuron.LIFNode()
    assert (node.model.branches, node.model.strength.tolist()) == (2, [[0.5, 0.5]])
    threshold = swap.plan_swaps({"LIFNode": "DendSN"}, {"v_threshold": 0.5})
    with swap.swapping(threshold):
        assert neuron.LIFNode(v_threshold=2.0).v_threshold == 0.5


def test_no_random_number_is_drawn():
    state = torch.get_rng_state()
    with swap.swapping(swap.plan_swaps({"LIFNode": "DendSN", "Leaky": "LNM"}, {})):
        neuron.LIFNode()
        snn.Leaky(beta=0.9)
    assert torch.equal(torch.get_rng_state(), state)


def test_neurons_of_snntorch_are_not_kept_alive():
    with swap.swapping(swap.plan_swaps({"Leaky": "Dendritic"}, {})):
        before = len(snn.SpikingNeuron.instances)
        snn.Leaky(beta=0.9)
        assert len(snn.SpikingNeuron.instances) == before
