"""A third host, norse, brought by a package of its own (examples/norse_host) through the hooks open to everyone."""

from __future__ import annotations

import shutil
import sys
import tomllib

import pytest
import torch
from places import EXAMPLES
from torch import nn

norse = pytest.importorskip("norse.torch", reason="norse is not installed")

import snn_dendrite_plugin as sdp  # noqa: E402
from snn_dendrite_plugin import plugins  # noqa: E402
from snn_dendrite_plugin.swap import plan_swaps, swapping  # noqa: E402

HOST = EXAMPLES / "norse_host"
F64 = torch.float64


@pytest.fixture(scope="module", autouse=True)
def plugin():
    sys.path.insert(0, str(HOST))
    import snn_dendrite_norse

    plugins.register_plugin(snn_dendrite_norse, "norse")
    yield
    plugins.unregister_plugin(snn_dendrite_norse)
    sys.path.remove(str(HOST))
    assert not hasattr(norse, "DendSN")


def drive(seed: int = 0, features: int = 6) -> torch.Tensor:
    return 8 * torch.randn(40, 4, features, generator=torch.Generator().manual_seed(seed), dtype=F64)


def parameters(kind=None, **values):
    kind = norse.LIFBoxParameters if kind is None else kind
    return kind(
        **{name: torch.as_tensor(value) if isinstance(value, float) else value for name, value in values.items()}
    )


def stepped(net: nn.Module, xs: torch.Tensor) -> torch.Tensor:
    """norse's explicit loop: the caller holds the state."""
    state, out = None, []
    for x in xs:
        y, state = net(x, state)
        out.append(y)
    return torch.stack(out)


SOMAS = {
    "default": {},
    "offset": {"v_th": 0.3, "v_leak": 0.1, "v_reset": -0.2},
    "slow": {"tau_mem_inv": 20.0, "v_th": 0.2},
    "subtract": {"reset_method": sys.modules["norse.torch.functional.reset"].reset_subtract, "v_th": 0.5},
    "tanh": {"method": "tanh", "alpha": 2.0},
}


@pytest.mark.parametrize("soma", SOMAS)
@pytest.mark.parametrize("to", ["DendSN", "LNM"])
def test_the_plain_leaky_cell_keeps_its_function_and_gradient(to, soma):
    p = parameters(**SOMAS[soma])
    torch.manual_seed(3)
    net = norse.SequentialState(
        nn.Linear(6, 20), norse.LIFBoxCell(p), nn.Linear(20, 5), norse.LIFBoxCell(p, dt=0.002)
    ).double()
    with torch.no_grad():
        net[2].weight *= 20  # so that the last layer spikes
    xs = drive().requires_grad_()
    before = stepped(net, xs)
    (gradient,) = torch.autograd.grad((before * drive(1, 5)).sum(), xs)
    assert 0.05 < before.mean() < 0.6
    net = sdp.convert(net, to=to, example_input=lambda net: stepped(net, xs))
    assert [(type(net[i]).__name__, net[i].cell) for i in (1, 3)] == [(to, True)] * 2
    assert sdp.report(net).flips == 0
    after = stepped(net, xs)
    assert torch.equal(after, before)
    (ours,) = torch.autograd.grad((after * drive(1, 5)).sum(), xs)
    torch.testing.assert_close(ours, gradient, rtol=1e-6, atol=1e-9)
    assert torch.equal(stepped(sdp.revert(net), xs), before)


@pytest.mark.parametrize("p", [{}, {"tau_syn_inv": 50.0, "v_th": 0.4, "v_leak": 0.1, "v_reset": -0.2}], ids=str)
def test_a_synaptic_current_is_one_linear_branch(p):
    p = parameters(norse.LIFParameters, **p)
    torch.manual_seed(3)
    net = norse.SequentialState(
        norse.Lift(nn.Linear(6, 20)), norse.LIF(p), norse.Lift(nn.Linear(20, 5)), norse.LIF(p)
    ).double()
    with torch.no_grad():
        net[2].lifted_module.weight *= 20
    xs = drive().requires_grad_()
    before, _ = net(xs)
    (gradient,) = torch.autograd.grad((before * drive(1, 5)).sum(), xs)
    assert 0.05 < before.mean() < 0.6
    with pytest.raises(ValueError, match=r"1 \(LIF\): has a synaptic current, for which LNM has no place"):
        sdp.convert(net, to="LNM")
    with pytest.raises(ValueError, match="branches is 4, which changes what the network computes"):
        sdp.convert(net, to="DendSN", branches=4)
    net = sdp.convert(net, to="DendSN", example_input=xs)
    assert sdp.report(net).flips == 0
    after, _ = net(xs)
    assert torch.equal(after, before)
    (ours,) = torch.autograd.grad((after * drive(1, 5)).sum(), xs)
    torch.testing.assert_close(ours, gradient, rtol=1e-6, atol=1e-9)
    fresh = sdp.convert(norse.SequentialState(norse.LIFCell(p)), to="DendSN", start="fresh")
    assert "its synaptic current is not carried over" in str(sdp.report(fresh))


