"""The calls that the Triton kernels are tested with, and a worker that runs them in a process of its own.

Triton decides at import between its interpreter (CPU tensors) and its compiler, so a pytest process cannot do both.
Run as a script, this file answers requests on standard input, one JSON list per line: ``["check", name]`` compares a
case with the float64 reference, ``["same", name]`` compares the forward pass with the torch provider bit by bit,
``["spikes", seed]`` compares the spikes that the two passes see, ``["compile", name, capability]`` compiles both
kernels of a case for a GPU that need not be there and reports what they use. The same with ``ttfs_`` before it runs a
case of the TTFS pair.
"""

from __future__ import annotations

import functools
import json
import math
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
import ttfs_cases
from at_threshold import check_spikes, threshold_case
from kernel_cases import SURROGATE_PARAMETERS, Case, check, make_case, random_case

from snn_dendrite_plugin.kernels.activations import ACTIVATIONS
from snn_dendrite_plugin.kernels.soma_dendrite import reference
from snn_dendrite_plugin.kernels.soma_dendrite.contract import Settings
from snn_dendrite_plugin.kernels.soma_dendrite.triton import provider as provider_module
from snn_dendrite_plugin.kernels.surrogates import KINDS, Surrogate
from snn_dendrite_plugin.kernels.ttfs.triton import provider as ttfs_module

provider = provider_module.provider
DENDSN = {"activation": "leaky_relu", "detach": True, "surrogate": "atan", "surrogate_a": 2.0}


