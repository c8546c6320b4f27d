"""What DendSN and LNM share: parameters of the soma-dendrite core, and the call into it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from ..kernels.dtypes import DoubleBuffers, state_dtype
from ..kernels.soma_dendrite import Inputs, Settings, soma_dendrite
from ..kernels.surrogates import Surrogate
from .base import Firing, FiringStep, NeuronModel, States
from .polynomial import PolynomialSoma

__all__ = ["SomaDendriteModel"]

Values = float | Sequence[float] | Tensor


class SomaDendriteModel(PolynomialSoma, DoubleBuffers, NeuronModel):
    """A model that is a setting of the fused core: names its parameters, holds them, hands them over.

    A fixed parameter is a float64 buffer that keeps its precision when the module changes dtype (so that a converted
    network computes the same in float64); a learned one is a ``Parameter``; a learned decay is stored as its logit. Per
    layer the shape is ``[1, columns]``, per channel ``[C, columns]``, created at the first forward pass where
    ``channels`` is not given.
    """

    def __init__(self, per_channel: bool, channels: int | None) -> None:
        super().__init__()
        check_channels(channels)
        self.per_channel = per_channel or channels is not None
        self.channels = channels
        self._templates: dict[str, tuple[float, ...]] = {}
        self._declared: dict[str, str] = {}  # name -> attribute that holds it
        self.in_double: set[str] = set()
        self._kept: dict[tuple[str, torch.dtype], tuple[Tensor, int, Tensor]] = {}

    # -- parameters ------------------------------------------------------------------------------------------------

    def _declare(self, name: str, values: Values, columns: int, learn: bool, unit: bool = False) -> None:
        """Create parameter or buffer ``name`` from one value, ``columns`` values or ``[C, columns]`` values."""
        table = _table(name, values)
        if table.dim() == 0:
            table = table.expand(columns)
        if table.shape[-1] != columns or table.dim() > 2:
            raise ValueError(
                f"{name} has shape {tuple(table.shape)}; it must be one number, {columns} or [C, {columns}]"
            )
        if unit and not holds((table >= 0) & (table <= 1)):
            raise ValueError(f"{name} is {values!r}; a decay per step must lie between 0 and 1")
        if not holds(torch.isfinite(table)):
            raise ValueError(f"{name} is {values!r}; its values must be finite")
        table = table.reshape(-1, columns)
        if not learn:
            self.register_buffer(name, table.to(_place(table), copy=True))
            self._declared[name] = name
            self.in_double.add(name)
            return
        key = name
        if unit:
            key, table = f"{name}_logit", torch.logit(table, eps=1e-6)
        self._declared[name] = key
        if self.per_channel and table.shape[0] == 1:
            if self.channels is None:
                self._templates[key] = tuple(table[0].tolist())
                setattr(self, key, UninitializedParameter())
                return
            table = table.expand(self.channels, columns)
        setattr(self, key, nn.Parameter(table.to(_place(table), torch.get_default_dtype(), copy=True)))

    def value_of(self, name: str, dtype: torch.dtype) -> Tensor | None:
        """The parameter ``name`` in ``dtype``, ``[C or 1, columns]``, decays mapped back into (0, 1).

        None when the model does not have it.
        """
        key = self._declared.get(name)
        if key is None:
            return None
        if key in self._buffers:
            return self._derived(name, name, dtype, _itself)
        value: Tensor | None = self._parameters.get(key)
        value = getattr(self, key) if value is None else value  # it has a parametrization
        assert value is not None
        value = value if value.dtype == dtype else value.to(dtype)
        return value if key == name else torch.sigmoid(value)

    def _derived(self, what: str, name: str, dtype: torch.dtype, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function``, called ``what``, of the fixed parameter ``name`` in ``dtype``, kept until that is written to.

        A step of a small layer costs little more than its handful of tiny operations on parameters.
        """
        source = self._buffers.get(name)
        if source is None:  # it has a parametrization
            return function(getattr(self, name).to(dtype))
        if torch.compiler.is_compiling() or source.is_inference() or torch.is_inference_mode_enabled():
            return function(source.to(dtype))  # inference tensors count no versions and are not for autograd
        kept = self._kept.get((what, dtype))
        if kept is None or kept[0] is not source or kept[1] != source._version:
            kept = self._kept[what, dtype] = (source, source._version, function(source.to(dtype)))
        return kept[2]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    def prepare(self, channels: int) -> None:
        """Create the per-channel parameters that waited for the channel count, if any are left."""
        for key, template in list(self._templates.items()):
            parameter = getattr(self, key)
            row = torch.tensor(template, dtype=parameter.dtype, device=parameter.device)
            parameter.materialize((channels, len(template)))
            with torch.no_grad():
                parameter.copy_(row.expand_as(parameter))
            del self._templates[key]
        if self.per_channel and self.channels is None:
            self.channels = channels

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for key in list(self._templates):
            value = state_dict.get(prefix + key)
            if value is not None:
                self.prepare(value.shape[0])
                break
        super()._load_from_state_dict(state_dict, prefix, *args)

    # -- the soma's decay ------------------------------------------------------------------------------------------

    decay_input = False
    rest = 0.0
    beta_logit: Tensor
    input_scale: float | Tensor

    @property
    def decay(self) -> Tensor:
        """Decay of the soma per step, theta_1: one value, or ``[C]``. Carries a gradient where it is learned."""
        if "theta" in self._templates:
            return torch.tensor(self._templates["theta"][1])
        if "beta_logit" in self._templates:
            return torch.sigmoid(torch.tensor(self._templates["beta_logit"][0]))
        value = torch.sigmoid(self.beta_logit)[:, 0] if "beta" in self._declared else self.theta[:, 1]
        return value[0] if value.shape[0] == 1 else value

    @torch.no_grad()
    def set_decay(self, beta: Values) -> None:
        """Set the soma's decay per step in place, one value or ``[C]``; theta_2 and higher stay as they are.

        Raises:
            ValueError: outside 0 to 1, or more values than learned parameters have rows; or it has a parametrization.
        """
        column = decay_column(beta)
        key = self._declared["beta" if "beta" in self._declared else "theta"]
        row = torch.logit(column, eps=1e-6) if key == "beta_logit" else soma_row(column, self.rest, 1)
        if key == "theta":
            row = row / self.theta_units()[:2]
        if key in self._templates:
            if len(row) > 1:
                raise ValueError(f"beta has {len(row)} values, but the channels are not known yet; pass one value")
            self._templates[key] = (*row[0].tolist(), *self._templates[key][row.shape[1] :])
        else:
            table = self._writable(key)
            if key in self.in_double and len(row) > len(table):
                self._buffers[key] = table = table.expand(len(row), -1).clone()
            if len(row) not in (1, len(table)):
                raise ValueError(f"beta has {len(row)} values; {key} has rows for {len(table)}")
            table[:, : row.shape[1]] = row.to(table)
        if self.decay_input and key == "theta":
            self._scale_input(column)

    def _writable(self, key: str) -> Tensor:
        """The table ``key`` itself, to write to."""
        if key not in self._parameters and key not in self._buffers:
            raise ValueError(f"{key} has a parametrization; set what that is made from")
        return getattr(self, key)

    @torch.no_grad()
    def set_rest(self, rest: float) -> None:
        """Set the potential that the soma leaks to, in place: the constant of P becomes (1 - decay) rest."""
        self.rest = float(rest)
        if "theta" in self._templates:
            row = self._templates["theta"]
            self._templates["theta"] = ((1 - row[1]) * self.rest / self.theta_scale, *row[1:])
        elif "beta" not in self._declared:
            theta = self._writable("theta")
            theta[:, 0] = (1 - theta[:, 1]) * self.rest / self.theta_scale

    def set_decay_input(self, decay_input: bool) -> None:
        """Scale the input by 1 - decay, or not, from now on."""
        self.decay_input = bool(decay_input)
        if "beta" not in self._declared:
            self._scale_input(self.decay.detach())

    def _scale_input(self, beta: Values) -> None:
        """Set rho, ``1 - beta`` where the input decays too: a number, or a table where it differs between channels."""
        column = decay_column(beta)
        place = next((tensor.device for tensor in (*self.buffers(), *self.parameters())), _place(column))
        self.__dict__.pop("input_scale", None)  # it may change from number to table and back
        self._buffers.pop("input_scale", None)
        self.in_double.discard("input_scale")
        if not self.decay_input:
            self.input_scale = 1.0
        elif len(column) == 1:
            self.input_scale = 1 - (beta if isinstance(beta, (int, float)) else column.item())
        else:
            self.register_buffer("input_scale", (1 - column).to(place))
            self.in_double.add("input_scale")

    # -- the call --------------------------------------------------------------------------------------------------

    def core_inputs(self, dtype: torch.dtype) -> dict[str, Any]:
        """Tensors of the core's ``Inputs`` that the model decides, in ``dtype``: all parameters in their final form."""
        raise NotImplementedError

    def core_settings(self) -> dict[str, Any]:
        """Fields of the core's ``Settings`` that the model decides."""
        raise NotImplementedError

    def _output_channels(self, channels: int) -> int:
        return channels

    def _fused(self, x_seq: Tensor, states: States, firing: Firing, record: bool = False) -> tuple[Any, ...]:
        """A sequence in one call of the registered op."""
        if x_seq.dim() == 0 or x_seq.shape[0] == 0:
            raise ValueError("x_seq is an empty sequence: it has 0 time steps; at least 1 is needed")
        lift = max(0, 3 - x_seq.dim())  # a sequence of single neurons or of plain vectors
        if lift:
            x_seq = x_seq.reshape(x_seq.shape[0], *[1] * lift, *x_seq.shape[1:])
            states = tuple(s.reshape(*[1] * lift, *s.shape) for s in states)
        channels = self._output_channels(x_seq.shape[2])
        dtype = state_dtype(x_seq.dtype)
        own: list[Any] = [*states]
        fired = own.pop() if firing.fire_once else None
        threshold = firing.threshold
        if isinstance(threshold, Tensor):
            threshold = threshold.reshape(-1).to(dtype)
            if len(threshold) not in (1, channels):  # before parameters are made for as many channels
                raise ValueError(f"threshold has {len(threshold)} values; the neuron has {channels} channels")
        else:
            threshold = torch.full((1,), float(threshold), dtype=dtype, device=x_seq.device)
        if self._templates:
            self.prepare(channels)
        surrogate: dict[str, Any] = {}
        own_surrogate = None
        if isinstance(firing.surrogate, Surrogate):
            kind, a, b = firing.surrogate.kind, firing.surrogate.a, firing.surrogate.b
            surrogate = {"surrogate": kind, "surrogate_a": a, "surrogate_b": b}
        else:
            own_surrogate = firing.surrogate
        settings = Settings(
            reset=firing.reset,
            timing=firing.timing,
            v_reset=float(firing.v_reset),
            strict=firing.strict,
            detach=firing.detach,
            fire_once=firing.fire_once,
            record=record,
            **surrogate,
            **self.core_settings(),
        )
        own = [state if state.dtype == dtype else state.to(dtype) for state in own]
        inputs = Inputs(
            x=x_seq,
            u=own[0],
            v=own[1] if settings.branches else None,
            fired=None if fired is None else fired.to(dtype),
            threshold=threshold,
            **self.core_inputs(dtype),
        )
        activation = getattr(self, "activation", None)  # a name is in the settings
        own_activation = None if activation is None or isinstance(activation, str) else activation
        out = soma_dendrite(inputs, settings, own_surrogate, own_activation)
        new = tuple(s for s in (out.u, out.v, out.fired) if s is not None)
        self.refuse_nonfinite(new, x_seq.shape[0])
        spikes, trace = out.spikes, out.u_sequence
        if lift:
            spikes = spikes.reshape(spikes.shape[0], *spikes.shape[1 + lift :])
            trace = None if trace is None else trace.reshape(trace.shape[0], *trace.shape[1 + lift :])
            new = tuple(s.reshape(s.shape[lift:]) for s in new)
        return (spikes, new, trace) if record else (spikes, new)

    def _has_own_step(self) -> bool:
        return type(self).step is not SomaDendriteModel.step

    def step(self, x: Tensor, states: States, firing: FiringStep) -> tuple[Tensor, States]:
        """One step, for a subclass that does something before or after it; without one, the core runs all at once."""
        setting, once = firing.setting, firing.allowed is not None
        begun = setting.reset == "hard" and firing.r is not None  # u is past its reset, which the core would not know
        core = dataclasses.replace(setting, reset="none") if begun else setting
        states = states if firing.allowed is None else (*states, 1 - firing.allowed)
        spikes, (u, *others) = self._fused(x.unsqueeze(0), states, core)
        s = spikes[0]
        return s, (firing.reset(u, s) if begun else u, *(others[:-1] if once else others))

    def advance(self, x: Tensor, states: States, firing: Firing) -> tuple[Tensor, States]:
        if self._has_own_step():
            return super().advance(x, states, firing)
        spikes, states = self._fused(x.unsqueeze(0), states, firing)
        return spikes[0], states

    def sequence(self, x_seq: Tensor, states: States, firing: Firing, record: bool = False) -> tuple[Any, ...]:
        run = super().sequence if self._has_own_step() else self._fused
        return run(x_seq, states, firing, record)