def test_sequences_and_steps_are_the_same_neuron():
    xs = drive()
    whole = norse.DendSN(branches=3, learn_alpha=True, strength_init=0.3).double()
    cell = norse.DendSNCell(branches=3, learn_alpha=True, strength_init=0.3).double()
    spikes, state = whole(xs)
    assert spikes.any()
    assert torch.equal(stepped(cell, xs), spikes)
    first, held = whole(xs[:10])
    rest, end = whole(xs[10:], held)
    assert torch.equal(torch.cat((first, rest)), spikes)
    for a, b in zip(state, end, strict=True):
        torch.testing.assert_close(a, b)


def test_state_starts_at_the_leak_potential():
    p = parameters(v_leak=0.25, v_th=5.0, v_reset=-3.0)
    _, (v, _) = norse.DendSNCell(branches=1, p=p)(torch.zeros(2, 3))
    assert torch.equal(v, torch.full((2, 3), 0.25))


def test_every_model_is_there_and_trains_in_the_host_s_containers():
    net = norse.SequentialState(
        norse.Lift(nn.Linear(6, 8)), norse.LNM(), norse.Lift(nn.Linear(8, 8)), norse.DendSN(branches=2)
    )
    spikes, state = net(drive().float())
    assert spikes.shape == (40, 4, 8)
    assert len(state) == 4
    spikes.sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    times, _ = norse.TTFS(steps=5)(torch.rand(5, 2, 7))
    assert times.shape == (5, 2, 7)


def test_what_has_other_dynamics_is_refused_by_name():
    recurrent = norse.SequentialState(norse.LSNNRecurrentCell(6, 5))
    with pytest.raises(ValueError, match="LSNNRecurrentCell is no leaky integrator: its dynamics would change"):
        sdp.convert(recurrent, to="DendSN")
    with pytest.raises(TypeError, match="DendSNCell got an unexpected argument 'branhces'"):
        norse.DendSNCell(branhces=2)


def test_swaps_in_scripts():
    with swapping(plan_swaps({"LIFCell": "DendSN"})):
        node = norse.LIFCell()
    twin, xs = norse.LIFCell(), drive().float()
    assert type(node).__name__ == "DendSN"
    assert torch.equal(stepped(node, xs), stepped(twin, xs))


def test_found_through_an_entry_point(tmp_path, run_python):
    project = tomllib.loads((HOST / "pyproject.toml").read_text())["project"]
    entries = project["entry-points"]["snn_dendrite_plugin"]
    metadata = tmp_path / "snn_dendrite_norse-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = "".join(f"{name} = {target}\n" for name, target in entries.items())
    (metadata / "entry_points.txt").write_text(f"[snn_dendrite_plugin]\n{lines}")
    shutil.copytree(HOST / "snn_dendrite_norse", tmp_path / "snn_dendrite_norse")
    code = """
import sys
import snn_dendrite_plugin as sdp
assert "norse" not in sys.modules and "torch" not in sys.modules
import norse.torch
print(norse.torch.DendSN.__name__, norse.torch.DendSNCell.__name__)
from typer.testing import CliRunner
from snn_dendrite_plugin.cli import app
print(CliRunner().invoke(app, ["list"]).stdout)
"""
    printed = run_python(code, tmp_path)
    assert printed.startswith("DendSN DendSNCell\n")
    assert "| norse        | norse" in printed


def test_the_adapter_is_short():
    lines = sum(len(path.read_text().splitlines()) for path in (HOST / "snn_dendrite_norse").glob("*.py"))
    assert lines <= 150
