"""Spiking networks as a plain loop over time: written from the published equations, with nothing of the package.

A neuron takes one step ``x [N, C, *]`` and keeps its states itself. ``parameters`` are leaves, by the names under which
the package's models learn them, so that gradients can be compared one by one. ``margin`` is how near any potential has
come to a place where a rounding decides (a threshold, the edge of a window, a kink of an activation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

HAT = 0.75 + 1e-5
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda v: v,
    "relu": torch.relu,
    "leaky_relu": lambda v: F.leaky_relu(v, 0.01),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "mexican_hat": lambda v: 3 * (1 - v**2 / HAT) * torch.exp(-(v**2) / (2 * HAT)) / math.sqrt(2 * math.pi * HAT) / HAT,
}
KINKED = ("relu", "leaky_relu")
# Functions whose derivative is the surrogate's.
PRIMITIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda d: torch.sigmoid(4 * d),
    "atan": lambda d: torch.atan(math.pi * d) / math.pi,
    "fast_sigmoid": lambda d: d / (1 + 25 * d.abs()),
}


def along(parameter: Tensor, state: Tensor) -> Tensor:
    """``[C or 1]`` or ``[C or 1, B]`` against ``[N, C, *]`` or ``[N, C, B, *]``."""
    return parameter.reshape(1, *parameter.shape, *[1] * (state.dim() - 1 - parameter.dim()))


@dataclass
class Rule:
    """Firing and reset."""

    threshold: float = 1.0
    reset: str = "hard"  # hard, soft, none
    v_reset: float = 0.0
    delayed: bool = False  # reset at the next step
    retested: bool = False  # the rest of the reset at once
    strict: bool = False
    detach: bool = False
    once: bool = False
    surrogate: str = "atan"

    def crossed(self, d: Tensor) -> Tensor:
        return (d > 0 if self.strict else d >= 0).to(d.dtype)


class Neuron:
    """States by name, None at the start; parameters by name."""

    states: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.parameters: dict[str, Tensor] = {}
        self.margin = math.inf
        self.reset()

    def reset(self) -> None:
        self.held: dict[str, Tensor | None] = dict.fromkeys(self.states)

    def detach(self) -> None:
        self.held = {name: None if state is None else state.detach() for name, state in self.held.items()}

    def near(self, distance: Tensor) -> None:
        if distance.numel():
            self.margin = min(self.margin, float(distance.detach().abs().min()))

    def sequence(self, x: Tensor) -> Tensor:
        return torch.stack([self.step(step) for step in x])


class Soma(Neuron):
    """Branches, polynomial or leaky soma, firing. ``beta`` and ``rho`` are numbers or come from ``parameters``."""

    states = ("v", "v_dend", "fired")

    def __init__(self, rule: Rule, *, beta: float, rest: float, rho: float | None, theta=None, sigma: float = 1.0,
                 limits=None, dendrite: dict | None = None) -> None:  # fmt: skip
        super().__init__()
        self.rule, self.beta, self.rest, self.rho, self.theta = rule, beta, rest, rho, theta
        self.sigma, self.limits, self.dendrite = sigma, limits, dendrite

    # -- the equations ---------------------------------------------------------------------------------------------

    def decay(self, like: Tensor) -> Tensor:
        learned = self.parameters.get("beta_logit")
        return like.new_tensor([self.beta]) if learned is None else torch.sigmoid(learned[:, 0])

    def polynomial(self, u: Tensor) -> Tensor:
        theta = self.parameters.get("theta")
        if theta is None:
            decay = along(self.decay(u), u)
            return decay * u + (1 - decay) * self.rest
        t = [along(theta[:, i], u) for i in range(theta.shape[1])]
        if len(t) == 2:
            return t[1] * u + self.sigma * t[0]
        if self.limits is None:
            return t[1] * u + self.sigma * (t[0] + sum(t[i] * u**i for i in range(2, len(t))))
        low, high = self.limits
        self.near(u - low), self.near(u - high)
        c = u.clamp(low, high)
        s = t[1].clamp(-1, 1)
        return s * u + (t[1] - s) * c + self.sigma * (t[0] + sum(t[i] * c**i for i in range(2, len(t))))

    def drive(self, x: Tensor) -> Tensor:
        d = self.dendrite
        if d is None:
            return x
        branches, fold = d["branches"], d["fold"]
        x = x.reshape(x.shape[0], -1, branches if fold else 1, *x.shape[2:])
        wide = x.expand(x.shape[0], x.shape[1], branches, *x.shape[3:])

        def value(name: str) -> Tensor | None:
            learned = self.parameters.get(name)
            return d[name] if learned is None else learned

        alpha = self.parameters.get("alpha_logit")
        alpha = d["alpha"] if alpha is None else torch.sigmoid(alpha)
        gamma = 1 - alpha if d["scaled"] else torch.ones_like(alpha)
        gain, offset = value("gain"), value("offset")
        inner = wide if gain is None else along(gain, wide) * wide
        inner = inner if offset is None else inner + along(offset, wide)
        v = self.held["v_dend"]
        v = torch.zeros_like(wide) if v is None else v
        v = along(alpha, v) * v + along(gamma, v) * inner
        self.held["v_dend"] = v
        if d["activation"] in KINKED:
            self.near(v)
        k = value("strength")
        k = torch.softmax(k, 1) if d["softmax"] else k
        return d["direct"] * x.sum(2) + (along(k, v) * ACTIVATIONS[d["activation"]](v)).sum(2)

    def step(self, x: Tensor) -> Tensor:
        rule = self.rule
        y = self.drive(x)
        y = (
            y
            if self.rho is None
            else y * along(1 - self.decay(y) if self.rho == "1 - beta" else y.new_tensor([self.rho]), y)
        )
        u = self.held["v"]
        u = torch.full_like(y, rule.v_reset if rule.reset == "hard" else 0.0) if u is None else u
        r = torch.zeros_like(u)
        if (rule.delayed or rule.retested) and rule.reset != "none":
            self.near(u - rule.threshold)
            r = rule.crossed((u - rule.threshold).detach())
            if rule.reset == "hard":
                u = (1 - r) * u + r * rule.v_reset
        h = self.polynomial(u) + y
        if rule.reset == "soft":
            h = h - r * rule.threshold
        d = h - rule.threshold
        self.near(d)
        smooth = PRIMITIVES[rule.surrogate](d)
        s = rule.crossed(d.detach()) + smooth - smooth.detach()
        if rule.once:
            fired = self.held["fired"]
            fired = torch.zeros_like(s) if fired is None else fired
            s = s * (1 - fired)
            self.held["fired"] = torch.maximum(fired, s.detach())
        if not rule.delayed and rule.reset != "none":
            z = (s.detach() if rule.detach else s) - r
            h = h - z * rule.threshold if rule.reset == "soft" else (1 - z) * h + z * rule.v_reset
        self.held["v"] = h
        return s


class FirstSpike(Neuron):
    """TTFS: one spike per window of T steps, whose time is the rounded value of a ReLU."""

    states = ("v", "charge", "clock")

    def __init__(self, steps: int, window: float, input_window: float) -> None:
        super().__init__()
        self.steps, self.window, self.input_window = steps, window, input_window

    def reset(self) -> None:
        super().reset()
        self.window_now: list[Tensor] = []

    def detach(self) -> None:
        super().detach()
        self.window_now = [x.detach() for x in self.window_now]

    def potential(self, x: list[Tensor]) -> Tensor:
        t = self.steps
        v = self.input_window / t * sum((t - k - 0.5) * x[k] for k in range(t))
        bias = self.parameters.get("bias")
        return v if bias is None else v + along(bias, v)

    def emit(self, v: Tensor, k: int) -> Tensor:
        dt, t = self.window / self.steps, self.steps
        d = v.detach()
        exact = d == 0  # silent, in any rounding
        self.near(torch.where(exact, 1.0, d / dt - torch.round(d / dt)))
        low, high = self.window - (k + 1) * dt, self.window - k * dt
        first = k == 0
        hit = (d > low * (1 + 1e-12)) & (first | (d <= high * (1 + 1e-12))) & (d > 0)
        inside = ((d > 0) & (d <= self.window)).to(v.dtype)
        slope = 2 / dt if t == 1 else (int(first) - int(k == t - 1)) / ((t - 1) * dt)
        return hit.to(v.dtype) + inside * slope * (v - d)

    def sequence(self, x: Tensor) -> Tensor:
        """Whole windows in the layer's own clock."""
        spikes = []
        for start in range(0, len(x), self.steps):
            v = self.potential(list(x[start : start + self.steps]))
            spikes += [self.emit(v, k) for k in range(self.steps)]
            self.held["v"] = v
        return torch.stack(spikes)

    def step(self, x: Tensor) -> Tensor:
        """Causal: it fires the window before while it charges this one."""
        v = self.held["v"]
        v = torch.zeros_like(x) if v is None else v
        s = self.emit(v, len(self.window_now))
        self.window_now.append(x)
        if len(self.window_now) == self.steps:
            self.held["v"], self.window_now = self.potential(self.window_now), []
        else:
            self.held["v"] = v
        return s


