"""The soma-dendrite pair as registered torch operators.

``snn_dendrite::soma_dendrite`` and its backward are opaque to ``torch.compile`` (one graph, no breaks), have fake
implementations for tracing, and pick a provider when they run. Only the inputs are saved for backward. Under
``create_graph=True`` the backward pass is taken through the reference loop, so that second-order gradients exist; they
are those of the surrogate derivative.
"""

from __future__ import annotations

import dataclasses
import functools
import operator

import torch
from torch import Tensor

from ..activations import Function, name_of
from ..contract import Provider
from ..dtypes import state_dtype
from ..providers import choose, say_slow
from ..registration import define, results, schema
from .contract import (
    OPTIONAL,
    PARAMETERS,
    PER_BRANCH,
    Gradients,
    Inputs,
    OutputGradients,
    Outputs,
    Settings,
    columns,
    dimensions,
)
from .reference import SpikeFunction, run

__all__ = ["soma_dendrite"]

_TENSORS = len(Inputs._fields)
_STATIC = tuple(field.name for field in dataclasses.fields(Settings))
_GRADIENTS = len(OutputGradients._fields)
_differentiable = operator.itemgetter(*map(Outputs._fields.index, OutputGradients._fields))  # all but `fired`
_FROM = [Inputs._fields.index(name) for name in Gradients._fields]
_settings = functools.lru_cache(Settings)  # checking the fields takes longer than finding them checked


def _outputs_like(x: Tensor, settings: Settings) -> Tensor:
    """An uninitialised ``[T, N, C, *]`` that follows x's memory format (channels last stays channels last)."""
    t, n, c, _, _ = dimensions(x, settings)
    shape = (t, n, c, *x.shape[3:])
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    flat_dim = x.dim() - 1
    if flat_dim in formats and not x.is_contiguous():
        flat = x.flatten(0, 1)
        if flat.data_ptr() == x.data_ptr() and flat.is_contiguous(memory_format=formats[flat_dim]):
            return x.new_empty((t * n, *shape[2:])).contiguous(memory_format=formats[flat_dim]).view(shape)
    return x.new_empty(shape)


def _with_layout(value: Tensor, like: Tensor) -> Tensor:
    return value if value.stride() == like.stride() else torch.empty_like(like, dtype=value.dtype).copy_(value)


def _empty(x: Tensor) -> Tensor:
    return x.new_empty(0)


def _provider(inputs: Inputs, settings: Settings) -> Provider:
    x = inputs.x
    return choose("soma_dendrite", x.device, x.dtype, settings, x.shape[0], inputs.theta.shape[1] - 1)


def _forward_implementation(*arguments):
    inputs, settings = Inputs(*arguments[:_TENSORS]), _settings(*arguments[_TENSORS:])
    x, u = inputs.x, inputs.u
    out = _provider(inputs, settings).forward(inputs, settings)
    spikes = out.spikes
    if not (spikes.is_contiguous() and x.is_contiguous()):
        spikes = _with_layout(spikes, _outputs_like(x, settings))
    rest = [_empty(u) if value is None else value.contiguous() for value in out[1:]]
    return spikes, *rest


def _forward_fake(*arguments):
    inputs, settings = Inputs(*arguments[:_TENSORS]), _settings(*arguments[_TENSORS:])
    u = inputs.u
    states = (_empty(u) if value is None else value.new_empty(value.shape) for value in (u, inputs.v, inputs.fired))
    trace = u.new_empty((inputs.x.shape[0], *u.shape)) if settings.record else _empty(u)
    return _outputs_like(inputs.x, settings), *states, trace


@functools.lru_cache
def _wanted(mask: int) -> tuple[str, ...]:
    return tuple(name for i, name in enumerate(Gradients._fields) if mask >> i & 1)


def _backward_implementation(*arguments):
    g, mask, arguments = OutputGradients(*arguments[:_GRADIENTS]), arguments[_GRADIENTS], arguments[_GRADIENTS + 1 :]
    inputs, settings = Inputs(*arguments[:_TENSORS]), _settings(*arguments[_TENSORS:])
    x = inputs.x
    found = _provider(inputs, settings).backward(inputs, settings, g, _wanted(mask))
    gradients = [None if not mask >> i & 1 else value for i, value in enumerate(found)]
    rest = [_empty(inputs.u) if value is None else value.contiguous() for value in gradients[1:]]
    gx = found.x
    if not (gx.is_contiguous() and x.is_contiguous()):
        gx = _with_layout(gx, torch.empty_like(x))
    return gx, *rest


def _backward_fake(*arguments):
    mask, inputs = arguments[_GRADIENTS], Inputs(*arguments[_GRADIENTS + 1 :][:_TENSORS])
    named = {name: getattr(inputs, name) if name in _wanted(mask) else None for name in Gradients._fields[1:]}
    rest = (_empty(inputs.u) if p is None else p.new_empty(p.shape) for p in named.values())
    return torch.empty_like(inputs.x), *rest


def _setup_context(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:_TENSORS])
    ctx.static = inputs[_TENSORS:]


def _autograd(ctx, *of_outputs):
    g = OutputGradients._make(_differentiable(of_outputs))
    settings = _settings(*ctx.static)
    inputs = Inputs(*ctx.saved_tensors)
    none_for_static = (None,) * len(ctx.static)
    if g.spikes is None and g.u is None and g.v is None and g.u_sequence is None:
        return (None,) * _TENSORS + none_for_static
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return (*_second_order(inputs, settings, g), *none_for_static)
    if g.spikes is None:
        g = g._replace(spikes=torch.zeros_like(_outputs_like(inputs.x, settings)))
    if g.v is not None and inputs.v is None or g.u_sequence is not None and not settings.record:
        g = g._replace(v=g.v if settings.branches else None, u_sequence=g.u_sequence if settings.record else None)
    needs = ctx.needs_input_grad
    mask = sum(needs[i] << bit for bit, i in enumerate(_FROM))
    gradients = _backward(*g, mask, *inputs, *ctx.static)
    result: list[Tensor | None] = [None] * _TENSORS
    for i, gradient in zip(_FROM, gradients, strict=True):
        if needs[i]:
            result[i] = gradient
    return (*result, *none_for_static)


