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

from .. import plugins
from ..kernels.dtypes import state_dtype
from ..neurons.base import HOST_ARGUMENTS, Firing, NeuronModel, States

__all__ = [
    "HostAdapter",
    "Kit",
    "accepts",
    "in_backward",
    "learned_decay",
    "merged_signature",
    "read_decay",
    "recomputed",
    "say_once",
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
    # The host's modules whose subclasses of nn.Module a checkpoint may contain, as none of their constructors reads,
    # writes or runs anything; and the modules among these for which that is not true.
    checkpoint_modules: tuple[str, ...] = ()
    checkpoint_barred: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.installed: dict[str, type] = {}
        self.installed_layers: dict[str, type] = {}
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
        """Show a model's classes in the host's namespaces."""
        self.patch()
        self._show(self.classes(spec), self.namespaces(), self.installed)

    def install_layer(self, spec: Any) -> None:
        """Show a layer, in the host's form, in the namespaces where users look for layers."""
        classes = {spec.name_in(self.host): self.layer_class(spec)}
        self._show(classes, self.layer_namespaces(), self.installed_layers)

    def _show(self, classes: Mapping[str, type], spaces: Iterable[ModuleType], installed: dict[str, type]) -> None:
        for name, cls in classes.items():
            for space in spaces:
                existing = getattr(space, name, None)
                if existing is None:
                    setattr(space, name, cls)
                elif existing is not cls:
                    log.debug("%s already has %s.%s: left as it is", self.host, space.__name__, name)
                    continue
                installed[name] = cls

    def uninstall(self) -> None:
        """Take every name out again and undo the patches."""
        shown = ((self.installed, self.namespaces()), (self.installed_layers, self.layer_namespaces()))
        for installed, spaces in shown:
            for name, cls in installed.items():
                for space in spaces:
                    if vars(space).get(name) is cls:
                        delattr(space, name)
            installed.clear()
        self.unpatch()

    def cached_class(self, name: str, spec: Any, build: Any) -> type:
        """One class per name and model, so that deactivating and activating again keeps ``isinstance`` true."""
        key = (name, spec.target)
        if key not in self._classes:
            self._classes[key] = build()
        return self._classes[key]

    def resolve(self, name: str) -> type:
        """The class called ``name`` in this host: for unpickling and ``from adapters.host import Name``."""
        for spec in plugins.models().values():
            if name in spec.names_in(self.host):
                return self.classes(spec)[name]
        for layer in plugins.layers().values():
            if name == layer.name_in(self.host):
                return self.layer_class(layer)
        raise AttributeError(f"no registered neuron model or layer is called {name!r} in {self.host}")

    # -- layers ----------------------------------------------------------------------------------------------------

    def layer_namespaces(self) -> Iterable[ModuleType]:
        """The host's modules in which users look for layers; where they look for neurons, unless it has another."""
        return self.namespaces()

    def layer_class(self, spec: Any) -> type:
        """The host's form of a registered layer: the plain class, where users' layers are torch's own."""
        return spec.load()

    def layer(self, plain: nn.Module) -> nn.Module:
        """The host's form of a stateless layer that takes one step ``[N, C, *]``; it shares the plain one's weights."""
        return plain

    def kit(self, steps: int) -> Kit:
        """What a clock-driven network is built of in this host, ``steps`` time steps per window."""
        return Kit(self, steps)

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
        specs = plugins.models()
        if name not in specs:
            raise ValueError(f"to is {name!r}; registered neuron models are {', '.join(specs)}")
        spec = specs[name]
        return self.classes(spec)[spec.name_in(self.host)](**arguments)

    def learned_back(self, original: nn.Module, node: nn.Module) -> None:
        """Give ``original`` what ``node``, which stood in for it, learned under another name: the decay."""

    def before_swap(self, root: nn.Module) -> None:
        """Clear the states of the host's neurons in ``root``: before they are exchanged, and to reset a network."""

    def after_swap(self, root: nn.Module) -> None:
        """Called on the model after neurons were exchanged, e.g. to drop the host's caches."""

    def forget(self, module: nn.Module) -> None:
        """Release a neuron that was taken out of a model, for hosts that list their neurons somewhere; else nothing."""

    def remember(self, module: nn.Module) -> None:
        """The opposite of :meth:`forget`, for a neuron that goes back into a model."""

    def picklable(self, value: Any) -> Any:
        """A neuron that was taken out of a model, or an argument of a node, or the like of it that pickles."""
        return value

    def channel_axis(self, module: nn.Module) -> int:
        """Axis of the channels in this neuron's input: 2 for sequences ``[T, N, C, *]``, 1 for steps ``[N, C, *]``."""
        return 2 if getattr(module, "step_mode", "s") == "m" else 1


class Kit:
    """What a clock-driven network is built of: a host's layers and ``TTFS`` nodes, and our clocked layers between.

    Attributes:
        steps: time steps per window.
        sequences: whether all of it takes whole sequences ``[T, N, C, *]`` too, in ``step_mode`` ``"m"``; else a call
            is one step.
    """

    sequences = False
    node_options: Mapping[str, Any] = {}  # the host's arguments of a node that returns spikes and keeps its states

    def __init__(self, adapter: HostAdapter, steps: int) -> None:
        self.adapter, self.steps = adapter, steps

    def layer(self, plain: nn.Module) -> nn.Module:
        """The host's form of a stateless layer."""
        return self.adapter.layer(plain)

    def clocked(self, kind: type, *arguments: Any, **options: Any) -> nn.Module:
        """A clocked layer, ``kind(steps, *arguments, **options)``, that the host's own functions can reset."""
        return kind(self.steps, *arguments, **options)

    def neuron(self, window: float, input_window: float, bias: Tensor | None) -> nn.Module:
        """Neurons that fire once per window, which return their spikes alone."""
        arguments = {"steps": self.steps, "window": window, "input_window": input_window, "bias": bias}
        return self.adapter.build("TTFS", {**arguments, **self.node_options})


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
    if not torch.compiler.is_compiling() and isinstance(held[0], Tensor) and held[0].is_inference():
        held = [_usable(state) for state in held]
    afresh = isinstance(held[0], Tensor) and tuple(held[0].shape) != shapes[0]
    fresh: States | None = None
    states = []
    for i, (state, shape) in enumerate(zip(held, shapes, strict=True)):
        if isinstance(state, Tensor) and not afresh and tuple(state.shape) == shape:
            there = state.dtype == dtype and state.device == x.device
            states.append(state if there else state.to(x.device, dtype))
        elif isinstance(state, (int, float)):
            states.append(x.new_full((), state, dtype=dtype).expand(shape))
        else:
            fresh = _reset_states(model, x, firing(), shapes) if fresh is None else fresh
            states.append(fresh[i])
    return tuple(states)


def _usable(state: Tensor | float | None) -> Tensor | float | None:
    """A state from inference mode as autograd can save it."""
    return state.clone() if isinstance(state, Tensor) and not torch.is_inference_mode_enabled() else state


def _reset_states(model: NeuronModel, x: Tensor, firing: Firing, shapes: Sequence[tuple[int, ...]]) -> States:
    fresh = model.init_states(x, firing)
    if [tuple(state.shape) for state in fresh] != list(shapes):
        name = type(model).__name__
        raise ValueError(f"{name}.init_states and {name}.state_shapes disagree for x {tuple(x.shape)}")
    return fresh


def say_once(message: str) -> None:
    """A warning in the log, the first time that there is reason for it."""
    if message not in _said:
        _said.add(message)
        log.warning(message)


def say_slow(node: str, what: str) -> None:
    """One log line per reason, on the path that is taken where the fused one cannot express something."""
    if what not in _said:
        _said.add(what)
        log.warning("%s with %s runs step by step on the reference path: correct, but slower", node, what)


in_backward: Callable[[], int] = torch._C._current_graph_task_id
"""Number of the backward pass that runs now in this thread, -1 outside of any; not for code that is compiled."""


def recomputed(node: str, way_out: str) -> RuntimeError:
    """The error of a neuron that runs again in a backward pass, from states that have moved on since."""
    return RuntimeError(
        f"{node} runs again in a backward pass (torch.utils.checkpoint), but its states are those after the last step: "
        f"gradients would be wrong. Reset the neuron inside the checkpointed function, or {way_out}"
    )


def read_decay(model: nn.Module) -> Tensor:
    """The decay per step of a model that takes ``beta``: one value, or one per channel; its ``decay``, or its ``beta``.

    Carries a gradient where it is learned.
    """
    target: Any = model
    decay: Tensor = target.decay if hasattr(type(model), "decay") else torch.as_tensor(target.beta)
    return decay


def write_decay(model: nn.Module, value: float | Tensor) -> None:
    """Set the decay per step in place, one value or one per channel: by the model's ``set_decay``, or its ``beta``.

    Raises:
        ValueError: the model has neither, or the value does not fit.
    """
    target: Any = model
    if hasattr(model, "set_decay"):
        target.set_decay(value)
    elif isinstance(getattr(model, "beta", None), Tensor):
        with torch.no_grad():
            target.beta.copy_(torch.as_tensor(value))
    elif hasattr(model, "beta"):
        target.beta = float(value)
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
    return name in inspect.signature(model_class.__init__).parameters  # type: ignore[misc]


def split_arguments(
    model_class: type, arguments: Mapping[str, Any], host_names: Iterable[str], node: str
) -> dict[str, Any]:
    """The model's share of ``arguments``; raises TypeError naming an argument that nobody takes."""
    known = set(inspect.signature(model_class.__init__).parameters) - {"self"}  # type: ignore[misc]
    for name in arguments:
        if name not in known:
            options = ", ".join(sorted(known | set(host_names)))
            raise TypeError(f"{node} got an unexpected argument {name!r}; it takes {options}")
    return dict(arguments)


def merged_signature(model_class: type, host: inspect.Signature, hidden: Iterable[str] = ()) -> inspect.Signature:
    """Signature of a node class for help() and editors: the host's own parameters, then the model's."""
    own = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for p in inspect.signature(model_class.__init__).parameters.values()  # type: ignore[misc]
        if p.name != "self" and p.name not in set(hidden) and p.name not in host.parameters
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip
    shared = [p for p in host.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return inspect.Signature([*shared, *own])
