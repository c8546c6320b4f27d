"""Every registered neuron model as ``norse.torch.<Name>`` (a sequence) and ``norse.torch.<Name>Cell`` (one step)."""

from __future__ import annotations

from typing import Any

import norse.torch as nt
from norse.torch.functional.reset import reset_subtract
from norse.torch.functional.threshold import threshold
from norse.torch.module.snn import SNN, SNNCell, SNNRecurrent, SNNRecurrentCell
from torch import Tensor, nn

from snn_dendrite_plugin import Firing
from snn_dendrite_plugin.adapters.base import HostAdapter, accepts, split_arguments, states_for
from snn_dendrite_plugin.kernels.surrogates import Surrogate

WITH_CURRENT = (nt.LIF, nt.LIFCell)


class Node(nn.Module):
    """A neuron model with norse's manners: ``spikes, state = node(x, state)``, and the caller keeps the state.

    Takes ``[N, C, *]`` as a ``cell``, else ``[T, N, C, *]``. ``p`` holds norse's parameters (``LIFBoxParameters``, or
    any with the same fields), ``dt`` is the time step in seconds; a model with a leak decays by
    ``1 - dt * tau_mem_inv`` per step towards ``v_leak`` and scales its input as norse does.
    """

    model_class: type
    cell: bool

    def __init__(
        self, *arguments: Any, p: Any = None, dt: float = 0.001, cell: bool | None = None, **options: Any
    ) -> None:
        super().__init__()
        self.cell = type(self).cell if cell is None else cell
        self.p = nt.LIFBoxParameters() if p is None else p
        self.dt = dt
        options = split_arguments(self.model_class, options, ("p", "dt", "cell"), type(self).__name__)
        leak = {"beta": 1 - float(dt * self.p.tau_mem_inv), "decay_input": True, "rest": float(self.p.v_leak)}
        for name, value in leak.items():
            if accepts(self.model_class, name):
                options.setdefault(name, value)
        self.model = self.model_class(*arguments, **options)

    def firing(self) -> Firing:
        """norse fires above the threshold and resets at once; surrogates other than "super" run slowly, as its own."""
        p = self.p
        known = Surrogate("super_spike", 1.0) if p.method == "super" else lambda x: threshold(x, p.method, p.alpha)
        reset = "soft" if getattr(p, "reset_method", None) is reset_subtract else "hard"
        return Firing(threshold=float(p.v_th), reset=reset, v_reset=float(p.v_reset), strict=True, surrogate=known)

    def forward(self, input_tensor: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Any]:
        """Spikes and the new state; a state of None starts from rest, ``v_leak``."""
        firing, x = self.firing(), input_tensor if self.cell else input_tensor[0]
        if state is None:  # norse starts at v_leak, not at v_reset
            state = (float(self.p.v_leak), *[None] * len(self.model.state_names(firing)[1:]))
        call = self.model.advance if self.cell else self.model.sequence
        return call(input_tensor, states_for(self.model, x, state, lambda: firing), firing)

    def extra_repr(self) -> str:
        return f"p={self.p}, dt={self.dt}"


class NorseAdapter(HostAdapter):
    host = "norse"

    def namespaces(self):
        return (nt,)

    def classes(self, spec):
        def build(name: str) -> type:
            model = spec.load()
            space = {
                "model_class": model,
                "cell": name.endswith("Cell"),
                "__module__": __name__,
                "__doc__": model.__doc__,
            }
            return type(name, (Node,), space)

        name = spec.name_in(self.host)
        return {each: self.cached_class(each, spec, lambda each=each: build(each)) for each in (name, f"{name}Cell")}

    def is_neuron(self, module: nn.Module) -> bool:
        return isinstance(module, (SNN, SNNCell, SNNRecurrent, SNNRecurrentCell, Node))

    def why_not(self, module: nn.Module) -> str | None:
        if type(module) is nt.LIFBoxCell or (type(module) in WITH_CURRENT and module.p.method != "adjoint"):
            return None
        if isinstance(module, Node):
            return f"is already a {type(module).__name__}"
        return f"{type(module).__name__} is no leaky integrator: its dynamics would change"

    def current_decay(self, module: nn.Module) -> float | None:
        return 1 - float(module.dt * module.p.tau_syn_inv) if type(module) in WITH_CURRENT else None

    def read(self, module: nn.Module) -> dict[str, Any]:
        return {"p": module.p, "dt": module.dt, "cell": isinstance(module, SNNCell)}

    def channel_axis(self, module: nn.Module) -> int:
        return 1 if isinstance(module, SNNCell) or getattr(module, "cell", False) else 2


adapter = NorseAdapter()
