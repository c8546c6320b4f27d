"""Calls of the clock-driven TTFS pair, and their comparison with the reference in float64."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from kernel_cases import STORED, poisoned_memory
from layouts import LAYOUTS, fitted, lay_out
from torch import Tensor

from snn_dendrite_plugin.kernels.contract import Provider
from snn_dendrite_plugin.kernels.dtypes import state_dtype
from snn_dendrite_plugin.kernels.ttfs import reference
from snn_dendrite_plugin.kernels.ttfs.contract import Inputs, OutputGradients, Saved, Settings

BIASES = ("none", "one", "channel", "space", "full")
BORDER = 1e-4  # of a bin: closer to its border a potential's rounding decides


@dataclass(frozen=True)
class Case:
    """One call and the gradients of its outputs. ``windows``, ``bias`` and ``g_potentials`` have the state dtype."""

    x: Tensor
    bias: Tensor | None
    windows: Tensor
    settings: Settings
    g_spikes: Tensor
    g_potentials: Tensor | None
    note: str = ""

    def to(self, device: torch.device | str) -> Case:
        fields = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **fields)

    def run(self, provider: Provider) -> list[Tensor | None]:
        """Spikes, potentials and the gradients of x and bias."""
        out = provider.forward(Inputs(self.x, self.bias, self.windows), self.settings)
        saved = Saved(out.potentials.contiguous(), self.bias, self.windows)
        gradients = provider.backward(saved, self.settings, OutputGradients(self.g_spikes, self.g_potentials))
        return [*out, *gradients]


def make_case(
    shape: tuple[int, ...] = (2, 3, 4, 5),
    steps: int = 4,
    *,
    dtype: torch.dtype = torch.float32,
    bias: str = "channel",
    layout: str = "contiguous",
    g_layout: str = "contiguous",
    g_potentials: bool = True,
    seed: int = 0,
) -> Case:
    """A case with random values; ``shape`` is ``[W, N, C, *]``. A third of the neurons is silent, some saturate."""
    rng = torch.Generator().manual_seed(seed)
    state = state_dtype(dtype)
    windows, entry = shape[0], shape[1:]

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=rng, dtype=torch.float64)

    durations = torch.tensor([0.5, 0.25]) + torch.rand(2, generator=rng, dtype=torch.float64) * 2
    along = {
        "one": [1] * len(entry),
        "channel": [1, *entry[1:2], *[1] * len(entry[2:])],
        "space": [1, *[1] * len(entry[1:2]), *entry[2:]],
        "full": [1, *entry[1:]],
    }
    x = (normal(windows * steps, *entry) + 0.25) / steps**0.5 * durations[1] / durations[0]
    note = f"shape={shape} steps={steps} dtype={dtype} bias={bias} layout={layout}/{g_layout} seed={seed}"
    return Case(
        x=lay_out(x.to(dtype), layout),
        bias=None if bias == "none" else (normal(*along[bias]) * 0.3 + 0.1).to(state),
        windows=durations.to(state),
        settings=Settings(steps),
        g_spikes=lay_out(normal(windows * steps, *entry).to(dtype), g_layout),
        g_potentials=normal(windows, *entry).to(state) if g_potentials else None,
        note=f"{note} g_potentials={g_potentials}",
    )


def random_case(seed: int, most_values: int = 20_000) -> Case:
    """The case of a seed: sizes, layouts and values all follow from it."""
    pick = random.Random(seed)
    windows, steps = pick.choice([1, 1, 2, 3]), pick.choice([1, 2, 3, 4, 5, 8, 16, 33])
    n, c = pick.choice([1, 2, 3, 9]), pick.choice([1, 2, 3, 5, 16, 33])
    rest = pick.choice([(), (), (1,), (2,), (7,), (4, 5), (31,), (65,), (17, 17), (2, 3, 5), (600,), (2100,), (0,)])
    windows, steps, n, c, *rest = fitted([windows, steps, n, c, *rest], most_values)
    shape = pick.choice([(windows, n, c, *rest)] * 8 + [(windows, n)])
    return make_case(
        shape,
        steps,
        dtype=pick.choice(list(STORED)),
        bias=pick.choice(BIASES),
        layout=pick.choice(LAYOUTS),
        g_layout=pick.choice(LAYOUTS),
        g_potentials=pick.random() < 0.5,
        seed=seed,
    )


def cases() -> st.SearchStrategy[Case]:
    """Hypothesis strategy over :func:`random_case`; the seed reproduces the case."""
    return st.integers(0, 2**31 - 1).map(random_case)


def _close(name: str, got: Tensor, wanted: Tensor, tolerance: float, floor: float) -> None:
    assert got.shape == wanted.shape, f"{name}: shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}"
    got = got.detach().cpu().double()
    if not got.numel():
        return
    assert got.isfinite().all(), f"{name}: {int((~got.isfinite()).sum())} of {got.numel()} values are not finite"
    error = (got - wanted).square().mean().sqrt().item()
    scale = max(wanted.square().mean().sqrt().item(), floor)
    assert error <= tolerance * scale, f"{name}: RMS error {error:.3g} is {error / scale:.3g} of {scale:.3g}"


def check(provider: Provider, case: Case, device: torch.device | str = "cpu") -> float:
    """Compare a provider with the reference in float64; returns the share of neurons away from the borders of bins.

    Raises:
        AssertionError: a value, shape or dtype is off, or an input was written to.
    """
    dtype, state, steps = case.x.dtype, case.windows.dtype, case.settings.steps
    wide = replace(case, **{name: value.double() for name, value in vars(case).items() if isinstance(value, Tensor)})
    spikes, potentials = reference.provider.forward(Inputs(wide.x, wide.bias, wide.windows), case.settings)
    level = potentials * (steps / wide.windows[1])
    nearest = level.round().clamp(0, steps)  # borders that decide between spikes: at 0, ..., T - 1, and T for gradients
    clear = (level - nearest).abs() > BORDER
    repeated = clear.repeat_interleave(steps, 0)
    g = OutputGradients(wide.g_spikes * repeated, wide.g_potentials)
    gx, g_bias = reference.provider.backward(Saved(potentials, wide.bias, wide.windows), case.settings, g)
    moved = case.to(device)
    if not bool(clear.all()):
        moved = replace(moved, g_spikes=moved.g_spikes * repeated.to(device).to(dtype))
    before = [None if p is None else p.clone() for p in (moved.x, moved.bias, moved.windows, moved.g_spikes)]
    try:
        with poisoned_memory():
            got = moved.run(provider)
        for p, old in zip((moved.x, moved.bias, moved.windows, moved.g_spikes), before, strict=True):
            assert p is None or torch.equal(p, old), "an input was written to"
        assert [t.dtype for t in got[:3]] == [dtype, state, dtype]
        assert got[0].shape == spikes.shape
        wrong = (got[0].cpu().double() != spikes) & repeated
        assert not wrong.any(), f"{int(wrong.sum())} of {wrong.numel()} spikes differ"
        double = dtype == torch.float64
        floor = float(wide.windows[1])
        _close("potentials", got[1], potentials, 1e-12 if double else 1e-5, floor)
        _close("gradient of x", got[2], gx, max(1e-12 if double else 1e-5, STORED[dtype]), 1e-2)
        assert (got[3] is None) == (g_bias is None)
        if g_bias is not None:  # a sum may cancel: its error is measured against the size of its terms
            assert got[3].dtype == state
            terms = max(1.0, potentials.numel() / max(1, g_bias.numel())) ** 0.5
            _close("gradient of bias", got[3], g_bias, 1e-10 if double else 1e-5, terms)
    except AssertionError as error:
        raise AssertionError(f"{getattr(provider, 'name', provider)}: {error}\n{case.note}") from error
    return clear.double().mean().item() if clear.numel() else 1.0


def special_values(dtype: torch.dtype) -> Case:
    """NaN and infinities among the charges, potentials exactly on borders, and what lies above the window."""
    case = make_case((2, 2, 3, 40), 4, dtype=dtype, bias="none", seed=3)
    x = case.x.clone()
    x[1, 0, 0, :3] = torch.tensor([math.nan, math.inf, -math.inf], dtype=dtype)
    x[4:, 1, 1] = 0
    x[4, 1, 1, :20] = torch.arange(-4, 16, dtype=dtype) / 14  # potentials in eighths of the window: every border
    return replace(case, x=x, windows=torch.ones_like(case.windows))


def same(provider: Provider, case: Case, device: torch.device | str = "cpu") -> None:
    """Forward gives the bits of the torch provider, and of NaN where there is NaN; so does the gradient of x."""
    moved = case.to(device)
    got, wanted = moved.run(provider), case.run(reference.provider)
    for name, a, b in zip(("spikes", "potentials", "gradient of x"), got, wanted, strict=False):
        differ = (a.cpu() != b) & ~(a.cpu().isnan() & b.isnan())
        assert not differ.any(), f"{name}: {int(differ.sum())} of {differ.numel()} differ\n{case.note}"
