"""SpikingJelly's surrogate objects, read into the kernels' table."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...kernels.surrogates import Surrogate

__all__ = ["TABLE", "read_surrogate"]

_MODULES = ("spikingjelly.activation_based.surrogate", "spikingjelly.clock_driven.surrogate")
# class -> kind of the table, attributes in the table's order
TABLE: dict[str, tuple[str, tuple[str, ...]]] = {
    "Sigmoid": ("sigmoid", ("alpha",)),
    "ATan": ("atan", ("alpha",)),
    "PiecewiseQuadratic": ("piecewise_quadratic", ("alpha",)),
    "PiecewiseExp": ("piecewise_exp", ("alpha",)),
    "SoftSign": ("soft_sign", ("alpha",)),
    "SuperSpike": ("super_spike", ("alpha",)),
    "Erf": ("erf", ("alpha",)),
    "NonzeroSignLogAbs": ("nonzero_sign_log_abs", ("alpha",)),
    "PiecewiseLeakyReLU": ("piecewise_leaky_relu", ("w", "c")),
    "S2NN": ("s2nn", ("alpha", "beta")),
    "QPseudoSpike": ("q_pseudo_spike", ("alpha",)),
    "LeakyKReLU": ("leaky_k_relu", ("leak", "k")),
    "FakeNumericalGradient": ("fake_numerical_gradient", ("alpha",)),
    "LogTailedReLU": ("log_tailed_relu", ("alpha",)),
    "DeterministicPass": ("straight_through", ()),
    "Rect": ("rect", ("alpha",)),
    "SquarewaveFourierSeries": ("squarewave_fourier_series", ("n", "T_period")),
}


def read_surrogate(function: Any) -> Surrogate | None:
    """The table's entry for a SpikingJelly surrogate object, or None where only the object itself will do.

    None for a class the table does not know (also a user's subclass), for ``spiking=False``, and for a parameter that
    is a tensor; such a surrogate runs through the reference path.
    """
    cls = type(function)
    if cls.__module__ not in _MODULES or cls.__name__ not in TABLE or not getattr(function, "spiking", True):
        return None
    kind, attributes = TABLE[cls.__name__]
    values = [getattr(function, name, None) for name in attributes]
    if any(value is None or isinstance(value, Tensor) for value in values):
        return None
    return Surrogate(kind, *(float(value) for value in values))
