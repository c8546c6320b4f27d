"""The hosts' own neurons and tools give the same bits with the plugin as without, and get back all that was patched."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.wide

USE = {
    "spikingjelly": """
from spikingjelly.activation_based import encoding, functional, layer, monitor, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spiking_vgg

def use():
    for name in ("IFNode", "LIFNode", "ParametricLIFNode", "QIFNode", "EIFNode", "IzhikevichNode", "KLIFNode"):
        for mode in "sm":
            for sg in (surrogate.ATan(), surrogate.Sigmoid(), surrogate.PiecewiseQuadratic()):
                node = getattr(neuron, name)(surrogate_function=sg, step_mode=mode)
                x = (2 * torch.rand(5, 3, 7)).requires_grad_()
                y = node(x) if mode == "m" else torch.stack([node(step) for step in x])
                y.sum().backward()
                yield from (y, x.grad, *[p.grad for p in node.parameters()])
                node.reset()
    for net in (
        sew_resnet.sew_resnet18(num_classes=4, cnf="ADD", spiking_neuron=neuron.LIFNode),
        spiking_vgg.spiking_vgg11(num_classes=4, spiking_neuron=neuron.IFNode),
    ):
        functional.set_step_mode(net.eval(), "m")
        spikes = monitor.OutputMonitor(net, (neuron.IFNode, neuron.LIFNode))
        y = net(torch.rand(2, 1, 3, 32, 32))
        functional.reset_net(net)
        yield from (y, *spikes.records[:4])
    yield encoding.PoissonEncoder()(torch.rand(3, 4))
    yield layer.SeqToANNContainer(torch.nn.Linear(4, 3))(torch.rand(2, 3, 4))
""",
    "snntorch": """
import snntorch as snn
from snntorch import backprop, functional, spikegen, surrogate, utils

NEURONS = {
    "Leaky": {"beta": 0.9}, "Synaptic": {"alpha": 0.8, "beta": 0.9}, "Alpha": {"alpha": 0.9, "beta": 0.8},
    "Lapicque": {"beta": 0.9}, "RLeaky": {"beta": 0.9, "all_to_all": False},
}

def use():
    for name, arguments in NEURONS.items():
        for reset in ("subtract", "zero", "none"):
            for sg in (None, surrogate.fast_sigmoid(), surrogate.atan()):
                node = getattr(snn, name)(**arguments, reset_mechanism=reset, spike_grad=sg, init_hidden=True)
                x = (2 * torch.rand(6, 3, 7)).requires_grad_()
                y = torch.stack([node(step) for step in x])
                y.sum().backward()
                yield from (y, x.grad)
    net = torch.nn.Sequential(
        torch.nn.Linear(7, 9), snn.Leaky(beta=0.9, init_hidden=True, learn_beta=True),
        torch.nn.Linear(9, 4), snn.Leaky(beta=0.8, init_hidden=True, output=True),
    )
    data = [(torch.rand(3, 7), torch.randint(0, 4, (3,))) for _ in range(2)]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    yield backprop.BPTT(net, data, optimizer, functional.ce_rate_loss(), num_steps=5, time_var=False)
    yield from net.parameters()
    utils.reset(net)
    yield net(torch.rand(3, 7))[1]
    yield spikegen.rate(torch.rand(3, 7), num_steps=5)
    yield spikegen.latency(torch.rand(3, 7), num_steps=6)
""",
}

SCRIPT = """
import hashlib, random, sys, warnings
warnings.simplefilter("ignore")
import numpy, torch
HOST = {host!r}
{use}

def digest():
    random.seed(0), numpy.random.seed(0), torch.manual_seed(0)
    found = hashlib.sha256()
    for tensor in use():
        if tensor is not None:
            found.update(tensor.detach().numpy().tobytes())
    return found.hexdigest()

def everything():  # every attribute of the host's modules and classes
    found = {{}}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] != HOST or module is None:
            continue
        for key, value in vars(module).items():
            found[name, key] = value
            if isinstance(value, type) and value.__module__.partition(".")[0] == HOST:
                found.update({{(name, key, inner): member for inner, member in vars(value).items()}})
    return found

without = digest()
assert digest() == without, "by itself"
before = everything()
import snn_dendrite_plugin as sdp
assert everything().keys() > before.keys(), "the plugin added nothing: nothing to see here"
assert digest() == without, "with the plugin"
sdp.deactivate()
after = everything()
own = ("_abc", "__abstract")  # which Python itself makes anew
changed = [key for key in before if after.get(key) is not before[key] and not key[-1].startswith(own)]
assert [key for key in changed if key[-1] != "instances"] == []  # a list that the host itself makes anew
assert [key for key in after if "snn_dendrite" in repr(after[key])] == []
assert digest() == without, "after deactivate"
print("equal")
"""


@pytest.mark.parametrize("host", USE)
def test_bits_with_without_and_after(host, run_python):
    pytest.importorskip(host)
    assert run_python(SCRIPT.format(host=host, use=USE[host]), torch=True).splitlines()[-1] == "equal"
