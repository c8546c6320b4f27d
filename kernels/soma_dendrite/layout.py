"""How the tensors of one call lie in memory, for the providers that work on data pointers."""

from __future__ import annotations

import torch
from torch import Tensor

from .contract import OutputGradients, Settings, dimensions, one_number

__all__ = ["Layout"]


class Layout:
    """Views of a call's tensors as ``[T, N, C, L]``.

    Where the channels of ``x`` are innermost (channels-last), positions are counted as batch entries: N becomes N * L
    and L becomes 1, so that neighbours in memory are neighbouring neurons and the results follow the input's layout.
    """

    def __init__(self, x: Tensor, settings: Settings) -> None:
        self.T, self.N, self.C, self.fan, self.L = dimensions(x, settings)
        self.rest = x.shape[3:]
        self.device, self.dtype = x.device, x.dtype
        flat = x.reshape(self.T, self.N, x.shape[2], self.L)
        self.channels_last = self.L > 1 and x.shape[2] > 1 and flat.stride(2) == 1 and flat.stride(3) > 1
        self.x = flat
        if self.channels_last:
            self.x = flat.transpose(2, 3).reshape(self.T, self.N * self.L, x.shape[2], 1)

    def sequence(self, g: Tensor) -> Tensor:
        """``[T, N, C, *]`` -> ``[T, N', C, L']``, a view where that is possible."""
        g = g.reshape(self.T, self.N, self.C, self.L)
        return g.transpose(2, 3).reshape(self.T, self.N * self.L, self.C, 1) if self.channels_last else g

    def state(self, s: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """``[N, C, *]`` or ``[N, C, B, *]`` -> the same, contiguous in the layout's order."""
        if s is None:
            return None
        if self.channels_last:
            s = s.reshape(*s.shape[: s.dim() - len(self.rest)], self.L).movedim(-1, 1)
        return s.to(dtype).contiguous()

    def initial(self, s: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """:meth:`state`, but a state that is one number stays one."""
        return s if s is None or (one_number(s) and s.dtype == dtype) else self.state(s, dtype)

    def gradients(
        self, g: OutputGradients, dtype: torch.dtype
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None], Tensor | None]:
        """Gradients of the spikes, in ``dtype`` or x's, of u and v, and of the u sequence."""
        spikes = g.spikes if g.spikes.dtype in (self.dtype, dtype) else g.spikes.to(dtype)
        u_sequence = None if g.u_sequence is None else self.sequence(g.u_sequence.to(dtype)).contiguous()
        return self.sequence(spikes), (self.state(g.u, dtype), self.state(g.v, dtype)), u_sequence

    def empty(self, lead: tuple[int, ...], inner: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Uninitialised ``[*lead, *inner, *]``, or ``[*lead, L, *inner]`` where the channels are innermost in memory.

        E.g. lead (T, N), inner (C,). In the caller's shape at once where that is the order in memory: a result that is
        a view takes time to make, and to make a tensor of its own.
        """
        shape = (*lead, self.L, *inner) if self.channels_last else (*lead, *inner, *self.rest)
        return torch.empty(shape, dtype=dtype, device=self.device)

    def shaped(self, s: Tensor | None, lead: int) -> Tensor | None:
        """A tensor from :meth:`empty`, back in the caller's shape; ``lead`` counts its leading dimensions."""
        if s is None or not self.channels_last:
            return s
        return s.movedim(lead, -1).unflatten(-1, self.rest)
