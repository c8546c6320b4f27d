"""The reference: plain torch, the oracle of every other provider.

:func:`step` is the equations of :mod:`.contract`, line for line, differentiable by autograd; :func:`run` loops it over
time. :class:`TorchProvider` is the same pair with a backward pass written out by hand, so that it saves nothing but its
inputs; it also serves as the fallback on any device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from ..activations import ACTIVATIONS, Function, function_of, name_of
from ..contract import Provider
from ..dtypes import state_dtype
from ..surrogates import Surrogate, derivative, spike
from .contract import PARAMETERS, Gradients, Inputs, OutputGradients, Outputs, Settings, dimensions
from .firing import after_reset, carried, charged, owed

__all__ = ["TorchProvider", "provider", "run", "step"]

SpikeFunction = Callable[[Tensor], Tensor]


def _like(parameter: Tensor, state: Tensor) -> Tensor:
    """``[C or 1, ...]`` -> broadcastable against ``[N, C, ..., *]``."""
    return parameter.reshape(1, *parameter.shape, *[1] * (state.dim() - 1 - parameter.dim()))


def _horner(u: Tensor, theta: Tensor) -> Tensor:
    """``sum_i theta_i u^i`` for ``theta [C or 1, K + 1]``."""
    value = _like(theta[:, -1], u).expand_as(u)
    for i in range(theta.shape[1] - 2, -1, -1):
        value = value * u + _like(theta[:, i], u)
    return value


def _tail_slope(theta: Tensor) -> Tensor:
    """Slope of P beyond the limits, ``[C or 1]``: theta_1, not steeper than 1."""
    slope = theta[:, 1]
    return torch.where(slope.abs() > 1, slope.sign(), slope)  # where, not clamp: at 1 itself (IF) it passes a gradient


def polynomial(u: Tensor, theta: Tensor, low: float, high: float) -> Tensor:
    """P(u) for ``theta [C or 1, K + 1]``: a polynomial within the limits, a line beyond them (K > 1)."""
    if theta.shape[1] <= 2 or low == -math.inf and high == math.inf:
        return _horner(u, theta)
    limited = u.clamp(low, high)
    tail = _tail_slope(theta)
    inner = torch.cat(((theta[:, 1] - tail).unsqueeze(1), theta[:, 2:]), dim=1)
    return _horner(limited, inner) * limited + (_like(tail, u) * u + _like(theta[:, 0], u))


def _polynomial_backward(u: Tensor, theta: Tensor, low: float, high: float) -> tuple[list[Tensor], Tensor]:
    """Derivatives of P(u) by each theta, and by u."""
    degree = theta.shape[1] - 1
    limited = u.clamp(low, high) if degree > 1 else u
    powers = [torch.ones_like(u)]
    for _ in range(degree):
        powers.append(powers[-1] * limited)
    if degree <= 1:
        return powers, _like(theta[:, 1], u).expand_as(u) if degree else torch.zeros_like(u)
    powers[1] = torch.where(_like(theta[:, 1], u).abs() > 1, limited, u)
    factors = torch.arange(1, degree + 1, dtype=theta.dtype, device=theta.device)
    inside = (u > low) & (u < high)  # not the borders: torch.clamp's convention
    return powers, torch.where(inside, _horner(limited, theta[:, 1:] * factors), _like(_tail_slope(theta), u))


def _branches(x: Tensor, settings: Settings) -> Tensor:
    """One step's input ``[N, Cx, *]`` as ``[N, C, B or 1, *]``."""
    fan = settings.branches if settings.wiring == "fold" else 1
    return x.reshape(x.shape[0], x.shape[1] // fan, fan, *x.shape[2:])


def _heaviside(x: Tensor, settings: Settings) -> Tensor:
    return (x > 0 if settings.strict else x >= 0).to(x.dtype)


def _dendrite(
    x: Tensor, v: Tensor | None, p: Inputs, settings: Settings, activation: Function | None = None
) -> tuple[Tensor, Tensor | None]:
    """Somatic drive ``y [N, C, *]`` and the new branch potentials, from one step's input in the state dtype."""
    x = _branches(x, settings)
    summed = x.sum(2)
    y = _like(p.direct, summed) * summed
    if settings.branches == 0:
        return y, None
    drive = x if p.gain is None else _like(p.gain, v) * x
    drive = drive if p.offset is None else drive + _like(p.offset, v)
    v = _like(p.alpha, v) * v + drive
    f = function_of(settings.activation if activation is None else activation)(v)
    if f.shape != v.shape:
        raise ValueError(
            f"activation {name_of(activation)} gives shape {tuple(f.shape)} for branches {tuple(v.shape)} "
            "[N, C, B, *]; it must keep it"
        )
    return y + (_like(p.strength, v) * f.to(v.dtype)).sum(2), v


def step(
    x: Tensor,
    u: Tensor,
    v: Tensor | None,
    fired: Tensor | None,
    p: Inputs,
    settings: Settings,
    spike_function: SpikeFunction | None = None,
    activation: Function | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """One time step: ``x [N, Cx, *]`` in the state dtype -> spikes, u, v, fired. Differentiable by autograd.

    ``spike_function`` replaces the table's surrogate by any function of ``h - threshold``, ``activation`` the table's
    activation by any of ``v [N, C, B, *]`` that keeps its shape.
    """
    fire = spike_function or (
        lambda d: spike(d, Surrogate(settings.surrogate, settings.surrogate_a, settings.surrogate_b), settings.strict)
    )
    y, v = _dendrite(x, v, p, settings, activation)
    threshold = _like(p.threshold, u)
    r = owed(u, threshold, settings)
    u = carried(u, r, settings)
    h = polynomial(u, p.theta, settings.clamp_low, settings.clamp_high) + y
    h = charged(h, r, threshold, settings)
    s = fire(h - threshold).to(h.dtype)
    if settings.fire_once:
        s = s * (1 - fired)
        fired = torch.maximum(fired, s.detach())
    u = after_reset(h, s, r, threshold, settings)
    return s, u, v, fired


def run(
    inputs: Inputs,
    settings: Settings,
    spike_function: SpikeFunction | None = None,
    activation: Function | None = None,
) -> Outputs:
    """The whole sequence by looping :func:`step`; autograd differentiates it. Shapes as in :mod:`.contract`."""
    dimensions(inputs.x, settings)
    dtype = state_dtype(inputs.x.dtype)
    u, v, fired = inputs.u, inputs.v, inputs.fired
    spikes, trace = [], []
    for x in inputs.x:
        s, u, v, fired = step(x.to(dtype), u, v, fired, inputs, settings, spike_function, activation)
        spikes.append(s.to(inputs.x.dtype))
        if settings.record:
            trace.append(u)
    return Outputs(torch.stack(spikes), u, v, fired, torch.stack(trace) if settings.record else None)


def _sum_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Sum ``[N, C, ..., *]`` to a parameter's shape ``[C or 1, ...]``."""
    keep = 1 + parameter.dim()
    value = value.flatten(keep).sum(-1) if value.dim() > keep else value
    value = value.sum(0)
    return value.sum(0, keepdim=True) if parameter.shape[0] == 1 else value


class TorchProvider(Provider):
    """Forward by the reference loop, backward by hand; runs on every device torch runs on.

    Backward recomputes the states in segments of about ``sqrt(T)`` steps, so that it holds ``O(sqrt(T))`` states at a
    time.
    """

    name = "torch"

    def why_not(
        self, device: torch.device, dtype: torch.dtype, settings: Settings, steps: int = 1, degree: int = 1
    ) -> str | None:
        return None

    @torch.no_grad()
    def forward(self, inputs: Inputs, settings: Settings) -> Outputs:
        return run(inputs, settings)

    @torch.no_grad()
    def backward(
        self, saved: Inputs, settings: Settings, gradients: OutputGradients, wanted: Collection[str] = Gradients._fields
    ) -> Gradients:
        t_steps = dimensions(saved.x, settings)[0]
        dtype = state_dtype(saved.x.dtype)
        length = max(16, int(t_steps**0.5))
        starts, state = [], saved.states
        for t in range(t_steps):
            if t % length == 0:
                starts.append(state)
            if t < (t_steps - 1) // length * length:  # the last segment is recomputed anyway
                state = step(saved.x[t].to(dtype), *state, saved, settings)[1:]
        sums = {
            name: None if value is None else torch.zeros_like(value, dtype=dtype)
            for name, value in zip(PARAMETERS, saved.parameters, strict=True)
        }
        gx = torch.empty_like(saved.x)
        gu = torch.zeros_like(saved.u) if gradients.u is None else gradients.u.to(dtype)
        gv = gradients.v if gradients.v is not None or saved.v is None else torch.zeros_like(saved.v)
        for segment in range(len(starts) - 1, -1, -1):
            trail, state = [], starts[segment]
            begin, end = segment * length, min(t_steps, (segment + 1) * length)
            for t in range(begin, end):
                trail.append(state)
                state = step(saved.x[t].to(dtype), *state, saved, settings)[1:]
            for t in range(end - 1, begin - 1, -1):
                if gradients.u_sequence is not None:
                    gu = gu + gradients.u_sequence[t]
                gs = gradients.spikes[t].to(dtype)
                gx_t, gu, gv = _step_backward(
                    saved.x[t].to(dtype), *trail[t - begin], saved, settings, gs, gu, gv, sums
                )
                gx[t] = gx_t.reshape(gx[t].shape).to(gx.dtype)
        return Gradients(gx, gu, gv, **sums)


def _step_backward(x, u, v, fired, p: Inputs, settings: Settings, gs, gu, gv, sums):
    """Gradients of one step from those of its spikes and new states; parameter gradients are added to ``sums``."""
    threshold = _like(p.threshold, u)
    soft, hard = settings.reset == "soft", settings.reset == "hard"
    delayed = settings.timing != "at_once" and (soft or hard)
    y, v_new = _dendrite(x, v, p, settings)
    r = _heaviside(u - threshold, settings) if delayed else 0.0
    carried = (1 - r) * u + r * settings.v_reset if delayed and hard else u
    h = polynomial(carried, p.theta, settings.clamp_low, settings.clamp_high) + y
    if delayed and soft:
        h = h - r * threshold
    allowed = 1 - fired if settings.fire_once else 1.0
    s = _heaviside(h - threshold, settings) * allowed

    gh, g_threshold = gu, torch.zeros_like(u)
    if settings.timing != "next_step" and (soft or hard):
        if soft:
            g_threshold = g_threshold - gu * (s - r)
            through_s = -gu * threshold
        else:
            gh = gu * (1 - (s - r))
            through_s = gu * (settings.v_reset - h)
        gs = gs if settings.detach else gs + through_s
    surrogate = Surrogate(settings.surrogate, settings.surrogate_a, settings.surrogate_b)
    gd = gs * allowed * derivative(h - threshold, surrogate)
    gh = gh + gd
    g_threshold = g_threshold - gd
    if delayed and soft:
        g_threshold = g_threshold - gh * r
    sums["threshold"] += _sum_like(g_threshold, p.threshold)

    by_theta, by_u = _polynomial_backward(carried, p.theta, settings.clamp_low, settings.clamp_high)
    for i, derivative_i in enumerate(by_theta):
        sums["theta"][:, i] += _sum_like(gh * derivative_i, p.theta[:, i])
    gu = gh * by_u
    if delayed and hard:
        gu = gu * (1 - r)

    x = _branches(x, settings)
    summed = x.sum(2)
    sums["direct"] += _sum_like(gh * summed, p.direct)
    gx = (_like(p.direct, gh) * gh).unsqueeze(2).expand_as(x)
    if settings.branches:
        activation = ACTIVATIONS[settings.activation]
        gy = gh.unsqueeze(2)
        sums["strength"] += _sum_like(gy * activation.value(v_new), p.strength)
        gv = gv + gy * _like(p.strength, v) * activation.derivative(v_new)
        sums["alpha"] += _sum_like(gv * v, p.alpha)
        if p.gain is not None:
            sums["gain"] += _sum_like(gv * x, p.gain)
        if p.offset is not None:
            sums["offset"] += _sum_like(gv, p.offset)
        gx_b = gv if p.gain is None else gv * _like(p.gain, v)
        gx = gx + (gx_b if settings.wiring == "fold" else gx_b.sum(2, keepdim=True))
        gv = gv * _like(p.alpha, v)
    return gx, gu, gv


provider = TorchProvider()
