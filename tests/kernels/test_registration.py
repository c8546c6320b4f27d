"""How operators are registered: their schemas from annotations, and the way out where torch lacks its private names."""

from __future__ import annotations

import pytest
import torch

from snn_dendrite_plugin.kernels import registration
from snn_dendrite_plugin.kernels.soma_dendrite.contract import Gradients, Inputs, Settings
from snn_dendrite_plugin.kernels.ttfs.contract import Inputs as WindowInputs
from snn_dendrite_plugin.kernels.ttfs.contract import Settings as WindowSettings


def test_schemas_follow_the_annotations():
    assert registration.schema(WindowInputs, WindowSettings) == "Tensor x, Tensor? bias, Tensor windows, int steps"
    assert registration.schema(WindowInputs, prefix="g_") == "Tensor g_x, Tensor? g_bias, Tensor g_windows"
    assert registration.results(WindowInputs) == "(Tensor, Tensor, Tensor)"
    names = [a.name for a in torch.ops.snn_dendrite.soma_dendrite.default._schema.arguments]
    assert names == [*Inputs._fields, *Settings.__dataclass_fields__]
    assert len(torch.ops.snn_dendrite.soma_dendrite_backward.default._schema.returns) == len(Gradients._fields)


def test_this_torch_takes_the_short_way():
    assert registration._shortcut() is not None


SCRIPT = """
import torch
from snn_dendrite_plugin.kernels import registration
if {absent}:
    assert registration._shortcut() is not None
    registration._shortcut = lambda: None
from snn_dendrite_plugin import use_provider
from snn_dendrite_plugin.neurons.dendsn import DendSN
from snn_dendrite_plugin.neurons.base import Firing
from snn_dendrite_plugin.kernels.soma_dendrite import op
from snn_dendrite_plugin.kernels.ttfs import ttfs
torch.manual_seed(0)
model = DendSN(branches=3, strength_init=0.4)
x = torch.randn(5, 2, 3, 4, requires_grad=True)
spikes, states = model.run(x, firing=Firing(reset="soft", fire_once=True))
(g,) = torch.autograd.grad(spikes.sum() + states[0].square().sum(), x, create_graph=True)
second = torch.autograd.grad(g.square().sum(), [x, model.strength])
compiled = torch.compile(lambda x: model.run(x)[0].sum(), fullgraph=True, backend="aot_eager")
whole = torch.autograd.grad(compiled(x), [x, model.gain])
bias = torch.zeros(1, 3, 4, requires_grad=True)
found, potentials = ttfs(x[:4], bias, torch.ones(2), 4)
late = torch.autograd.grad((found * torch.arange(4.0).view(4, 1, 1, 1)).sum() + potentials.sum(), [x, bias])
one, z = torch.ones(1), torch.rand(3, 2, 4, requires_grad=True)
inputs = op.Inputs(z, torch.zeros(2, 4), *[None] * 6, one, torch.rand(1, 2), one)
static = [getattr(op.Settings(), name) for name in op._STATIC]
torch.library.opcheck(torch.ops.snn_dendrite.soma_dendrite.default, (*inputs, *static))
results = [spikes, *states, g, *second, *whole, found, potentials, *late]
assert spikes.any() and found.any()
print([[round(float(v), 5) for v in (t.double().sum(), t.double().square().sum())] for t in results])
"""


def test_without_torchs_private_names_the_public_registration_gives_the_same(run_python):
    short, public = (run_python(SCRIPT.format(absent=absent), torch=True) for absent in (False, True))
    assert short == public


@pytest.mark.parametrize("missing", ["_AutoDispatchBelowAutograd", "_after_autograd_keyset"])
def test_a_missing_name_is_noticed(monkeypatch, missing):
    monkeypatch.delattr(torch._C, missing)
    assert registration._shortcut() is None
