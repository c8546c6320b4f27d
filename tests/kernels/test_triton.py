"""The Triton provider against the float64 reference: interpreted on the CPU, compiled for GPUs, and run on one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from at_threshold import check_spikes, threshold_case
from kernel_cases import check, make_case, random_case
from triton_cases import CASES, DENDSN, case
from triton_worker import Ask, needs_triton

from snn_dendrite_plugin.kernels.soma_dendrite.contract import OutputGradients, Settings
from snn_dendrite_plugin.kernels.soma_dendrite.triton.provider import MOST_BRANCHES, MOST_REGISTERS, provider

LONG_SEEDS = range(150)


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_reference(interpreter: Ask, name: str) -> None:
    assert interpreter("check", name) > 0.5


@needs_triton
@pytest.mark.parametrize("name", ["segments-point", "channels_last", "bfloat16", "time_inside"])
def test_forward_gives_the_same_bits_as_torch(interpreter: Ask, name: str) -> None:
    interpreter("same", name)


@needs_triton
def test_backward_recomputes_the_spikes_that_were_emitted(interpreter: Ask) -> None:
    interpreter("spikes", 6)


@needs_triton
@pytest.mark.long
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_random_calls(interpreter: Ask, seed: int) -> None:
    interpreter("check", str(seed))


@needs_triton
@pytest.mark.parametrize(
    ("name", "capability"),
    [("one_step", 80), ("segments", 90), ("channels_last", 90), ("segments-point", 90), ("float64", 80)],
)
def test_compiles_without_spilling(compiler: Ask, name: str, capability: int) -> None:
    used = compiler("compile", name, capability)
    assert set(used) == {"forward_kernel", "backward_kernel"}
    for kernel, counts in used.items():
        assert counts["stack"] == 0, f"{kernel} spills registers: {counts}"
        assert name.startswith("float64") or counts["reg"] <= MOST_REGISTERS, f"{kernel}: {counts}"


@needs_triton
def test_branches_of_a_neuron_are_loaded_at_once(compiler: Ask) -> None:
    used = compiler("compile", "segments", 90)
    assert used["forward_kernel"]["wide_loads"] >= 4  # one per step of a segment
    assert used["backward_kernel"]["wide_loads"] >= 4


@needs_triton
@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_every_case_compiles(compiler: Ask, name: str) -> None:
    assert (name == "empty_batch") == (not compiler("compile", name, 90))


def test_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, settings = torch.device("cpu"), Settings()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "TRITON_INTERPRET=1" in provider.why_not(cpu, torch.float32, settings)
    assert "meta" in provider.why_not(torch.device("meta"), torch.float32, settings)
    cuda = torch.device("cuda")
    assert "int32" in provider.why_not(cuda, torch.int32, settings)
    many = Settings(branches=MOST_BRANCHES + 1)
    assert str(MOST_BRANCHES) in provider.why_not(cuda, torch.float32, many)


def test_says_that_triton_is_missing(run_python: Callable[..., str]) -> None:
    code = """
import importlib.util
importlib.util.find_spec = lambda name, package=None: None
import torch
from snn_dendrite_plugin.kernels.soma_dendrite.contract import OutputGradients, Settings
from snn_dendrite_plugin.kernels.soma_dendrite.triton.provider import provider
print(provider.why_not(torch.device("cuda"), torch.float32, Settings()))
"""
    assert "not installed" in run_python(code, torch=True)


@needs_triton
def test_interpreter_must_be_chosen_before_triton_is_imported(run_python: Callable[..., str]) -> None:
    code = """
import os, torch, triton
from snn_dendrite_plugin.kernels.soma_dendrite.triton import kernels as triton_kernels
from snn_dendrite_plugin.kernels.soma_dendrite.contract import OutputGradients, Settings
from snn_dendrite_plugin.kernels.soma_dendrite.triton.provider import provider
os.environ["TRITON_INTERPRET"] = "1"
print(provider.why_not(torch.device("cpu"), torch.float32, Settings()))
"""
    assert "before" in run_python(code, torch=True, TRITON_INTERPRET="0")


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_gpu_agrees_with_the_reference(name: str) -> None:
    check(provider, case(name), "cuda")


@pytest.mark.gpu
def test_gpu_recomputes_the_spikes_that_were_emitted() -> None:
    for seed in range(20):
        check_spikes(provider, threshold_case(seed).to("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("seed", range(100))
def test_gpu_random_calls(seed: int) -> None:
    check(provider, random_case(seed), "cuda")


LARGE = {
    "fold": (Settings(branches=4, wiring="fold", **DENDSN), {"shape": (4, 64, 512), "gain": False, "offset": False}),
    "map": (Settings(branches=4, wiring="fold", **DENDSN), {"shape": (8, 8, 48, 33, 31), "per_channel": True}),
    "shared": (Settings(branches=3, **DENDSN), {"shape": (21, 16, 100, 49), "layout": "channels_last"}),
    "point": (Settings(**DENDSN), {"shape": (70, 16, 64, 56), "degree": 3, "per_channel": True}),
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", LARGE)
def test_gpu_large_calls_agree_and_repeat_bit_by_bit(name: str) -> None:
    settings, options = LARGE[name]
    c = make_case(settings, **options)
    check(provider, c, "cuda")
    moved = c.to("cuda")
    runs = [provider.backward(moved.inputs, settings, moved.gradients) for _ in range(2)]
    for a, b in zip(*runs, strict=True):
        assert a is None or torch.equal(a, b)


@pytest.mark.gpu
@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("t_steps", [4, 8, 16])
@pytest.mark.parametrize("branches", [0, 4])
def test_gpu_bandwidth(branches: int, t_steps: int, dtype: torch.dtype) -> None:
    """Forward and backward move 3B + 2 values per soma step (LNM: 5) at 80 % of the speed of a copy."""
    from triton.testing import do_bench

    settings = Settings(branches=branches, wiring="fold" if branches else "shared", **DENDSN)
    fan = max(1, branches)
    n = (256 << 20) // (t_steps * fan * 512 * dtype.itemsize)
    c = make_case(settings, shape=(1, 1, 512), dtype=dtype, degree=1 if branches else 3, gain=False, offset=False)
    x = torch.randn(t_steps, n, 512 * fan, device="cuda", dtype=dtype)
    gs = torch.randn(t_steps, n, 512, device="cuda", dtype=dtype)
    inputs = c.to("cuda").inputs
    inputs = inputs._replace(
        x=x, u=x.new_zeros((n, 512), dtype=torch.float32),
        v=x.new_zeros((n, 512, branches), dtype=torch.float32) if branches else None,
    )  # fmt: skip
    target = torch.empty_like(x)
    copy = 2 * x.nbytes / do_bench(lambda: target.copy_(x))
    time = do_bench(lambda: provider.forward(inputs, settings))
    time += do_bench(lambda: provider.backward(inputs, settings, OutputGradients(gs)))
    share = (3 * x.nbytes + 2 * gs.nbytes) / time / copy
    print(f"branches={branches} T={t_steps} {dtype}: {share:.0%} of copy speed ({copy / 1e6:.0f} GB/s)")
    assert share >= 0.8
