"""Element-wise operations of one call of a torch operator: what a neuron that is written in torch computes.

One operation per element of the result: an addition, a multiplication (or division), a comparison (or a choice by one,
or a rounding), or a function. What moves data and computes nothing counts as nothing.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..kernels.counting import of_call
from ..kernels.operations import Total, total

__all__ = ["count", "known"]

_NAMES = {
    "additions": "add sub rsub cumsum neg abs",
    "multiplications": "mul div reciprocal square pow cumprod floor_divide remainder fmod",
    "comparisons": "eq ne lt le gt ge maximum minimum clamp clamp_min clamp_max where relu hardtanh threshold sign sgn "
    "floor ceil round trunc logical_and logical_or logical_xor logical_not masked_fill heaviside scatter max min "
    "argmax argmin any all",
    "functions": "exp exp2 expm1 log log1p log2 sigmoid tanh sqrt rsqrt erf sin cos atan softplus silu gelu elu "
    "log_sigmoid_forward hardsigmoid",
}
KIND = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_TWO = {  # several at once
    "addcmul": ("additions", "multiplications", "multiplications"),
    "addcdiv": ("additions", "multiplications", "multiplications"),
    "lerp": ("additions", "additions", "multiplications"),
    "leaky_relu": ("comparisons", "multiplications"),
}
_REDUCED = {"sum": "additions", "mean": "additions", "prod": "multiplications"}


def known(op: Any) -> bool:
    """Whether the operator's cost is known: it is one of torch's, or one of ours."""
    return op.namespace in ("aten", "prim", "prims", "snn_dendrite")


def count(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Total | None:
    """Operations by kind; None where they are not known: another library's operator.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3)
        >>> count(torch.ops.aten.mul.Tensor, (x, x), {}, x * x).multiplications
        6
    """
    ours = of_call(op, args, kwargs)
    if ours is not None:
        return total(ours)
    if not known(op):
        return None
    sums = dict.fromkeys(("additions", "multiplications", "comparisons", "functions"), 0)
    name = op.overloadpacket.__name__.removesuffix("_")
    made = sum(leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
    if name in KIND:
        sums[KIND[name]] += made
    elif name in _TWO:
        for kind in _TWO[name]:
            sums[kind] += made
    elif name in _REDUCED and isinstance(args[0], Tensor):
        sums[_REDUCED[name]] += max(0, args[0].numel() - made)
        sums["multiplications"] += made * (name == "mean")
    elif name == "native_batch_norm" or name == "_native_batch_norm_legit":
        sums["additions"] += 2 * math.prod(args[0].shape)
        sums["multiplications"] += 2 * math.prod(args[0].shape)
    return Total(**sums, multiply_accumulates=0, accumulates=sums["additions"])
