"""NIR in both hosts: what it can hold comes back as the same neuron, the rest is refused before anything is traced."""

from __future__ import annotations

import importlib
import warnings

import pytest
import torch
from torch import nn

nir = pytest.importorskip("nir")
nirtorch = pytest.importorskip("nirtorch")
snn = pytest.importorskip("snntorch")
pytest.importorskip("spikingjelly.activation_based.nir_exchange", reason="exchange came with 2.0")

from snntorch import export_nir, import_nir  # noqa: E402
from spikingjelly.activation_based import functional, layer, neuron  # noqa: E402
from spikingjelly.activation_based.nir_exchange import export_to_nir, import_from_nir  # noqa: E402

import snn_dendrite_plugin as sdp  # noqa: E402
from snn_dendrite_plugin.adapters.nir import parse  # noqa: E402

T, N = 30, 3
LINEAR = {"activation": "identity", "strength_init": 0.4}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # nirtorch's of what snnTorch calls
        yield


def rows(*shape):
    return torch.rand(shape, dtype=torch.float64)


# -- SpikingJelly ----------------------------------------------------------------------------------------------------

SPIKINGJELLY = {
    "as it comes": lambda: neuron.DendSN(branches=3, **LINEAR),
    "one branch": lambda: neuron.DendSN(branches=1, **LINEAR),
    "no decay of the input": lambda: neuron.DendSN(branches=2, decay_input=False, tau=5.0, **LINEAR),
    "branches not scaled": lambda: neuron.DendSN(branches=2, scale_branch_input=False, alpha=[0.0, 0.9], **LINEAR),
    "no direct input": lambda: neuron.DendSN(branches=2, direct=0, **LINEAR),
    "reset elsewhere": lambda: neuron.DendSN(branches=2, v_reset=-0.3, v_threshold=0.8, **LINEAR),
    "rest elsewhere": lambda: neuron.DendSN(branches=2, v_reset=-0.3, rest=0.2, **LINEAR),
    "perfect": lambda: neuron.DendSN(branches=2, tau=float("inf"), decay_input=False, **LINEAR),
    "learned decays": lambda: neuron.DendSN(branches=3, learn_alpha=True, learn_beta=True, tau=3.0, **LINEAR),
    "per channel": lambda: neuron.DendSN(
        branches=2, activation="identity", channels=6, strength_init=rows(6, 2), gain=rows(6, 2), alpha=rows(6, 2)
    ),
    "threshold per channel": lambda: neuron.DendSN(branches=2, v_threshold=rows(6) + 0.2, **LINEAR),
    "softmax": lambda: neuron.DendSN(branches=2, activation="identity", strength="softmax"),
    "LNM": lambda: neuron.LNM(degree=1),
    "LNM, trained": lambda: neuron.LNM(degree=1, theta=[0.2, 0.7]),
    "LNM, no decay of the input": lambda: neuron.LNM(degree=1, decay_input=False, tau=4.0),
}
FOLD = {
    "published": lambda: neuron.DendSN(
        branches=3, wiring="fold", activation="identity", strength="softmax", alpha=0.5, direct=0
    ),
    "direct": lambda: neuron.DendSN(branches=3, wiring="fold", direct=0.5, offset=0.1, **LINEAR),
    "scaled": lambda: neuron.DendSN(branches=3, wiring="fold", scale_branch_input=True, gain=[1.0, 2.0, 0.5], **LINEAR),
}


