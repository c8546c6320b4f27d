"""DendSN: dendritic branches in front of a spiking soma (Huang et al., arXiv 2412.06355)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..kernels.activations import ACTIVATIONS, Function, name_of
from .core import SomaDendriteModel, Values, decay_column, soma_row
from .polynomial import LIMITS, THETA_SCALE

__all__ = ["DendSN"]


def spread_decays(branches: int, shortest: float = 2.0, longest: float = 16.0) -> list[float]:
    """Decays ``1 - 1/tau``, the branches' time constants log-spaced from ``shortest`` to ``longest`` steps."""
    if branches == 1:
        return [1 - 1 / shortest]
    ratio = longest / shortest
    return [1 - 1 / (shortest * ratio ** (b / (branches - 1))) for b in range(branches)]


def spread_offsets(branches: int, width: float = 0.5) -> list[float]:
    """Offsets of the branches, evenly from ``-width`` to ``width`` (0 for one branch)."""
    return [0.0] if branches == 1 else [width * (2 * b / (branches - 1) - 1) for b in range(branches)]


class DendSN(SomaDendriteModel):
    r"""Dendritic spiking neuron: B leaky branches, an activation, a weighted sum, a soma that fires.

    .. math::
        v_b[t] &= \alpha_b v_b[t-1] + \gamma_b (g_b x_b[t] + c_b) \\
        y[t]   &= \delta \sum_b x_b[t] + \sum_b k_b f(v_b[t]) \\
        h[t]   &= P(u[t-1]) + \rho\, y[t]

    then fire and reset as :class:`~snn_dendrite_plugin.neurons.base.Firing` says. Branches have no reset. The published
    model is ``wiring="fold", strength="softmax", alpha=0.5, direct=0`` (and a soma with beta = 0.5, input not scaled).

    Shapes: input ``[T, N, C, *]`` in ``shared`` wiring (every branch sees the neuron's one input), ``[T, N, C * B, *]``
    in ``fold`` (neuron ``c`` owns channels ``cB .. cB + B - 1``); spikes ``[T, N, C, *]``; states ``v [N, C, *]`` and
    ``v_dend [N, C, B, *]``. Time is in steps, potentials in units of the threshold's.

    Args:
        branches: B, at least 1.
        wiring: ``shared`` or ``fold``.
        activation: f, a name of ``kernels.activations.ACTIVATIONS``, or any differentiable function of the branches
            ``[N, C, B, *]`` that keeps their shape, e.g. an ``nn.Module``, whose parameters learn with the neuron; a
            function runs on the reference path, slower. With normalised strengths ``mexican_hat`` makes a silent neuron
            fire at every step (f(0) = 1.84): published behaviour.
        alpha: decay of the branches per step, one number, B, or ``[C, B]``; None: 0.5 in ``fold`` (published), time
            constants log-spaced from 2 to 16 steps in ``shared``, so that branches start apart and can become
            different.
        learn_alpha: learn alpha, kept in (0, 1).
        strength: ``raw`` uses k as it is, ``softmax`` normalises it over the branches.
        strength_init: start of k before the softmax; None: 0 for raw ``shared`` (the point neuron, exactly, from which
            the dendrites grow), 1/B for raw ``fold``, 1 for ``softmax``.
        learn_strength: learn k.
        direct: delta, input that reaches the soma directly; None: 1 in ``shared``, 0 in ``fold``.
        gain, offset: g and c; None: 1 and evenly from -0.5 to 0.5 in ``shared``, absent in ``fold``.
        learn_gain, learn_offset: learn them; None: yes in ``shared``.
        scale_branch_input: gamma = 1 - alpha instead of 1; None: yes in ``shared``.
        degree: K, degree of the soma's polynomial; 1 is the leaky soma, more makes theta learned as in LNM.
        per_channel, channels: one parameter row per channel; the count is taken from the first input unless given.
        beta: decay of the soma per step (theta_1), one number or ``[C]``.
        learn_beta: learn it, kept in (0, 1); with a higher degree theta is learned in any case, and beta in it.
        decay_input: rho = 1 - beta instead of 1; None: yes in ``shared``, no in ``fold``.
        rest: potential the soma leaks to.
        clamp, theta_scale: limits of P's nonlinear terms and size of their coefficients (degree > 1), as in LNM.

    Raises:
        ValueError: an argument out of its range; the message names it.

    Example::

        >>> import torch
        >>> model = DendSN(branches=2, wiring="fold", strength="softmax", alpha=0.5, direct=0)
        >>> spikes, (v, v_dend) = model.run(torch.rand(8, 4, 6))
        >>> spikes.shape, v.shape, v_dend.shape
        (torch.Size([8, 4, 3]), torch.Size([4, 3]), torch.Size([4, 3, 2]))
    """

    states = {"v": 0.0, "v_dend": 0.0}

    def __init__(
        self,
        branches: int = 4,
        wiring: str = "shared",
        activation: str | Function = "leaky_relu",
        alpha: Values | None = None,
        learn_alpha: bool = False,
        strength: str = "raw",
        strength_init: Values | None = None,
        learn_strength: bool = True,
        direct: Values | None = None,
        gain: Values | None = None,
        offset: Values | None = None,
        learn_gain: bool | None = None,
        learn_offset: bool | None = None,
        scale_branch_input: bool | None = None,
        degree: int = 1,
        per_channel: bool = False,
        channels: int | None = None,
        beta: Values = 0.5,
        learn_beta: bool = False,
        decay_input: bool | None = None,
        rest: float = 0.0,
        clamp: tuple[float, float] | None = LIMITS,
        theta_scale: float = THETA_SCALE,
    ) -> None:
        super().__init__(per_channel, channels)
        if isinstance(branches, bool) or not isinstance(branches, int) or branches < 1:
            raise ValueError(f"branches is {branches!r}; a dendrite needs an integer of at least 1")
        for name, value, known in (
            ("wiring", wiring, ("shared", "fold")),
            ("activation", activation, tuple(ACTIVATIONS)),
            ("strength", strength, ("raw", "softmax")),
        ):
            own = name == "activation"
            if value not in known and not (own and callable(value)):
                also = " or a function" if own else ""
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}{also}")
        shared = wiring == "shared"
        self.branches, self.wiring, self.activation, self.strength_mode = branches, wiring, activation, strength
        self.decay_input = shared if decay_input is None else decay_input
        self.scale_branch_input = shared if scale_branch_input is None else scale_branch_input
        if alpha is None:
            alpha = spread_decays(branches) if shared else 0.5
        if strength_init is None:
            strength_init = 1.0 if strength == "softmax" else 0.0 if shared else 1.0 / branches
        if shared or gain is not None:
            self._declare("gain", 1.0 if gain is None else gain, branches, shared if learn_gain is None else learn_gain)
        if shared or offset is not None:
            start = spread_offsets(branches) if offset is None else offset
            self._declare("offset", start, branches, shared if learn_offset is None else learn_offset)
        self._declare("alpha", alpha, branches, learn_alpha, unit=True)
        self._declare("strength", strength_init, branches, learn_strength)
        self._declare("direct", float(shared) if direct is None else direct, 1, learn=False)
        row = soma_row(beta, rest, degree)
        self.degree, self.rest, self.learn_beta = degree, rest, learn_beta and degree == 1
        if self.learn_beta:
            self._declare("beta", decay_column(beta), 1, learn=True, unit=True)
        else:
            if degree == 1:  # fixed, and a line within any limits
                clamp, theta_scale = None, 1.0
            self.declare_theta(row, None, degree > 1, theta_scale, clamp)
            self._scale_input(beta)

    def state_shapes(self, shape: torch.Size | tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        if len(shape) < 2:
            if self.wiring == "fold":
                raise ValueError(
                    f"input of one step has shape {tuple(shape)}; `fold` wiring needs [N, C * branches, *]"
                )
            return tuple(shape), (*shape, self.branches)
        channels = self._output_channels(shape[1])
        return (shape[0], channels, *shape[2:]), (shape[0], channels, self.branches, *shape[2:])

    def _output_channels(self, channels: int) -> int:
        if self.wiring == "shared":
            return channels
        if channels % self.branches:
            raise ValueError(
                f"input has {channels} channels, which branches={self.branches} does not divide; "
                f"`fold` wiring needs C * branches channels"
            )
        return channels // self.branches

    def core_settings(self) -> dict[str, Any]:
        return {
            "branches": self.branches,
            "wiring": self.wiring,
            **({"activation": self.activation} if isinstance(self.activation, str) else {}),
            "clamp_low": self.clamp_low,
            "clamp_high": self.clamp_high,
        }

    def core_inputs(self, dtype: torch.dtype) -> dict[str, Any]:
        alpha: Any = self.value_of("alpha", dtype)
        gain, offset = self.value_of("gain", dtype), self.value_of("offset", dtype)
        if self.scale_branch_input:
            fixed = "alpha" in self._buffers
            share = self._derived("1 - alpha", "alpha", dtype, lambda alpha: 1 - alpha) if fixed else 1 - alpha
            gain = share if gain is None else share * gain
            offset = None if offset is None else share * offset
        strength: Any = self.value_of("strength", dtype)
        if self.strength_mode == "softmax":
            strength = torch.softmax(strength, dim=1)
        direct = self._derived("direct", "direct", dtype, lambda direct: direct[:, 0])
        if self.learn_beta:
            beta: Any = self.value_of("beta", dtype)
            theta = torch.cat(((1 - beta) * self.rest, beta), dim=1)
            scale: float | Tensor = 1 - beta if self.decay_input else 1.0
        else:
            theta, scale = self.polynomial_coefficients(dtype), self.input_scale
            scale = scale.to(dtype) if isinstance(scale, Tensor) else scale
        if isinstance(scale, Tensor):
            strength, direct = strength * scale, direct * scale[:, 0]
        elif scale != 1.0:
            strength = strength * scale
            direct = self._derived(f"direct * {scale}", "direct", dtype, lambda direct: direct[:, 0] * scale)
        return {
            "alpha": alpha, "gain": gain, "offset": offset, "strength": strength, "direct": direct, "theta": theta,
        }  # fmt: skip

    def extra_repr(self) -> str:
        parts = [f"branches={self.branches}", f"wiring={self.wiring}", f"activation={name_of(self.activation)}"]
        parts.append(f"strength={self.strength_mode}")
        parts += [f"degree={self.degree}", *self.limits_repr()] if self.degree > 1 else []
        parts += ["per_channel"] * self.per_channel
        return ", ".join(parts)

    # -- what conversion asks --------------------------------------------------------------------------------------

    @classmethod
    def preserving_start(cls) -> dict[str, Any]:
        return {"strength": "raw", "strength_init": 0.0, "direct": 1.0}

    @classmethod
    def published_start(cls) -> dict[str, Any]:
        # Its branches have no offsets, and different inputs. In `shared` wiring ours stay: without them branches that
        # start alike, with one input, would have one gradient and stay alike.
        return {"strength": "softmax", "alpha": 0.5, "direct": 0.0, "scale_branch_input": False}

    @classmethod
    def filtered(cls, decay: float) -> dict[str, Any]:
        # The current is one linear branch, which alone reaches the soma.
        branch = {"branches": 1, "activation": "identity", "alpha": decay, "gain": 1.0, "offset": 0.0}
        return {**branch, "scale_branch_input": False, "strength": "raw", "strength_init": 1.0, "direct": 0.0}

    @classmethod
    def wired(cls, branches: int) -> dict[str, Any]:
        # In `fold` wiring nothing else sets branches apart that start with equal shares of one layer's weights.
        return {"wiring": "fold", "scale_branch_input": True, "alpha": spread_decays(branches)}
