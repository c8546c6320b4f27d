"""The providers of the clock-driven TTFS pair against the reference: C++, Triton, CUDA."""

from __future__ import annotations

import pytest
import torch
from cuda_text import OnCpu, compile_to_ptx, needs_compiler, nvrtc_library
from hypothesis import HealthCheck, given, settings
from triton_cases import TTFS_CASES
from triton_worker import needs_triton
from ttfs_cases import BIASES, LAYOUTS, cases, check, make_case, random_case, same, special_values

from snn_dendrite_plugin.kernels.launch import cpu as library
from snn_dendrite_plugin.kernels.launch.cpu import LEVELS
from snn_dendrite_plugin.kernels.ttfs import cpu, cupy, reference
from snn_dendrite_plugin.kernels.ttfs.contract import Gradients, Outputs, Settings
from snn_dendrite_plugin.kernels.ttfs.op import ttfs
from snn_dendrite_plugin.kernels.ttfs.triton import provider as triton

CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
library_reason = cpu.provider.why_not(CPU, torch.float32, Settings(4))
needs_library = pytest.mark.skipif(library_reason is not None, reason=str(library_reason))


def test_the_library_has_this_op_where_it_has_the_other():
    from snn_dendrite_plugin.kernels.soma_dendrite.contract import Settings as Other
    from snn_dendrite_plugin.kernels.soma_dendrite.cpu import provider

    assert (library_reason is None) == (provider.why_not(CPU, torch.float32, Other()) is None)


@needs_library
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(case=cases())
def test_cpu_random_cases(case):
    assert check(cpu.provider, case) > 0.5


@needs_library
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cpu_gives_the_same_bits_as_torch(dtype, level):
    provider = cpu.CpuProvider(level)
    same(provider, special_values(dtype))
    for seed in range(5):
        same(provider, make_case((2, 3, 40, 7), 5, dtype=dtype, seed=seed))


@needs_library
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", BIASES)
def test_cpu_every_layout_and_bias(bias, layout):
    for shape in ((2, 3, 5, 4, 6), (1, 2, 700, 1), (1, 2, 3, 1500), (2, 70, 33)):
        check(cpu.provider, make_case(shape, 3, bias=bias, layout=layout, g_layout=layout))


@needs_library
@pytest.mark.parametrize("shape", [(2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0), (1, 0), (3, 1)])
@pytest.mark.parametrize("bias", BIASES)
def test_cpu_empty_and_smallest_sizes(bias, shape):
    case = make_case(shape, 2, bias=bias)
    check(cpu.provider, case)
    if 0 in shape and case.bias is not None:
        assert not case.run(cpu.provider)[3].any()


