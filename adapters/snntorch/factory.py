"""Node classes of a registered model: name, signature and documentation around the shell."""

from __future__ import annotations

import inspect
from typing import Any

from ...neurons.base import NeuronModel
from ..base import accepts, merged_signature
from .nodes import ModelNeuron, ModelSequence
from .shell import HIDDEN, KEYWORD_ONLY, Shell, get_beta, set_beta

__all__ = ["node_class"]

_PARAMETER = inspect.Parameter

_STEP = """One time step per call, ``forward(input_, mem=None)``: ``input_ [N, C, *]`` -> ``(spk, mem)``, or ``spk``
alone with ``init_hidden=True`` and ``output=False``. ``mem`` is the soma's potential, also an attribute.
{others}``reset_mem()`` (also ``init_{lower}()`` and ``init_leaky()``) starts a sequence: call it, or
``snntorch.utils.reset(net)``, which finds the neuron at any depth, before each one; with explicit states ``mem`` of
your own starts one too. A ``mem`` of another shape starts everything afresh. States are no buffers."""

_SEQUENCE = """All time steps in one call, without a Python loop: ``input_ [T, N, C, *]`` -> spikes ``[T, N, C, *]``, or
with ``output=True`` ``(spk, mem)`` with the potential after every step. Time comes first, as in ``LeakyParallel`` and
``StateLeaky``, and like these it starts from reset states at every call; with ``carry_states=True`` it goes on
where the last call stopped, until ``reset_mem()`` or ``snntorch.utils.reset(net)``. It computes what the class for
single steps computes in a loop."""

_HOST = """``threshold`` (one value, or one per channel), ``spike_grad``, ``surrogate_disable``, ``inhibition``,
``learn_threshold``, ``reset_mechanism``, ``state_quant``, ``output``, ``graded_spikes_factor``,
``learn_graded_spikes_factor`` and ``reset_delay`` are those of ``snn.Leaky``. {beta}
``fire_once`` allows one spike per neuron until the reset. The input is never scaled. Spikes have the input's dtype;
states are float32 (float64 for float64). ``inhibition``, ``state_quant`` (applied to every state) and a ``spike_grad``
that is not one of ``snntorch.surrogate`` take a slower path with the same result.

Raises:
    TypeError, ValueError: an unknown argument, or one out of its range; the message names it."""


def _signature(model_class: type[NeuronModel], shell: type[Shell]) -> inspect.Signature:
    """Leaky's order for a model with a beta; else the model's own arguments first and the host's by keyword."""
    beta = accepts(model_class, "beta")
    host = []
    for name, default in shell.host_arguments.items():
        if beta or name != "learn_beta":
            kind = _PARAMETER.KEYWORD_ONLY if name in KEYWORD_ONLY or not beta else _PARAMETER.POSITIONAL_OR_KEYWORD
            host.append(_PARAMETER(name, kind, default=default))
    if beta:
        first = _PARAMETER("beta", _PARAMETER.POSITIONAL_OR_KEYWORD)
        return merged_signature(model_class, inspect.Signature([first, *host]), HIDDEN)
    names = {parameter.name for parameter in host}
    own = [
        parameter
        for parameter in inspect.signature(model_class.__init__).parameters.values()
        if parameter.name not in {"self", *HIDDEN, *names}
        and parameter.kind not in (_PARAMETER.VAR_POSITIONAL, _PARAMETER.VAR_KEYWORD)
    ]
    return inspect.Signature([*own, *host])


def _documentation(name: str, model_class: type[NeuronModel], shell: type[Shell], signature: inspect.Signature) -> str:
    others = ", ".join(f"``{state}``" for state in list(model_class.states)[1:])
    if others:
        others = f"Further states ({others}) are attributes too, and belong to the ``mem`` they were returned with.\n"
    text = _SEQUENCE if shell is ModelSequence else _STEP
    beta = "``beta`` is the potential's decay per\nstep, one number or one per channel."
    protocol = text.format(others=others, lower=name.lower())
    parts = [f"{name}: the neuron model {model_class.__name__} as a native neuron of snnTorch.", protocol]
    parts.append(_HOST.format(beta=beta if "beta" in signature.parameters else "The model decides what they mean."))
    needed = [p.name for p in signature.parameters.values() if p.default is p.empty]
    if set(needed) <= {"beta"}:
        call, x = ("beta=0.9" if needed else ""), "8, 4, 6" if shell is ModelSequence else "4, 6"
        result = "spk" if shell is ModelSequence else "spk, mem"
        parts.append(
            f"Example::\n\n    >>> import torch, snntorch as snn, snn_dendrite_plugin\n"
            f"    >>> neuron = snn.{name}({call})\n"
            f"    >>> {result} = neuron(torch.rand({x}))\n    >>> spk.shape\n    torch.Size([{x}])"
        )
    parts.append(f"The model:\n\n{inspect.getdoc(model_class) or model_class.__name__}")
    return "\n\n".join(parts)


def node_class(name: str, model_class: type[NeuronModel], whole_sequence: bool = False) -> type[Shell]:
    """The snnTorch class ``name`` of a model, for single steps or for whole sequences.

    Raises:
        TypeError: ``model_class`` is not a :class:`NeuronModel`.
    """
    if not (isinstance(model_class, type) and issubclass(model_class, NeuronModel)):
        raise TypeError(f"the model of {name} is {model_class!r}; it must be a subclass of NeuronModel")
    shell = ModelSequence if whole_sequence else ModelNeuron
    signature = _signature(model_class, shell)
    body: dict[str, Any] = {
        "model_class": model_class,
        "takes_beta": "beta" in signature.parameters,
        "__doc__": _documentation(name, model_class, shell, signature),
        "__module__": __package__,
        "__signature__": signature,
    }
    if body["takes_beta"]:
        body["beta"] = property(get_beta, set_beta, doc=get_beta.__doc__)
    if not whole_sequence:
        body[f"init_{name.lower()}"] = _init
    return type(name, (shell,), body)


def _init(self):
    """:meth:`reset_mem` by the name that snnTorch's tutorials would give it."""
    return self.reset_mem()
