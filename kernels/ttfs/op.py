"""The clock-driven TTFS pair as registered torch operators.

``snn_dendrite::ttfs`` and its backward are opaque to ``torch.compile``, have fake implementations, and pick a provider
when they run. Backward keeps the potentials, one value per neuron and window, and neither the input nor the spikes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..contract import Provider
from ..dtypes import state_dtype
from ..providers import choose
from ..registration import define, results, schema
from . import reference
from .contract import Gradients, Inputs, OutputGradients, Outputs, Saved, Settings

__all__ = ["ttfs"]


def _provider(x: Tensor, settings: Settings) -> Provider:
    return choose("ttfs", x.device, x.dtype, settings, x.shape[0])


def _forward_implementation(x, bias, windows, steps):
    settings = Settings(steps)
    out = _provider(x, settings).forward(Inputs(x, bias, windows), settings)
    return out.spikes.contiguous(), out.potentials.contiguous()


def _forward_fake(x, bias, windows, steps):
    return x.new_empty(x.shape), windows.new_empty((x.shape[0] // steps, *x.shape[1:]))


def _backward_implementation(g_spikes, g_potentials, with_bias, potentials, bias, windows, steps):
    settings, wanted = Settings(steps), Gradients._fields if with_bias else Gradients._fields[:1]
    g = OutputGradients(g_spikes, g_potentials)
    found = _provider(g_spikes, settings).backward(Saved(potentials, bias, windows), settings, g, wanted)
    g_bias = found.bias if with_bias and found.bias is not None else potentials.new_empty(0)
    return found.x.contiguous(), g_bias.contiguous()


def _backward_fake(g_spikes, g_potentials, with_bias, potentials, bias, windows, steps):
    g_bias = potentials.new_empty(bias.shape if with_bias and bias is not None else 0)
    return g_spikes.new_empty(g_spikes.shape), g_bias


def _setup_context(ctx, inputs, output) -> None:
    x, bias, windows, ctx.steps = inputs
    ctx.set_materialize_grads(False)
    ctx.dtype, ctx.shape = x.dtype, x.shape
    ctx.save_for_backward(output[1], bias, windows)


def _autograd(ctx, g_spikes, g_potentials):
    if g_spikes is None and g_potentials is None:
        return None, None, None, None
    saved = Saved(*ctx.saved_tensors)
    with_bias = saved.bias is not None and ctx.needs_input_grad[1]
    if g_spikes is None:
        g_spikes = saved.potentials.new_zeros(ctx.shape, dtype=ctx.dtype)
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # second order: the formula is linear in g
        g, saved = OutputGradients(g_spikes, g_potentials), saved._replace(potentials=saved.potentials.detach())
        gx, g_bias = reference.backward(saved, Settings(ctx.steps), g, with_bias)
    else:
        gx, g_bias = _backward(g_spikes, g_potentials, with_bias, *saved, ctx.steps)
    return gx, g_bias if with_bias else None, None, None


_backward = define(
    "ttfs_backward",
    f"({schema(OutputGradients, prefix='g_')}, bool with_bias, {schema(Saved, Settings)}) -> {results(Gradients)}",
    _backward_implementation,
    _backward_fake,
)
_forward = define(
    "ttfs",
    f"({schema(Inputs, Settings)}) -> {results(Outputs)}",
    _forward_implementation,
    _forward_fake,
    _setup_context,
    _autograd,
)


def ttfs(x: Tensor, bias: Tensor | None, windows: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Run whole windows through clock-driven TTFS neurons, differentiably. Shapes and equations as in :mod:`.contract`.

    Args:
        x: charge currents ``[W * steps, N, C, *]``: a linear layer, without its bias, applied to binary spikes.
        bias: added to the potential once per window; broadcasts against ``[N, C, *]``, first size 1; or None.
        windows: tensor ``(R_in, R)``, the durations of the input's and of the own window; no gradient.
        steps: time steps per window.

    Returns:
        spikes ``[W * steps, N, C, *]`` in x's dtype, at most one per window, and potentials ``[W, N, C, *]``.

    Raises:
        ValueError, TypeError: the length is no multiple of ``steps``, or a shape, device or dtype breaks the contract.
        ProviderError: an explicitly chosen provider cannot run the call.

    Example::

        >>> x = torch.zeros(4, 1, 1)
        >>> x[1] = 1.0                                       # a spike of value (4 - 1 - 1/2) / 4
        >>> spikes, potential = ttfs(x, None, torch.tensor([1.0, 1.0]), 4)
        >>> potential.item(), spikes.flatten().tolist()
        (0.625, [0.0, 1.0, 0.0, 0.0])
    """
    Settings(steps)
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}; spiking neurons take a floating point input")
    if x.dim() < 1 or x.shape[0] == 0 or x.shape[0] % steps:
        raise ValueError(f"x has shape {tuple(x.shape)}; its length must be a positive multiple of steps={steps}")
    dtype = state_dtype(x.dtype)
    for name, value in (("bias", bias), ("windows", windows)):
        if value is not None and value.dtype != dtype:
            raise TypeError(f"{name} has dtype {value.dtype}; with x of {x.dtype} it must be {dtype}")
        if value is not None and value.device != x.device:
            raise ValueError(f"{name} is on {value.device} but x is on {x.device}; all tensors must share a device")
    if windows.shape != (2,):
        raise ValueError(f"windows has shape {tuple(windows.shape)}; it must hold the two durations (R_in, R)")
    if bias is not None and (
        bias.dim() != x.dim() - 1
        or bias.shape[0] != 1
        or any(b not in (1, s) for b, s in zip(bias.shape[1:], x.shape[2:], strict=True))
    ):
        raise ValueError(f"bias has shape {tuple(bias.shape)}; it must be (1, C, *) against x {tuple(x.shape)}")
    return _forward(x, bias, windows, steps)
