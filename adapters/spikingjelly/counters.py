"""SpikingJelly's operation counters count our operators.

The host's counters have a table of rules, ATen operator -> count, and take an operator without a rule for free. This
gives every counter that is made a rule for ours, from :mod:`...kernels.operations`:

- ``FlopCounter``: additions, multiplications and comparisons one each, a function four (as the host's sigmoid).
- ``MACCounter``: products of real numbers with weights that are added up: gains, strengths, the terms of a polynomial
  soma from theta_2 on, a TTFS neuron's charge. The leak counts as the host's own neurons' does, under the next.
- ``ACCounter``: all other additions.
- ``MemoryAccessCounter``: what each operation reads and writes, as if run one by one, as the host counts its own
  neurons on a CPU; spikes are written as booleans, cast and stacked; states are read and written once per call more.
- ``NeuronStateCounter``: operations, reads and writes of states and of what becomes one. Without looking at the data,
  it counts every reset as triggered by a spike, and none as sparse.

``estimate_simple_energy`` adds up these and the memories of the node, which the host sees by itself. A rule that the
user gives (``extra_rules``) goes before ours. A dendritic neuron whose dendrite is switched off never counts less than
``LIFNode``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor

from ...kernels.counting import OPERATORS, arguments_of, of_call
from ...kernels.operations import Operation, Total, total
from ..patching import Patches

__all__ = ["apply"]

_FUNCTION = 4  # floating point operations of a function, as the host counts sigmoid


def _flop(found: Total) -> int:
    return found.operations + (_FUNCTION - 1) * found.functions


_TOTALS: dict[str, Callable[[Total], int]] = {
    "FlopCounter": _flop,
    "ACCounter": lambda found: found.accumulates,
    "MACCounter": lambda found: found.multiply_accumulates,
}


def _memory(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    operations = of_call(op, args, kwargs) or []
    named = arguments_of(op, args, kwargs)
    size = _state_size(op, named)
    found = sum(o.reads * size + o.writes * (1 if o.kind == "comparison" else size) for o in operations)
    states = sum(_bytes(named.get(name)) for name in _STATES.get(op.name(), ()))
    spikes = out[0] if op.name() in _STATES else None
    emitted = 0 if spikes is None else spikes.numel() + 3 * _bytes(spikes)  # cast from boolean, stacked
    return found + 2 * states + emitted


_STATES = {"snn_dendrite::soma_dendrite": ("u", "v", "fired"), "snn_dendrite::ttfs": ()}


def _state_size(op: Any, named: dict[str, Any]) -> int:
    for name in ("u", "windows"):
        if isinstance(named.get(name), Tensor):
            return named[name].element_size()
    raise ValueError(f"{op} has no state to take the element size from")


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0


def _with_rules(rule: Callable[[Any], Callable[[tuple, dict, Any], int]]) -> Callable[[Callable], Callable]:
    """A wrapper of a counter's ``__init__`` that adds our rules to those it made."""

    def make(original: Callable) -> Callable:
        @functools.wraps(original)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            for op in OPERATORS:
                self.rules.setdefault(op, rule(op))

        return init

    return make


def _total_rule(reduce: Callable[[Total], int]) -> Callable[[Any], Callable[[tuple, dict, Any], int]]:
    return lambda op: lambda args, kwargs, out: reduce(total(of_call(op, args, kwargs) or []))


def _memory_rule(op: Any) -> Callable[[tuple, dict, Any], int]:
    return lambda args, kwargs, out: _memory(op, args, kwargs, out)


_STATE_KINDS = {
    "addition": "state_adds",
    "multiplication": "state_muls",
    "comparison": "state_comps",
    "function": "state_nonlinear_ops",
}


def _state_metrics(operations: list[Operation], size: int) -> dict[str, int]:
    metrics = dict.fromkeys(
        (
            "state_reads",
            "state_writes",
            *_STATE_KINDS.values(),
            "state_reset_ops",
            "state_select_ops",
            "spike_triggered_ops",
            "timestep_dense_ops",
        ),
        0,
    )
    for operation in operations:
        if not operation.states:
            continue
        metrics[_STATE_KINDS[operation.kind]] += operation.count
        metrics["state_reads"] += operation.states * size
        if operation.kind in ("addition", "multiplication"):  # what the host takes for a write
            metrics["state_writes"] += operation.writes * size
            for name in ("state_reset_ops", "spike_triggered_ops") if operation.reset else ("timestep_dense_ops",):
                metrics[name] += operation.count
    return metrics


def _counts_states(original: Callable) -> Callable:
    """``NeuronStateCounter.count``, which looks for states among the tensors of ATen operators only."""

    @functools.wraps(original)
    def count(self: Any, func: Any, args: tuple, kwargs: dict, out: Any, active_modules=None, parent_names=None):
        from spikingjelly.activation_based.neuron import BaseNode

        nodes = [module for module in active_modules or () if isinstance(module, BaseNode)]
        if not nodes or func not in OPERATORS or "backward" in func.name():
            return original(self, func, args, kwargs, out, active_modules, parent_names)
        if any(type(module) in self.extra_state_rules for module in nodes):  # the user's own rule goes first
            return original(self, func, args, kwargs, out, active_modules, parent_names)
        named = arguments_of(func, args, kwargs)
        size = _state_size(func, named)
        held = [named[name] for name in ("u", "v", "fired") if isinstance(named.get(name), Tensor)]
        buffer = max((_bytes(state) for state in held), default=0) or _bytes(out[1][0])  # TTFS: potentials of a window
        return self._store_breakdown(_state_metrics(of_call(func, args, kwargs) or [], size), state_buffer_bytes=buffer)

    return count


def apply(patches: Patches, module: ModuleType) -> None:
    """Teach the host's counters our operators; ``module`` is its package ``op_counter``."""
    for name, reduce in _TOTALS.items():
        if hasattr(module, name):
            patches.replace(getattr(module, name), "__init__", _with_rules(_total_rule(reduce)))
    if hasattr(module, "MemoryAccessCounter"):
        patches.replace(module.MemoryAccessCounter, "__init__", _with_rules(_memory_rule))
    counter = getattr(module, "NeuronStateCounter", None)
    if counter is not None and hasattr(counter, "_store_breakdown"):
        patches.replace(counter, "count", _counts_states)
