"""The calls that the Triton kernels are tested with, and a worker that runs them in a process of its own.

Triton decides at import between its interpreter (CPU tensors) and its compiler, so a pytest process cannot do both.
Run as a script, this file answers requests on standard input, one JSON list per line: ``["check", name]`` compares a
case with the float64 reference, ``["same", name]`` compares the forward pass with the torch provider bit by bit,
``["compile", name, capability]`` compiles both kernels of a case for a GPU that need not be there and reports what they
use.
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
from kernel_cases import SURROGATE_PARAMETERS, Case, check, make_case, random_case

from snn_dendrite_plugin.kernels.activations import ACTIVATIONS
from snn_dendrite_plugin.kernels.soma_dendrite import reference
from snn_dendrite_plugin.kernels.soma_dendrite import triton as provider_module
from snn_dendrite_plugin.kernels.soma_dendrite.contract import Settings
from snn_dendrite_plugin.kernels.surrogates import KINDS, Surrogate

provider = provider_module.provider
DENDSN = {"activation": "leaky_relu", "detach": True, "surrogate": "atan", "surrogate_a": 2.0}


def _table() -> dict[str, Callable[[], Case]]:
    """One case per surrogate, walking through everything else at different strides."""
    cases = {}
    activations, resets, timings = list(ACTIVATIONS), ("hard", "soft", "none"), ("at_once", "next_step", "snntorch")
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
    wide = Settings(branches=8, wiring="fold", activation="tanh", timing="snntorch", record=True)
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
        used[kernel.__name__] = {**counts, "wide_loads": wide}

    c, before = case(name), provider_module._run
    driver.set_active(_Driver(capability))
    provider_module._run = warm_up
    try:
        provider.forward(c.inputs, c.settings)
        provider.backward(c.inputs, c.settings, c.g_spikes, c.g_u, c.g_v, c.g_sequence)
    finally:
        provider_module._run = before
    return used


REQUESTS = {"check": lambda name: check(provider, case(name)), "same": same, "compile": compiled}

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
