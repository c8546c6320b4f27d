"""The CUDA text: compiled by NVRTC to PTX, run on the CPU thread by thread, and run by CuPy where there is a GPU."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from at_threshold import check_spikes, driven, per_channel, threshold_case
from cuda_text import OnCpu, compile_to_ptx, needs_compiler, nvrtc_library
from kernel_cases import check, make_case, random_case

from snn_dendrite_plugin.kernels.activations import ACTIVATIONS
from snn_dendrite_plugin.kernels.soma_dendrite import cupy as module
from snn_dendrite_plugin.kernels.soma_dendrite.contract import OutputGradients, Settings
from snn_dendrite_plugin.kernels.surrogates import KINDS

gpu_reason = module.provider.why_not(torch.device("cuda"), torch.float32, Settings())


VARIANTS = [
    (Settings(), torch.float32, 1, False),
    (Settings(), torch.float32, 3, True),
    (Settings(branches=4, wiring="fold", detach=True), torch.float32, 1, False),
    (Settings(branches=4, wiring="fold", reset="soft", record=True), torch.float16, 1, True),
    (Settings(branches=8, activation="gelu", timing="at_once_retested", fire_once=True), torch.bfloat16, 3, False),
    (Settings(branches=2, activation="mexican_hat", reset="none", strict=True), torch.float64, 5, False),
]


@pytest.mark.skipif(nvrtc_library() is None, reason="this torch brings no NVRTC")
@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize(("settings", "dtype", "degree", "by_channel"), VARIANTS)
def test_nvrtc_compiles_to_ptx(settings, dtype, degree, by_channel, architecture):
    options = module.defines(settings, dtype, dtype, degree, by_channel, fresh=by_channel)
    ptx = compile_to_ptx(module.source(), (*options, f"--gpu-architecture=compute_{architecture}"))
    assert ".entry sd_forward" in ptx
    assert ".entry sd_backward" in ptx
    assert f"sm_{architecture}" in ptx


@pytest.mark.skipif(nvrtc_library() is None, reason="this torch brings no NVRTC")
def test_nvrtc_compiles_every_activation_and_surrogate():
    names = list(ACTIVATIONS)
    for i, kind in enumerate(KINDS):
        settings = Settings(branches=1, activation=names[i % len(names)], surrogate=kind)
        options = module.defines(settings, torch.float32, torch.float32, 1, False, True)
        assert ".entry" in compile_to_ptx(module.source(), (*options, "--gpu-architecture=compute_80"))


@pytest.mark.skipif(nvrtc_library() is None, reason="this torch brings no NVRTC")
def test_nothing_is_contracted():
    """An operation without a rounding of its own (``mul.f32``, not ``mul.rn.f32``) is the assembler's to contract."""
    settings = Settings(branches=4, wiring="fold", activation="tanh", detach=True)
    options = module.defines(settings, torch.float32, torch.float32, 3, False, True)
    ptx = compile_to_ptx(module.source(), (*options, "--gpu-architecture=compute_90"))
    assert not re.findall(r"\b(?:add|sub|mul)\.(?:ftz\.)?f(?:32|64)\b", ptx)
    assert "fma.rn.f32" in ptx


def test_the_text_has_no_includes_left():
    text = module.source()
    assert "#include" not in text
    assert text.count("struct Half {") == 1


@pytest.fixture
def on_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "THREADS", 32)
    monkeypatch.setattr(module, "SLOTS", (64, 128))  # several groups, and threads that take several neurons
    return module.CupyProvider(OnCpu(tmp_path))


@needs_compiler
@pytest.mark.parametrize("seed", range(8))
def test_the_text_run_on_the_cpu(on_cpu, seed):
    check(on_cpu, random_case(seed, most_values=4000))


@needs_compiler
@pytest.mark.parametrize("wiring", ["shared", "fold"])
@pytest.mark.parametrize("shape", [(21, 3, 2, 40), (21, 5, 40)])
def test_segments_and_groups_run_on_the_cpu(on_cpu, shape, wiring):
    settings = Settings(branches=3, wiring=wiring, timing="at_once_retested", reset="soft", fire_once=True, record=True)
    settings = replace(settings, clamp_low=-2.0, clamp_high=2.5)  # a cubic that no reset bounds would run away
    check(on_cpu, make_case(settings, shape=shape, per_channel=wiring == "fold", degree=3, seed=1))


@needs_compiler
@pytest.mark.parametrize("by_channel", [False, True])
def test_spikes_recomputed_on_the_cpu(on_cpu, by_channel):
    shape = (3, 3, 5, 7) if by_channel else (3, 2, 2, 40)
    case = threshold_case(6, shape, branches=4, wiring="fold", reset="hard", timing="next_step")
    check_spikes(on_cpu, per_channel(case) if by_channel else case)
    case = driven(on_cpu, case)
    spikes = on_cpu.forward(case.inputs, case.settings).spikes
    assert torch.equal(spikes, on_cpu.forward(per_channel(case).inputs, case.settings).spikes)


@needs_compiler
def test_empty_calls(on_cpu):
    case = make_case(Settings(branches=2), shape=(3, 0, 4))
    check(on_cpu, case)
    assert not on_cpu.backward(case.inputs, case.settings, OutputGradients(case.gradients.spikes)).theta.any()


@needs_compiler
@pytest.mark.long
def test_many_cases_run_on_the_cpu(on_cpu):
    for seed in range(100, 200):
        check(on_cpu, random_case(seed, most_values=4000))


def test_why_not_names_the_reason():
    assert "cpu" in module.provider.why_not(torch.device("cpu"), torch.float32, Settings())
    assert "int64" in module.provider.why_not(torch.device("cuda"), torch.int64, Settings())
    if gpu_reason is not None:
        assert "CuPy" in gpu_reason


@pytest.mark.gpu
@pytest.mark.skipif(gpu_reason is not None, reason=str(gpu_reason))
def test_random_cases_on_the_gpu():
    for seed in range(100):
        check(module.provider, random_case(seed), device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(gpu_reason is not None, reason=str(gpu_reason))
def test_spikes_recomputed_on_the_gpu():
    for seed in range(20):
        check_spikes(module.provider, threshold_case(seed).to("cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(gpu_reason is not None, reason=str(gpu_reason))
def test_same_bits_on_the_gpu():
    case = make_case(Settings(branches=4, wiring="fold"), shape=(40, 8, 16, 100), per_channel=True).to("cuda")
    g = OutputGradients(case.gradients.spikes)
    runs = [module.provider.backward(case.inputs, case.settings, g) for _ in range(3)]
    for other in runs[1:]:
        assert all(a is b is None or torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))
