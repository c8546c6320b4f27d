"""Neurons with linear branches, and LNM of degree 1, as nested graphs of NIR's own nodes, and back.

NIR (https://neuroir.org) is a format of spiking networks in continuous time; hosts take it in steps of ``dt`` by
Euler's method, ``v <- v + dt / tau (v_leak - v + R I)``. With that, the core's equations for f = identity and K = 1 are
leaky integrators (``LI``), one per branch, that feed a ``LIF``::

    tau = dt / (1 - alpha_b)    (1 - alpha_b) R I = gain_b x    (1 - alpha_b) v_leak = offset_b        branch b
    tau = dt / (1 - theta_1)    (1 - theta_1) R I = y           (1 - theta_1) v_leak = theta_0         soma

In ``shared`` wiring the graph has a chain ``gain_b`` (Scale) -> ``branch_b`` (LI) -> ``strength_b`` (Scale) -> ``soma``
for every branch, and ``direct`` (Scale) beside them; in ``fold`` wiring one LI for all branches of all neurons and a
linear layer, or a convolution of size 1, that sums them. R is 1 where the neuron scales its input by the leak
(``decay_input``, ``scale_branch_input``), as hosts write it, so that both come back.

A host's importer sees a graph of this form as one :class:`Nested` node, and makes our node of it.
"""

from .graph import Nested, Through, collapse, expand, parse, write
from .parameters import Parameters, describe, options, refuse, why_not

__all__ = [
    "Nested",
    "Parameters",
    "Through",
    "collapse",
    "describe",
    "expand",
    "options",
    "parse",
    "refuse",
    "why_not",
    "write",
]
