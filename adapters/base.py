"""What every host adapter shares: making node classes of registered models and showing them in the host's namespace,
and what a node hands to its model."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.dtypes import state_dtype
from ..neurons.base import HOST_ARGUMENTS, Firing, NeuronModel, States

__all__ = [
    "HostAdapter",
    "accepts",
    "learned_decay",
    "merged_signature",
    "read_decay",
    "say_slow",
    "split_arguments",
    "states_for",
    "write_decay",
]

log = logging.getLogger("snn_dendrite_plugin")
_said: set[str] = set()


class HostAdapter:
    """A host as the rest of the plugin sees it. One subclass per host; ``adapter`` in its package is the instance.

    Registration never overwrites a name that the host already has, is idempotent, and can be undone. Conversion asks
    the adapter what is a neuron, what its arguments are, and for the node that takes its place.
    """

    host: str = ""

    def __init__(self) -> None:
        self.installed: dict[str, type] = {}
        self._classes: dict[tuple[str, Any], type] = {}

    # -- registration ----------------------------------------------------------------------------------------------

    def namespaces(self) -> Iterable[ModuleType]:
        """The host's modules in which users look for neurons."""
        raise NotImplementedError

    def classes(self, spec: Any) -> Mapping[str, type]:
        """The node classes of a registered model: name in the host -> class."""
        raise NotImplementedError

    def patch(self) -> None:
        """Whatever the host needs beside the names, idempotent; undone by :meth:`unpatch`."""

    def unpatch(self) -> None:
        """Undo :meth:`patch`."""

    def install(self, spec: Any) -> None:
        """Show the model's classes in the host's namespaces."""
        self.patch()
        for name, cls in self.classes(spec).items():
            for space in self.namespaces():
                existing = getattr(space, name, None)
                if existing is None:
                    setattr(space, name, cls)
                elif existing is not cls:
                    log.debug("%s already has %s.%s: left as it is", self.host, space.__name__, name)
                    continue
                self.installed[name] = cls

    def uninstall(self) -> None:
        """Take every name out again and undo the patches."""
        for name, cls in self.installed.items():
            for space in self.namespaces():
                if vars(space).get(name) is cls:
                    delattr(space, name)
        self.installed.clear()
        self.unpatch()

    def cached_class(self, name: str, spec: Any, build: Any) -> type:
        """One class per name and model, so that deactivating and activating again keeps ``isinstance`` true."""
        key = (name, spec.target)
        if key not in self._classes:
            self._classes[key] = build()
        return self._classes[key]

    def resolve(self, name: str) -> type:
        """The node class called ``name`` in this host: for unpickling and ``from adapters.host import Name``."""
        from ..plugins import models

        tuple(self.namespaces())  # imports the host, which installs the models, before our modules that import it too
        for spec in models().values():
            if name in spec.names_in(self.host):
                return self.classes(spec)[name]
        raise AttributeError(f"no registered neuron model is called {name!r} in {self.host}")

    # -- conversion ------------------------------------------------------------------------------------------------

    def is_neuron(self, module: nn.Module) -> bool:
        """Whether ``module`` is one of the host's neurons (convertible or not)."""
        raise NotImplementedError

    def why_not(self, module: nn.Module) -> str | None:
        """The reason why this neuron has no dendritic counterpart, or None when it can be converted."""
        raise NotImplementedError

    def read(self, module: nn.Module) -> dict[str, Any]:
        """Constructor arguments common to the host's neuron and ours, read off ``module``."""
        raise NotImplementedError

    def current_decay(self, module: nn.Module) -> float | None:
        """Decay per step of the synaptic current ``I[t] = decay * I[t-1] + x[t]`` that drives this neuron's membrane.

        None where the input itself does. Only models with a place for a current (``NeuronModel.filtered``) can then
        take the neuron's place.
        """
        return None

    def build(self, name: str, arguments: Mapping[str, Any]) -> nn.Module:
        """A node of the registered model ``name`` from :meth:`read`'s arguments and the user's."""
        from ..plugins import models

        specs = models()
        if name not in specs:
            raise ValueError(f"to is {name!r}; registered neuron models are {', '.join(specs)}")
        spec = specs[name]
        return self.classes(spec)[spec.name_in(self.host)](**arguments)

    def learned_back(self, original: nn.Module, node: nn.Module) -> None:
        """Give ``original`` what ``node``, which stood in for it, learned under another name: the decay."""

    def before_swap(self, root: nn.Module) -> None:
        """Called on the model before neurons are exchanged, e.g. to clear their states."""

    def after_swap(self, root: nn.Module) -> None:
        """Called on the model after neurons were exchanged, e.g. to drop the host's caches."""

    def forget(self, module: nn.Module) -> None:
        """Release a neuron that was taken out of a model, for hosts that list their neurons somewhere; else nothing."""

    def remember(self, module: nn.Module) -> None:
        """The opposite of :meth:`forget`, for a neuron that goes back into a model."""

    def channel_axis(self, module: nn.Module) -> int:
        """Axis of the channels in this neuron's input: 2 for sequences ``[T, N, C, *]``, 1 for steps ``[N, C, *]``."""
        return 2 if getattr(module, "step_mode", "s") == "m" else 1


# -- what a node hands to its model ------------------------------------------------------------------------------------


