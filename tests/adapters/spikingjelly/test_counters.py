"""SpikingJelly's operation counters and energy estimate count our operators."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("spikingjelly")

from spikingjelly.activation_based import layer, neuron, op_counter
from spikingjelly.activation_based.op_counter.neuron_state import NeuronStateCounter
from torch import nn

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin.kernels.counting import of_call
from snn_dendrite_plugin.kernels.operations import total
from snn_dendrite_plugin.kernels.soma_dendrite.contract import Inputs, Settings
from snn_dendrite_plugin.kernels.soma_dendrite.operations import forward
from snn_dendrite_plugin.kernels.soma_dendrite.reference import run

pytestmark = pytest.mark.skipif(not hasattr(op_counter, "FlopCounter"), reason="counters came with 2.0")
T, N, C = 3, 2, 5
STEPS = T * N * C
OURS = "snn_dendrite.soma_dendrite.default"


def counted(module, *inputs, counters=None, gradients=False):
    """Totals by class of counter, of the whole call and of our operators alone."""
    counters = counters or [
        op_counter.FlopCounter(),
        op_counter.ACCounter(),
        op_counter.MACCounter(),
        op_counter.MemoryAccessCounter(),
        NeuronStateCounter(),
    ]
    with torch.set_grad_enabled(gradients), op_counter.DispatchCounterMode(counters):
        out = module(*inputs)
        if gradients:
            out.sum().backward()
    totals = {type(c).__name__: c.get_total() for c in counters}
    ours = {
        type(c).__name__: sum(v for op, v in c.get_counts().get("Global", {}).items() if "snn_dendrite" in str(op))
        for c in counters
    }
    return totals, ours


def node_counts(cls, **arguments):
    return counted(cls(step_mode="m", **arguments), torch.rand(T, N, C))


# -- hand-computed ---------------------------------------------------------------------------------------------------


@pytest.mark.feature("SpikingJelly: operation counters", host="SpikingJelly", neuron="DendSN")
def test_dendsn_by_hand():
    """branches=2, shared, leaky_relu, hard reset: per neuron and step
    gain 2x, offset 2+, leak 2x 2+, f 2x 2<, strength 2x 1+, direct 1x 1+; soma 3+ 1x; fire 1+ 1<; reset 2+ 2x."""
    _, ours = node_counts(neuron.DendSN, branches=2)
    additions, multiplications, comparisons, products = 2 + 2 + 1 + 1 + 3 + 1 + 2, 2 + 2 + 2 + 2 + 1 + 1 + 2, 2 + 1, 4
    weighted_additions = 2 + 1 + 1  # the leak's after the gain, the branches' sum, and its sum with the direct input
    assert ours["FlopCounter"] == (additions + multiplications + comparisons) * STEPS
    assert ours["MACCounter"] == products * STEPS
    assert ours["ACCounter"] == (additions - weighted_additions) * STEPS


def test_published_dendsn_by_hand():
    """fold, no gain, no offset, direct 0, softmax: leak Bx B+, f, strength Bx (B-1)+; soma, fire, reset."""
    node = neuron.DendSN(branches=3, wiring="fold", strength="softmax", alpha=0.5, direct=0, step_mode="m")
    _, ours = counted(node, torch.rand(T, N, 3 * C))
    additions, multiplications, comparisons = 3 + 2 + 3 + 1 + 2, 3 + 3 + 3 + 1 + 2, 3 + 1
    assert ours["FlopCounter"] == (additions + multiplications + comparisons) * STEPS
    assert ours["MACCounter"] == 3 * STEPS
    assert ours["ACCounter"] == (additions - 2) * STEPS


@pytest.mark.feature("SpikingJelly: operation counters", host="SpikingJelly", neuron="LNM")
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("clamp", [None, (-1, 1)])
def test_lnm_by_hand(degree, v_reset, clamp):
    """degree K > 1: Horner's K+ Kx, + y; limits 1+ 1x 2<; rho x 1x with decay_input; fire 1+ 1<; hard reset 2+ 2x,
    soft 1+ 1x."""
    _, ours = node_counts(neuron.LNM, degree=degree, v_reset=v_reset, clamp=clamp, decay_input=True)
    limits = int(clamp is not None and degree > 1)
    soma = (3, 1) if degree == 1 else (degree + 1 + limits, degree + limits)
    reset = (1, 1) if v_reset is None else (2, 2)
    additions, multiplications = soma[0] + 1 + reset[0], soma[1] + 1 + reset[1]
    assert ours["FlopCounter"] == (additions + multiplications + 1 + 2 * limits) * STEPS
    assert ours["ACCounter"] == additions * STEPS
    assert ours["MACCounter"] == (degree - 1) * STEPS


@pytest.mark.feature("SpikingJelly: operation counters", host="SpikingJelly", neuron="TTFS")
def test_ttfs_by_hand():
    """window of 4: charge 4x 3+, scale 1x, m 1x 3<, emission 4<; the products of the charge are weighted."""
    node = neuron.TTFS(steps=4, step_mode="m")
    _, ours = counted(node, torch.rand(8, N, C))
    windows = 2 * N * C
    assert ours["FlopCounter"] == (4 + 3 + 1 + 1 + 3 + 4) * windows
    assert ours["MACCounter"] == 4 * windows
    assert ours["ACCounter"] == 0


def test_memory_by_hand():
    """LNM of degree 2, no scale: rows of (reads + writes) per neuron and step in float32, booleans in bytes."""
    _, ours = node_counts(neuron.LNM, degree=2, v_reset=None, clamp=None, decay_input=False)
    n = N * C
    horner = (n + 1 + n) + (n + 1 + n) + (2 * n + 1 + n) + (n + 1 + n)
    rest = (2 * n + n) + (n + 1 + n) + (n + 1 + n) + (2 * n + n)  # + y, h - threshold, s threshold, h - ..
    comparison = 4 * n + n
    per_step = 4 * (horner + rest) + comparison
    emitted = n + 3 * 4 * n  # cast from booleans, stacked
    assert ours["MemoryAccessCounter"] == T * (per_step + emitted) + 2 * 4 * n


def test_states_by_hand():
    """A LIF soma without a dendrite: u - rest, its share, the drive less it, their sum; fire; hard reset."""
    counter = NeuronStateCounter()
    counted(neuron.LNM(degree=1, decay_input=True, step_mode="m"), torch.rand(T, N, C), counters=[counter])
    found = counter.get_metric_counts()["Global"]
    assert found["state_adds"] == 5 * STEPS
    assert found["state_muls"] == 2 * STEPS
    assert found["state_comps"] == STEPS
    assert found["state_reads"] == (1 + 1 + 1 + 2 + 1 + 1 + 1 + 1) * 4 * STEPS
    assert found["state_writes"] == 7 * 4 * STEPS
    assert found["state_reset_ops"] == 2 * STEPS
    projected = counter.get_extra_counts()["Global"]
    assert projected["state_acc_like"] == 6 * STEPS
    assert projected["state_mac_like"] == 2 * STEPS
    assert projected["potential_buffer_bytes"] == 4 * N * C


def test_fused_and_stepwise_dendrite_count_alike():
    whole = node_counts(neuron.DendSN, branches=4)[1]
    node = neuron.DendSN(branches=4)

    def steps(x):
        return torch.stack([node(step) for step in x])

    assert counted(steps, torch.rand(T, N, C))[1]["FlopCounter"] == whole["FlopCounter"]


# -- against the plain loop under the host's own counters ------------------------------------------------------------


def _call(settings, k, gain, offset, channels=4):
    b = settings.branches
    cx = channels * b if settings.wiring == "fold" else channels
    wide = torch.rand(1, b) if b else None
    return Inputs(
        torch.rand(T, N, cx, 2),
        torch.zeros(N, channels, 2),
        torch.zeros(N, channels, b, 2) if b else None,
        torch.zeros(N, channels, 2) if settings.fire_once else None,
        wide,
        wide if gain and b else None,
        wide if offset and b else None,
        wide,
        torch.tensor([0.7]),
        torch.rand(1, k + 1),
        torch.ones(1),
    )


@pytest.mark.parametrize(
    ("branches", "wiring"), [(0, "shared"), (1, "shared"), (3, "shared"), (1, "fold"), (4, "fold")]
)
@pytest.mark.parametrize("degree", [1, 3])
@pytest.mark.parametrize("timing", ["at_once", "next_step"])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
@pytest.mark.parametrize(("gain", "offset"), [(True, True), (False, False), (True, False)])
def test_equal_to_the_loop(branches, wiring, degree, reset, timing, gain, offset):
    """The reference loop under the host's counters: equal but for the leak, which a loop by Horner's scheme writes with
    one subtraction fewer than the host does."""
    settings = Settings(branches=branches, wiring=wiring, activation="identity", reset=reset, timing=timing)
    inputs = _call(settings, degree, gain, offset)
    counter = op_counter.FlopCounter()
    with torch.no_grad(), op_counter.DispatchCounterMode([counter]):
        out = run(inputs, settings)
    loop = {str(op).split(".")[1]: 0 for op in counter.get_counts()["Global"]}
    for op, count in counter.get_counts()["Global"].items():
        loop[str(op).split(".")[1]] += count
    extra = out.spikes.numel() if degree == 1 else 0
    ours = total(forward(inputs, settings))
    assert ours.additions == sum(loop.get(op, 0) for op in ("add", "sub", "rsub", "sum")) + extra
    assert ours.multiplications == loop["mul"]
    assert ours.operations == counter.get_total() + extra


@pytest.mark.parametrize("activation", ["sigmoid", "mexican_hat"])
def test_activations_equal_the_loop_where_the_host_has_rules(activation):
    settings = Settings(branches=2, activation=activation)
    inputs = _call(settings, 2, True, True)
    counter = op_counter.FlopCounter()
    with torch.no_grad(), op_counter.DispatchCounterMode([counter]):
        out = run(inputs, settings)
    ours = total(forward(inputs, settings))
    neurons = 2 * out.spikes.numel()
    if activation == "sigmoid":  # four operations for the host
        assert ours.operations + 3 * ours.functions == counter.get_total()
    else:  # the loop multiplies constants one by one, and the host has no rule for exp
        assert counter.get_total() >= ours.operations - neurons


# -- against LIFNode -------------------------------------------------------------------------------------------------

DENDRITIC = {
    "one branch": lambda **k: neuron.DendSN(branches=1, activation="identity", **k),
    "switched off": lambda **k: neuron.DendSN(branches=2, **k),
    "no direct input": lambda **k: neuron.DendSN(branches=1, activation="identity", direct=0, **k),
    "learned": lambda **k: neuron.DendSN(branches=2, learn_alpha=True, learn_beta=True, **k),
    "per channel": lambda **k: neuron.DendSN(branches=2, per_channel=True, **k),
    "cubic soma": lambda **k: neuron.DendSN(branches=1, degree=3, **k),
    "LNM": lambda **k: neuron.LNM(**k),
    "LNM of degree 1": lambda **k: neuron.LNM(degree=1, **k),
    "LNM fixed": lambda **k: neuron.LNM(learn_theta=False, **k),
}


@pytest.mark.parametrize("name", list(DENDRITIC))
@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("steps", [1, 6])
def test_no_cheaper_than_lif(name, v_reset, steps):
    x = torch.rand(steps, N, C)
    point, _ = counted(neuron.LIFNode(v_reset=v_reset, step_mode="m"), x)
    ours, _ = counted(DENDRITIC[name](v_reset=v_reset, step_mode="m"), x)
    assert {key: ours[key] for key in point if ours[key] < point[key]} == {}


def _network(node):
    return nn.Sequential(
        layer.Linear(5, 6, step_mode="m"), node(step_mode="m"), layer.Linear(6, 6, step_mode="m"), node(step_mode="m")
    )


@pytest.mark.feature("SpikingJelly: simple energy", host="SpikingJelly", neuron="DendSN, LNM")
@pytest.mark.parametrize("name", list(DENDRITIC))
def test_energy_is_no_less_than_a_point_network_s(name):
    x = torch.rand(4, N, 5)
    torch.manual_seed(0)
    point = _network(neuron.LIFNode)
    torch.manual_seed(0)
    dendritic = _network(DENDRITIC[name])
    for a, b in zip(point, dendritic, strict=True):
        if isinstance(a, nn.Linear):
            b.load_state_dict(a.state_dict())
            with torch.no_grad():  # silent neurons: what differs is the neurons' own
                a.weight.zero_(), b.weight.zero_(), a.bias.zero_(), b.bias.zero_()
    first, second = (op_counter.estimate_simple_energy(net, x) for net in (point, dendritic))
    assert second.energy_ac_pj >= first.energy_ac_pj
    assert second.energy_total_pj >= first.energy_total_pj
    assert second.counts["mac"] >= first.counts["mac"]


@pytest.mark.parametrize("cls", [neuron.DendSN, neuron.LNM])
def test_learned_and_fixed_count_alike(cls):
    x = torch.rand(T, N, C)
    learned = {"learn_alpha": True, "learn_beta": True} if cls is neuron.DendSN else {}
    fixed = (
        {"learn_strength": False, "learn_gain": False, "learn_offset": False}
        if cls is neuron.DendSN
        else {"learn_theta": False}
    )
    a, b = (counted(cls(step_mode="m", **k), x)[1] for k in (learned, fixed))
    assert a == b


# -- the host's manners ----------------------------------------------------------------------------------------------


def test_backward_counts():
    _, ours = counted(neuron.DendSN(branches=2, step_mode="m"), torch.rand(T, N, C, requires_grad=True), gradients=True)
    _, forward_only = counted(neuron.DendSN(branches=2, step_mode="m"), torch.rand(T, N, C))
    assert ours["FlopCounter"] > 2 * forward_only["FlopCounter"]


def test_scopes_and_projection():
    """As upstream's own test of the counter reads it: per scope, ``Global`` included, from reset states."""
    net = nn.Sequential(layer.Linear(3, 4), neuron.DendSN(branches=2))
    counter = NeuronStateCounter()
    with torch.no_grad(), op_counter.DispatchCounterMode([counter]):
        net(torch.rand(1, 3))
    projection = counter.get_extra_counts()
    assert projection["Global"]["read_potential"] > 0
    assert projection["Global"]["write_potential"] > 0
    assert projection["Sequential.1"] == projection["Global"] == projection["Sequential"]