def same_spikes(net, x, tmp_path, mode="m"):
    """Export, write, read, import; the network that came back spikes alike, and not trivially."""
    functional.set_step_mode(net, mode)
    functional.reset_net(net)
    before = [type(m).__name__ for m in net if isinstance(m, neuron.BaseNode)]
    graph = export_to_nir(net, x if mode == "m" else x[0], save_path=tmp_path / "net.nir")
    back = import_from_nir(tmp_path / "net.nir", dtype=x.dtype, step_mode=mode)
    found = [type(m).__name__ for m in back.modules() if isinstance(m, neuron.BaseNode)]
    assert found == before
    functional.reset_net(net)
    with torch.no_grad():
        if mode == "m":
            expected, got = net(x), back(x)[0]
        else:
            expected, states, got = torch.stack([net(step) for step in x]), None, []
            for step in x:
                spikes, states = back(step, states)
                got.append(spikes)
            got = torch.stack(got)
    assert 0.02 < expected.mean() < 0.98
    assert torch.equal(got, expected)
    return graph, back


@pytest.mark.feature("NIR: linear branches, LNM of degree 1", host="SpikingJelly", neuron="DendSN, LNM")
@pytest.mark.parametrize("name", list(SPIKINGJELLY))
def test_spikingjelly_round_trip(name, tmp_path):
    net = nn.Sequential(layer.Linear(5, 6), SPIKINGJELLY[name]()).double()
    with torch.no_grad():
        net[0].weight.mul_(4).add_(0.4)
    graph, _ = same_spikes(net, rows(T, N, 5), tmp_path)
    kinds = {type(node).__name__ for node in graph.nodes["_1"].nodes.values()}
    assert kinds <= {"Input", "Output", "LIF", "IF", "LI", "Scale"}


@pytest.mark.parametrize("name", list(FOLD))
@pytest.mark.parametrize("space", [(), (4,), (4, 3)])
def test_spikingjelly_fold_round_trip(name, space, tmp_path):
    synapse = (layer.Linear, layer.Conv1d, layer.Conv2d)[len(space)]
    net = nn.Sequential(synapse(5, 12, **({"kernel_size": 1} if space else {})), FOLD[name]()).double()
    with torch.no_grad():
        net[0].weight.mul_(3 if name != "published" else 4).add_(0.1 if name != "published" else 0.6)
    same_spikes(net, rows(T, N, 5, *space), tmp_path)


def test_spikingjelly_convolution_and_two_layers(tmp_path):
    net = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1),
        neuron.DendSN(branches=2, **LINEAR),
        layer.AvgPool2d(2),
        layer.Flatten(),
        layer.Linear(4 * 9, 6),
        neuron.LNM(degree=1),
    ).double()
    with torch.no_grad():
        net[0].weight.mul_(3).add_(0.1)
        net[4].weight.mul_(3).add_(0.2)
    same_spikes(net, rows(T, N, 2, 6, 6), tmp_path)


def test_spikingjelly_step_by_step(tmp_path):
    net = nn.Sequential(layer.Linear(5, 6), neuron.DendSN(branches=3, **LINEAR)).double()
    with torch.no_grad():
        net[0].weight.mul_(4).add_(0.4)
    same_spikes(net, rows(T, N, 5), tmp_path, mode="s")


def test_parameters_come_back(tmp_path):
    node = neuron.DendSN(branches=3, wiring="shared", tau=4.0, alpha=[0.2, 0.5, 0.8], **LINEAR)
    net = nn.Sequential(layer.Linear(5, 6), node)
    functional.set_step_mode(net, "m")
    graph = export_to_nir(net, torch.rand(T, N, 5), dt=1e-3)
    back = next(m for m in import_from_nir(graph, dt=1e-3).modules() if isinstance(m, neuron.DendSN))
    for key, value in node.model.state_dict().items():
        assert torch.allclose(back.model.state_dict()[key], value, rtol=1e-12, atol=1e-15), key
    assert (back.v_threshold, back.v_reset) == (node.v_threshold, node.v_reset)
    assert (back.model.decay_input, back.model.scale_branch_input) == (True, True)


def test_a_graph_that_was_changed_says_where(tmp_path):
    net = nn.Sequential(layer.Conv1d(2, 3, 1), neuron.DendSN(branches=2, **LINEAR))
    functional.set_step_mode(net, "m")
    graph = export_to_nir(net, torch.rand(T, N, 2, 4))
    graph.nodes["_1"].nodes["branch_1"].tau[0, 2] *= 2
    with pytest.raises(ValueError, match=r"branch_1.tau differs between positions"):
        parse(graph.nodes["_1"], 1e-4)


