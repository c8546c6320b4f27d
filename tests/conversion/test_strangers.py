"""What plugins bring to conversion: a branched model of their own, and a target of their own for ``convert``."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch
from torch import nn
from toy_host import Point, ToyAdapter, plugin

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import plugins
from snn_dendrite_plugin.conversion import Report


@pytest.fixture
def register():
    """Register plugins for the length of a test; the toy host is among them."""
    used = []

    def add(added, name):
        plugins.register_plugin(added, name)
        used.append(added)

    add(plugin(ToyAdapter()), "toy")
    yield add
    for added in reversed(used):
        plugins.unregister_plugin(added)
    del sys.modules["toy_neurons"]


class Pooled(sdp.NeuronModel):
    """Branches whose channels are next to each other, summed without a nonlinearity; three of them unless told."""

    def __init__(self, branches: int = 3, wiring: str = "shared", beta: float = 0.5):
        super().__init__()
        self.branches, self.beta = branches, beta
        self.group = branches if wiring == "fold" else 1

    @classmethod
    def preserving_start(cls):
        return {}

    @classmethod
    def wired(cls, branches):
        return {"wiring": "fold"}

    def state_shapes(self, shape):
        return ((shape[0], shape[1] // self.group, *shape[2:]),)

    def step(self, x, states, firing):
        x = x.unflatten(1, (-1, self.group)).sum(2)
        spikes, v = firing.update(self.beta * states[0], drive=x)
        return spikes, (v,)


class PooledPlugin:
    @sdp.hookimpl
    def snn_dendrite_register_models(self, register):
        register(name="Pooled", target=Pooled)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), Point()).double()


@pytest.mark.parametrize("wiring", ["partition", "expand"])
def test_branched_model_of_a_plugin_is_wired_with_its_own_default_count(register, wiring):
    register(PooledPlugin(), "pooled")
    x = 4 * torch.randn(5, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = sdp.convert(network(), to="Pooled", wiring=wiring, example_input=x)
    told = sdp.report(model)
    assert told.converted[0].wiring == wiring
    assert told.flips == 0
    assert told.converted[0].spikes == 5 * 3 * 4
    assert model[0](x).shape == (5, 3, 12)
    assert model[1].model.group == 3
    point = network()
    assert point(x).any()
    with pytest.raises(ValueError, match="branches is 0; a dendrite needs an integer of at least 1"):
        sdp.convert(network(), to="Pooled", wiring=wiring, example_input=x, branches=0)


@dataclasses.dataclass(frozen=True)
class Shrunk(Report):
    columns = ("layer", "kept")
    layers: tuple[tuple[str, str], ...]

    def rows(self):
        return list(self.layers)

    def summary(self):
        return f"{len(self.layers)} layers"


def shrink(model, *, include=None, dry_run=False, share=0.5):
    """Zero the smaller weights of the linear layers, in place."""
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear) and include in (None, name)]
    if not dry_run:
        for _, layer in found:
            with torch.no_grad():
                layer.weight.mul_(layer.weight.abs() >= layer.weight.abs().quantile(share))
    return model, Shrunk(tuple((name, f"{1 - share:.0%}") for name, _ in found))


class ShrinkPlugin:
    def __init__(self, name="Shrunk"):
        self.name = name

    @sdp.hookimpl
    def snn_dendrite_register_conversions(self, register):
        register(name=self.name, target=shrink, summary="smaller weights set to zero")


def test_conversion_of_a_plugin(register):
    register(ShrinkPlugin(), "shrink")
    model = network()
    before = model[0].weight.clone()
    plan = sdp.convert(model, to="Shrunk", dry_run=True, share=0.75)
    assert str(plan).splitlines() == ["layer  kept", "0      25%", "1 layers"]
    assert torch.equal(model[0].weight, before)
    assert sdp.convert(model, to="Shrunk", share=0.75) is model
    assert int((model[0].weight == 0).sum()) == 18
    assert sdp.report(model) == plan


def test_conversion_of_a_plugin_gets_what_it_names_and_nothing_else(register):
    register(ShrinkPlugin(), "shrink")
    model = network()
    assert sdp.convert(model, to="Shrunk", include="nothing", dry_run=True).rows() == []
    with pytest.raises(ValueError, match="wiring is 'partition', which to='Shrunk' does not use"):
        sdp.convert(model, to="Shrunk", wiring="partition")
    with pytest.raises(ValueError, match="example_input is tensor"):
        sdp.convert(model, to="Shrunk", example_input=torch.zeros(1))
    with pytest.raises(TypeError, match=r"unexpected argument 'shared'; it takes include, dry_run, share"):
        sdp.convert(model, to="Shrunk", shared=0.5)


@pytest.mark.parametrize(("name", "what"), [("TTFS", "conversion"), ("DendSN", "neuron model")])
def test_conversion_cannot_take_a_built_in_name(register, name, what):
    register(ShrinkPlugin(name), "shrink")
    with pytest.warns(plugins.PluginWarning, match=f"{what} '{name}' is registered by the plugins 'builtin' of"):
        assert list(plugins.conversions()) == ["TTFS"]


def test_unknown_target_names_models_and_conversions(register):
    register(ShrinkPlugin(), "shrink")
    with pytest.raises(
        ValueError, match="to is 'Shrank'; registered neuron models are DendSN, .*; conversions are TTFS"
    ):
        sdp.convert(network(), to="Shrank")
