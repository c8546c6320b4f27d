"""The benchmark's contestants compute what they should, and the benchmark runs and reports."""

import csv
import importlib.util

import pytest
import torch

from snn_dendrite_plugin.bench import baselines
from snn_dendrite_plugin.bench import measure as bench

X = (torch.rand(9, 2, 8, 3, dtype=torch.float64) * 2 - 0.3).requires_grad_()


def gradient(contestant):
    out = contestant(X)
    return out, torch.autograd.grad((out * torch.linspace(0, 1, out.numel()).reshape(out.shape)).sum(), X)[0]


@pytest.mark.parametrize("model", ["DendSN fold", "DendSN shared", "LNM"])
def test_loop_equals_ours(model):
    neuron = baselines.MODELS[model]().double()
    a, ga = gradient(baselines.fused(neuron))
    b, gb = gradient(baselines.loop(neuron))
    assert a.sum() > 0
    assert torch.equal(a, b)
    torch.testing.assert_close(ga, gb)


@pytest.mark.parametrize("model", ["DendSN fold", "DendSN shared", "LNM", "LIF"])
def test_the_hosts_node_is_the_same_model_and_is_reset_in_the_timed_call(model):
    pytest.importorskip("spikingjelly")
    neuron, node = baselines.MODELS[model]().double(), baselines.node_spikingjelly(model)
    a, ga = gradient(baselines.fused(neuron))
    for _ in range(2):
        b, gb = gradient(node)
        assert a.sum() > 0
        assert torch.equal(a, b)
        torch.testing.assert_close(ga, gb)


def test_matrix_form_equals_ours():
    neuron = baselines.MODELS["DendSN fold"]().double()
    a, ga = gradient(baselines.fused(neuron))
    b, gb = gradient(baselines.matrix_form(neuron))
    assert torch.equal(a, b)
    torch.testing.assert_close(ga, gb)


def test_point_neurons_of_both_hosts_equal_our_lif():
    pytest.importorskip("spikingjelly")
    neuron = baselines.MODELS["LIF"]().double()
    a, ga = gradient(baselines.fused(neuron))
    b, gb = gradient(baselines.lif_spikingjelly())
    assert torch.equal(a, b)
    torch.testing.assert_close(ga, gb)
    pytest.importorskip("snntorch")
    c = baselines.leaky_snntorch()(X)  # resets one step later, fires strictly above: the same spikes here
    assert torch.equal(a, c.to(a.dtype))


def test_flexsn_computes_the_lnm():
    pytest.importorskip("spikingjelly")
    neuron = baselines.MODELS["LNM"]()
    x = X.detach().float()
    assert torch.equal(baselines.flexsn_lnm(neuron.theta)(x), baselines.fused(neuron)(x))


def test_bench_runs_reports_and_writes(tmp_path, monkeypatch):
    case = bench.Case("DendSN fold", (3, 2, 8, 4))
    monkeypatch.setitem(bench.CASES, "tiny", [case, bench.Case("DendSN shared", (3, 2, 8))])
    results = bench.bench("tiny", rounds=6)
    names = {r.contestant for r in results if r.case == case}
    assert {"copy", "ours, op and kernel (torch)", "plain torch loop", "T x T matrix form"} <= names
    if importlib.util.find_spec("spikingjelly"):
        assert {"ours, neuron.DendSN", "SpikingJelly LIFNode"} <= names
    if importlib.util.find_spec("snntorch"):
        assert "ours, snn.DendriticParallel" in {r.contestant for r in results}
    assert all(0 < r.low <= r.median <= r.high for r in results)
    ours = next(r for r in results if r.contestant == "ours, op and kernel (torch)" and r.mode == "forward+backward")
    looped = next(r for r in results if r.contestant == "plain torch loop" and r.mode == "forward+backward")
    assert ours.held < looped.held  # only the inputs are kept
    text = bench.table(results)
    assert "ours, op and kernel (torch)" in text
    assert "DendSN fold [3, 2, 8, 4] float32" in text
    path = tmp_path / "bench.csv"
    bench.write_csv(results, path, torch.device("cpu"))
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == len(results)
    assert rows[0]["torch"] == torch.__version__
    pytest.importorskip("matplotlib")
    bench.plot(results, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 1000


def test_bad_arguments():
    with pytest.raises(ValueError, match="preset is 'huge'"):
        bench.bench("huge")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="no CUDA device"):
            bench.bench("gpu", device="cuda")


def test_command_prints_the_environment_and_the_table(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from snn_dendrite_plugin.cli import app

    monkeypatch.setitem(bench.CASES, "tiny", [bench.Case("LNM", (2, 2, 4))])
    path = tmp_path / "out.csv"
    done = CliRunner().invoke(app, ["bench", "--preset", "tiny", "--rounds", "5", "--csv", str(path)])
    assert done.exit_code == 0, done.output
    assert f"torch {torch.__version__}" in done.output
    assert "LNM [2, 2, 4] float32, forward+backward" in done.output
    assert path.exists()
    alone = CliRunner().invoke(app, ["bench", "--preset", "tiny", "--rounds", "5", "--alone"])
    assert "ours, op and kernel (torch)" in alone.output
    assert CliRunner().invoke(app, ["bench", "--preset", "huge"]).exit_code == 2


def test_training_steps_of_a_network_and_its_conversions_take_turns():
    pytest.importorskip("spikingjelly")
    from snn_dendrite_plugin.bench.training import training_step

    results = training_step(torch.device("cpu"), 2, shape=(2, 2, 3, 16, 16))
    assert [r.contestant.split()[0] for r in results] == ["point", "DendSN", "DendSN", "LNM"]
    assert all(r.mode == "training step" for r in results)
    assert all(0 < r.low <= r.median <= r.high for r in results)
    assert results[0].ratio == 1
    lines = bench.table(results).splitlines()
    assert len(lines) == 6
    assert "nan" not in bench.table(results)
