"""The numbers of a neuron that NIR can hold, read off a model and made into one; and what it cannot hold."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ...neurons.base import Firing, NeuronModel
from ...neurons.dendsn import DendSN
from ...neurons.lnm import LNM
from ...neurons.polynomial import THETA_SCALE

__all__ = ["CLOSE", "Parameters", "describe", "options", "refuse", "why_not"]

CLOSE = {"rtol": 1e-9, "atol": 1e-12}  # what comes back from a time constant differs by roundings


# -- what can be expressed -------------------------------------------------------------------------------------------


def why_not(model: NeuronModel) -> str | None:
    """The reason why NIR cannot hold the equations of this model, or None."""
    if type(model) not in (DendSN, LNM):
        return f"NIR has no nodes for the equations of {type(model).__name__}"
    settings = model.core_settings()
    activation = settings.get("activation", "identity")
    if settings["branches"] and activation != "identity":
        return f"its branches are nonlinear (activation={activation!r}) and NIR's are linear (activation='identity')"
    if model.degree > 1:
        return f"its soma is a polynomial of degree {model.degree}, and NIR's is leaky (degree=1)"
    return None


def _why_not_fire(firing: Firing) -> str | None:
    if firing.fire_once:
        return "it fires once, and NIR's neurons fire again"
    if firing.reset != "hard":
        kind = {"soft": "a soft reset", "none": "no reset"}[firing.reset]
        return f"it has {kind}, and NIR knows the hard one only"
    if firing.timing == "next_step":
        return "its reset is delayed by a step, and NIR's is not"
    return None


def _why_not_values(model: NeuronModel, firing: Firing) -> str | None:
    if any(is_lazy(parameter) for parameter in model.parameters()):  # made at the first input, from values in range
        return None
    try:
        describe(model, firing)
    except ValueError as error:
        return str(error)
    return None


def refuse(nodes: dict[str, tuple[NeuronModel, Firing, str | None]]) -> None:
    """Raise ValueError for the first of ``nodes``, name -> model, firing, the host's reason, that NIR cannot hold."""
    for name, (model, firing, reason) in nodes.items():
        reason = why_not(model) or reason or _why_not_fire(firing) or _why_not_values(model, firing)
        if reason is not None:
            raise ValueError(
                f"layer {name or '(root)'!r} ({type(model).__name__}) cannot be exported to NIR: {reason}. "
                f"torch.export.export(net, (x,)) writes the network as it is"
            )


# -- the neuron's numbers --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Parameters:
    """A linear neuron: rows are one for the layer or one per channel, float64.

    Attributes:
        model: ``DendSN`` or ``LNM``.
        wiring: ``shared`` or ``fold``.
        alpha, gain, offset, strength: ``[C or 1, B]`` as in :mod:`..kernels.soma_dendrite.contract`, None without
            branches; gain and offset contain the branches' input scale, strength and direct the soma's.
        direct, threshold: ``[C or 1]``. theta: ``[C or 1, 2]``.
        v_reset: the hard reset's value.
        scaled_branches, scaled_soma: whether the leak scales the input (``scale_branch_input``, ``decay_input``).
    """

    model: str
    wiring: str
    alpha: np.ndarray | None
    gain: np.ndarray | None
    offset: np.ndarray | None
    strength: np.ndarray | None
    direct: np.ndarray
    theta: np.ndarray
    threshold: np.ndarray
    v_reset: float
    scaled_branches: bool = False
    scaled_soma: bool = False

    @property
    def branches(self) -> int:
        return 0 if self.alpha is None else self.alpha.shape[1]


@torch.no_grad()
def describe(model: NeuronModel, firing: Firing) -> Parameters:
    """The numbers of a neuron that :func:`why_not` has nothing against.

    Raises:
        ValueError: a decay outside of 0 to 1, or a branch without a leak.
    """
    core = {key: None if t is None else t.detach().cpu().numpy() for key, t in model.core_inputs(torch.float64).items()}
    threshold = torch.as_tensor(firing.threshold, dtype=torch.float64).detach().cpu().reshape(-1).numpy()
    settings = model.core_settings()
    theta = core["theta"]
    decay = theta[:, 1]
    if not ((decay >= 0) & (decay <= 1)).all() or (theta[decay == 1, 0] != 0).any():
        raise ValueError(f"theta_1 is {decay.tolist()}; NIR's leaky neurons need a decay of 0 to 1")
    if len({bool(value == 1) for value in decay}) > 1:
        raise ValueError("some channels have no leak and others have one, for which NIR has two kinds of neuron")
    if core["alpha"] is not None and not ((core["alpha"] >= 0) & (core["alpha"] < 1)).all():
        raise ValueError(f"alpha is {core['alpha'].tolist()}; NIR's leaky integrators need a decay of 0 to below 1")
    return Parameters(
        model=type(model).__name__,
        wiring=str(settings.get("wiring", "shared")),
        **core,
        threshold=threshold,
        v_reset=float(firing.v_reset),
        scaled_branches=bool(getattr(model, "scale_branch_input", False)),
        scaled_soma=bool(model.decay_input) and bool((decay < 1).all()),
    )


def options(p: Parameters, decay_input: bool) -> dict[str, Any]:
    """Arguments of the model from the numbers of a neuron; ``decay_input``: whether the leak is to scale its input.

    Raises:
        ValueError: the soma's rest differs between channels, or an LNM's input has a scale that it cannot have.
    """
    decay = p.theta[:, 1]
    leak = 1 - decay
    rho = leak if decay_input else np.ones_like(leak)
    if p.model == "LNM":
        found: dict[str, Any] = {"degree": 1, "theta": _tensor(p.theta / [THETA_SCALE, 1.0])}
        if not np.allclose(p.direct, 1.0, **CLOSE):
            if len(p.direct) > 1 or not 0 <= p.direct[0] <= 1:
                raise ValueError(f"the input's scale is {p.direct.tolist()}; an LNM has one of 0 to 1 for the layer")
            found |= {"decay_input": True, "beta": float(1 - p.direct[0])}
        return found | _rows_of(p.theta)
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = np.where(leak > 0, p.theta[:, 0] / leak, 0.0)
    if not np.allclose(rest, rest[0], **CLOSE):
        raise ValueError(f"the soma rests at {rest.tolist()}; a neuron of ours has one rest for the layer")
    inside = 1 - p.alpha if p.scaled_branches else np.ones_like(p.alpha)
    found = {
        "branches": p.branches,
        "wiring": p.wiring,
        "activation": "identity",
        "alpha": _tensor(p.alpha),
        "scale_branch_input": p.scaled_branches,
        "strength_init": _tensor(p.strength / rho[:, None]),
        "direct": _tensor((p.direct / rho)[:, None]),
        "beta": float(decay[0]) if len(decay) == 1 else torch.from_numpy(decay.copy()),
        "rest": float(rest[0]),
        "decay_input": decay_input,
    }
    for name, table in (("gain", p.gain), ("offset", p.offset)):
        if table is not None and not (p.wiring == "fold" and name == "gain" and np.allclose(table, inside, **CLOSE)):
            found[name] = _tensor(table / inside)
    return found | _rows_of(*(t for t in (p.strength, p.gain, p.offset) if t is not None))


def _tensor(table: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(table[0] if len(table) == 1 else table, dtype=np.float64))


def _rows_of(*tables: np.ndarray) -> dict[str, Any]:
    """``per_channel`` where a table that may be learned has one row per channel."""
    rows = max(len(table) for table in tables)
    return {"per_channel": True, "channels": rows} if rows > 1 else {}