def test_a_single_neuron(tmp_path):
    node = neuron.DendSN(branches=2, step_mode="m", **LINEAR).double()
    x = 2 * rows(T, N, 4)
    nir.write(tmp_path / "one.nir", nir.NIRGraph.from_list(parse_free(node, x)))
    back = import_from_nir(tmp_path / "one.nir", dtype=torch.float64, step_mode="m")
    assert torch.equal(back(x)[0], node(x))


def parse_free(node, x):
    """The nested graph of one neuron, from a network around it."""
    net = nn.Sequential(layer.Linear(4, 4), node)
    functional.set_step_mode(net, "m")
    graph = export_to_nir(net.double(), x)
    functional.reset_net(net)
    return graph.nodes["_1"]


SPIKINGJELLY_REFUSED = {
    "nonlinear": (lambda: neuron.DendSN(branches=2), r"layer '1' \(DendSN\).*nonlinear \(activation='leaky_relu'\)"),
    "polynomial": (lambda: neuron.LNM(), r"layer '1' \(LNM\).*polynomial of degree 3"),
    "polynomial soma": (lambda: neuron.DendSN(branches=2, degree=2, **LINEAR), "polynomial of degree 2"),
    "sign": (lambda: neuron.LNM(degree=1, theta=[0.0, -0.5]), r"layer '1' \(LNM\).*theta_1 is \[-0.5\]"),
    "no leak": (lambda: neuron.DendSN(branches=1, alpha=1.0, **LINEAR), r"alpha is \[\[1.0\]\]"),
    "soft": (lambda: neuron.DendSN(branches=2, v_reset=None, **LINEAR), "a soft reset"),
    "once": (lambda: neuron.DendSN(branches=2, fire_once=True, **LINEAR), "fires once"),
    "TTFS": (lambda: neuron.TTFS(steps=3), "no nodes for the equations of TTFS"),
}


@pytest.mark.feature("NIR: what it has no nodes for", host="SpikingJelly", neuron="DendSN, LNM, TTFS", result="refused")
@pytest.mark.parametrize("name", list(SPIKINGJELLY_REFUSED))
def test_spikingjelly_refuses_before_tracing(name):
    make, reason = SPIKINGJELLY_REFUSED[name]
    ran = []

    class Watched(nn.Module):
        def forward(self, x):
            ran.append(1)
            return x

    net = nn.Sequential(Watched(), make())
    functional.set_step_mode(net, "m")
    with pytest.raises(ValueError, match=reason) as caught:
        export_to_nir(net, torch.rand(3, N, 4))
    assert "torch.export.export(net, (x,))" in str(caught.value)
    assert not ran


def test_torch_export_is_a_way_out():
    net = nn.Sequential(layer.Linear(5, 6), neuron.DendSN(branches=2), layer.Linear(6, 4), neuron.LNM())
    functional.set_step_mode(net, "m")
    x = torch.rand(8, N, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net, (x,))
    functional.reset_net(net)
    assert torch.equal(program.module()(x), net(x))


# -- snnTorch --------------------------------------------------------------------------------------------------------

