"""ReLU networks to time-to-first-spike networks: the same function, in first spikes (Stanojevic et al. 2024)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ...layers import TTFSEncode, calibrate
from ...layers.ttfs.times import check_range
from ...layers.ttfs.windows import Recorder, batches, evaluating
from .network import TTFSNetwork
from .operations import Operations
from .report import TTFSReport
from .stream import trace

__all__ = ["convert_relu", "to_ttfs"]


def convert_relu(
    model: nn.Module,
    *,
    calibration: Any = None,
    example_input: Any = None,
    input_range: tuple[float, float] | None = None,
    quantile: float = 1.0,
    margin: float = 0.5,
) -> TTFSNetwork:
    """Convert a ReLU network in eval mode to a time-to-first-spike network that computes the same function.

    Takes Linear, Conv1d/2d (any stride, zero padding, dilation, groups), BatchNorm1d/2d (before or after the ReLU),
    ReLU, MaxPool, AvgPool, AdaptiveAvgPool, Dropout, Flatten and residual additions, as modules or functions. The model
    is left as it is.

    Args:
        model: any module that torch.fx traces, in eval mode, with one input ``[N, C, *]`` and one output.
        calibration: a tensor of inputs or a loader of ``(input, ...)`` batches; windows and input range come from it.
        example_input: one batch, ``[N, C, *]``; used as calibration data where none is given.
        input_range: (low, high) of the inputs. When None it is (0, 1) for data within it, else measured on the
            calibration data, with low = 0 where nothing is negative, so that 0 is silent.
        quantile, margin: windows, see :func:`snn_dendrite_plugin.layers.calibrate`.

    Returns:
        the :class:`TTFSNetwork`, with its ``report``.

    Raises:
        ValueError: a module or operation without a TTFS form, by name; a model in training mode; neither calibration
            data nor an example; NaN in the data.
        TypeError: the model is no module, or the data no tensors.

    Source: Stanojevic et al. 2024, Nat. Commun. 15:6793; batch norms, input ranges and residual additions in the
    general form here are our own derivation (see ``docs/ttfs.md``).

    Example::

        >>> import torch
        >>> from torch import nn
        >>> relu = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> x = torch.rand(32, 6)
        >>> timed = convert_relu(relu, calibration=x)
        >>> torch.allclose(timed(x), relu(x), atol=1e-5), timed.report.agreement
        (True, 1.0)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}; it must be a torch.nn.Module")
    for name, module in model.named_modules():
        if module.training:
            where = f"its module {name!r} is" if name else "it is"
            raise ValueError(f"model must be in eval mode, but {where} in training mode; call model.eval() first")
    data = calibration if calibration is not None else example_input
    if data is None:
        raise ValueError("calibration is None; windows are set from data: pass training inputs or a loader of them")
    if isinstance(data, Iterator):
        data = list(data)  # it is read more than once
    place = next((p for p in model.parameters()), None)
    if place is None:
        raise ValueError(f"model {type(model).__name__} has no parameters; there is nothing to convert")
    move = {"dtype": place.dtype, "device": place.device}
    example, low, high = _measure(data, move)
    low, high = (low, high) if input_range is None else check_range(*input_range)
    walk = Operations(trace(model, example[:1]), low, high, **move)
    network = TTFSNetwork(walk.run(), walk.depths(), walk.shapes())
    loader = _Moved(data, move)
    calibrate(network, loader, quantile, margin)
    network.report = _compare(model, network, loader)
    return network


def to_ttfs(model: nn.Module, **arguments: Any) -> tuple[TTFSNetwork, TTFSReport]:
    """``convert(model, to="TTFS")``: :func:`convert_relu`, with the report beside the network."""
    network = convert_relu(model, **arguments)
    return network, network.report


to_ttfs.__signature__ = inspect.signature(convert_relu)  # type: ignore[attr-defined]


class _Moved:
    """A loader's inputs, on the model's device and in its dtype."""

    def __init__(self, data: Any, move: dict[str, Any]) -> None:
        self.data, self.move = data, move

    def __iter__(self) -> Iterator[Tensor]:
        for x in batches(self.data):
            yield x.to(**self.move)


def _measure(data: Any, move: dict[str, Any]) -> tuple[Tensor, float, float]:
    """The first batch, and the range of all."""
    first, low, high = None, float("inf"), float("-inf")
    for x in batches(data):
        if x.numel() == 0 or x.dim() < 2:
            raise ValueError(f"calibration yields a batch of shape {tuple(x.shape)}; it must be [N, C, *] with N >= 1")
        first = x if first is None else first
        if bool(x.isnan().any()):
            raise ValueError("calibration contains NaN, which no spike time can stand for")
        low, high = min(low, float(x.min())), max(high, float(x.max()))
    assert first is not None  # batches() refuses empty data
    if not low < high:
        raise ValueError(f"calibration is constant ({high}); the input range cannot be measured, pass input_range")
    if low >= 0:
        low, high = 0.0, max(high, 1.0)
    return first.to(**move), *check_range(low, high)


def _compare(model: nn.Module, network: TTFSNetwork, loader: _Moved) -> TTFSReport:
    same = total = outputs = 0
    difference = largest = 0.0
    recorder = Recorder(network.graph_module)
    with evaluating(network), torch.no_grad(), recorder:
        for x in loader:
            a, b = model(x), network(x)
            flat_a, flat_b = a.flatten(1), b.flatten(1)
            same += int((flat_a.argmax(1) == flat_b.argmax(1)).sum())
            difference = max(difference, float((a - b).abs().max()))
            largest = max(largest, float(a.abs().max()))
            total, outputs = total + x.shape[0], outputs + flat_a.shape[0]
    encode = next(m for m in network.modules() if isinstance(m, TTFSEncode))
    return TTFSReport(
        layers=tuple(recorder.rows()),
        inputs=total,
        agreement=same / max(1, outputs),
        largest_difference=difference,
        relative_difference=difference / largest if largest else 0.0,
        windows=network.windows,
        latency=network.latency,
        input_range=(encode.low, encode.high),
    )
