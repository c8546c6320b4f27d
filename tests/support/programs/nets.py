"""Random networks: what a program is made of, drawn once, and built twice, in a host and as a plain loop."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .plain import ACTIVATIONS, FirstSpike, Net, Neuron, Rule, Soma, Synapse

LENGTH = 3  # positions of a convolution


@dataclass
class Layer:
    """One synapse and one neuron; ``own`` are the model's arguments, ``rule`` the host's."""

    kind: str  # dendrite, polynomial, point, ttfs
    channels: int
    own: dict[str, Any]
    rule: Rule
    beta: float
    tau: float
    lazy: bool = False  # per-channel parameters that are made at the first call


@dataclass
class Plan:
    host: str
    dtype: torch.dtype
    conv: bool
    inputs: int
    bias: bool
    window: int  # time steps of a TTFS window; sequences are whole windows of them
    parallel: bool = False  # snnTorch's neurons that take whole sequences
    layers: list[Layer] = field(default_factory=list)

    def kinds(self) -> set[str]:
        return {layer.kind for layer in self.layers}


def drawn_rule(r: random.Random, host: str) -> Rule:
    rule = Rule(threshold=r.choice((0.4, 0.6, 1.0)), surrogate=r.choice(("sigmoid", "atan")), once=r.random() < 0.2)
    if host == "spikingjelly":
        rule.reset = r.choice(("hard", "hard", "soft"))
        rule.v_reset = r.choice((0.0, 0.0, -0.2)) if rule.reset == "hard" else 0.0
        rule.detach = r.random() < 0.4
    else:
        rule.surrogate = r.choice(("fast_sigmoid", "atan"))
        rule.reset, rule.strict = r.choice(("soft", "soft", "hard", "none")), True
        rule.delayed = r.random() < 0.6
        rule.retested = not rule.delayed
    return rule


def drawn_model(r: random.Random, kind: str, channels: int) -> tuple[dict[str, Any], bool]:
    """The model's arguments; whether its parameters wait for the channel count."""
    if kind == "point":
        return {"decay_input": r.random() < 0.5}, False
    per_channel, lazy = r.random() < 0.4, r.random() < 0.4
    common = {"per_channel": per_channel, "channels": channels if per_channel and not lazy else None}
    lazy = per_channel and lazy
    limits = r.choice(((-1.0, 1.0), (-0.5, 0.3), None))
    if kind == "polynomial":
        curved = 0.6 if limits else 0.03
        theta = [r.uniform(-0.2, 0.2), r.uniform(0.3, 0.9), *(r.uniform(-curved, curved) for _ in range(2))]
        return common | {"theta": theta, "clamp": limits, "theta_scale": r.choice((0.125, 1.0)),
                         "decay_input": r.random() < 0.3}, lazy  # fmt: skip
    branches = r.randint(1, 4)
    fold = r.random() < 0.5
    degree = r.choice((1, 1, 2))
    numbers = lambda low, high: [r.uniform(low, high) for _ in range(branches)]  # noqa: E731
    own = common | {
        "branches": branches, "wiring": "fold" if fold else "shared", "activation": r.choice(list(ACTIVATIONS)),
        "alpha": numbers(0.1, 0.9), "learn_alpha": r.random() < 0.3, "strength": r.choice(("raw", "softmax")),
        "strength_init": numbers(-0.2, 1.0), "direct": r.choice((0.0, 1.0, 0.5)),
        "scale_branch_input": r.random() < 0.5, "decay_input": r.random() < 0.5, "degree": degree,
        "learn_beta": degree == 1 and r.random() < 0.3, "clamp": limits, "theta_scale": 0.125,
    }  # fmt: skip
    if not fold or r.random() < 0.5:
        own |= {"gain": numbers(0.5, 1.5), "offset": numbers(-0.3, 0.3)}
        own |= {"learn_gain": r.random() < 0.6, "learn_offset": r.random() < 0.6}
    return own, lazy


