"""The compiled CPU provider against the float64 reference, and its promises: same bits, threads, layouts, sizes."""

from __future__ import annotations

import functools
import shutil
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from kernel_cases import Case, cases, check, make_case, random_case

from snn_dendrite_plugin.kernels.activations import ACTIVATIONS
from snn_dendrite_plugin.kernels.launch import cpu as library_module
from snn_dendrite_plugin.kernels.launch.cpu import LEVELS
from snn_dendrite_plugin.kernels.soma_dendrite import cpu
from snn_dendrite_plugin.kernels.soma_dendrite.contract import Gradients, Inputs, OutputGradients, Outputs, Settings
from snn_dendrite_plugin.kernels.soma_dendrite.reference import TorchProvider
from snn_dendrite_plugin.kernels.surrogates import KINDS

CPU = torch.device("cpu")
library_reason = cpu.provider.why_not(CPU, torch.float32, Settings())
needs_library = pytest.mark.skipif(library_reason is not None, reason=str(library_reason))


def run(case: Case, provider=cpu.provider):
    """Every result of both directions, as a flat list."""
    outputs = provider.forward(case.inputs, case.settings)
    gradients = provider.backward(case.inputs, case.settings, case.gradients)
    return [t for t in (*outputs, *gradients) if t is not None]


