"""The two kinds of node: a neuron that takes one time step, and one that takes a whole sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.dtypes import state_dtype
from .shell import HOST, Shell

__all__ = ["ModelNeuron", "ModelSequence"]


class ModelNeuron(Shell):
    """One time step per call: ``forward(input_, mem=None)`` -> ``(spk, mem)``, or ``spk`` with ``init_hidden``."""

    def forward(self, input_: Tensor, mem: Tensor | None = None):
        """One time step.

        Args:
            input_: ``[N, C, *]``; in ``fold`` wiring ``[N, C * branches, *]``.
            mem: the soma's potential ``[N, C, *]``, with ``init_hidden=False`` only; None continues. The one that the
                last step returned, or its ``detach()``, goes on with the further states that it was returned with; any
                other starts them afresh, one of another shape all states.

        Returns:
            ``(spk, mem)``, or ``spk`` alone with ``init_hidden=True`` and ``output=False``; spikes have the input's
            dtype, the potential is float32 or float64.

        Raises:
            TypeError: ``mem`` with ``init_hidden=True``, or an input that is not floating point.
            ValueError: inhibition with an input that is not ``[N, C]``.
        """
        if self.init_hidden and mem is not None:
            raise TypeError("`mem` should not be passed as an argument while `init_hidden=True`")
        if mem is not None and not isinstance(mem, Tensor):
            raise TypeError(f"mem is {mem!r}; it must be a tensor [N, C, *], or None to go on")
        _check(self, input_, 2)
        firing = self.firing(state_dtype(input_.dtype))
        spk, states = self._step(input_, self._states(input_, mem, firing), firing)
        self._store(states)
        spk = self._graded(spk)
        if self.init_hidden:
            return (spk, states[0]) if self.output else spk
        self._tie(states)
        return spk, states[0]


class ModelSequence(Shell):
    """All time steps in one call: ``forward(input_)``, time first, -> spikes, and potentials with ``output=True``."""

    host_arguments = {**{key: value for key, value in HOST.items() if key != "init_hidden"}, "carry_states": False}

    @property
    def outputs(self) -> int:
        return 2 if self.output else 1

    def forward(self, input_: Tensor):
        """A whole sequence.

        Args:
            input_: ``[T, N, C, *]``, T >= 1; in ``fold`` wiring ``[T, N, C * branches, *]``.

        Returns:
            spikes ``[T, N, C, *]`` in the input's dtype; with ``output=True`` ``(spk, mem)``, mem the soma's potential
            after every step, ``[T, N, C, *]``, float32 or float64.

        Raises:
            TypeError: an input that is not floating point.
            ValueError: an empty sequence; inhibition with an input that is not ``[T, N, C]``.
        """
        _check(self, input_, 3)
        if input_.dim() == 0 or input_.shape[0] == 0:
            raise ValueError(f"input_ has shape {tuple(input_.shape)}; a sequence is [T, N, C, *] with T of at least 1")
        firing = self.firing(state_dtype(input_.dtype))
        if self.carry_states:
            states = self._states(input_[0], None, firing)
        else:
            states = self.model.init_states(input_[0], firing)
        mem = None
        if self.state_quant:
            spikes, trace = [], []
            for x in input_:
                s, states = self._step(x, states, firing)
                spikes.append(s)
                trace.append(states[0])
            spk, mem = torch.stack(spikes), torch.stack(trace)
        elif self.output:
            spk, states, mem = self.model.sequence(input_, states, firing, record=True)
        else:
            spk, states = self.model.sequence(input_, states, firing)
        if self.carry_states:
            self._store(states)
        spk = self._graded(spk)
        return (spk, mem) if self.output else spk


def _check(node: Shell, x: Tensor, dimensions: int) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"input_ of {type(node).__name__} is of {found}; it must be a floating point tensor")
    if node.inhibition and x.dim() != dimensions:
        shape = "[N, C]" if dimensions == 2 else "[T, N, C]"
        raise ValueError(
            f"input_ has shape {tuple(x.shape)}; inhibition picks one winner per sample of a dense layer: {shape}"
        )
