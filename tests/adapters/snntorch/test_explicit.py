"""Explicit states of snnTorch's nodes: what else a neuron remembers belongs to the ``mem`` it was returned with."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

snn = pytest.importorskip("snntorch")

from snn_dendrite_plugin.adapters import base  # noqa: E402

OURS = ("Dendritic", "LNM", "LNM once", "TTFS")
NEURONS = {
    "Dendritic": lambda **k: snn.Dendritic(0.9, branches=4, strength_init=0.4, **k),
    "LNM": lambda **k: snn.LNM(0.9, **k),
    "LNM once": lambda **k: snn.LNM(0.9, fire_once=True, **k),
    "TTFS": lambda **k: snn.TTFS(3, bias=torch.rand(6), **k),
    "Leaky": lambda **k: snn.Leaky(0.9, **k),
}


@pytest.fixture(params=NEURONS)
def make(request):
    torch.manual_seed(0)
    return NEURONS[request.param]


def data(steps=9, batch=4):
    return 2 * torch.rand(steps, batch, 6)


def zeros(x):
    return torch.zeros(x.shape[1:])


def run(step, x, mem):
    spikes = []
    for v in x:
        spk, mem = step(v, mem)
        spikes.append(spk)
    return torch.stack(spikes), mem


@pytest.mark.feature("snnTorch: explicit mem, begun with own zeros", host="snnTorch", neuron="Dendritic, LNM, TTFS")
def test_own_zeros_begin_a_sequence(make):
    net, lif, x = nn.Linear(6, 6), make(), data()

    def batch():
        spikes, mem = run(lambda v, mem: lif(net(v), mem), x, zeros(x))
        net.zero_grad()
        (spikes.sum() + mem.sum()).backward()
        return spikes.detach(), net.weight.grad.clone()

    first, second = batch(), batch()
    assert first[0].any()
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.feature("snnTorch: explicit mem, two sequences in turn", host="snnTorch", neuron="Dendritic, LNM, TTFS")
def test_two_sequences_in_turn_do_not_mix(make):
    lif, a, b = make(), data(), data(7)
    alone = [run(lif, x, zeros(x))[0] for x in (a, b)]
    mems, turns = [zeros(a), zeros(b)], ([], [])
    for t in range(9):
        for i, x in enumerate((a, b)):
            if t < len(x):
                spk, mems[i] = lif(x[t], mems[i])
                turns[i].append(spk)
    for spikes, expected in zip(turns, alone, strict=True):
        assert torch.equal(torch.stack(spikes), expected)


def test_a_mem_may_go_in_twice_and_outlives_a_reset(make):
    lif, x, fork = make(), data(), data(5)
    start = run(lif, x, zeros(x))[1]
    first = run(lif, fork, start)[0]
    run(lif, fork + 1, start)
    if hasattr(lif, "reset_mem"):
        lif.reset_mem()
    assert torch.equal(run(lif, fork, start)[0], first)


@pytest.mark.parametrize(
    "cut", [torch.Tensor.detach, torch.Tensor.detach_, lambda m: m.data], ids=["new", "own", "data"]
)
@pytest.mark.parametrize("turns", [1, 2])
def test_truncation_keeps_values_and_cuts_every_state(make, cut, turns):
    net, lif, x = nn.Linear(6, 6), make(), data(8)
    whole = run(lambda v, mem: lif(net(v), mem), x, zeros(x))[0]
    gradients = []
    mems = [zeros(x) for _ in range(turns)]
    for part in (x[:4], x[4:]):
        for i in range(turns):
            spikes, mems[i] = run(lambda v, mem: lif(net(v), mem), part, mems[i])
            assert torch.equal(spikes, whole[:4] if torch.equal(part, x[:4]) else whole[4:])
            net.zero_grad()
            (spikes.sum() + mems[i].sum()).backward()  # a second time, if anything still hung on the first part
            gradients.append(net.weight.grad.clone())
            mems[i] = cut(mems[i])
    assert torch.equal(gradients[0], gradients[turns - 1])
    assert torch.equal(gradients[turns], gradients[-1])


def test_begins_with_init_leaky_too(make):
    lif, x = make(), data()
    expected = run(lif, x, zeros(x))[0]
    for _ in range(2):
        mem = lif.init_leaky() if hasattr(lif, "init_leaky") else lif.reset_mem()
        assert torch.equal(run(lif, x, mem)[0], expected)


def test_copies_of_a_neuron_take_a_mem_over(make):
    lif, x, rest = make(), data(), data(4)
    mem = run(lif, x, zeros(x))[1]
    other = copy.deepcopy(lif)
    with torch.no_grad():
        assert torch.equal(run(other, rest, mem)[0], run(lif, rest, mem)[0])


def test_views_and_other_neurons_do_not_inherit():
    dendritic, ttfs, x = NEURONS["Dendritic"](), NEURONS["TTFS"](), data(5, batch=6)
    with torch.no_grad():
        mem = run(dendritic, x, zeros(x))[1]
        for given in (mem.t(), mem.clone()):
            assert torch.equal(dendritic(x[0], given)[1], NEURONS["Dendritic"]()(x[0], given.clone())[1])
        assert torch.equal(ttfs(x[0], mem)[1], copy.deepcopy(ttfs)(x[0], mem.clone())[1])


def test_a_computed_mem_starts_the_branches_and_is_said(caplog, monkeypatch):
    monkeypatch.setattr(base, "_said", set())
    lif, x = NEURONS["Dendritic"](), data()
    mem = lif(x[0].requires_grad_())[1]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            lif(x[1], mem * 0.5)
    assert sum("a mem that it did not return" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("make", OURS, indirect=True)
@pytest.mark.parametrize("turns", [1, 2])
def test_a_compiled_step_does_the_same(make, turns):
    torch._dynamo.reset()
    lif, inputs = make(), [data(5), data(5)][:turns]
    expected = [run(lif, x, zeros(x))[0].detach() for x in inputs]
    step = torch.compile(lif, backend="aot_eager")
    mems, spikes = [zeros(x) for x in inputs], [[] for _ in inputs]
    for t in range(5):
        for i, x in enumerate(inputs):
            spk, mem = step(x[t], mems[i])
            mems[i] = mem if t != 2 else mem.detach() if turns == 1 else mem.detach_()
            spikes[i].append(spk.detach())
    for found, whole in zip(spikes, expected, strict=True):
        assert torch.equal(torch.stack(found), whole)


@pytest.mark.parametrize("make", OURS, indirect=True)
def test_a_compiled_loop_does_the_same(make):
    torch._dynamo.reset()
    lif, x = make(), data(4)
    for fullgraph, begin in ((False, lambda: zeros(x)), (True, lif.init_leaky)):
        expected = run(lif, x, begin())[0]
        loop = torch.compile(lambda x, begin=begin: run(lif, x, begin())[0], backend="aot_eager", fullgraph=fullgraph)
        for _ in range(2):
            assert torch.equal(loop(x), expected)


@pytest.mark.parametrize("make", ["Dendritic", "LNM", "LNM once", "Leaky"], indirect=True)
def test_checkpointing_with_explicit_states_is_right(make):
    net, lif, x = nn.Linear(6, 6), make(), data(6)

    def part(x, mem):
        return run(lambda v, mem: lif(net(v), mem), x, mem)

    def gradient(call):
        net.zero_grad()
        first, mem = call(part, x[:3], zeros(x))
        second, mem = call(part, x[3:], mem)
        (first.sum() + 2 * second.sum() + mem.sum()).backward()
        return net.weight.grad.clone()

    expected = gradient(lambda f, *a: f(*a))
    assert torch.equal(gradient(lambda f, *a: checkpoint(f, *a, use_reentrant=False)), expected)