def same_bits(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(
        torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_the_library_is_there_where_a_compiler_is():
    assert library_reason is None


@needs_library
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_random_cases(case):
    check(cpu.provider, case)


@needs_library
@pytest.mark.long
@pytest.mark.parametrize("level", LEVELS)
def test_many_random_cases(level):
    shares = [check(cpu.CpuProvider(level), random_case(seed)) for seed in range(2000)]
    assert statistics.mean(shares) > 0.98


@needs_library
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_in_every_instruction_set(name, dtype, level):
    chosen = Settings(branches=3, wiring="fold", activation=name, reset="soft")
    check(cpu.CpuProvider(level), make_case(chosen, shape=(6, 2, 3, 70), dtype=dtype, seed=1))


@needs_library
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_every_surrogate(kind, dtype):
    case = next(c for c in map(random_case, range(10_000)) if c.settings.surrogate == kind)
    chosen = Settings(surrogate=kind, surrogate_a=case.settings.surrogate_a, surrogate_b=case.settings.surrogate_b)
    check(cpu.provider, make_case(chosen, shape=(6, 3, 5, 33), dtype=dtype, degree=3, seed=2))


@needs_library
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("timing", ["at_once", "next_step", "at_once_retested"])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
def test_every_reset(reset, timing, detach, strict):
    chosen = Settings(
        branches=2,
        reset=reset,
        timing=timing,
        v_reset=0.25,
        detach=detach,
        strict=strict,
        fire_once=strict,
        record=True,
    )
    check(cpu.provider, make_case(replace(chosen, record=True), shape=(9, 2, 4, 11), per_channel=detach, seed=3))


@needs_library
def test_strict_comparison_at_the_threshold():
    inputs = make_case(Settings(), shape=(1, 1, 1, 40)).inputs
    inputs = inputs._replace(
        x=torch.ones(1, 1, 1, 40), u=torch.zeros(1, 1, 40), theta=torch.tensor([[0.0, 0.5]]),
        direct=torch.ones(1), threshold=torch.ones(1),
    )  # fmt: skip
    assert cpu.provider.forward(inputs, Settings(strict=False)).spikes.all()
    assert not cpu.provider.forward(inputs, Settings(strict=True)).spikes.any()


@needs_library
@pytest.mark.parametrize("wiring", ["shared", "fold"])
@pytest.mark.parametrize("shape", [(1000, 1, 3, 5), (1000, 1, 1, 300), (1023, 2, 40)])
def test_long_sequences_are_recomputed_in_segments(shape, wiring):
    chosen = Settings(branches=4, wiring=wiring, fire_once=wiring == "shared")
    check(cpu.provider, make_case(chosen, shape=shape, seed=4))


@needs_library
@pytest.mark.parametrize("shape", [(3, 0, 4, 5), (3, 2, 0, 5), (3, 2, 4, 0), (3, 0, 0), (1, 1, 1), (2, 1, 1, 257)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_sizes_off_the_blocks_and_empty_ones(shape, turned, per_channel):
    shape = (*shape[:2], *shape[:1:-1]) if turned else shape  # channels and positions swapped
    case = make_case(Settings(branches=2, wiring="fold", record=True), shape=shape, per_channel=per_channel, seed=5)
    check(cpu.provider, case)
    if 0 in shape:
        gradients = cpu.provider.backward(case.inputs, case.settings, OutputGradients(case.gradients.spikes))
        assert not gradients.theta.any()
        assert not gradients.alpha.any()


@needs_library
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("wiring", "positions"), [("fold", 256), ("fold", 255), ("shared", 77)])
def test_large_results_that_go_past_the_caches_are_the_same_bits(wiring, positions, level):
    # 8 MiB and more; a batch entry alone is less, and takes the usual way
    x = torch.randn(-(-(9 << 20) // (4 * 16 * 64 * positions)), 16, 64, positions)
    settings = Settings(branches=2, wiring=wiring, detach=True)
    inputs = make_case(settings, shape=(1, 16, 64 // (2 if wiring == "fold" else 1), positions)).inputs
    g = torch.randn(len(x), 16, inputs.u.shape[1], positions)
    provider = cpu.CpuProvider(level)
    assert x.nbytes >= 8 << 20
    assert x[:, :1].nbytes < 8 << 20
    whole = provider.forward(inputs._replace(x=x), settings)
    gx = provider.backward(inputs._replace(x=x), settings, OutputGradients(g)).x
    for entry in range(0, 16, 5):
        part = inputs._replace(x=x[:, entry : entry + 1], u=inputs.u[entry : entry + 1], v=inputs.v[entry : entry + 1])
        alone = provider.forward(part, settings)
        assert torch.equal(whole.spikes[:, entry : entry + 1], alone.spikes)
        assert torch.equal(whole.v[entry : entry + 1], alone.v)
        same = provider.backward(part, settings, OutputGradients(g[:, entry : entry + 1])).x
        assert torch.equal(gx[:, entry : entry + 1], same)


@needs_library
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("shape", [(8, 6, 16, 200), (8, 40, 300), (8, 300, 3, 4)])
def test_same_bits_with_any_number_of_threads(shape, per_channel):
    case = make_case(Settings(branches=3, wiring="fold"), shape=shape, per_channel=per_channel, seed=6)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(run(case))
    finally:
        torch.set_num_threads(before)
    assert all(same_bits(results[0], other) for other in results[1:])


@needs_library
def test_calls_from_several_python_threads():
    case = make_case(Settings(branches=3, wiring="fold"), shape=(8, 6, 16, 60), seed=7)
    alone = run(case)
    with ThreadPoolExecutor(4) as pool:
        assert all(same_bits(alone, other) for other in pool.map(run, [case] * 12))


@needs_library
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_value_that_is_not_finite_stays_in_its_neuron(bad, dtype):
    case = make_case(Settings(branches=2, activation="tanh"), shape=(5, 2, 3, 40), dtype=dtype, seed=8)
    broken = replace(case, inputs=case.inputs._replace(x=case.inputs.x.clone()))
    broken.inputs.x[2, 1, 2, 3] = bad
    good, got = cpu.provider.forward(case.inputs, case.settings), cpu.provider.forward(broken.inputs, case.settings)
    if bad != bad:
        assert got.v[1, 2, :, 3].isnan().all()
        assert not got.spikes[2:, 1, 2, 3].any()
    for one, other, at in ((good.spikes, got.spikes, (..., 1, 2, 3)), (good.u, got.u, (1, 2, 3))):
        differs = one != other
        differs[at] = False
        assert not differs.any()
    cpu.provider.backward(broken.inputs, case.settings, OutputGradients(case.gradients.spikes))


@needs_library
@pytest.mark.parametrize("wiring", ["shared", "fold"])
def test_channels_last_results_follow_the_input(wiring):
    case = make_case(Settings(branches=2, wiring=wiring, record=True), shape=(4, 3, 8, 5, 6), layout="channels_last")
    outputs = cpu.provider.forward(case.inputs, case.settings)
    assert outputs.spikes.stride(2) == 1
    assert outputs.u_sequence.stride(2) == 1
    plain = cpu.provider.forward(case.inputs._replace(x=case.inputs.x.contiguous()), case.settings)
    for a, b in zip(outputs, plain, strict=True):
        assert (a is None and b is None) or torch.allclose(a, b, atol=1e-6)
    check(cpu.provider, case)


def test_why_not_names_the_reason(monkeypatch):
    assert "cuda" in cpu.provider.why_not(torch.device("cuda"), torch.float32, Settings())
    assert "int64" in cpu.provider.why_not(CPU, torch.int64, Settings())
    monkeypatch.setattr(library_module, "load", lambda *_: (None, "the compiled library is missing"))
    assert "missing" in cpu.provider.why_not(CPU, torch.float32, Settings())
    with pytest.raises(RuntimeError, match="compiled library is missing"):
        cpu.provider.forward(make_case(Settings()).inputs, Settings())


def test_missing_library_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(library_module, "FOLDER", tmp_path)
    load = functools.partial(library_module.load.__wrapped__, cpu.CpuProvider.prefix, cpu.CpuProvider.call)
    library, reason = load()
    assert library is None
    assert "C++ compiler" in reason
    (tmp_path / "_cpu.so").write_bytes(b"not a library")
    assert "does not load" in load()[1]


def test_unknown_instruction_set():
    with pytest.raises(ValueError, match="level is 'sse9'"):
        cpu.CpuProvider("sse9")


class _Wrong(TorchProvider):
    """The reference with one result of one direction slightly off, or deaf to the gradient of one output."""

    def __init__(self, direction: str, field: str) -> None:
        self.direction, self.field = direction, field

    def forward(self, inputs, settings):
        outputs = super().forward(inputs, settings)
        if self.direction == "forward":
            result = getattr(outputs, self.field)
            if self.field in ("spikes", "fired"):
                result[-1, 0, 0] = 1 - result[-1, 0, 0]
            else:
                result.mul_(1.0001)
        return outputs

    def backward(self, inputs, settings, gradients, wanted):
        if self.direction == "given":
            gradients = gradients._replace(**{self.field: torch.zeros_like(getattr(gradients, self.field))})
        result = super().backward(inputs, settings, gradients, wanted)
        if self.direction == "backward":
            getattr(result, self.field).mul_(1.02)
        return result


WRONG = [
    *(("forward", field) for field in Outputs._fields),
    *(("backward", field) for field in Gradients._fields),
    *(("given", field) for field in OutputGradients._fields),
]


@pytest.mark.parametrize(("direction", "field"), WRONG)
def test_the_comparison_finds_a_wrong_result(direction, field):
    case = make_case(Settings(branches=2, wiring="fold", fire_once=True, record=True), seed=9)
    check(TorchProvider(), case)
    message = {"forward": field, "backward": f"gradient of {field}:", "given": "gradient of"}[direction]
    with pytest.raises(AssertionError, match=message):
        check(_Wrong(direction, field), case)


@needs_library
@pytest.mark.long
def test_more_than_two_to_the_31_values():
    steps, neurons, branches = 1040, 2**18, 8
    x = torch.zeros(steps, 1, neurons * branches, dtype=torch.float16)  # 4.4 GB
    assert x.numel() > 2**31
    x[-1] = torch.randn(neurons * branches).to(x.dtype)
    inputs = Inputs(
        x, torch.zeros(1, neurons), torch.zeros(1, neurons, branches), None, torch.full((1, branches), 0.5), None, None,
        torch.ones(1, branches), torch.zeros(1), torch.tensor([[0.0, 0.5]]), torch.ones(1),
    )  # fmt: skip
    chosen = Settings(branches=branches, wiring="fold", detach=True)
    wanted = TorchProvider().forward(inputs._replace(x=x[-1:]), chosen)
    got = cpu.provider.forward(inputs, chosen)
    assert torch.equal(got.spikes[-1:], wanted.spikes)
    assert not got.spikes[:-1].any()
    g = torch.zeros_like(got.spikes)
    g[-1] = 1
    gradients = cpu.provider.backward(inputs, chosen, OutputGradients(g))
    small = TorchProvider().backward(inputs._replace(x=x[-1:]), chosen, OutputGradients(g[-1:]))
    assert torch.allclose(gradients.x[-1].float(), small.x[-1].float(), atol=1e-3)


@needs_library
@pytest.mark.long
def test_speed_against_spikingjelly():
    """A benchmark: ratios of medians, interleaved in one run; quiet machine needed."""
    functional = pytest.importorskip("spikingjelly.activation_based.functional")
    from spikingjelly.activation_based import neuron, surrogate

    def median(calls, repeats=40):
        times = {name: [] for name in calls}
        for _ in range(repeats):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
        return {name: statistics.median(values) for name, values in times.items()}

    x = torch.randn(8, 16, 64, 256)
    copy, leaf = torch.empty_like(x), x.clone().requires_grad_()
    host = neuron.LIFNode(surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m")
    dendsn, zero = Settings(branches=4, wiring="fold", detach=True), torch.zeros(())
    inputs = Inputs(
        x, zero.expand(16, 16, 256), zero.expand(16, 16, 4, 256), None, torch.full((1, 4), 0.5), None, None,
        torch.full((1, 4), 0.25), torch.zeros(1), torch.tensor([[0.0, 0.5]]), torch.ones(1),
    )  # fmt: skip
    lnm = Settings(detach=True)
    cubic = inputs._replace(u=zero.expand(16, 64, 256), v=None, alpha=None, strength=None, direct=torch.ones(1),
                            theta=torch.tensor([[0.0, 0.5, 0.0, 0.0]]))  # fmt: skip
    g = torch.randn(8, 16, 16, 256)

    def point_neuron():
        functional.reset_net(host)
        leaf.grad = None
        host(leaf).backward(x)

    def both(p, s, gradient):
        cpu.provider.forward(p, s)
        cpu.provider.backward(p, s, OutputGradients(gradient), wanted=("x", "strength", "theta"))

    took = median(
        {
            "copy": lambda: copy.copy_(x),
            "lif": point_neuron,
            "forward": lambda: cpu.provider.forward(inputs, dendsn),
            "dendsn": lambda: both(inputs, dendsn, g),
            "lnm": lambda: both(cubic, lnm, x),
        }
    )
    bandwidth = 5 / 8 * took["copy"] / took["forward"]  # B + 1 values a soma step, a copy moves 2 B
    print({k: f"{1e3 * v:.3f} ms" for k, v in took.items()}, f"{bandwidth:.2f} of the copy bandwidth")
    assert took["dendsn"] <= 0.15 * took["lif"]
    assert took["lnm"] <= 0.2 * took["lif"]
    assert bandwidth >= 0.5
