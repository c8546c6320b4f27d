"""What every provider of every op is: :class:`Provider`. What an op takes and gives is in the op's own ``contract``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any

import torch

__all__ = ["Provider"]


class Provider(ABC):
    """Runs one op somewhere: both directions, or the reason why not.

    An op's contract names the types: ``Settings`` are what is static in a call, ``Inputs`` its tensors, ``Outputs``
    what forward gives. Backward gets what the op keeps of a call (``Saved`` where the contract has one, else the
    ``Inputs``) and :class:`OutputGradients`, and gives ``Gradients``. A provider keeps nothing between the two.

    Attributes:
        name: as in ``use_provider(name)``.
        automatic_devices: types of the devices on which it is chosen without being asked for by name; None: on all.

    Example::

        >>> from snn_dendrite_plugin.kernels.soma_dendrite import reference
        >>> class Loud(reference.TorchProvider):
        ...     name = "loud"
        ...     def forward(self, inputs, settings):
        ...         print("forward of", tuple(inputs.x.shape))
        ...         return super().forward(inputs, settings)
        >>> Loud().why_not(torch.device("cpu"), torch.float32, settings=None) is None
        True
    """

    name: str
    automatic_devices: Collection[str] | None = None

    @abstractmethod
    def why_not(
        self, device: torch.device, dtype: torch.dtype, settings: Any, steps: int = 1, degree: int = 1
    ) -> str | None:
        """The reason this provider cannot run such a call, or None when it can.

        Args:
            device, dtype: of ``x``.
            settings: the op's.
            steps: length T of the sequence.
            degree: K of the soma's polynomial, in an op that has one.
        """

    @abstractmethod
    def forward(self, inputs: Any, settings: Any) -> Any:
        """Run the sequence. Must not write to its inputs."""

    @abstractmethod
    def backward(self, saved: Any, settings: Any, gradients: Any, wanted: Collection[str]) -> Any:
        """Gradients of the inputs from those of the outputs.

        Args:
            saved: what the op keeps of the forward pass.
            gradients: of the outputs; the first is always there, None of the others means zero.
            wanted: names of the inputs whose gradients are asked for, ``x`` always; a provider may leave the others
                out.

        Sums over neurons, as in a parameter's gradient, have a fixed order, so that the same call gives the same bits.
        """