def drawn_plan(r: random.Random, host: str) -> Plan:
    plan = Plan(host, r.choice((torch.float32, torch.float64, torch.float64)), r.random() < 0.35,
                r.randint(1, 4), r.random() < 0.5, r.randint(1, 3))  # fmt: skip
    for _ in range(r.randint(1, 3)):
        kinds = ["dendrite", "dendrite", "dendrite", "polynomial", "polynomial", "ttfs"]
        if host == "spikingjelly" or plan.dtype == torch.float32:  # snnTorch's own neurons spike in float32 alone
            kinds.append("point")
        kind = r.choice(kinds)
        channels = r.randint(1, 4)
        tau = r.choice((1.5, 2.0, 4.0))
        rule = drawn_rule(r, host)
        if kind == "ttfs":
            window = r.uniform(0.8, 1.6)
            own: dict[str, Any] = {"steps": plan.window, "window": window, "input_window": r.uniform(0.8, 1.6)}
            own["bias"] = [r.uniform(-0.2, 0.5) for _ in range(channels)] if r.random() < 0.6 else None
            lazy = False
        else:
            own, lazy = drawn_model(r, kind, channels)
            if host == "snntorch":
                own.pop("decay_input")
            if kind == "point":
                rule.once = False  # the host's own neurons know no such rule
        plan.layers.append(Layer(kind, channels, own, rule, 1 - 1 / tau, tau, lazy))
    plan.parallel = host == "snntorch" and plan.kinds() <= {"dendrite", "polynomial"} and r.random() < 0.4
    return plan


# -- in a host ---------------------------------------------------------------------------------------------------------


def host_neuron(plan: Plan, layer: Layer) -> nn.Module:
    rule, own = layer.rule, dict(layer.own)
    if plan.host == "spikingjelly":
        from spikingjelly.activation_based import neuron, surrogate

        common = {
            "v_threshold": rule.threshold, "v_reset": rule.v_reset if rule.reset == "hard" else None,
            "surrogate_function": {"sigmoid": surrogate.Sigmoid(), "atan": surrogate.ATan()}[rule.surrogate],
            "detach_reset": rule.detach,
        }  # fmt: skip
        if layer.kind == "ttfs":
            return neuron.TTFS(**own, **common)
        common["tau"] = layer.tau
        if layer.kind == "point":
            return neuron.LIFNode(**own, **common)
        cls = neuron.LNM if layer.kind == "polynomial" else neuron.DendSN
        return cls(**own, **common, fire_once=rule.once)
    import snntorch as snn
    from snntorch import surrogate

    common = {
        "threshold": rule.threshold, "init_hidden": True, "reset_delay": rule.delayed,
        "reset_mechanism": {"hard": "zero", "soft": "subtract", "none": "none"}[rule.reset],
        "spike_grad": surrogate.fast_sigmoid() if rule.surrogate == "fast_sigmoid" else surrogate.atan(),
    }  # fmt: skip
    if layer.kind == "ttfs":
        return snn.TTFS(**own, **common)
    common["beta"] = layer.beta
    if layer.kind == "point":
        return snn.Leaky(**own, **common)
    if plan.parallel:
        del common["init_hidden"]
        cls = snn.LNMParallel if layer.kind == "polynomial" else snn.DendriticParallel
        return cls(**own, **common, fire_once=rule.once, carry_states=True)
    cls = snn.LNM if layer.kind == "polynomial" else snn.Dendritic
    return cls(**own, **common, fire_once=rule.once)


def host_net(plan: Plan) -> nn.Sequential:
    """Synapses and neurons in turn, made in the plan's dtype."""
    torch.set_default_dtype(plan.dtype)
    try:
        parts: list[nn.Module] = []
        width = plan.inputs
        for layer in plan.layers:
            out = layer.channels * (layer.own["branches"] if layer.own.get("wiring") == "fold" else 1)
            parts.append(nn.Conv1d(width, out, 3, padding=1, bias=plan.bias) if plan.conv
                         else nn.Linear(width, out, bias=plan.bias))  # fmt: skip
            parts.append(host_neuron(plan, layer))
            width = layer.channels
        return nn.Sequential(*parts).to(plan.dtype)
    finally:
        torch.set_default_dtype(torch.float32)