def _table() -> dict[str, Callable[[], Case]]:
    """One case per surrogate, walking through everything else at different strides."""
    cases = {}
    activations, resets, timings = (
        list(ACTIVATIONS),
        ("hard", "soft", "none"),
        ("at_once", "next_step", "at_once_retested"),
    )
    for i, kind in enumerate(KINDS):
        b = (2, 0, 1, 4, 3)[i % 5]
        surrogate = Surrogate(kind, *SURROGATE_PARAMETERS.get(kind, (None, None)))
        settings = Settings(
            branches=b,
            wiring="fold" if b and i % 3 else "shared",
            activation=activations[(i - i // 5) % len(activations)],
            reset=resets[i % 3],
            timing=timings[i // 3 % 3],
            v_reset=(0.0, -0.25)[i % 2],
            strict=i % 4 == 0,
            detach=i % 4 > 1,
            fire_once=i % 7 == 3,
            surrogate=kind,
            surrogate_a=surrogate.a,
            surrogate_b=surrogate.b,
            clamp_low=-1.5 if i % 5 == 2 else -math.inf,
            clamp_high=2.5 if i % 5 == 1 else math.inf,
            record=i % 6 == 5,
        )
        options: dict[str, Any] = {
            "shape": (1 + i % 3, 2, 3, *((), (7,), (2, 3))[i // 2 % 3]),
            "degree": (1, 3, 2, 0)[i % 4] if settings.clamp_high < math.inf or settings.reset == "hard" else 1,
            "per_channel": i % 2 == 0,
            "mixed": i % 8 == 4,
            "gain": i % 3 != 2,
            "offset": i % 5 != 4,
            "g_states": i % 4 != 3,
            "seed": i,
        }
        cases[f"{kind}-{settings.activation if b else 'point'}-{settings.reset}-{settings.timing}"] = functools.partial(
            make_case, settings, **options
        )
    return cases


def _special() -> dict[str, Callable[[], Case]]:
    fold = Settings(branches=4, wiring="fold", **DENDSN)
    wide = Settings(branches=8, wiring="fold", activation="tanh", timing="at_once_retested", record=True)
    shared = Settings(branches=2, activation="silu", reset="soft", fire_once=True, record=True)
    point = Settings(**DENDSN)
    return {
        "float64": functools.partial(make_case, shared, shape=(3, 2, 3), dtype=torch.float64),
        "float64-erf": functools.partial(
            make_case, Settings(branches=1, activation="gelu", surrogate="erf"), shape=(2, 2, 3), dtype=torch.float64
        ),
        "float16": functools.partial(make_case, fold, shape=(2, 2, 3, 5), dtype=torch.float16),
        "bfloat16": functools.partial(make_case, point, shape=(3, 2, 3, 5), dtype=torch.bfloat16, degree=3),
        "one_step": functools.partial(make_case, fold, shape=(1, 2, 3), per_channel=True),
        "segments": functools.partial(make_case, fold, shape=(9, 2, 3), gain=False, offset=False),
        "segments-even": functools.partial(make_case, shared, shape=(16, 2, 3)),
        "segments-point": functools.partial(make_case, point, shape=(17, 2, 3, 4), degree=3, per_channel=True),
        "packed-8": functools.partial(make_case, wide, shape=(2, 2, 3)),
        "channels_last": functools.partial(
            make_case, fold, shape=(2, 2, 5, 3, 2), layout="channels_last", g_layout="channels_last", per_channel=True
        ),
        "channels_last-shared": functools.partial(
            make_case, shared, shape=(2, 2, 20, 3, 2), layout="channels_last", g_layout="contiguous"
        ),
        "time_inside": functools.partial(
            make_case, fold, shape=(3, 2, 3, 5), layout="time_inside", g_layout="expanded"
        ),
        "sliced": functools.partial(make_case, fold, shape=(2, 2, 3), layout="sliced", g_layout="sliced"),
        "sliced-map": functools.partial(make_case, point, shape=(2, 2, 3, 4, 3), layout="sliced", g_layout="sliced"),
        "expanded": functools.partial(make_case, point, shape=(2, 3, 3, 4), layout="expanded"),
        "several_blocks": functools.partial(make_case, point, shape=(2, 2, 3, 90), degree=3, per_channel=True),
        "several_rounds": functools.partial(make_case, point, shape=(2, 2, 3, 90)),
        "empty_batch": functools.partial(make_case, fold, shape=(2, 0, 3, 4)),
    }


CASES: dict[str, Callable[[], Case]] = _table() | _special()


def case(name: str) -> Case:
    return random_case(int(name), most_values=5000) if name.isdigit() else CASES[name]()


def same(name: str) -> None:
    """The torch provider adds and rounds in the same order, so not one bit may differ."""
    c = case(name)
    got, wanted = provider.forward(c.inputs, c.settings), reference.provider.forward(c.inputs, c.settings)
    for field, a, b in zip(wanted._fields, got, wanted, strict=True):
        assert (a is None) == (b is None), field
        assert a is None or torch.equal(a, b), f"{field}: {int((a != b).sum())} of {a.numel()} differ"


class _Driver:
    """Stands in for a GPU's driver: enough for triton to compile, nothing to run on."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability  # triton keeps one cache of kernels per device

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


def compiled(name: str, capability: int) -> dict[str, dict[str, int]]:
    """Registers, stack and shared bytes of both kernels of a case, compiled as a launch would."""
    c = case(name)

    def call() -> None:
        provider.forward(c.inputs, c.settings)
        provider.backward(c.inputs, c.settings, c.gradients)

    return resources(provider_module, call, capability)


def resources(module: Any, call: Callable[[], Any], capability: int) -> dict[str, dict[str, int]]:
    """What the kernels use that ``call`` would launch through ``module._run``."""
    import triton
    from triton.runtime import driver

    used: dict[str, dict[str, int]] = {}

    def warm_up(kernel: Any, programs: int, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        built = kernel.warmup(*arguments, grid=(programs,), **options)
        tool = triton.knobs.nvidia.cuobjdump.path
        with open("kernel.cubin", "wb") as file:
            file.write(built.asm["cubin"])
        text = subprocess.run([tool, "-res-usage", "kernel.cubin"], capture_output=True, text=True, check=True).stdout
        counts = {key.lower(): int(value) for key, value in re.findall(r"\b(REG|STACK|SHARED):(\d+)", text)}
        wide = len(re.findall(r"ld\.global[.\w]*\.v[24]", built.asm["ptx"]))
        used[kernel.__name__] = {**counts, "wide_loads": wide, "contracted": built.asm["ptx"].count("fma.rn")}

    before = module._run
    driver.set_active(_Driver(capability))
    module._run = warm_up
    try:
        call()
    finally:
        module._run = before
    return used


def ttfs_case(name: str) -> ttfs_cases.Case:
    return ttfs_cases.random_case(int(name), most_values=3000) if name.isdigit() else TTFS_CASES[name]()


def ttfs_compiled(name: str, capability: int) -> dict[str, dict[str, int]]:
    return resources(ttfs_module, lambda: ttfs_case(name).run(ttfs_module.provider), capability)


TTFS_CASES: dict[str, Callable[[], ttfs_cases.Case]] = {
    "special-float32": functools.partial(ttfs_cases.special_values, torch.float32),
    "special-float16": functools.partial(ttfs_cases.special_values, torch.float16),
    "special-float64": functools.partial(ttfs_cases.special_values, torch.float64),
    "several_tiles": functools.partial(ttfs_cases.make_case, (2, 2, 3, 1100), 3),
    "several_rows": functools.partial(ttfs_cases.make_case, (1, 70, 33), 9, dtype=torch.float16),
    "channels_last": functools.partial(
        ttfs_cases.make_case, (2, 2, 5, 3, 4), 10, layout="channels_last", g_layout="channels_last"
    ),
    "sliced": functools.partial(
        ttfs_cases.make_case, (2, 3, 4, 5), 2, bias="full", layout="channels_sliced", g_layout="sliced"
    ),
    "one_step": functools.partial(ttfs_cases.make_case, (3, 2, 4, 5), 1, bias="one"),
    "empty": functools.partial(ttfs_cases.make_case, (2, 0, 4), 4),
}
REQUESTS = {
    "check": lambda name: check(provider, case(name)),
    "same": same,
    "spikes": lambda seed: check_spikes(provider, threshold_case(int(seed), (2, 1, 2, 3)), steps=1),
    "compile": compiled,
    "ttfs_check": lambda name: ttfs_cases.check(ttfs_module.provider, ttfs_case(name)),
    "ttfs_same": lambda name: ttfs_cases.same(ttfs_module.provider, ttfs_case(name)),
    "ttfs_compile": ttfs_compiled,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    provider_module.PROGRAMS_PER_PROCESSOR = 2  # so that few blocks make several rounds of a program
    for line in sys.stdin:
        request, *arguments = json.loads(line)
        try:
            answer = {"result": REQUESTS[request](*arguments)}
        except Exception:  # the asking test fails with it
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