def test_a_user_s_rule_goes_first():
    op = torch.ops.snn_dendrite.soma_dendrite.default
    counter = op_counter.FlopCounter(extra_rules={op: lambda args, kwargs, out: 7})
    assert counted(neuron.LNM(step_mode="m"), torch.rand(T, N, C), counters=[counter])[1]["FlopCounter"] == 7


def test_deactivate_takes_the_rules_back(run_python):
    code = """
import torch
import snn_dendrite_plugin as sdp
from spikingjelly.activation_based import neuron, op_counter
neuron.LNM(step_mode="m")(torch.rand(1, 1, 2))
ours = [torch.ops.snn_dendrite.soma_dendrite.default]
names = ("FlopCounter", "ACCounter", "MACCounter", "MemoryAccessCounter")
has = lambda: [ours[0] in getattr(op_counter, name)().rules for name in names]
count = op_counter.NeuronStateCounter.count
print(all(has()))
sdp.deactivate()
print(any(has()), op_counter.NeuronStateCounter.count is count, hasattr(op_counter.FlopCounter.__init__, "__wrapped__"))
sdp.activate()
print(all(has()))
"""
    assert run_python(code, torch=True).splitlines() == ["True", "False False False", "True"]


def test_import_of_the_plugin_loads_no_counters(run_python):
    code = (
        "import sys, snn_dendrite_plugin\nfrom spikingjelly.activation_based import neuron\n"
        "print([m for m in sys.modules if 'op_counter' in m or 'vision.config' in m or 'lynxi' in m])"
    )
    assert run_python(code, torch=True) == "[]"