# -- as a plain loop ---------------------------------------------------------------------------------------------------


def plain_neuron(plan: Plan, layer: Layer) -> Neuron:
    own, rule, dtype = layer.own, layer.rule, plan.dtype

    def table(values) -> torch.Tensor:
        return torch.tensor([values], dtype=dtype)

    def learned(values) -> torch.Tensor:
        rows = layer.channels if own["per_channel"] else 1
        return table(values).repeat(rows, 1).requires_grad_()

    if layer.kind == "ttfs":
        neuron = FirstSpike(own["steps"], own["window"], own["input_window"])
        if own["bias"] is not None:
            neuron.parameters["bias"] = torch.tensor(own["bias"], dtype=dtype, requires_grad=True)
        return neuron
    rho = "1 - beta" if own.get("decay_input") else None
    hard = plan.host == "spikingjelly" and rule.reset == "hard"
    rest = rule.v_reset if hard else 0.0
    if layer.kind == "point":
        return Soma(rule, beta=layer.beta, rest=rest, rho=rho)
    limits, sigma = own["clamp"], own["theta_scale"]
    if layer.kind == "polynomial":
        neuron = Soma(rule, beta=layer.beta, rest=rest, rho=rho, sigma=sigma, limits=limits)
        neuron.parameters["theta"] = learned(own["theta"])
        return neuron
    shared = own["wiring"] == "shared"
    dendrite = {"branches": own["branches"], "fold": not shared, "activation": own["activation"],
                "alpha": table(own["alpha"]), "scaled": own["scale_branch_input"], "direct": own["direct"],
                "softmax": own["strength"] == "softmax", "gain": None, "offset": None}  # fmt: skip
    neuron = Soma(rule, beta=layer.beta, rest=rest, rho=rho, sigma=sigma, limits=limits, dendrite=dendrite)
    for name in ("gain", "offset"):
        if name in own:
            if own[f"learn_{name}"]:
                neuron.parameters[name] = learned(own[name])
            else:
                dendrite[name] = table(own[name])
    if own["learn_alpha"]:
        neuron.parameters["alpha_logit"] = (
            torch.logit(learned(own["alpha"]).detach().double()).to(dtype).requires_grad_()
        )
    neuron.parameters["strength"] = learned(own["strength_init"])
    if own["learn_beta"]:
        neuron.parameters["beta_logit"] = (
            torch.logit(learned([layer.beta]).detach().double()).to(dtype).requires_grad_()
        )
    if own["degree"] > 1:
        neuron.parameters["theta"] = learned(
            [(1 - layer.beta) * rest / sigma, layer.beta] + [0.0] * (own["degree"] - 1)
        )
    return neuron


def plain_net(plan: Plan, net: nn.Sequential) -> Net:
    """The same network, with the synapses' weights copied."""
    synapses = [
        Synapse(*(None if value is None else value.detach().clone().requires_grad_() for value in (m.weight, m.bias)))
        for m in net[::2]
    ]
    return Net(synapses, [plain_neuron(plan, layer) for layer in plan.layers])


def host_leaves(net: nn.Sequential) -> dict[str, torch.Tensor]:
    """Learned parameters of a host's network by the names of ``Net.leaves``."""
    leaves = {}
    for i, (synapse, neuron) in enumerate(zip(net[::2], net[1::2], strict=True)):
        leaves |= {f"{i}.synapse.{name}": value for name, value in synapse.named_parameters()}
        model = getattr(neuron, "model", None)
        if model is not None:
            leaves |= {f"{i}.neuron.{name}": value for name, value in model.named_parameters() if value.requires_grad}
    return leaves
