"""Windows, activity and perturbations of a whole time-coded network."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .pooling import TTFSRelay
from .synapses import Synapse
from .times import Emitter, SpikeTimes, TTFSEncode, TTFSFire

__all__ = ["ActivityPenalty", "LayerActivity", "activity", "calibrate", "perturb", "saturation"]

_SAMPLE = 1 << 16  # values kept per layer where windows come from a quantile


def batches(data: Any) -> Iterator[Tensor]:
    """Inputs of a loader: tensors, or the first of each ``(input, ...)``; a tensor is cut in batches of 256."""
    if isinstance(data, Tensor):
        yield from data.split(256)
        return
    if not isinstance(data, Iterable):
        raise TypeError(f"calibration is {type(data).__name__}; it must be a tensor or a loader of batches")
    empty = True
    for item in data:
        x = item[0] if isinstance(item, (tuple, list)) else item
        if not isinstance(x, Tensor):
            raise TypeError(f"calibration yields {type(x).__name__}; its batches must be tensors or (tensor, ...)")
        empty = False
        yield x
    if empty:
        raise ValueError("calibration is empty; it must hold at least one batch (a generator can be read only once)")


def emitters(model: nn.Module) -> list[tuple[str, Emitter]]:
    """The layers of a network that emit spikes, encoders and relays included, in order."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Emitter)]
    if not found:
        raise ValueError(f"model {type(model).__name__} has no time-coded layer")
    return found


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the training flags come back afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def calibrate(model: nn.Module, data: Any, quantile: float = 1.0, margin: float = 0.5) -> None:
    """Set every window to ``(1 + margin)`` times the largest activation on ``data``, in place.

    Args:
        model: a time-coded network.
        data: inputs, or a loader of ``(input, ...)`` batches; training data, never the data that reports a figure.
        quantile: take this quantile of the positive activations instead of the largest: shorter windows, some
            saturation. It is estimated from at most 65,536 values per layer.
        margin: zeta of the paper's code, room for inputs not seen here; may be negative for windows that are too short.

    Raises:
        ValueError: quantile not in (0, 1], margin not above -1, no time-coded layer, no data, or activations with NaN.

    Example::

        >>> import torch
        >>> from snn_dendrite_plugin.layers import TTFSEncode, TTFSLinear
        >>> net = torch.nn.Sequential(TTFSEncode(), TTFSLinear(4, 8), TTFSLinear(8, 2, fire=False))
        >>> calibrate(net, torch.rand(64, 4), margin=0.0)
        >>> net(torch.rand(64, 4)).shape
        torch.Size([64, 2])
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile is {quantile!r}; it must lie in (0, 1]")
    if not (math.isfinite(margin) and margin > -1):
        raise ValueError(f"margin is {margin!r}; it must be a finite number above -1: windows are (1 + margin) X")
    fires = [(n, m) for n, m in emitters(model) if isinstance(m, TTFSFire) and not isinstance(m, TTFSRelay)]
    kept: dict[str, list[Tensor]] = {name: [] for name, _ in fires}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: tuple[Tensor]) -> None:
            if not bool(arguments[0].isfinite().all()):
                raise ValueError(f"layer {name!r} has NaN or infinite potentials on the calibration data")
            if quantile < 1:
                positive = arguments[0][arguments[0] > 0]
                kept[name].append(positive[:: max(1, positive.numel() // 4096)].double())

        return hook

    before = {name: fire.window.clone() for name, fire in fires}
    handles = [fire.register_forward_pre_hook(keep(name)) for name, fire in fires]
    try:
        for _, fire in fires:
            fire.observing = True
            fire.window.fill_(torch.finfo(torch.float64).tiny)
        with evaluating(model):
            for x in batches(data):
                model(x)
    except BaseException:
        for name, fire in fires:
            fire.window.copy_(before[name])
        raise
    finally:
        for handle in handles:
            handle.remove()
        for _, fire in fires:
            fire.observing = False
    for name, fire in fires:
        largest = fire.window.clone()
        if quantile < 1 and any(value.numel() for value in kept[name]):
            values = torch.cat(kept[name])
            values = values[:: max(1, math.ceil(values.numel() / _SAMPLE))]
            largest = torch.quantile(values, quantile)
        silent = largest <= torch.finfo(torch.float64).tiny  # a layer that never fired keeps its window
        fire.window.copy_(torch.where(silent, before[name], largest * (1 + margin)))
        fire.adaptive = False


@dataclasses.dataclass(frozen=True)
class LayerActivity:
    """What one emitting layer did on a data set.

    Attributes:
        name: the layer.
        neurons: number of neurons.
        spikes_per_neuron: mean over neurons and inputs; at most 1.
        never: share of the neurons that fired for no input.
        saturated: share of the neurons and inputs whose value was outside the window, clipped to it.
        window: duration R.
    """

    name: str
    neurons: int
    spikes_per_neuron: float
    never: float
    saturated: float
    window: float


class Recorder:
    """Counts the spikes of the emitting layers while it is attached."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = emitters(model)
        self.spikes = {name: 0 for name, _ in self.layers}
        self.inputs = dict(self.spikes)
        self.outside = dict(self.spikes)
        self.ever: dict[str, Tensor] = {}
        self.window: dict[str, float] = {}

    def __enter__(self) -> Recorder:
        self.before = {name: (int(m.saturated), int(m.seen)) for name, m in self.layers}
        self.handles = [m.register_forward_hook(self._hook(name)) for name, m in self.layers]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()
        self.outside = {name: int(m.saturated) - self.before[name][0] for name, m in self.layers}

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, out: SpikeTimes) -> None:
            fired = out.times < out.window
            self.spikes[name] += int(fired.sum())
            self.inputs[name] += fired.shape[0]
            ever = fired.any(0)
            self.ever[name] = ever if name not in self.ever else self.ever[name] | ever
            self.window[name] = float(out.window)

        return hook

    def rows(self) -> list[LayerActivity]:
        found = []
        for name, _ in self.layers:
            if name not in self.ever:
                continue
            neurons = self.ever[name].numel()
            total = max(1, neurons * self.inputs[name])
            never = 1 - float(self.ever[name].double().mean())
            share = (self.spikes[name] / total, never, self.outside[name] / total)
            found.append(LayerActivity(name, neurons, *share, self.window[name]))
        return found