class Synapse:
    """A linear layer or a convolution over one axis, applied to each step."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.parameters = {"weight": weight} | ({} if bias is None else {"bias": bias})

    def __call__(self, x: Tensor) -> Tensor:
        weight, bias = self.parameters["weight"], self.parameters.get("bias")
        if weight.dim() == 2:
            return x @ weight.T + (0 if bias is None else bias)
        lead = x.shape[:-2]
        return F.conv1d(x.flatten(0, -3) if x.dim() > 3 else x, weight, bias, padding=1).reshape(*lead, -1, x.shape[-1])


class Net:
    """Synapses and neurons in turn, over a whole sequence, layer by layer or step by step."""

    def __init__(self, synapses: list[Synapse], neurons: list[Neuron]) -> None:
        self.synapses, self.neurons = synapses, neurons

    def __call__(self, x: Tensor, whole: bool) -> Tensor:
        if not whole:
            return torch.stack([self._through(step, lambda n: n.step) for step in x])
        return self._through(x, lambda n: n.sequence)

    def _through(self, x: Tensor, how) -> Tensor:
        for synapse, neuron in zip(self.synapses, self.neurons, strict=True):
            x = how(neuron)(synapse(x))
        return x

    def leaves(self) -> dict[str, Tensor]:
        """All parameters, by layer and name."""
        parts = [(f"{i}.{kind}", part) for i, pair in enumerate(zip(self.synapses, self.neurons, strict=True))
                 for kind, part in zip(("synapse", "neuron"), pair, strict=True)]  # fmt: skip
        return {f"{key}.{name}": value for key, part in parts for name, value in part.parameters.items()}

    def reset(self) -> None:
        for neuron in self.neurons:
            neuron.reset()

    def detach(self) -> None:
        for neuron in self.neurons:
            neuron.detach()

    @property
    def margin(self) -> float:
        return min(neuron.margin for neuron in self.neurons)
