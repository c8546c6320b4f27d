"""What a provider of the soma-dendrite pair is given and what it must return.

Shapes. A sequence is ``x [T, N, Cx, *]``; ``*`` (L values) may be empty. ``C`` is the number of neurons per position:
in ``shared`` wiring ``Cx = C`` and all branches see the one input, in ``fold`` wiring ``Cx = C * B`` and neuron ``c``
owns the channels ``c * B .. c * B + B - 1``. Soma states are ``[N, C, *]``, dendritic states ``[N, C, B, *]``.
Parameters are ``[C, B]`` or ``[1, B]`` (per layer), soma parameters ``[C, K]`` or ``[1, K]``. Everything but ``x`` and
the spikes is in the *state dtype*: float64 for float64 input, else float32.

One step, for every neuron (all parameters already contain the branch input scale, the strength normalisation and the
input scale of the soma)::

    v_b <- alpha_b v_b + (gain_b x_b + offset_b)               b = 1..B
    y    = direct * sum_b x_b + sum_b strength_b f(v_b)        (shared: direct * x;  B = 0: y = direct * x)
    h    = P(u) + y,   P(u) = theta_0 + theta_1 u                                                    K <= 1
                       P(u) = theta_0 + tail u + (theta_1 - tail) c + theta_2 c^2 + ... + theta_K c^K    K >= 2
                       c = clamp(u, clamp_low, clamp_high),   tail = clamp(theta_1, -1, 1)
    s    = Theta(h - threshold)                                 strict: ``>``, else ``>=``
    u   <- reset of h

Within the limits P is the polynomial of theta; beyond them it goes on as a line no steeper than 1, so that a potential
grows by a bounded amount per step whatever theta is. Where theta_2 ... theta_K are 0 and abs(theta_1) <= 1 it is
``theta_0 + theta_1 u`` to the last bit.

Timing of the reset:

- ``at_once``: ``u = h - s threshold`` (soft), ``(1 - s) h + s v_reset`` (hard), ``h`` (none). ``detach`` cuts the
  gradient through ``s`` here.
- ``next_step`` (snnTorch's default): ``u = h`` is stored; the next step computes ``r = Theta(u - threshold)`` without
  gradient and integrates ``P(u) + y - r threshold`` (soft) or ``P((1 - r) u + r v_reset) + y`` (hard).
- ``at_once_retested`` (snnTorch's ``reset_delay=False``): as ``next_step``, and then ``u = h - (s - r) threshold``
  (soft) or ``h - (s - r) (h - v_reset)`` (hard), with gradient through ``s`` unless ``detach``.

``fire_once``: ``s`` is multiplied by ``1 - fired`` and ``fired`` becomes 1 with the first spike (no gradient through
it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from ..activations import ACTIVATIONS
from ..surrogates import KINDS

__all__ = [
    "OPTIONAL",
    "PARAMETERS",
    "PER_BRANCH",
    "RESETS",
    "STATES",
    "TIMINGS",
    "Gradients",
    "Inputs",
    "OutputGradients",
    "Outputs",
    "Settings",
    "columns",
    "dimensions",
    "one_number",
]

# as in csrc/soma_dendrite/step.h
RESETS = {"none": 0, "hard": 1, "soft": 2}
TIMINGS = {"at_once": 0, "next_step": 1, "at_once_retested": 2}


@dataclass(frozen=True)
class Settings:
    """The static part of a call: everything that is not a tensor."""

    branches: int = 0
    wiring: str = "shared"
    activation: str = "leaky_relu"
    reset: str = "hard"
    timing: str = "at_once"
    v_reset: float = 0.0
    strict: bool = False
    detach: bool = False
    fire_once: bool = False
    surrogate: str = "atan"
    surrogate_a: float = 2.0
    surrogate_b: float = 0.0
    clamp_low: float = -math.inf
    clamp_high: float = math.inf
    record: bool = False  # also return u after every step, [T, N, C, *]

    def __post_init__(self) -> None:
        for name, known in (
            ("wiring", ("shared", "fold")),
            ("activation", tuple(ACTIVATIONS)),
            ("reset", tuple(RESETS)),
            ("timing", tuple(TIMINGS)),
            ("surrogate", tuple(KINDS)),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        if self.branches < 0 or (self.branches == 0 and self.wiring == "fold"):
            raise ValueError(f"branches is {self.branches}; `fold` wiring needs at least 1, `shared` at least 0")


class Inputs(NamedTuple):
    """The tensors of a call. ``None`` where the settings have no use for one (no branches, gain 1, offset 0).

    A state may be one number expanded to its shape (all strides 0), as after a reset: see :func:`one_number`.
    """

    x: Tensor  # [T, N, Cx, *]
    u: Tensor  # [N, C, *]
    v: Tensor | None  # [N, C, B, *]; None when branches == 0
    fired: Tensor | None  # [N, C, *] 0/1; None unless fire_once
    alpha: Tensor | None  # [C or 1, B]; None when branches == 0, likewise the next three
    gain: Tensor | None  # [C or 1, B]; None means 1
    offset: Tensor | None  # [C or 1, B]; None means 0
    strength: Tensor | None  # [C or 1, B]
    direct: Tensor  # [C or 1]
    theta: Tensor  # [C or 1, K + 1]
    threshold: Tensor  # [C or 1]

    @property
    def states(self) -> tuple[Tensor | None, ...]:
        """The tensors of :data:`STATES`."""
        return self[1:4]

    @property
    def parameters(self) -> tuple[Tensor | None, ...]:
        """The tensors of :data:`PARAMETERS`."""
        return self[4:]


STATES = Inputs._fields[1:4]
PARAMETERS = Inputs._fields[4:]
PER_BRANCH = ("alpha", "gain", "offset", "strength")
OPTIONAL = ("gain", "offset")


def columns(parameter: str, branches: int, coefficients: int) -> tuple[int, ...]:
    """Sizes of a parameter beside its channels, ``[C or 1, *columns]``; ``coefficients`` are those of theta, K + 1."""
    if parameter in PER_BRANCH:
        return (branches,)
    return (coefficients,) if parameter == "theta" else ()


class Outputs(NamedTuple):
    """Result of the forward pass."""

    spikes: Tensor  # [T, N, C, *], x's dtype
    u: Tensor  # after the last step, as the next two
    v: Tensor | None
    fired: Tensor | None
    u_sequence: Tensor | None  # [T, N, C, *] in the state dtype when settings.record


class OutputGradients(NamedTuple):
    """What comes in to the backward pass: the gradients of the outputs, None where one is zero. ``fired`` has none."""

    spikes: Tensor
    u: Tensor | None = None
    v: Tensor | None = None
    u_sequence: Tensor | None = None


class Gradients(NamedTuple):
    """Result of the backward pass; each has its input's shape, ``x`` its dtype too. None where the input was None, and
    where a gradient is not wanted if the provider leaves it out."""

    x: Tensor
    u: Tensor | None
    v: Tensor | None
    alpha: Tensor | None
    gain: Tensor | None
    offset: Tensor | None
    strength: Tensor | None
    direct: Tensor | None
    theta: Tensor | None
    threshold: Tensor | None


def one_number(*states: Tensor | None) -> bool:
    """Whether every state that is there is one number expanded to its shape: a provider need not read it all."""
    return not any(any(state.stride()) for state in states if state is not None)


def dimensions(x: Tensor, settings: Settings) -> tuple[int, int, int, int, int]:
    """``(T, N, C, B, L)`` of a sequence ``x [T, N, Cx, *]``; B is 1 where branches share the input.

    Raises:
        ValueError: fewer than three dimensions, an empty sequence, or channels not divisible by the branches in
            ``fold``.
    """
    if x.dim() < 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; a sequence is [T, N, C, *]")
    if x.shape[0] == 0:
        raise ValueError("x is an empty sequence: it has 0 time steps; at least 1 is needed")
    fan = settings.branches if settings.wiring == "fold" else 1
    if x.shape[2] % fan:
        raise ValueError(
            f"x has {x.shape[2]} channels, which `branches`={fan} does not divide; "
            "`fold` wiring needs C * branches channels"
        )
    return x.shape[0], x.shape[1], x.shape[2] // fan, fan, math.prod(x.shape[3:])
