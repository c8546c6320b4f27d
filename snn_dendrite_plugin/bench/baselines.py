"""What the benchmark measures against: the hosts' own neurons and the other ways to run a dendritic layer.

The tests check these same functions against the reference, so that what is timed is what is checked. Every contestant
maps ``x [T, N, Cx, *]`` to spikes and starts from reset states.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..kernels.activations import ACTIVATIONS
from ..kernels.soma_dendrite import Inputs, Settings
from ..kernels.soma_dendrite.contract import dimensions
from ..kernels.soma_dendrite.reference import run
from ..kernels.surrogates import Surrogate, spike
from ..neurons.base import Firing, NeuronModel
from ..neurons.core import SomaDendriteModel
from ..neurons.dendsn import DendSN
from ..neurons.lnm import LNM

__all__ = [
    "FIRING",
    "MODELS",
    "compiled_loop",
    "flexsn_lnm",
    "fused",
    "lif_spikingjelly",
    "loop",
    "leaky_snntorch",
    "matrix_form",
    "node_name",
    "node_spikingjelly",
    "parallel_snntorch",
]

Contestant = Callable[[Tensor], Tensor]
FIRING = Firing(reset="hard", detach=True, surrogate=Surrogate("atan", 2.0))
_MADE: dict[str, tuple[type[DendSN] | type[LNM], dict[str, object]]] = {
    "DendSN fold": (DendSN, {"branches": 4, "wiring": "fold", "strength": "softmax", "alpha": 0.5, "direct": 0}),
    "DendSN shared": (DendSN, {"branches": 4, "strength_init": 0.1}),
    # the polynomial alone, as FlexSN's step has it
    "LNM": (LNM, {"degree": 3, "clamp": None, "theta_scale": 1, "decay_input": False}),
    "LIF": (LNM, {"degree": 1, "learn_theta": False, "decay_input": False}),
}
MODELS: dict[str, Callable[[], DendSN | LNM]] = {
    name: functools.partial(model_class, **options) for name, (model_class, options) in _MADE.items()
}


def node_name(name: str) -> str:
    """The class in SpikingJelly's namespace of the model that :data:`MODELS` calls ``name``."""
    return _MADE[name][0].__name__


def fused(model: NeuronModel) -> Contestant:
    """Ours without a host: the registered op with whatever provider is chosen."""
    return lambda x: model.run(x, firing=FIRING)[0]