def _second_order(inputs: Inputs, settings: Settings, g: OutputGradients) -> list[Tensor | None]:
    """Gradients of the inputs as differentiable functions, through the reference loop."""
    fields = [None if value is None else value.view_as(value) for value in inputs]
    out = run(Inputs(*fields), settings)
    pairs = [(getattr(out, name), value) for name, value in g._asdict().items()]
    pairs = [(o, value) for o, value in pairs if o is not None and value is not None and o.requires_grad]
    wanted = [i for i, value in enumerate(fields) if value is not None and value.requires_grad]
    found = torch.autograd.grad(
        [o for o, _ in pairs],
        [fields[i] for i in wanted],
        [value for _, value in pairs],
        create_graph=True,
        allow_unused=True,
    )
    result: list[Tensor | None] = [None] * _TENSORS
    for i, gradient in zip(wanted, found, strict=True):
        result[i] = gradient
    return result


_CALL = schema(Inputs, Settings)
_backward = define(
    "soma_dendrite_backward",
    f"({schema(OutputGradients, prefix='g_')}, int wanted, {_CALL}) -> {results(Gradients)}",
    _backward_implementation,
    _backward_fake,
)
_forward = define(
    "soma_dendrite",
    f"({_CALL}) -> {results(Outputs)}",
    _forward_implementation,
    _forward_fake,
    _setup_context,
    _autograd,
)


@functools.lru_cache
def _rows(branches: int, coefficients: int) -> tuple[tuple[int, ...], ...]:
    return tuple(columns(name, branches, coefficients) for name in PARAMETERS)


def _check(inputs: Inputs, settings: Settings) -> None:
    """Shapes, devices and dtypes against the contract; raises ValueError naming the tensor."""
    x = inputs.x
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}; spiking neurons take a floating point input")
    _, n, c, _, _ = dimensions(x, settings)
    b, dtype = settings.branches, state_dtype(x.dtype)
    space = tuple(x.shape[3:])
    expected = {
        "u": (n, c, *space),
        "v": (n, c, b, *space) if b else None,
        "fired": (n, c, *space) if settings.fire_once else None,
    }
    for name, shape in expected.items():
        value = getattr(inputs, name)
        if (value is None) != (shape is None) or (value is not None and tuple(value.shape) != shape):
            found = None if value is None else tuple(value.shape)
            raise ValueError(f"state {name} has shape {found}; x {tuple(x.shape)} with branches={b} needs {shape}")
    coefficients = 1 if inputs.theta is None else inputs.theta.shape[-1] if inputs.theta.dim() else 0
    for name, value, row in zip(PARAMETERS, inputs.parameters, _rows(b, coefficients), strict=True):
        if value is None:
            if name not in OPTIONAL and (b or name not in PER_BRANCH):
                raise ValueError(f"{name} is None; branches={b} needs it")
        elif value.shape not in ((1, *row), (c, *row)) or 0 in row:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; it must have 1 or {c} (channels) rows"
                + (f" and {b} (branches) columns" if name in PER_BRANCH else "")
            )
    device = x.device
    for name, value in zip(Inputs._fields[1:], inputs[1:], strict=True):
        if value is not None and value.device != device:
            raise ValueError(f"{name} is on {value.device} but x is on {device}; all tensors must share a device")
        if value is not None and value.dtype != dtype:
            raise TypeError(f"{name} has dtype {value.dtype}; with x of {x.dtype} it must be {dtype}")


def soma_dendrite(
    inputs: Inputs,
    settings: Settings,
    spike_function: SpikeFunction | None = None,
    activation: Function | None = None,
) -> Outputs:
    """Run a sequence through the soma-dendrite core, differentiably.

    Args:
        inputs: tensors, shapes as in :mod:`.contract`.
        settings: the static part.
        spike_function: the user's own spike function of ``h - threshold`` (Heaviside with a surrogate derivative the
            table does not hold); runs through the reference loop, slower.
        activation: the user's own differentiable function of ``v [N, C, B, *]`` in place of ``settings.activation``,
            element by element; likewise slower, which is said once in the log.

    Raises:
        ValueError, TypeError: a shape, device or dtype that breaks the contract; the message names the tensor.
        ProviderError: an explicitly chosen provider cannot run the call.

    Example::

        >>> x = torch.rand(5, 2, 3)                                # [T, N, C]
        >>> one = torch.ones(1)
        >>> lif = Inputs(x, torch.zeros(2, 3), None, None, None, None, None, None, one, torch.tensor([[0.0, 0.5]]), one)
        >>> soma_dendrite(lif, Settings()).spikes.shape
        torch.Size([5, 2, 3])
    """
    _check(inputs, settings)
    if activation is not None and not torch.compiler.is_compiling():
        say_slow(f"the activation {name_of(activation)}")
    # torch.func's transforms differentiate and map the reference loop; the operator's derivative is opaque to them.
    transformed = not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None
    if transformed or spike_function is not None or activation is not None:
        return run(inputs, settings, spike_function, activation)
    static = tuple(getattr(settings, name) for name in _STATIC)
    spikes, u, v, fired, u_sequence = _forward(*inputs, *static)
    return Outputs(
        spikes,
        u,
        v if settings.branches else None,
        fired if settings.fire_once else None,
        u_sequence if settings.record else None,
    )
