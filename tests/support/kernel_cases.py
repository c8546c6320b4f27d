"""Random calls of the soma-dendrite pair, and their comparison with the float64 reference.

A :class:`Case` holds the inputs in the dtype under test and the gradients of the outputs. :func:`check` runs a provider
on it and compares with autograd through the reference loop in float64. A float32 potential that rounds across the
threshold (or across a kink of a derivative) changes everything after it, so neurons that come within :data:`MARGIN` of
one are left out by zeroing their output gradients; the rest is compared strictly, and must be the majority.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st
from layouts import LAYOUTS, fitted, lay_out
from torch import Tensor

from snn_dendrite_plugin.kernels.activations import ACTIVATIONS
from snn_dendrite_plugin.kernels.contract import Provider
from snn_dendrite_plugin.kernels.dtypes import state_dtype
from snn_dendrite_plugin.kernels.soma_dendrite.contract import (
    Gradients,
    Inputs,
    OutputGradients,
    Outputs,
    Settings,
    one_number,
)
from snn_dendrite_plugin.kernels.soma_dendrite.reference import step
from snn_dendrite_plugin.kernels.surrogates import KINDS, Surrogate, spike

MARGIN = 1e-4
LARGEST = 30.0  # potentials beyond this are left out: float32 has too few digits left there
VALUE_TOLERANCE = 1e-5  # RMS error over RMS value, float32 results
GRADIENT_TOLERANCE = 5e-3
# rounding of the result itself when it is stored in the input's dtype
STORED = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
# parameters under which each surrogate is well-behaved; kinds not listed take their defaults
SURROGATE_PARAMETERS = {
    "log_tailed_relu": (0.1, 0.0),
    "triangular": (0.5, 0.0),
    "leaky_k_relu": (0.1, 0.9),
    "q_pseudo_spike": (2.5, 0.0),
    "spike_rate_escape": (1.5, 0.8),
    "squarewave_fourier_series": (4.0, 8.0),
}
# where a surrogate's derivative jumps, besides at the threshold
KINKS: dict[str, Callable[[float, float], tuple[float, ...]]] = {
    "piecewise_leaky_relu": lambda a, b: (-a, a),
    "rect": lambda a, b: (-0.5 / a, 0.5 / a),
    "sparse_fast_sigmoid": lambda a, b: (b,),
}


@dataclass(frozen=True)
class Case:
    """One call: settings, inputs (``x`` in the dtype under test) and the gradients of the outputs."""

    settings: Settings
    inputs: Inputs
    gradients: OutputGradients
    wanted: tuple[str, ...] = Gradients._fields
    note: str = ""

    def to(self, device: torch.device | str) -> Case:
        def move(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or not tensor.numel() or not one_number(tensor):
                return None if tensor is None else tensor.to(device)
            return tensor.as_strided((), ()).to(device).expand(tensor.shape)

        return replace(
            self,
            inputs=Inputs(*map(move, self.inputs)),
            gradients=OutputGradients(*map(move, self.gradients)),
        )


def make_case(
    settings: Settings,
    *,
    shape: tuple[int, ...] = (5, 2, 3, 7),
    dtype: torch.dtype = torch.float32,
    degree: int = 1,
    per_channel: bool = False,
    mixed: bool = False,
    gain: bool = True,
    offset: bool = True,
    layout: str = "contiguous",
    g_layout: str = "contiguous",
    g_states: bool = True,
    fresh: int = 0,
    wanted: tuple[str, ...] = Gradients._fields,
    seed: int = 0,
) -> Case:
    """A case with random values. ``shape`` is ``[T, N, C, *]`` in neurons: ``fold`` multiplies the channels.

    ``mixed`` makes every second parameter per layer although ``per_channel`` is set. The first ``fresh`` of the states
    (3: all) are one number each, expanded. ``wanted``: the gradients asked for.
    """
    rng = torch.Generator().manual_seed(seed)
    state = state_dtype(dtype)
    t, n, c, *rest = shape
    b = settings.branches
    fan = b if settings.wiring == "fold" else 1

    def normal(*size: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
        return torch.randn(size, generator=rng, dtype=torch.float64) * std + mean

    def uniform(*size: int, low: float, high: float) -> Tensor:
        return torch.rand(size, generator=rng, dtype=torch.float64) * (high - low) + low

    count = iter(range(100))

    def rows() -> int:
        return c if per_channel and (not mixed or next(count) % 2) else 1

    theta = uniform(rows(), degree + 1, low=-0.05, high=0.05) * 0.5 ** torch.arange(degree + 1)
    theta[:, 1:2] = uniform(theta.shape[0], 1, low=0.3, high=0.9)[:, :degree]
    limited = degree > 1 and math.isfinite(settings.clamp_low) and math.isfinite(settings.clamp_high)
    if limited and seed % 3 == 0 and t <= 8:  # steeper than the line beyond the limits may be; longer, it runs away
        theta[:, 1:2] = torch.sign(theta[:, 2:3]) * uniform(theta.shape[0], 1, low=1.0, high=1.1)
    inputs = Inputs(
        x=lay_out(normal(t, n, c * fan, *rest, mean=0.4).to(dtype), layout),
        u=normal(n, c, *rest, std=0.5).to(state),
        v=normal(n, c, b, *rest, std=0.5).to(state) if b else None,
        fired=(uniform(n, c, *rest, low=0, high=1) < 0.1).to(state) if settings.fire_once else None,
        alpha=uniform(rows(), b, low=0.2, high=0.9).to(state) if b else None,
        gain=uniform(rows(), b, low=0.5, high=1.2).to(state) if b and gain else None,
        offset=normal(rows(), b, std=0.2).to(state) if b and offset else None,
        strength=(normal(rows(), b, mean=1, std=0.5) / b).to(state) if b else None,
        direct=uniform(rows(), low=0.0, high=0.7).to(state),
        theta=theta.to(state),
        threshold=uniform(rows(), low=0.7, high=1.2).to(state),
    )
    for name in ("u", "v", "fired")[:fresh]:
        value = getattr(inputs, name)
        if value is not None and value.numel():
            inputs = inputs._replace(**{name: value.flatten()[0].clone().expand(value.shape)})
    return Case(
        settings,
        inputs,
        OutputGradients(
            spikes=lay_out(normal(t, n, c, *rest).to(dtype), g_layout),
            u=normal(n, c, *rest).to(state) if g_states else None,
            v=normal(n, c, b, *rest).to(state) if b and g_states else None,
            u_sequence=normal(t, n, c, *rest).to(state) if settings.record and g_states else None,
        ),
        wanted=wanted,
        note=f"shape={shape} dtype={dtype} degree={degree} per_channel={per_channel} mixed={mixed} gain={gain} "
        f"offset={offset} layout={layout}/{g_layout} g_states={g_states} fresh={fresh} wanted={wanted} seed={seed}",
    )


def random_inputs(settings: Settings, **options) -> Inputs:
    """The inputs of :func:`make_case` in float64, each a leaf that asks for its gradient (``fired`` has none)."""
    inputs = make_case(settings, dtype=torch.float64, **options).inputs
    asking = (name != "fired" and value is not None for name, value in inputs._asdict().items())
    return Inputs(*(v.requires_grad_() if ask else v for v, ask in zip(inputs, asking, strict=True)))


def random_case(seed: int, dtypes: tuple[torch.dtype, ...] = tuple(STORED), most_values: int = 20_000) -> Case:
    """The case of a seed: settings, shape, layout and values all follow from it."""
    pick = random.Random(seed)
    b = pick.choice([0, 0, 1, 2, 3, 4, 4, 5, 8])
    surrogate = pick.choice(list(KINDS))
    a, second = SURROGATE_PARAMETERS.get(surrogate, (None, None))
    chosen = Surrogate(surrogate, a, second)
    degree, reset, fire_once = (
        pick.choice([0, 1, 1, 2, 3, 3, 5]),
        pick.choice(["hard", "soft", "none"]),
        pick.random() < 0.2,
    )
    bounded = degree < 2 or (reset == "hard" and not fire_once)  # else a polynomial can run away
    settings = Settings(
        branches=b,
        wiring=pick.choice(["shared", "fold"]) if b else "shared",
        activation=pick.choice(list(ACTIVATIONS)),
        reset=reset,
        timing=pick.choice(["at_once", "next_step", "at_once_retested"]),
        v_reset=pick.choice([0.0, 0.0, -0.25, 0.125]),
        strict=pick.random() < 0.5,
        detach=pick.random() < 0.5,
        fire_once=fire_once,
        surrogate=surrogate,
        surrogate_a=chosen.a,
        surrogate_b=chosen.b,
        clamp_low=pick.choice([-math.inf, -math.inf, -1.5]) if degree < 2 else -2.0,
        clamp_high=pick.choice([math.inf, math.inf, 2.5]) if bounded else 2.5,
        record=pick.random() < 0.3,
    )
    t = pick.choice([1, 2, 3, 5, 8, 17, 33, 40])
    n, c = pick.choice([1, 2, 3, 9]), pick.choice([1, 2, 3, 5, 16, 33])
    rest = pick.choice([(), (), (1,), (2,), (7,), (4, 5), (31,), (64,), (65,), (17, 17), (2, 3, 5), (600,)])
    some_missing = pick.random()
    t, n, c, *rest = fitted([t, n, c, *rest], most_values // max(1, b))
    return make_case(
        settings,
        shape=(t, n, c, *rest),
        dtype=pick.choice(dtypes),
        degree=degree,
        per_channel=pick.random() < 0.5,
        mixed=pick.random() < 0.3,
        gain=pick.random() < 0.7,
        offset=pick.random() < 0.7,
        layout=pick.choice(LAYOUTS),
        g_layout=pick.choice(LAYOUTS),
        g_states=pick.random() < 0.7,
        fresh=pick.choice([0, 0, 0, 1, 3, 3]),
        wanted=tuple(name for name in Gradients._fields if name == "x" or some_missing < 0.5 or pick.random() < 0.5),
        seed=seed,
    )


def cases(**options) -> st.SearchStrategy[Case]:
    """Hypothesis strategy over :func:`random_case`; it shrinks to small seeds, and the seed reproduces the case."""
    return st.integers(0, 2**31 - 1).map(lambda seed: random_case(seed, **options))


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """``torch.empty`` gives NaN inside, so that an element a kernel forgets to write shows."""
    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        torch.utils.deterministic.fill_uninitialized_memory = fill


def _nearest(value: Tensor, points: tuple[float, ...]) -> Tensor:
    """Distance to the nearest of ``points``; exactly on a point counts as far: both precisions are there."""
    distance = torch.full_like(value, math.inf)
    for point in points:
        apart = (value - point).abs()
        distance = torch.minimum(distance, torch.where(apart == 0, math.inf, apart))
    return distance


def _double(inputs: Inputs) -> Inputs:
    return Inputs(*(None if tensor is None else tensor.detach().cpu().double() for tensor in inputs))


def _reference(inputs: Inputs, settings: Settings) -> tuple[Outputs, Tensor]:
    """The reference loop in float64, and which neurons ``[N, C, *]`` stay clear of every jump."""
    surrogate = Surrogate(settings.surrogate, settings.surrogate_a, settings.surrogate_b)
    kinks = KINKS.get(settings.surrogate, lambda a, b: ())(surrogate.a, surrogate.b)
    margins: list[Tensor] = []
    largest: list[Tensor] = []

    def fire(d: Tensor) -> Tensor:
        flat = d.detach()
        margins.append(torch.minimum(flat.abs(), _nearest(flat, kinks)))
        largest.append(flat.abs())
        return spike(d, surrogate, settings.strict)

    u, v, fired = inputs.u, inputs.v, inputs.fired
    threshold = inputs.threshold.detach().reshape(1, -1, *[1] * (u.dim() - 2))
    spikes, trace = [], []
    for x in inputs.x:
        margins.append(_nearest(u.detach(), (settings.clamp_low, settings.clamp_high)))
        if settings.timing != "at_once":
            margins.append((u.detach() - threshold).abs())
        s, u, v, fired = step(x, u, v, fired, inputs, settings, fire)
        if v is not None and settings.activation in ("relu", "leaky_relu"):
            margins.append(_nearest(v.detach(), (0.0,)).amin(2) * (MARGIN / 1e-5))
        spikes.append(s)
        trace.append(u)
    clear = (torch.stack(margins).amin(0) > MARGIN) & (torch.stack(largest).amax(0) < LARGEST)
    return Outputs(torch.stack(spikes), u, v, fired, torch.stack(trace) if settings.record else None), clear


def _close(
    name: str, got: Tensor, wanted: Tensor, tolerance: float, keep: Tensor | None = None, floor: float = 0.0
) -> None:
    assert got.shape == wanted.shape, f"{name}: shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}"
    got, wanted = got.detach().cpu().double(), wanted.detach()
    if keep is not None:
        got, wanted = got[keep.expand_as(got)], wanted[keep.expand_as(wanted)]
    if got.numel() == 0:
        return
    assert got.isfinite().all(), f"{name}: {(~got.isfinite()).sum()} of {got.numel()} values are not finite"
    error = (got - wanted).square().mean().sqrt().item()
    scale = max(wanted.square().mean().sqrt().item(), floor, 1e-6)
    message = f"{name}: RMS error {error:.3g} is {error / scale:.3g} of {scale:.3g}; at most {tolerance:g}"
    assert error <= tolerance * scale, message


def check(provider: Provider, case: Case, device: torch.device | str = "cpu") -> float:
    """Compare a provider's forward and backward with float64; returns the share of neurons compared.

    A call of fewer than 8 neurons that come too close to a threshold returns its share uncompared.

    Raises:
        AssertionError: a value, shape or dtype is off, an input was written to, or most neurons had to be left out.
    """
    settings, dtype = case.settings, case.inputs.x.dtype
    state = state_dtype(dtype)
    try:
        wide = _double(case.inputs)
        leaves = Inputs(*(None if p is None else p.requires_grad_(i != 3) for i, p in enumerate(wide)))
        reference, clear = _reference(leaves, settings)
        share = clear.double().mean().item() if clear.numel() else 1.0
        if clear.numel() < 8 and share <= 0.5:
            return share
        assert share > 0.5, f"only {share:.0%} of the neurons can be compared"

        def mask(g: Tensor | None, branch: bool = False) -> Tensor | None:
            return None if g is None else g * (clear.unsqueeze(2) if branch else clear).to(g.dtype)

        g = case.gradients
        gradients = OutputGradients(
            spikes=g.spikes if bool(clear.all()) else mask(g.spikes),  # keeps its strides where it can
            u=mask(g.u),
            v=mask(g.v, branch=True),
            u_sequence=mask(g.u_sequence),
        )
        total = sum(
            (getattr(reference, name) * g.double()).sum()
            for name, g in gradients._asdict().items()
            if g is not None and getattr(reference, name) is not None
        )
        named = {name: p for name, p in leaves._asdict().items() if p is not None and name != "fired"}
        wanted = dict(zip(named, torch.autograd.grad(total, list(named.values()), allow_unused=True), strict=True))

        moved = case.to(device)
        before = [None if p is None else p.clone() for p in moved.inputs]
        with poisoned_memory():
            outputs = provider.forward(moved.inputs, settings)
            got: Gradients = provider.backward(
                moved.inputs,
                settings,
                OutputGradients(*(None if g is None else g.to(device) for g in gradients)),
                case.wanted,
            )
        for name, p, old in zip(Inputs._fields, moved.inputs, before, strict=True):
            assert p is None or torch.equal(p, old), f"{name} was written to"

        tolerance = 1e-9 if dtype == torch.float64 else VALUE_TOLERANCE
        assert outputs.spikes.dtype == dtype
        wrong = (outputs.spikes.cpu().double() != reference.spikes) & clear
        assert not wrong.any(), f"{int(wrong.sum())} of {wrong.numel()} spikes differ"
        _close("u", outputs.u, reference.u, tolerance, clear, floor=0.1)
        assert outputs.u.dtype == state
        assert (outputs.v is None) == (reference.v is None)
        if reference.v is not None:
            assert outputs.v.dtype == state
            _close("v", outputs.v, reference.v, tolerance, clear.unsqueeze(2), floor=0.1)
        assert (outputs.fired is None) == (reference.fired is None)
        if reference.fired is not None:
            _close("fired", outputs.fired, reference.fired, 0.0, clear)
        assert (outputs.u_sequence is None) == (not settings.record)
        if settings.record:
            assert outputs.u_sequence.dtype == state
            _close("u_sequence", outputs.u_sequence, reference.u_sequence, tolerance, clear.unsqueeze(0), floor=0.1)

        tolerance = 1e-8 if dtype == torch.float64 else GRADIENT_TOLERANCE
        for name in Gradients._fields:
            source, value = getattr(moved.inputs, name), getattr(got, name)
            assert source is not None or value is None, f"gradient of {name}: {value} for nothing"
            assert source is None or value is not None or name not in case.wanted, f"no gradient of {name}"
            if value is None:
                continue
            assert value.dtype == source.dtype, f"gradient of {name} is {value.dtype}"
            want = torch.zeros_like(getattr(leaves, name)) if wanted[name] is None else wanted[name]
            stored = max(tolerance, STORED[dtype]) if name == "x" else tolerance
            # a sum over many neurons may cancel: measure its error against the size of its terms
            floor = 1e-3 if name in ("x", "u", "v") else 1e-3 * max(1.0, case.gradients.spikes.numel() ** 0.5)
            within = want.abs() < 6e4 if dtype == torch.float16 and name == "x" else None  # float16 ends at 65504
            _close(f"gradient of {name}", value, want, stored, within, floor)
        return share
    except AssertionError as error:
        raise AssertionError(f"{getattr(provider, 'name', provider)}: {error}\n{settings}\n{case.note}") from error