def core_call(model: SomaDendriteModel, x: Tensor) -> tuple[Inputs, Settings]:
    """The core's inputs and settings of a DendSN or LNM on ``x``, for contestants that do not go through the op."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    states = model.init_states(x[0], FIRING)
    settings = Settings(reset="hard", detach=True, surrogate="atan", surrogate_a=2.0, **model.core_settings())
    threshold = torch.ones(1, dtype=dtype, device=x.device)
    v = states[1] if settings.branches else None
    return Inputs(x, states[0], v, None, threshold=threshold, **model.core_inputs(dtype)), settings


def loop(model: SomaDendriteModel) -> Contestant:
    """The plain torch loop over time, differentiated by autograd."""
    return lambda x: run(*core_call(model, x)).spikes


def compiled_loop(model: SomaDendriteModel) -> Contestant:
    """``torch.compile`` of the plain loop (compiled anew for every T)."""
    return torch.compile(loop(model))


def matrix_form(model: DendSN) -> Contestant:
    """DendSN's published parallel form: the ``[T, T]`` matrix of decays times the whole input, materialised, O(T^2).

    Linear in the input up to the activation, for wiring ``fold`` without gain and offset; the soma still loops over T.
    """

    def forward(x: Tensor) -> Tensor:
        p, settings = core_call(model, x)
        t, n, c, b, _ = dimensions(x, settings)
        x = x.reshape(t, n, c, b, *x.shape[3:])
        i = torch.arange(t, device=x.device)
        lag = (i[:, None] - i[None, :]).to(x.dtype)[..., None]
        a = torch.where(lag >= 0, p.alpha[0] ** lag.clamp(min=0), 0.0)  # [T, T, B]
        v = (a.reshape(t, t, 1, 1, b, *[1] * (x.dim() - 4)) * x).sum(1)
        k = p.strength[0].reshape(b, *[1] * (x.dim() - 4))
        y = p.direct * x.sum(3) + (k * ACTIVATIONS[settings.activation].value(v)).sum(3)
        u, spikes = p.u, []
        for y_t in y:
            h = p.theta[0, 0] + p.theta[0, 1] * u + y_t
            s = spike(h - p.threshold, Surrogate("atan", 2.0))
            u = (1 - s.detach()) * h
            spikes.append(s)
        return torch.stack(spikes)

    return forward


def lif_spikingjelly() -> Contestant:
    """SpikingJelly's multi-step LIFNode: a point neuron on the same tensor."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = neuron.LIFNode(
        tau=2.0, decay_input=False, surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m"
    )

    def forward(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return forward


def leaky_snntorch() -> Contestant:
    """A Python loop over snnTorch's Leaky: a point neuron on the same tensor."""
    import snntorch

    node = snntorch.Leaky(beta=0.5, reset_mechanism="zero")

    def forward(x: Tensor) -> Tensor:
        mem, spikes = torch.zeros_like(x[0]), []
        for x_t in x:
            s, mem = node(x_t, mem)
            spikes.append(s)
        return torch.stack(spikes)

    return forward


def node_spikingjelly(name: str, device: torch.device | str = "cpu") -> Contestant:
    """Ours as users of SpikingJelly call it: the node of the model ``name`` of :data:`MODELS`, and its reset."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    node = getattr(neuron, node_name(name))(
        surrogate_function=surrogate.ATan(), detach_reset=True, step_mode="m", **_MADE[name][1]
    ).to(device)

    def forward(x: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(x)

    return forward


def parallel_snntorch(device: torch.device | str = "cpu") -> Contestant:
    """Ours as users of snnTorch call it: the whole-sequence class, which starts from reset states at every call."""
    import snntorch

    return snntorch.DendriticParallel(beta=0.5, branches=4, reset_mechanism="zero").to(device)


def flexsn_lnm(theta: Tensor) -> Contestant:
    """SpikingJelly's FlexSN (kernels generated from a Python step) on the LNM; its fused path needs a GPU.

    FlexSN's static inputs are scalars, one per coefficient, which makes them learnable.
    """
    from spikingjelly.activation_based import neuron, surrogate

    if theta.numel() != 4:
        raise ValueError(f"theta has {theta.numel()} coefficients; this contestant is the LNM of degree 3, with 4")

    def core(x, v, c0, c1, c2, c3):  # FlexSN takes no variadic arguments and no captured tensors
        h = ((c3 * v + c2) * v + c1) * v + c0 + x
        s = surrogate.atan.apply(h - 1.0, 2.0)
        return s, h * (1.0 - s.detach())

    class Node(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.ParameterList([nn.Parameter(value.detach().clone()) for value in theta.flatten()])
            self.node = neuron.FlexSN(core, num_states=1, static_inputs=tuple(self.theta), step_mode="m")

        def forward(self, x: Tensor) -> Tensor:
            self.node.reset()
            return self.node(x)

    return Node().to(theta.device)


def ideal_accesses(name: str) -> tuple[float, float]:
    """Values moved per input value, at least: forward, and forward plus backward with recomputation.

    Forward reads x and writes the spikes; backward reads x again and the spikes' gradient, and writes x's gradient. In
    ``fold`` the spikes have one value per B input values: (3 B + 2) / B in all.
    """
    share = 1 / 4 if name == "DendSN fold" else 1.0
    return 1 + share, 3 + 2 * share


def bytes_moved(name: str, x: Tensor, backward: bool) -> float:
    """Ideal traffic of one call in bytes."""
    return ideal_accesses(name)[int(backward)] * x.element_size() * math.prod(x.shape)
