"""SpikingJelly before 2.0 (0.0.0.0.14): nodes without a functional forward, and with a ``backend``.

``NodeBase`` is what the nodes derive from: the host's ``BaseNode`` as it is in 2.0, and :class:`LegacyNode` before.
``HOST_OPTIONS`` are the arguments that such a node takes beside those that all versions share.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

from spikingjelly.activation_based import base, neuron
from torch import Tensor

from ... import plugins
from ...kernels.providers import use_provider
from .surrogates import TABLE

__all__ = ["AUTOMATIC", "HOST_OPTIONS", "LEGACY", "LegacyNode", "NodeBase"]

LEGACY = not hasattr(base.MemoryModule, "functional_forward")
AUTOMATIC = "auto"  # the backend of a node that leaves the choice of provider to the plugin


class LegacyNode(neuron.BaseNode):
    """2.0's way from a node's memories to its functional forward and back, for hosts that do not have it.

    ``backend`` names the kernel provider of the node's forward pass, as in ``functional.set_backend(net, "cupy")``; a
    provider that cannot run raises. With ``"auto"``, the default, the plugin chooses as everywhere. The backward pass
    takes the provider chosen for the process (``use_provider``, ``SNN_DENDRITE_PROVIDER``, or automatic).
    """

    v_seq: Tensor | None = None  # a plain attribute, as in 2.0: 0.0.0.0.14 would make it one of the memories

    def __init__(self, *, backend: str = AUTOMATIC, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.backend = backend

    @property
    def supported_backends(self) -> tuple[str, ...]:
        """``auto``, and the registered providers: ``torch``, ``cpu``, ``cupy``, ``triton``."""
        return (AUTOMATIC, *(spec.name for spec in plugins.providers("soma_dendrite")))

    @property
    def backend(self) -> str:
        """The provider that the node asks for."""
        return self._backend

    @backend.setter
    def backend(self, value: str) -> None:
        if value not in self.supported_backends:
            raise ValueError(f"backend is {value!r}; it must be one of {', '.join(self.supported_backends)}")
        self._backend = value

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with contextlib.nullcontext() if self.backend == AUTOMATIC else use_provider(self.backend):
            return super().forward(*args, **kwargs)

    def single_step_forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        states = self.materialize_states((x,), tuple(self._memories.values()), "s")
        (spikes,), states = self.single_step_functional_forward((x,), states)
        self._memories.update(zip(self._memories, states, strict=True))
        return spikes

    def multi_step_forward(self, x_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        states = self.materialize_states((x_seq,), tuple(self._memories.values()), "m")
        (spikes,), states = self.multi_step_functional_forward((x_seq,), states)
        self._memories.update(zip(self._memories, states, strict=True))
        return spikes

    def reset(self) -> None:
        super().reset()
        self.v_seq = None


NodeBase: Any = neuron.BaseNode
HOST_OPTIONS: tuple[inspect.Parameter, ...] = ()
if LEGACY:
    NodeBase = LegacyNode
    HOST_OPTIONS = (inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY, default=AUTOMATIC, annotation="str"),)
    TABLE.pop("PiecewiseLeakyReLU", None)  # its derivative was 1 / w, and is 1 / (2 w) since 2.0: run the host's own
