"""SpikingJelly 0.0.0.0.14, the release before 2.0: the same nodes and conversion, in an environment of its own.

Run with that release ahead on the import path; with any other, everything here is skipped::

    pip install --no-deps --target overlay spikingjelly==0.0.0.0.14
    PYTHONPATH=overlay pytest tests/adapters/spikingjelly/test_legacy.py
"""

from __future__ import annotations

import copy
import io
from importlib import metadata

import pytest
import torch
from places import SCRIPTS
from torch import nn
from typer.testing import CliRunner

if metadata.version("spikingjelly") != "0.0.0.0.14":
    pytest.skip("needs SpikingJelly 0.0.0.0.14", allow_module_level=True)

from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spiking_resnet

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import swap
from snn_dendrite_plugin.adapters.spikingjelly.surrogates import TABLE, read_surrogate
from snn_dendrite_plugin.cli import app
from snn_dendrite_plugin.kernels.providers import ProviderError
from snn_dendrite_plugin.kernels.surrogates import derivative

POINTS = {
    "if": lambda **o: neuron.IFNode(**o),
    "lif": lambda **o: neuron.LIFNode(tau=3.0, **o),
    "lif_undecayed": lambda **o: neuron.LIFNode(tau=3.0, decay_input=False, **o),
    "plif": lambda **o: neuron.ParametricLIFNode(init_tau=3.0, **o),
}


def run(node, x_seq):
    functional.reset_net(node)
    if node.step_mode == "m":
        return node(x_seq)
    return torch.stack([node(x) for x in x_seq])


