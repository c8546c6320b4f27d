"""Pictures of what neurons do: spike rasters, the activity of dendritic branches, learned polynomials.

Each function draws into a matplotlib ``Axes`` and returns it. matplotlib is imported when a picture is drawn. Colours
are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .kernels.soma_dendrite.reference import polynomial as soma_polynomial
from .neurons.base import DEFAULT_FIRING, Firing, NeuronModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "branch_activity", "polynomial", "raster", "record"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#F0E442")
_SOMA, _FAINT = "#000000", "#999999"


def _axes(ax: Axes | None, width: float = 6.0, height: float = 3.0) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "snn-dendrite-plugin[plot]"') from error
    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def raster(spikes: Tensor, ax: Axes | None = None, *, color: str = COLORS[0], title: str | None = None) -> Axes:
    """Spike raster: one row per neuron, one mark per spike.

    Args:
        spikes: ``[T, *]``, zero where there is no spike; everything after time is one long axis of neurons.
        ax: axes to draw into; new ones by default.
        color: of the marks.
        title: above the picture; None for none.

    Raises:
        ValueError: ``spikes`` has no time and neuron axes, or is empty.

    Example:
        >>> import torch
        >>> from snn_dendrite_plugin.plotting import raster
        >>> raster((torch.rand(20, 30) > 0.9).float()).get_xlabel()
        'time step'
    """
    if spikes.dim() < 2 or spikes.numel() == 0:
        raise ValueError(f"spikes has shape {tuple(spikes.shape)}; it must be [T, neurons, ...], at least one of each")
    grid = spikes.detach().cpu().flatten(1) != 0
    steps, neurons = grid.shape
    times = [torch.nonzero(column).flatten().tolist() for column in grid.T]
    ax = _axes(ax)
    thickness = min(3.0, max(1.0, 160 / steps))
    ax.eventplot(times, colors=color, lineoffsets=range(neurons), linelengths=0.9, linewidths=thickness)
    ax.set(xlim=(-0.5, steps - 0.5), ylim=(-0.5, neurons - 0.5), xlabel="time step", ylabel="neuron", title=title)
    _whole_numbers(ax)
    return ax


def record(node: nn.Module, x_seq: Tensor, firing: Firing | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Run a neuron step by step from its reset states and keep every state.

    Args:
        node: a :class:`~snn_dendrite_plugin.NeuronModel`, or a node of it in a host, whose own state is left alone.
        x_seq: the neuron's input ``[T, N, C, *]``.
        firing: how it fires; None: as the node does, or the default :class:`~snn_dendrite_plugin.Firing` for a model.

    Returns:
        spikes ``[T, N, C, *]``, and name -> ``[T, ...]`` for each state, e.g. ``v`` and ``v_dend [T, N, C, B, *]``.

    Raises:
        TypeError: ``node`` is neither.
        ValueError: ``x_seq`` is empty.

    Example:
        >>> import torch
        >>> from snn_dendrite_plugin.neurons.dendsn import DendSN
        >>> from snn_dendrite_plugin.plotting import record
        >>> spikes, states = record(DendSN(branches=4), torch.rand(10, 2, 3))
        >>> states["v_dend"].shape
        torch.Size([10, 2, 3, 4])
    """
    model = node if isinstance(node, NeuronModel) else getattr(node, "model", None)
    if not isinstance(model, NeuronModel):
        raise TypeError(f"node is a {type(node).__name__}; it must be a NeuronModel or a host's node of one")
    if x_seq.dim() < 2 or x_seq.shape[0] == 0:
        raise ValueError(f"x_seq has shape {tuple(x_seq.shape)}; it must be [T, N, ...] with at least one time step")
    if firing is None:
        own = getattr(node, "firing", None)
        firing = own() if callable(own) else DEFAULT_FIRING
    with torch.no_grad():
        states = model.init_states(x_seq[0], firing)
        spikes, trace = [], []
        for x in x_seq:
            s, states = model.advance(x, states, firing)
            spikes.append(s)
            trace.append(states)
    columns = (torch.stack(values) for values in zip(*trace, strict=True))
    return torch.stack(spikes), dict(zip(model.state_names(firing), columns, strict=True))