ZERO = {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
SNNTORCH = {
    "as it comes": lambda: snn.Dendritic(beta=0.8, branches=3, **LINEAR, **ZERO),
    "fold": lambda: snn.Dendritic(beta=0.8, branches=3, wiring="fold", **LINEAR, **ZERO),
    "threshold": lambda: snn.Dendritic(beta=0.5, branches=2, threshold=2.0, **LINEAR, **ZERO),
    "learned": lambda: snn.Dendritic(
        beta=0.8, branches=2, learn_beta=True, learn_alpha=True, learn_threshold=True, **LINEAR, **ZERO
    ),
    "per channel": lambda: snn.Dendritic(
        beta=torch.rand(6) * 0.9, branches=2, threshold=torch.rand(6) + 0.5, **LINEAR, **ZERO
    ),
    "LNM": lambda: snn.LNM(beta=0.9, degree=1, **ZERO),
}


@pytest.mark.feature("NIR: linear branches, LNM of degree 1", host="snnTorch", neuron="Dendritic, LNM")
@pytest.mark.parametrize("name", list(SNNTORCH))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_snntorch_round_trip(name, dtype, tmp_path):
    node = SNNTORCH[name]()
    wide = 18 if name == "fold" else 6
    net = nn.Sequential(nn.Linear(5, wide), node, nn.Linear(6, 4), snn.Leaky(beta=0.9, threshold=torch.ones(4), **ZERO))
    net[3].beta = torch.full((4,), 0.9)
    with torch.no_grad():
        net[0].weight.mul_(3).add_(0.1)
        net[2].weight.mul_(3).add_(0.1)
    graph = export_nir.export_to_nir(net, torch.rand(N, 5), ignore_dims=[0])
    nir.write(tmp_path / "net.nir", graph)
    back = import_nir.import_from_nir(nir.read(tmp_path / "net.nir"))
    assert [type(m).__name__ for m in back.modules() if isinstance(m, snn.SpikingNeuron)] == [
        type(node).__name__,
        "Leaky",
    ]
    ours = next(m for m in back.modules() if type(m) is type(node))
    net, ours = net.to(dtype), ours.to(dtype)
    snn.utils.reset(net)
    node.reset_mem()
    x = torch.rand(T, N, 5).to(dtype)
    with torch.no_grad():
        currents = [net[0](step) for step in x]
        expected = torch.stack([node(current) for current in currents])
        got = torch.stack([ours(current) for current in currents])
    assert 0.02 < expected.mean() < 0.98
    assert torch.equal(got, expected)
    assert isinstance(next(v for v in graph.nodes.values() if isinstance(v, nir.NIRGraph)).nodes["soma"], nir.LIF)


def test_snntorch_sequence_nodes_come_back_as_steps():
    net = nn.Sequential(
        nn.Linear(5, 6), snn.DendriticParallel(0.8, branches=2, reset_mechanism="zero", reset_delay=False, **LINEAR)
    )
    graph = export_nir.export_to_nir(net, torch.rand(T, N, 5), ignore_dims=[0, 1])
    back = import_nir.import_from_nir(graph)
    node = next(m for m in back.modules() if isinstance(m, snn.Dendritic))
    x = 3 * torch.rand(T, N, 6)
    assert torch.equal(torch.stack([node(step) for step in x]), net[1](x))


SNNTORCH_REFUSED = {
    "nonlinear": (lambda: snn.Dendritic(beta=0.9, init_hidden=True), r"layer '1' \(DendSN\).*nonlinear"),
    "soft": (lambda: snn.Dendritic(beta=0.9, init_hidden=True, **LINEAR), "reset_mechanism='subtract'"),
    "delayed": (
        lambda: snn.Dendritic(beta=0.9, init_hidden=True, reset_mechanism="zero", **LINEAR),
        "reset_delay=True",
    ),
    "polynomial": (lambda: snn.LNM(beta=0.9, init_hidden=True), "polynomial of degree 3"),
    "graded": (lambda: snn.LNM(0.9, degree=1, graded_spikes_factor=2.0, **ZERO), "graded"),
    "inhibition": (lambda: snn.LNM(0.9, degree=1, inhibition=True, **ZERO), "inhibition"),
    "TTFS": (lambda: snn.TTFS(3, init_hidden=True), "no nodes for the equations of TTFS"),
}


@pytest.mark.feature("NIR: what it has no nodes for", host="snnTorch", neuron="Dendritic, LNM, TTFS", result="refused")
@pytest.mark.parametrize("name", list(SNNTORCH_REFUSED))
def test_snntorch_refuses_before_tracing(name, capsys):
    make, reason = SNNTORCH_REFUSED[name]
    node = make()
    net = nn.Sequential(nn.Linear(5, 6), node)
    with pytest.raises(ValueError, match=reason) as caught:
        export_nir.export_to_nir(net, torch.rand(N, 5), ignore_dims=[0])
    assert "torch.export.export(net, (x,))" in str(caught.value)
    assert node.mem.numel() == 0
    assert capsys.readouterr().out == ""


# -- between hosts, and the hosts' own -------------------------------------------------------------------------------


def test_from_one_host_to_the_other():
    net = nn.Sequential(layer.Linear(5, 6), neuron.DendSN(branches=2, tau=5.0, **LINEAR))
    functional.set_step_mode(net, "m")
    graph = export_to_nir(net, torch.rand(T, N, 5))
    back = import_nir.import_from_nir(graph)
    node = next(m for m in back.modules() if isinstance(m, snn.Dendritic))
    functional.reset_net(net)
    x = (3 * torch.rand(T, N, 6)).double()
    with torch.no_grad():
        expected, got = net[1].double()(x), torch.stack([node.double()(step) for step in x])
    assert 0.02 < expected.mean() < 0.98
    assert torch.equal(got, expected)


def test_a_scaled_lnm_is_refused_by_snntorch():
    net = nn.Sequential(layer.Linear(5, 6), neuron.LNM(degree=1, tau=5.0))
    functional.set_step_mode(net, "m")
    graph = export_to_nir(net, torch.rand(T, N, 5))
    with pytest.raises(ValueError, match=r"input of an LNM is scaled by \[0.19"):
        import_nir.import_from_nir(graph)


def test_point_networks_export_as_without_the_plugin():
    def graphs():
        torch.manual_seed(0)
        jelly = nn.Sequential(layer.Linear(5, 6), neuron.LIFNode())
        functional.set_step_mode(jelly, "m")
        torchy = nn.Sequential(
            nn.Linear(5, 6), snn.Leaky(beta=torch.full((6,), 0.9), threshold=torch.ones(6), init_hidden=True)
        )
        first = export_to_nir(jelly, torch.rand(T, N, 5))
        second = export_nir.export_to_nir(torchy, torch.rand(N, 5), ignore_dims=[0])
        return [
            {
                name: {k: v.tolist() for k, v in vars(node).items() if hasattr(v, "tolist")}
                for name, node in g.nodes.items()
            }
            for g in (first, second)
        ]

    active = graphs()
    sdp.deactivate()
    try:
        assert graphs() == active
    finally:
        sdp.activate()


def test_deactivate_leaves_nothing():
    homes = [
        ("spikingjelly.activation_based.nir_exchange.to_nir", "_ModuleMapper", ("map_dict", "__init__")),
        ("spikingjelly.activation_based.nir_exchange.from_nir", "_NodeMapper", ("map_dict",)),
    ]
    modules = [importlib.import_module(name) for name, *_ in homes] + [export_nir, import_nir]

    def held():
        return [
            *(vars(getattr(m, cls))[key] for m, (_, cls, keys) in zip(modules, homes, strict=False) for key in keys),
            *(vars(m)["nirtorch"] for m in modules),
        ]

    active = held()
    sdp.deactivate()
    try:
        plain = held()
        assert sum(a is not b for a, b in zip(active, plain, strict=True)) == 6
        assert all(m.nirtorch is nirtorch for m in modules)
    finally:
        sdp.activate()
    assert sum(a is not b for a, b in zip(plain, held(), strict=True)) == 6


def test_nir_is_not_needed(run_python):
    code = (
        "import sys\nsys.modules['nir'] = sys.modules['nirtorch'] = None\nimport snn_dendrite_plugin, snntorch\n"
        "from spikingjelly.activation_based import neuron\nprint(neuron.DendSN.__name__, snntorch.LNM.__name__)"
    )
    assert run_python(code, torch=True) == "DendSN LNM"