@pytest.fixture
def double():
    """Parameters that conversion makes are float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, -0.3, None])
@pytest.mark.parametrize("step_mode", ["s", "m"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("to", ["DendSN", "LNM"])
def test_conversion_keeps_spikes_states_and_gradients(double, to, point, step_mode, v_reset, training):
    options = {"v_reset": v_reset, "surrogate_function": surrogate.ATan(3.0), "detach_reset": True}
    stock = POINTS[point](step_mode=step_mode, **options).double().train(training)
    node = sdp.convert(copy.deepcopy(stock), to=to)
    assert type(node) is getattr(neuron, to)
    x = (torch.rand(6, 3, 4, 5, dtype=torch.float64) * 2).requires_grad_()
    expected = run(stock, x)
    spikes = run(node, x)
    assert torch.equal(spikes, expected)
    assert spikes.any()
    if training:  # in evaluation this version's neurons have no gradient
        (g,) = torch.autograd.grad(expected.sin().sum(), x)
        torch.testing.assert_close(torch.autograd.grad(spikes.sin().sum(), x)[0], g, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(node.v, stock.v, rtol=1e-12, atol=1e-12)


# The backward pass of NonzeroSignLogAbs raises in this version; the table's does not.
@pytest.mark.parametrize("kind", sorted({name for name in TABLE if hasattr(surrogate, name)} - {"NonzeroSignLogAbs"}))
def test_surrogates_of_this_version(kind):
    function = getattr(surrogate, kind)()
    found = read_surrogate(function)
    assert found is not None
    x = torch.linspace(-2.3, 2.3, 40, dtype=torch.float64).requires_grad_()
    (g,) = torch.autograd.grad(function(x).sum(), x)
    torch.testing.assert_close(derivative(x.detach(), found), g, rtol=1e-6, atol=1e-7)


def test_surrogate_that_changed_since_runs_as_it_is():
    function = surrogate.PiecewiseLeakyReLU()
    assert read_surrogate(function) is None
    x = torch.linspace(-1.5, 2.5, 9).reshape(3, 3).requires_grad_()
    point = neuron.IFNode(surrogate_function=function)
    (expected,) = torch.autograd.grad(point(x).sum(), x)
    assert expected.any()
    functional.reset_net(point)
    node = sdp.convert(point, to="DendSN")
    assert torch.equal(torch.autograd.grad(node(x).sum(), x)[0], expected)


@pytest.mark.parametrize("name", ["DendSN", "LNM", "TTFS"])
def test_nodes_have_the_hosts_manners(name):
    node = getattr(neuron, name)(**({"steps": 4} if name == "TTFS" else {}), step_mode="m", store_v_seq=True)
    assert isinstance(node, neuron.BaseNode)
    x = torch.rand(4, 2, 3)
    expected = node(x)
    assert node.v_seq.shape == x.shape
    functional.detach_net(node)
    functional.reset_net(node)
    assert (node.v, node.v_seq) == (0.0, None)
    assert "backend=auto" in repr(node)
    buffer = io.BytesIO()
    torch.save(node, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(node), torch.load(buffer, weights_only=False)):
        assert torch.equal(twin(x), expected)
    node.store_v_seq = False
    assert torch.equal(node(x), expected)
    node.reset()
    assert node(torch.rand(4, 5, 3)).shape == (4, 5, 3)  # another batch size
    functional.set_step_mode(node, "s")
    node.reset()
    assert node(x[0]).shape == (2, 3)


def test_backend_chooses_the_provider(monkeypatch):
    asked = []
    from snn_dendrite_plugin.kernels import providers
    from snn_dendrite_plugin.kernels.soma_dendrite import op

    def choose(*arguments):
        asked.append(providers.forced())
        return providers.choose(*arguments)

    monkeypatch.setattr(op, "choose", choose)
    net = nn.Sequential(layer.Linear(3, 3), neuron.DendSN(), neuron.DendSN(backend="torch"))
    net(torch.rand(2, 3))
    assert asked == [None, "torch"]
    functional.set_backend(net, "torch", neuron.BaseNode)
    asked.clear()
    functional.reset_net(net)
    net(torch.rand(2, 3))
    assert asked == ["torch", "torch"]
    functional.set_backend(net, "triton", neuron.DendSN)
    functional.reset_net(net)
    with pytest.raises(ProviderError, match="'triton' was chosen explicitly but cannot run"):
        net(torch.rand(2, 3))
    with pytest.raises(ValueError, match="backend is 'lava'; it must be one of auto, .*torch"):
        neuron.DendSN(backend="lava")


def test_backend_of_a_converted_neuron():
    point = neuron.LIFNode()
    assert sdp.convert(point, to="DendSN").backend == "auto"
    point = neuron.LIFNode()
    point._backend = "cupy"  # its setter asks for CuPy
    assert sdp.convert(point, to="DendSN").backend == "cupy"


@pytest.mark.parametrize("build", [sew_resnet.sew_resnet18, spiking_resnet.spiking_resnet18])
def test_model_zoo(build):
    extra = {"cnf": "ADD"} if build is sew_resnet.sew_resnet18 else {}
    options = {"spiking_neuron": neuron.LIFNode, "surrogate_function": surrogate.ATan(), "num_classes": 3, **extra}
    net = build(**options).double().eval()
    functional.set_step_mode(net, "m")
    x = torch.rand(2, 1, 3, 32, 32, dtype=torch.float64) * 4
    with torch.no_grad():
        expected = net(x)
        functional.reset_net(net)
        sdp.convert(net, to="DendSN", branches=2)
        assert torch.equal(net(x), expected)
    assert not any(isinstance(module, neuron.LIFNode) for module in net.modules())
    direct = build(**{**options, "spiking_neuron": neuron.DendSN})
    assert sum(isinstance(module, neuron.DendSN) for module in direct.modules()) == len(sdp.report(net).converted)


def test_swapping_where_the_hosts_neurons_are_one_module():
    """Here the module that users import from is the one that defines the neurons."""
    point = neuron.LIFNode
    with swap.swapping(swap.plan_swaps({"LIFNode": "DendSN"}, {"branches": 2})):
        net = nn.Sequential(layer.Linear(4, 3), neuron.LIFNode(tau=4.0, surrogate_function=surrogate.ATan()))
        assert type(net[1]) is neuron.DendSN
        assert isinstance(net[1], neuron.LIFNode)
        buffer = io.BytesIO()
        torch.save(net, buffer)  # with the neuron it replaced
        buffer.seek(0)
        loaded = torch.load(buffer, weights_only=False)
        assert type(sdp.revert(copy.deepcopy(loaded))[1]) is point
        kept = point()
        assert type(copy.deepcopy(kept)) is point
    assert neuron.LIFNode is point
    assert torch.equal(loaded(torch.ones(2, 4)), net(torch.ones(2, 4)))


def test_scripts_run(tmp_path):
    for script, swaps in (("spikingjelly_digits.py", ["IFNode", "LIFNode"]), ("train_checkpointed.py", ["LIFNode"])):
        options = [option for name in swaps for option in ("--swap", f"{name}=DendSN")]
        path = SCRIPTS / script
        short = ["-epochs", "1"] if "digits" in script else ["--epochs", "1", "--output-dir", str(tmp_path)]
        result = CliRunner().invoke(app, ["run", *options, str(path), *short])
        assert result.exit_code == 0, result.stderr
        assert "2 LIFNode built as DendSN" in result.stderr


def test_checkpoint_of_a_whole_network(tmp_path):
    torch.save(nn.Sequential(layer.Linear(4, 3), neuron.LIFNode()), tmp_path / "in.pt")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "in.pt"), str(tmp_path / "out.pt")])
    assert result.exit_code == 0, result.stderr
    assert type(torch.load(tmp_path / "out.pt", weights_only=False)[1]) is neuron.DendSN