def test_other_operators_have_no_list():
    assert of_call(torch.ops.aten.add.Tensor, (torch.ones(1), torch.ones(1))) is None


# -- other tools -----------------------------------------------------------------------------------------------------


@pytest.mark.feature("SpikingJelly: vision configuration", host="SpikingJelly", neuron="DendSN, LNM, TTFS")
def test_vision_configuration_finds_classes_by_their_own_path():
    config = pytest.importorskip("spikingjelly.activation_based.distributed.vision.config")
    for cls in (neuron.DendSN, neuron.LNM, neuron.TTFS):
        path = f"{cls.__module__}.{cls.__qualname__}"
        found, kwargs = config._resolve_neuron_config(
            config.NeuronConfig(path, {"steps": 4} if cls is neuron.TTFS else {})
        )
        assert found is cls
        assert isinstance(cls(**kwargs), cls)
    path = f"{neuron.DendSN.__module__}.DendSN"
    sdp.deactivate()
    try:
        with pytest.raises(ValueError, match="Unregistered"):
            config._resolve_neuron_config(config.NeuronConfig(path))
    finally:
        sdp.activate()
    assert config._resolve_neuron_config(config.NeuronConfig(path))[0] is neuron.DendSN


@pytest.mark.feature("SpikingJelly: Lynxi export", host="SpikingJelly", neuron="DendSN", result="refused")
def test_lynxi_export_refuses():
    lynxi = pytest.importorskip("spikingjelly.activation_based.lynxi_exchange")
    with pytest.raises(ValueError, match="m_in is a DendSN"):
        lynxi.to_lynxi_supported_module(neuron.DendSN(), 4)
    with pytest.raises(ValueError, match="m_in is a LNM"):
        lynxi.to_lynxi_supported_modules([layer.Linear(2, 2), neuron.LNM()], 4)
    lynxi.to_lynxi_supported_module(neuron.IFNode(), 4)
