"""What torch offers around modules, of every neuron in both hosts: equal to the same network without it."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

pytest.importorskip("spikingjelly")
pytest.importorskip("snntorch")

from subjects import SUBJECTS, inputs
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

pytestmark = pytest.mark.wide

feature = pytest.mark.feature


@pytest.fixture(params=SUBJECTS, ids=str)
def subject(request):
    return request.param


def gradients(net, y):
    parameters = [p for p in net.parameters() if p.requires_grad]
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    found = torch.autograd.grad((y * weight).sum(), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def expected(subject, x=None):
    net = subject.net()
    y = net(inputs() if x is None else x)
    assert 0 < float(y.detach().mean()) < 1
    result = gradients(net, y)
    assert any(g.any() for g in result)
    return y.detach(), result


def equal(net, y, subject, x=None):
    spikes, weights = expected(subject, x)
    assert torch.equal(y.detach(), spikes)
    torch.testing.assert_close(gradients(net, y), weights, rtol=1e-9, atol=1e-11)


@feature("reset: the same spikes again")
def test_reset(subject):
    net, x = subject.net(), inputs()
    first = net(x)
    net.go_on(inputs(seed=2))
    assert torch.equal(net(x), first)


@feature("deepcopy between sequences")
def test_deepcopy(subject):
    net = subject.net()
    net(inputs())
    net.reset()
    other = copy.deepcopy(net)
    equal(other, other(inputs()), subject)


@feature("pickle of a network")
def test_pickle(subject):
    net = pickle.loads(pickle.dumps(subject.net()))
    equal(net, net(inputs()), subject)


@feature("state_dict, strict, weights_only")
def test_state_dict(subject):
    file, other = io.BytesIO(), subject.net(seed=5)
    torch.save(subject.net().state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    equal(other, other(inputs()), subject)


@feature("torch.compile, fullgraph")
@pytest.mark.parametrize("subject", [s for s in SUBJECTS if str(s) != "snnTorch-TTFS"], ids=str)
def test_compile(subject):
    net, x = subject.net(), inputs() if subject.host == "SpikingJelly" else inputs()[:2]  # steps are traced one by one
    net.reset()
    run = torch.compile(net.go_on, backend="aot_eager", fullgraph=True)
    equal(net, run(x), subject, x)


@feature("torch.export")
def test_export(subject):
    net, x = subject.net(), inputs()
    with torch.no_grad():
        net(x)
        net.reset()
        layers = net.layers
        sample = x if net.whole else x[0]
        program = torch.export.export(layers, (sample,))
        net.reset()
        found = program.module()(sample)
        net.reset()
        assert torch.equal(found, layers(sample))


@feature("torch.utils.checkpoint, reset inside the segment")
def test_checkpoint(subject):
    net = subject.net()
    equal(net, checkpoint(net, inputs(), use_reentrant=False), subject)


@feature("torch.func.functional_call")
def test_functional_call(subject):
    net = subject.net(seed=5)
    values = dict(subject.net().named_parameters())
    y = torch.func.functional_call(net, values, (inputs(),))
    spikes, weights = expected(subject)
    assert torch.equal(y.detach(), spikes)
    found = torch.autograd.grad(
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum(),
        [v for v in values.values() if v.requires_grad],
        allow_unused=True,
    )
    for mine, other in zip(found, weights, strict=True):
        torch.testing.assert_close(torch.zeros_like(other) if mine is None else mine, other)


@feature("in-place operations on the output")
def test_in_place(subject):
    net, x = subject.net(), inputs()
    y = net(x)
    y += 1
    spikes, weights = expected(subject)
    assert torch.equal(y.detach(), spikes + 1)
    torch.testing.assert_close(gradients(net, y), weights)
    net.reset()
    node = net.layers[1]
    single = node(torch.rand(*([4, 3, 6] if net.whole else [3, 6]), dtype=torch.float64, requires_grad=True))
    single += 1
    assert single.min() >= 1


@feature("AveragedModel made before the first call")
def test_averaged_model(subject):
    net = subject.net()
    average = AveragedModel(net)
    net(inputs())
    net.reset()
    average.update_parameters(net)
    assert torch.equal(average(inputs()), net(inputs()))


@feature("built on meta, to_empty, load")
def test_meta(subject):
    with torch.device("meta"):
        net = subject.net()
    net = net.to_empty(device="cpu")
    whole = subject.net()
    net.load_state_dict(whole.state_dict())
    for mine, theirs in zip(net.buffers(), whole.buffers(), strict=True):
        if mine.shape == theirs.shape:
            mine.data.copy_(theirs)
    equal(net, net(inputs()), subject)


@feature("FakeTensorMode")
def test_fake_tensors(subject):
    with FakeTensorMode():
        y = subject.net(torch.float32)(torch.rand(4, 3, 5))
    assert y.shape[1:] == (3, 4)


@feature("float32 and float64: spikes in the input's dtype")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype(subject, dtype):
    assert subject.net(dtype)(inputs(dtype)).dtype == dtype


@feature("autocast to bfloat16")
def test_autocast(subject):
    net, x = subject.net(torch.float32), inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    found = torch.cat([g.flatten() for g in gradients(net, y.float())])
    reference = torch.cat([g.flatten() for g in gradients(net, net(x))])
    assert torch.isfinite(found).all()
    assert torch.nn.functional.cosine_similarity(found, reference, dim=0) > 0.8


@feature("inputs that are not contiguous")
def test_strides(subject):
    net, x = subject.net(), inputs()
    equal(net, net(x.transpose(0, 2).contiguous().transpose(0, 2)), subject)


@feature("another batch size after a reset")
def test_batch_size(subject):
    net, x = subject.net(), inputs(batch=5)
    net(inputs())
    equal(net, net(x), subject, x)


@feature("parametrize on a layer's weight")
def test_parametrized_layer(subject):
    net = subject.net()
    parametrize.register_parametrization(net.layers[0], "weight", nn.Identity())
    assert torch.equal(net(inputs()), expected(subject)[0])


@feature("parametrize on the neuron's parameters")
@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s.neuron != "TTFS"], ids=str)  # nothing is learned there
def test_parametrized_neuron(subject):
    net = subject.net()
    model = net.layers[1].model
    names = [name for name, _ in model.named_parameters()]
    assert names
    for name in names:
        parametrize.register_parametrization(model, name, nn.Identity())
    y = net(inputs())
    assert torch.equal(y, expected(subject)[0])
    found = torch.autograd.grad(y.sum(), list(model.parameters()))
    assert all(g.any() for g in found[:1])


@feature("forward hooks")
def test_hooks(subject):
    net, seen = subject.net(), []
    net.layers[1].register_forward_hook(lambda module, arguments, out: seen.append(out))
    y = net(inputs())
    assert seen
    equal(net, y, subject)


@feature("integer inputs", result="refused")
def test_integers(subject):
    with pytest.raises(TypeError, match=r"float"):
        subject.node()(torch.ones(4, 3, 6, dtype=torch.int64))


@feature("double backward")
def test_double_backward(subject):
    net, x = subject.net(), inputs().requires_grad_()
    (g,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    (g**2).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