def branch_activity(
    node: nn.Module,
    x_seq: Tensor,
    ax: Axes | None = None,
    *,
    neuron: int = 0,
    sample: int | Sequence[int] = 0,
    firing: Firing | None = None,
    weighted: bool = False,
    title: str | None = None,
) -> Axes:
    """Potentials of one neuron's branches and of its soma over time, with its spikes.

    Args:
        node: a DendSN model, or a node of it in a host (the node, not the network around it).
        x_seq: the node's input ``[T, N, C, *]``.
        ax: axes to draw into; new ones by default.
        neuron: which neuron, an index into ``C`` and everything after it, flattened.
        sample: which sample of the batch; several are drawn one after the other, each from the reset states.
        firing: as in :func:`record`.
        weighted: draw what each branch gives to the soma, ``k_b f(v_b)``, instead of its potential ``v_b``.
        title: above the picture; None for none.

    Raises:
        TypeError: ``node`` is no neuron model or node of one.
        ValueError: it has no branches, or there is no such neuron or sample.

    Example:
        >>> import torch
        >>> from snn_dendrite_plugin.neurons.dendsn import DendSN
        >>> from snn_dendrite_plugin.plotting import branch_activity
        >>> branch_activity(DendSN(branches=2), torch.rand(10, 1, 3)).get_ylabel()
        'potential (in thresholds)'
    """
    model: Any = node if isinstance(node, NeuronModel) else getattr(node, "model", None)
    spikes, states = record(node, x_seq, firing)
    if "v_dend" not in states:
        raise ValueError(f"node is a {type(node).__name__}, which has no state v_dend; a neuron with branches does")
    samples = [sample] if isinstance(sample, int) else list(sample)
    soma, out = (t.flatten(2) for t in (states["v"], spikes))  # [T, N, neurons]
    branches = states["v_dend"].movedim(3, -1).flatten(2, -2)  # [T, N, neurons, B]
    for name, index, size in [("neuron", neuron, soma.shape[2]), *(("sample", i, soma.shape[1]) for i in samples)]:
        if not 0 <= index < size:
            raise ValueError(f"{name} is {index}; it must lie between 0 and {size - 1}")
    threshold = _threshold(node, firing, neuron, states["v"].shape[2:])
    labels = _branch_labels(model, branches.shape[-1])
    if weighted:
        branches = _contributions(model, branches, neuron, states["v"].shape[2:])
    ax = _axes(ax)
    steps = x_seq.shape[0]
    for i, index in enumerate(samples):
        time = (torch.arange(steps) + i * (steps + 1)).numpy()
        for b, label in enumerate(labels):
            y = (branches[:, index, neuron, b].float().cpu() / threshold).numpy()
            ax.plot(time, y, color=COLORS[b % len(COLORS)], linewidth=1.6, label=label if i == 0 else None)
        y = (soma[:, index, neuron].float().cpu() / threshold).numpy()
        ax.plot(time, y, color=_SOMA, linewidth=1.4, linestyle=(0, (4, 1.5)), label="soma" if i == 0 else None)
        fired = time[(out[:, index, neuron].cpu() != 0).numpy()]
        ax.plot(fired, [1.0] * len(fired), "v", color=_SOMA, markersize=5, label="spike" if i == 0 else None)
    ax.axhline(1.0, color=_FAINT, linewidth=0.8, linestyle=":", zorder=0)
    ylabel = "into the soma (in thresholds)" if weighted else "potential (in thresholds)"
    ax.set(xlabel="time step", ylabel=ylabel, title=title, xlim=(-0.5, len(samples) * (steps + 1) - 1.5))
    ax.legend(fontsize="small", frameon=False, ncols=2)
    _whole_numbers(ax)
    return ax


