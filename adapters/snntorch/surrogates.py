"""snnTorch's surrogate closures, read into the kernels' table."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from snntorch import SpikingNeuron
from torch import Tensor

from ...kernels.surrogates import Surrogate, derivative, spike

__all__ = ["DEFAULT_SPIKE_GRAD", "TableSpike", "read_surrogate"]

# function of snntorch.surrogate -> kind of the table, its parameters in the table's order
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "atan": ("atan", ("alpha",)),
    "fast_sigmoid": ("fast_sigmoid", ("slope",)),
    "sigmoid": ("sigmoid", ("slope",)),
    "spike_rate_escape": ("spike_rate_escape", ("beta", "slope")),
    "triangular": ("triangular", ("threshold",)),
    "straight_through_estimator": ("straight_through", ()),
    "heaviside": ("heaviside", ()),
    "SFS": ("sparse_fast_sigmoid", ("slope", "B")),
}
_CLASSES = {
    "ATan": "atan",
    "FastSigmoid": "fast_sigmoid",
    "Sigmoid": "sigmoid",
    "SpikeRateEscape": "spike_rate_escape",
    "Triangular": "triangular",
    "StraightThroughEstimator": "straight_through_estimator",
    "Heaviside": "heaviside",
    "SparseFastSigmoid": "SFS",
}
_MODULE = "snntorch.surrogate"


@dataclasses.dataclass(frozen=True)
class TableSpike:
    """A surrogate of the table as a ``spike_grad``: what snnTorch's closures do, but it pickles.

    Takes ``mem - threshold`` of any shape, returns spikes (``> 0``) in the same dtype with the surrogate derivative.

    Example::

        >>> import torch
        >>> from snn_dendrite_plugin.kernels.surrogates import Surrogate
        >>> TableSpike(Surrogate("fast_sigmoid", 25.0))(torch.tensor([-1.0, 0.0, 1.0])).tolist()
        [0.0, 0.0, 1.0]
    """

    in_checkpoints: ClassVar[bool] = True

    surrogate: Surrogate

    def __call__(self, x: Tensor) -> Tensor:
        return spike(x, self.surrogate, strict=True)


DEFAULT_SPIKE_GRAD = TableSpike(Surrogate("atan", 2.0))  # snntorch.surrogate.atan()
_NO_GRADIENT = Surrogate("leaky_k_relu", 0.0, 0.0)  # a derivative of 0 on both sides of the threshold


def read_surrogate(function: Any) -> Surrogate | None:
    """The table's entry for a ``spike_grad``, or None where only the function itself will do.

    Known are the closures of ``snntorch.surrogate`` (and, as later releases may have it, partials and callable objects
    of that module with the same names). What was read is checked against the function's own derivative, so that a
    formula that changes upstream is run as it is. ``custom_surrogate``, ``SSO``, ``LSO`` and lambdas give None.
    """
    if isinstance(function, TableSpike):
        return function.surrogate
    if isinstance(function, Surrogate):
        return function
    if function is SpikingNeuron._surrogate_bypass:
        return _NO_GRADIENT
    found = _named(function)
    if found is None:
        return None
    name, values = found
    kind, parameters = _KINDS[name]
    numbers = [values.get(parameter) for parameter in parameters]
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in numbers):
        return None
    surrogate = Surrogate(kind, *(float(value) for value in numbers))
    return surrogate if _agrees(function, surrogate) else None


def _named(function: Any) -> tuple[str, dict[str, Any]] | None:
    """Name in ``snntorch.surrogate`` and the values of its parameters."""
    if isinstance(function, functools.partial):
        owner = getattr(function.func, "__self__", function.func)
        name, values = getattr(owner, "__name__", ""), dict(function.keywords)
        module = getattr(owner, "__module__", None)
    elif hasattr(function, "__code__"):
        name = function.__qualname__.partition(".<locals>")[0]
        cells = function.__closure__ or ()
        values = {key: cell.cell_contents for key, cell in zip(function.__code__.co_freevars, cells, strict=True)}
        module = function.__module__
    else:
        name, module = type(function).__name__, type(function).__module__
        values = {key.lstrip("_"): value for key, value in getattr(function, "__dict__", {}).items()}
    name = _CLASSES.get(name, name)
    return (name, values) if module == _MODULE and name in _KINDS else None


def _agrees(function: Callable[[Tensor], Tensor], surrogate: Surrogate) -> bool:
    """Whether spikes and derivative of ``function`` are those of the table, on both sides of the threshold."""
    try:
        with torch.inference_mode(False), torch.enable_grad():
            x = torch.linspace(-1.7, 1.7, 18, dtype=torch.float64, device="cpu").requires_grad_()
            spikes = function(x)
            (gradient,) = torch.autograd.grad(spikes.sum(), x)
            same = torch.equal(spikes.to(x.dtype), (x > 0).to(x.dtype)) and bool(
                function(torch.zeros(1, device="cpu")) == 0
            )
            return same and torch.allclose(gradient, derivative(x.detach(), surrogate), rtol=1e-9, atol=1e-12)
    except Exception:  # whatever it is, it is not what we know: it will raise, or not, where the user can see it
        return False
