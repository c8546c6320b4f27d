"""Random calls of the soma-dendrite pair in float64, by settings; see kernel_cases for those in every layout."""

from __future__ import annotations

import torch

from snn_dendrite_plugin.kernels.soma_dendrite.contract import Inputs, Settings

F64 = torch.float64


def random_call(seed, t, shape, b, wiring, degree, per_channel, **static):
    g = torch.Generator().manual_seed(seed)
    n, c, *space = shape
    s = Settings(branches=b, wiring=wiring if b else "shared", **static)
    rows = c if per_channel else 1

    def normal(*size, scale=1.0):
        return (torch.randn(*size, dtype=F64, generator=g) * scale).requires_grad_()

    def uniform(*size, low=0.0):
        return (torch.rand(*size, dtype=F64, generator=g) + low).requires_grad_()

    inputs = Inputs(
        normal(t, n, c * b if s.wiring == "fold" else c, *space),
        normal(n, c, *space),
        normal(n, c, b, *space) if b else None,
        (torch.rand(n, c, *space, generator=g) > 0.7).to(F64) if s.fire_once else None,
        uniform(rows, b) if b else None,
        normal(rows, b) if b and seed % 3 else None,
        normal(rows, b) if b and seed % 2 else None,
        normal(rows, b) if b else None,
        normal(rows),
        normal(rows, degree + 1, scale=0.3),
        uniform(rows, low=0.3),
    )
    return inputs, s