def polynomial(
    lnm: nn.Module,
    ax: Axes | None = None,
    *,
    channel: int | None = None,
    beta: float | None = None,
    span: tuple[float, float] = (-1.5, 1.0),
    color: str = COLORS[0],
    label: str | None = "learned",
) -> Axes:
    """The polynomial ``P(u)`` that an LNM neuron has learned, beside the line ``beta u`` of a LIF neuron.

    Call it again with the same axes to compare layers.

    Args:
        lnm: an LNM model (or any model with coefficients ``theta``), or a node of it in a host.
        ax: axes to draw into; new ones by default.
        channel: which row of a per-channel polynomial; None: all of them, faintly where there are several.
        beta: decay of the LIF line; None: 1 - 1/tau of a node that has a ``tau``, else there is no such line.
        span: range of potentials to draw, in units of the threshold (assumed 1 for a bare model).
        color, label: of the curve.

    Raises:
        TypeError: ``lnm`` has no coefficients ``theta``.
        ValueError: there is no such channel, or ``span`` is empty.

    Example:
        >>> from snn_dendrite_plugin.neurons.lnm import LNM
        >>> from snn_dendrite_plugin.plotting import polynomial
        >>> polynomial(LNM(degree=3)).get_xlabel()
        'potential before the step, u (in thresholds)'
    """
    model: Any = lnm if isinstance(lnm, NeuronModel) else getattr(lnm, "model", None)
    theta = getattr(model, "coefficients", getattr(model, "theta", None))
    if not isinstance(theta, Tensor):
        raise TypeError(f"lnm is a {type(lnm).__name__}, which has no coefficients theta; an LNM neuron does")
    rows = theta.detach().double().cpu()
    if channel is not None and not 0 <= channel < len(rows):
        raise ValueError(f"channel is {channel}; it must lie between 0 and {len(rows) - 1}")
    low, high = span
    if not low < high:
        raise ValueError(f"span is {span!r}; it must be (low, high) with low < high")
    rows = rows if channel is None else rows[channel : channel + 1]
    scale = _threshold(lnm, None, channel or 0, (len(rows),))
    u = torch.linspace(low, high, 201, dtype=torch.float64)
    ax = _axes(ax, 4.0, 3.5)
    drawn = {line.get_label() for line in ax.lines}
    if not drawn:
        ax.axline((0, 0), slope=1, color=_FAINT, linewidth=0.8, linestyle=":", label="no change, u")
    tau = getattr(lnm, "tau", None)
    if beta is None and tau is not None and not isinstance(tau, Tensor):  # else the channels differ
        beta = 1 - 1 / float(tau)
    if beta is not None and f"LIF, {beta:.3g} u" not in drawn:
        ax.plot(u.numpy(), (beta * u).numpy(), color=color, linewidth=1.2, linestyle="--", label=f"LIF, {beta:.3g} u")
    limits = getattr(model, "clamp_low", -math.inf), getattr(model, "clamp_high", math.inf)
    for i, row in enumerate(rows):
        value = soma_polynomial((u * scale).unsqueeze(1), row.unsqueeze(0), *limits).squeeze(1)  # [N, C], C is 1
        faint = 1.0 if len(rows) == 1 else max(0.15, 1 / math.sqrt(len(rows)))
        name = label if i == 0 else None
        ax.plot(u.numpy(), (value / scale).numpy(), color=color, linewidth=1.8, alpha=faint, label=name)
    ax.set(xlabel="potential before the step, u (in thresholds)", ylabel="after it, P(u) (in thresholds)", xlim=span)
    ax.legend(fontsize="small", frameon=False)
    return ax


# -- what the pictures need to know of a neuron ------------------------------------------------------------------------


def _whole_numbers(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _threshold(node: nn.Module, firing: Firing | None, neuron: int, shape: Sequence[int]) -> float:
    """The threshold of one neuron: potentials are drawn in units of it."""
    if firing is None:
        own = getattr(node, "firing", None)
        firing = own() if callable(own) else DEFAULT_FIRING
    threshold = firing.threshold
    if not isinstance(threshold, Tensor):
        return float(threshold)
    values = threshold.detach().flatten()
    per_channel = max(1, math.prod(shape[1:]))  # neurons per channel
    return float(values[0] if len(values) == 1 else values[neuron // per_channel])


def _branch_labels(model: Any, count: int) -> list[str]:
    """``branch 1 (τ = 2)``: the time constant in steps where all channels share it."""
    value = getattr(model, "value_of", None)
    alpha = value("alpha", torch.float64) if value is not None else None
    if alpha is None or alpha.shape[0] != 1:
        return [f"branch {b + 1}" for b in range(count)]
    taus = [1 / (1 - a) if a < 1 else math.inf for a in alpha[0].tolist()]
    return [f"branch {b + 1} (τ = {tau:.3g})" for b, tau in enumerate(taus)]


def _contributions(model: Any, branches: Tensor, neuron: int, shape: Sequence[int]) -> Tensor:
    """``k_b f(v_b)`` of ``branches [T, N, neurons, B]``, as the soma receives it."""
    from .kernels.activations import function_of

    strength = model.core_inputs(branches.dtype)["strength"].detach()  # [C or 1, B]
    row = strength[0 if strength.shape[0] == 1 else neuron // max(1, math.prod(shape[1:]))]
    return function_of(model.activation)(branches) * row