def _itself(value: Tensor) -> Tensor:
    return value


def check_channels(channels: int | None) -> None:
    """Raise unless it is a positive integer or None."""
    if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
        raise ValueError(f"channels is {channels!r}; it must be a positive integer or None")


def _table(name: str, values: Values) -> Tensor:
    """In float64, and on the CPU where these are no tensor: their range is checked, also of a model made on "meta"."""
    if isinstance(values, Tensor):
        return values.to(torch.float64)
    try:
        return torch.as_tensor(values, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {values!r}; it must be a number, numbers or a tensor") from None


def holds(condition: Tensor) -> bool:
    """Whether all values fulfil it, as far as there are values to look at: not on "meta", nor under FakeTensorMode."""
    return type(condition) is not Tensor or condition.is_meta or bool(condition.all())


def _place(table: Tensor) -> torch.device:
    """Where a parameter made from ``table`` belongs: where the user put that, or on the default device."""
    return torch.get_default_device() if table.device.type == "cpu" else table.device


def soma_row(beta: Values, rest: float, degree: int) -> Tensor:
    """Coefficients of ``P``, ``[1 or C, K + 1]``, that start as a leak of ``beta`` per step towards ``rest``: LIF."""
    if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
        raise ValueError(f"degree is {degree!r}; the soma's polynomial needs an integer of at least 1")
    decay = decay_column(beta)
    return torch.cat(((1 - decay) * rest, decay, decay.new_zeros(decay.shape[0], degree - 1)), dim=1)


def decay_column(beta: Values) -> Tensor:
    """A decay per step, one or one per channel, as ``[1 or C, 1]`` in float64."""
    column = _table("beta", beta).detach().reshape(-1, 1)
    if not holds((column >= 0) & (column <= 1)):
        raise ValueError(f"beta is {beta!r}; a decay per step must lie between 0 and 1")
    return column