def states_for(
    model: NeuronModel, x: Tensor, held: Sequence[Tensor | float | None], firing: Callable[[], Firing]
) -> States:
    """The states that a call starts from, by one rule for every host.

    Args:
        model: the neuron model.
        x: one step's input, ``[N, C, *]``.
        held: what the host keeps, one entry for each name of ``model.state_names``. A tensor goes on where it has the
            shape that ``x`` asks for; a number is the value of every neuron; None leaves the start to the model. A
            potential, the first, of another shape starts all states afresh; another state of another shape only itself.
        firing: gives the host's :class:`Firing`. Asked only where the model's ``init_states`` is.

    Returns:
        the states, on ``x``'s device and in the state dtype. Reset states stay one number expanded to its shape, which
        a kernel need not read neuron by neuron; not to be written to in place.

    Raises:
        ValueError: the model's ``init_states`` and ``state_shapes`` disagree.

    Example::

        >>> import torch
        >>> from snn_dendrite_plugin import Firing
        >>> from snn_dendrite_plugin.neurons.dendsn import DendSN
        >>> v, v_dend = states_for(DendSN(branches=3), torch.rand(2, 5), (0.0, None), Firing)
        >>> v.shape, v_dend.shape, v.stride()
        (torch.Size([2, 5]), torch.Size([2, 5, 3]), (0, 0))
    """
    shapes = [tuple(shape) for shape in model.state_shapes(x.shape)]
    shapes += shapes[:1] * (len(held) - len(shapes))  # fired
    dtype = state_dtype(x.dtype)
    afresh = isinstance(held[0], Tensor) and tuple(held[0].shape) != shapes[0]
    fresh: States | None = None
    states = []
    for i, (state, shape) in enumerate(zip(held, shapes, strict=True)):
        if isinstance(state, Tensor) and not afresh and tuple(state.shape) == shape:
            states.append(state.to(x.device, dtype))
        elif isinstance(state, (int, float)):
            states.append(x.new_full((), state, dtype=dtype).expand(shape))
        else:
            fresh = _reset_states(model, x, firing(), shapes) if fresh is None else fresh
            states.append(fresh[i])
    return tuple(states)


def _reset_states(model: NeuronModel, x: Tensor, firing: Firing, shapes: Sequence[tuple[int, ...]]) -> States:
    fresh = model.init_states(x, firing)
    if [tuple(state.shape) for state in fresh] != list(shapes):
        name = type(model).__name__
        raise ValueError(f"{name}.init_states and {name}.state_shapes disagree for x {tuple(x.shape)}")
    return fresh


def say_slow(node: str, what: str) -> None:
    """One log line per reason, on the path that is taken where the fused one cannot express something."""
    if what not in _said:
        _said.add(what)
        log.warning("%s with %s runs step by step on the reference path: correct, but slower", node, what)


def read_decay(model: nn.Module) -> Tensor:
    """The decay per step of a model that takes ``beta``: one value, or one per channel; its ``decay``, or its ``beta``.

    Carries a gradient where it is learned.
    """
    return model.decay if hasattr(type(model), "decay") else torch.as_tensor(model.beta)


def write_decay(model: nn.Module, value: float | Tensor) -> None:
    """Set the decay per step in place, one value or one per channel: by the model's ``set_decay``, or its ``beta``.

    Raises:
        ValueError: the model has neither, or the value does not fit.
    """
    if hasattr(model, "set_decay"):
        model.set_decay(value)
    elif isinstance(getattr(model, "beta", None), Tensor):
        with torch.no_grad():
            model.beta.copy_(torch.as_tensor(value))
    elif hasattr(model, "beta"):
        model.beta = float(value)
    else:
        raise ValueError(f"{type(model).__name__} has neither beta nor set_decay, so its decay cannot be set")


def learned_decay(model: nn.Module, before: Tensor) -> Tensor | None:
    """The decay per step that ``model`` learned, shaped like the original's ``before``; None if that is what it is.

    A decay that only went through a logit and back is not news, one outside 0 to 1 (an LNM's) is no decay.
    """
    now = getattr(model, "decay", None)
    if now is None or now.numel() not in (1, before.numel()):
        return None
    now = now.detach().to(before).reshape(-1).expand(before.numel()).reshape(before.shape)
    same = torch.allclose(now, before, rtol=0.0, atol=1e-6)
    return None if same or not bool(((now > 0) & (now < 1)).all()) else now


def accepts(model_class: type, name: str) -> bool:
    """Whether a model's constructor takes the argument ``name``.

    Of the names of ``neurons.base.HOST_ARGUMENTS``, which hosts and conversion fill in, a model may declare by
    ``from_host`` which it means; the others are then its own business, whatever they are called.
    """
    declared = getattr(model_class, "from_host", None)
    if declared is not None and name in HOST_ARGUMENTS:
        return name in declared
    return name in inspect.signature(model_class.__init__).parameters


def split_arguments(
    model_class: type, arguments: Mapping[str, Any], host_names: Iterable[str], node: str
) -> dict[str, Any]:
    """The model's share of ``arguments``; raises TypeError naming an argument that nobody takes."""
    known = set(inspect.signature(model_class.__init__).parameters) - {"self"}
    for name in arguments:
        if name not in known:
            options = ", ".join(sorted(known | set(host_names)))
            raise TypeError(f"{node} got an unexpected argument {name!r}; it takes {options}")
    return dict(arguments)


def merged_signature(model_class: type, host: inspect.Signature, hidden: Iterable[str] = ()) -> inspect.Signature:
    """Signature of a node class for help() and editors: the host's own parameters, then the model's."""
    own = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in inspect.signature(model_class.__init__).parameters.values()
        if p.name != "self" and p.name not in set(hidden) and p.name not in host.parameters
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip
    shared = [p for p in host.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return inspect.Signature([*shared, *own])