@needs_library
@pytest.mark.parametrize("bias", ["one", "channel", "full"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_cpu_same_bits_with_any_number_of_threads(bias, layout):
    case = make_case((2, 9, 40, 11, 13), 8, bias=bias, layout=layout, g_layout=layout)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(case.run(cpu.provider))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert results[0][0].is_contiguous() == (layout == "contiguous")


@needs_library
@pytest.mark.long
def test_cpu_many_random_cases():
    for seed in range(3000):
        check(cpu.CpuProvider(LEVELS[seed % 3]), random_case(seed))


class _Wrong(reference.TorchProvider):
    """The reference with one wrong result."""

    def __init__(self, index: int) -> None:
        self.index = index

    def forward(self, inputs, settings):
        out = [t.clone() for t in super().forward(inputs, settings)]
        if self.index == 0:
            out[0].view(-1)[7] = 1 - out[0].view(-1)[7]
        if self.index == 1:
            out[1] *= 1.001
        return Outputs(*out)

    def backward(self, *arguments):
        out = list(super().backward(*arguments))
        if self.index > 1:
            out[self.index - 2] *= 1.001
        return Gradients(*out)


@pytest.mark.parametrize("index", range(4))
def test_the_comparison_sees_every_wrong_result(index):
    case = make_case((2, 4, 5, 6), 4)
    check(reference.provider, case)
    with pytest.raises(AssertionError):
        check(_Wrong(index), case)


@needs_library
def test_cpu_is_chosen_and_the_op_is_differentiable():
    from snn_dendrite_plugin import use_provider
    from snn_dendrite_plugin.kernels.providers import choose

    assert choose("ttfs", CPU, torch.float32, Settings(4)) is cpu.provider
    case = make_case((2, 3, 4, 5), 4, seed=1)
    results = []
    for name in ("torch", "cpu"):
        x, bias = case.x.clone().requires_grad_(), case.bias.clone().requires_grad_()
        with use_provider(name):
            spikes, potentials = ttfs(x, bias, case.windows, 4)
            loss = (spikes * case.g_spikes).sum() + (potentials * case.g_potentials).sum()
            results.append((spikes, potentials, *torch.autograd.grad(loss, [x, bias])))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_cpu_says_why_not(monkeypatch):
    assert "cuda" in cpu.provider.why_not(torch.device("cuda"), torch.float32, Settings(4))
    assert "int64" in cpu.provider.why_not(CPU, torch.int64, Settings(4))
    monkeypatch.setattr(library, "load", lambda *_: (None, "the compiled library is missing"))
    assert "missing" in cpu.provider.why_not(CPU, torch.float32, Settings(4))
    case = make_case()
    with pytest.raises(RuntimeError, match="compiled library is missing"):
        case.run(cpu.provider)
    with pytest.raises(ValueError, match="level is 'sse9'"):
        cpu.CpuProvider("sse9")


@pytest.mark.skipif(nvrtc_library() is None, reason="this torch brings no NVRTC")
@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nvrtc_compiles_to_ptx(dtype, architecture):
    for count in (1000, 2**40):
        options = cupy.defines(dtype, count)
        ptx = compile_to_ptx(cupy.source(), (*options, f"--gpu-architecture=compute_{architecture}"))
        assert ".entry ttfs_forward" in ptx
        assert ".entry ttfs_backward" in ptx
        assert f"sm_{architecture}" in ptx
        assert "fma.rn" not in ptx  # contracted, a potential would be rounded otherwise than in the reference


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    return cupy.CupyProvider(OnCpu(tmp_path_factory.mktemp("ttfs"), cupy, "ttfs"))


@needs_compiler
def test_the_cuda_text_run_on_the_cpu(on_cpu):
    for seed in range(40):
        check(on_cpu, random_case(seed, most_values=4000))
    check(on_cpu, make_case((2, 0, 3), 4))


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_cuda_text_gives_the_same_bits_as_torch(on_cpu, dtype):
    same(on_cpu, special_values(dtype))


def test_cupy_says_why_not():
    assert "cpu" in cupy.provider.why_not(CPU, torch.float32, Settings(4))
    assert "int64" in cupy.provider.why_not(torch.device("cuda"), torch.int64, Settings(4))


@pytest.mark.gpu
def test_cupy_on_the_gpu():
    reason = cupy.provider.why_not(torch.device("cuda"), torch.float32, Settings(4))
    if reason is not None:
        pytest.skip(reason)
    for seed in range(100):
        check(cupy.provider, random_case(seed), "cuda")
    case = make_case((2, 8, 64, 56, 56), 8).to("cuda")
    runs = [case.run(cupy.provider) for _ in range(3)]
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@needs_triton
@pytest.mark.parametrize("name", [name for name in TTFS_CASES if "special" not in name])
def test_triton_agrees_with_the_reference(interpreter, name):
    assert interpreter("ttfs_check", name) > 0.5


@needs_triton
def test_triton_random_cases(interpreter):
    for seed in range(20):
        interpreter("ttfs_check", str(seed))


@needs_triton
@pytest.mark.parametrize("name", [name for name in TTFS_CASES if name not in ("several_tiles", "empty")])
def test_triton_gives_the_same_bits_as_torch(interpreter, name):
    interpreter("ttfs_same", name)


@needs_triton
@pytest.mark.parametrize("name", ["several_tiles", "several_rows", "channels_last", "special-float64", "one_step"])
def test_triton_compiles_without_spilling_or_contraction(compiler, name):
    used = compiler("ttfs_compile", name, 90)
    assert set(used) == {"forward_kernel", "backward_kernel"}
    for kernel, counts in used.items():
        assert counts["stack"] == 0, f"{kernel} spills registers: {counts}"
        assert counts["reg"] <= 128, f"{kernel}: {counts}"
    assert used["forward_kernel"]["contracted"] == 0 or name == "special-float64"  # its division is made of them


def test_triton_says_why_not(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "TRITON_INTERPRET=1" in triton.provider.why_not(CPU, torch.float32, Settings(4))
    assert "int32" in triton.provider.why_not(torch.device("cuda"), torch.int32, Settings(4))


@pytest.mark.gpu
def test_triton_on_the_gpu():
    for seed in range(100):
        check(triton.provider, random_case(seed), "cuda")
    case = make_case((2, 8, 64, 56, 56), 8)
    check(triton.provider, case, "cuda")
    moved = case.to("cuda")
    runs = [moved.run(triton.provider) for _ in range(3)]
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))