def activity(model: nn.Module, data: Any) -> list[LayerActivity]:
    """Spikes, silent neurons and saturation of every emitting layer on ``data``, the encoder first.

    Example::

        >>> import torch
        >>> from snn_dendrite_plugin.layers import TTFSEncode, TTFSLinear
        >>> net = torch.nn.Sequential(TTFSEncode(), TTFSLinear(4, 8), TTFSLinear(8, 2, fire=False))
        >>> calibrate(net, torch.rand(64, 4))
        >>> [line.neurons for line in activity(net, torch.rand(64, 4))]
        [4, 8]
    """
    with evaluating(model), Recorder(model) as recorder:
        for x in batches(data):
            model(x)
    return recorder.rows()


def saturation(model: nn.Module, reset: bool = False) -> dict[str, tuple[int, int]]:
    """``(saturated, seen)`` neurons of every emitting layer since the counters were last reset.

    Counted at every call outside the adaptive training of a window. ``reset`` sets the counters to zero afterwards.
    """
    counts = {name: (int(m.saturated), int(m.seen)) for name, m in emitters(model)}
    if reset:
        for _, module in emitters(model):
            module.saturated.zero_()
            module.seen.zero_()
    return counts


class ActivityPenalty:
    """The mean activation per neuron of the last forward pass, differentiable: an L1 penalty that saves spikes.

    Encoders are left out. Use it as a context, or call :meth:`remove` when done.

    Example::

        >>> import torch
        >>> from snn_dendrite_plugin.layers import TTFSEncode, TTFSLinear
        >>> net = torch.nn.Sequential(TTFSEncode(), TTFSLinear(4, 8), TTFSLinear(8, 2, fire=False))
        >>> with ActivityPenalty(net) as penalty:
        ...     loss = net(torch.rand(16, 4)).square().mean() + 0.01 * penalty()
        >>> loss.backward()
    """

    def __init__(self, model: nn.Module) -> None:
        self._values: dict[str, Tensor] = {}
        layers = [(n, m) for n, m in emitters(model) if not isinstance(m, TTFSEncode)]
        self._handles = [m.register_forward_hook(self._hook(name)) for name, m in layers]

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, arguments: Any, out: SpikeTimes) -> None:
            self._values[name] = out.values.mean()

        return hook

    def __call__(self) -> Tensor:
        """Mean over the layers. Raises RuntimeError before the first forward pass."""
        if not self._values:
            raise RuntimeError("ActivityPenalty was asked before a forward pass: run the model first")
        return torch.stack(list(self._values.values())).mean()

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> ActivityPenalty:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


@contextlib.contextmanager
def perturb(
    model: nn.Module,
    noise: float = 0.0,
    time_bits: int | None = None,
    weight_bits: int | None = None,
    shorten: float = 1.0,
) -> Iterator[nn.Module]:
    """Perturb a time-coded network inside a ``with`` block; training in it is robust (straight-through) training.

    Args:
        model: a time-coded network.
        noise: standard deviation of the spike times of all layers, in units of time; after it, times are clipped to the
            window. Neurons that do not fire have no spike to move (the paper's code moves those too).
        time_bits: spike times are rounded to 2^bits levels of their window.
        weight_bits: weights are rounded to 2^bits levels between minus and plus the layer's largest.
        shorten: windows are cut to this share, in (0, 1]; what no longer fits saturates and is counted.

    Raises:
        ValueError: an argument out of its range, or a network without time-coded layers.

    Example::

        >>> import torch
        >>> from snn_dendrite_plugin.layers import TTFSEncode, TTFSLinear
        >>> net = torch.nn.Sequential(TTFSEncode(), TTFSLinear(4, 2, fire=False))
        >>> with perturb(net, noise=0.01, weight_bits=4):
        ...     out = net(torch.rand(16, 4))
    """
    if not (math.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise is {noise!r}; it must be a standard deviation, at least 0, in units of time")
    for name, bits in (("time_bits", time_bits), ("weight_bits", weight_bits)):
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or bits < 1):
            raise ValueError(f"{name} is {bits!r}; it must be a whole number of bits, at least 1, or None")
    if not 0 < shorten <= 1:
        raise ValueError(f"shorten is {shorten!r}; it must be the share of the window that is used, in (0, 1]")
    changes: list[tuple[nn.Module, str, Any]] = []
    for _, module in emitters(model):
        changes += [(module, "noise", float(noise)), (module, "time_bits", time_bits)]
        if isinstance(module, TTFSFire):
            changes.append((module, "shorten", float(shorten)))
    changes += [(m, "weight_bits", weight_bits) for m in model.modules() if isinstance(m, Synapse)]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for changed, name, value in changes:
            setattr(changed, name, value)
        yield model
    finally:
        for changed, name, value in before:
            setattr(changed, name, value)
