"""Spikes that hang on the last bit of the input, and what a provider's backward pass takes them for.

Backward gets no spikes, it recomputes them. A potential that is rounded otherwise than in forward then gives another
spike, and gradients of a network that never ran; but only within a rounding of the threshold, where random inputs never
come. :func:`driven` brings every neuron there at each of the last steps: it bisects the step's input between a number
at which the provider's own forward pass gives no spike and the next one, at which it gives one. :func:`recomputed`
reads the spikes of backward off the threshold's gradient, an integer here: the sum of the integers that come in as the
gradients of the spikes, over those where backward has one.
"""

from __future__ import annotations

import random
from dataclasses import replace

import torch
from kernel_cases import Case, make_case
from torch import Tensor

from snn_dendrite_plugin.kernels.activations import ACTIVATIONS
from snn_dendrite_plugin.kernels.contract import Provider
from snn_dendrite_plugin.kernels.soma_dendrite.contract import Inputs, OutputGradients, Settings

REACH = 64.0  # inputs up to this are tried


def threshold_case(seed: int, shape: tuple[int, ...] | None = None, **changes: object) -> Case:
    """A float32 call whose threshold gradient counts spikes, see :func:`recomputed`; ``changes`` to its settings."""
    pick = random.Random(seed)
    branches = pick.choice([0, 1, 2, 3, 4, 4, 6, 8])
    settings = Settings(
        branches=branches,
        wiring=pick.choice(["shared", "fold"]) if branches else "shared",
        activation=pick.choice(list(ACTIVATIONS)),
        reset=pick.choice(["hard", "hard", "soft", "none"]),
        timing=pick.choice(["at_once", "next_step", "at_once_retested"]),
        v_reset=pick.choice([0.0, -0.25]),
        strict=pick.random() < 0.5,
        detach=True,
        fire_once=pick.random() < 0.2,
    )
    settings = replace(settings, **changes)
    # 1 where h >= threshold (h > threshold) and 0 below: what is summed up is the spike that backward sees
    kind = ("heaviside", 0.0, 0.0) if settings.strict else ("leaky_k_relu", 0.0, 1.0)
    settings = replace(settings, **dict(zip(("surrogate", "surrogate_a", "surrogate_b"), kind, strict=True)))
    degree = pick.choice([0, 1, 1, 2, 3])
    if settings.reset == "soft":  # its threshold has a gradient through u, too; of a constant P(u) there is none
        settings, degree = replace(settings, timing="at_once"), 0
    shape = shape or pick.choice([(5, 2, 3), (4, 3, 5, 7), (6, 2, 20, 3), (3, 1, 2, 60), (5, 4, 33), (4, 1, 300)])
    options = {"degree": degree, "per_channel": pick.random() < 0.5, "gain": pick.random() < 0.7}
    options |= {"offset": pick.random() < 0.7, "fresh": pick.choice([0, 3])}
    return make_case(settings, shape=shape, seed=seed, **options)


def driven(provider: Provider, case: Case, steps: int = 3) -> Case:
    """The case with the inputs of its last ``steps`` such that spikes hang on their last bit."""
    settings, inputs = case.settings, case.inputs
    x = inputs.x.contiguous().clone()
    total, fan = len(x), settings.branches if settings.wiring == "fold" else 1
    choice = torch.Generator().manual_seed(1)
    for t in range(max(0, total - steps), total):
        base = x[t].unflatten(1, (-1, fan)).clone()

        def spikes(at: Tensor, t: int = t, base: Tensor = base) -> Tensor:
            x[t] = (base + at.unsqueeze(2)).flatten(1, 2)
            return provider.forward(inputs._replace(x=x[: t + 1]), settings).spikes[t] > 0

        below = torch.full(inputs.u.shape, -REACH, device=x.device)
        above = torch.full(inputs.u.shape, REACH, device=x.device)
        hangs = ~spikes(below) & spikes(above)
        for _ in range(40):
            middle = (below + above) / 2
            fires = spikes(middle)
            below, above = torch.where(fires, below, middle), torch.where(fires, middle, above)
        side = (torch.rand(below.shape, generator=choice) < 0.5).to(x.device)
        spikes(torch.where(hangs, torch.where(side, below, above), 0.0))
    return replace(case, inputs=inputs._replace(x=x))


def weights(case: Case) -> Tensor:
    """Small integers, so that their sums in float32 are exact: gradients for the spikes."""
    shape = (len(case.inputs.x), *case.inputs.u.shape)
    drawn = torch.randint(1, 64, shape, generator=torch.Generator().manual_seed(2))
    return drawn.float().to(case.inputs.x.device)


def recomputed(provider: Provider, case: Case) -> Tensor:
    """The sums of the weights over the spikes that backward recomputes, one for each row of the threshold."""
    gradients = provider.backward(case.inputs, case.settings, OutputGradients(weights(case)))
    return -gradients.threshold


def emitted(provider: Provider, case: Case) -> Tensor:
    """The same sums over the spikes that forward emits."""
    counted = weights(case) * provider.forward(case.inputs, case.settings).spikes
    channels = counted.movedim(2, 0).flatten(1).sum(1)
    return channels if case.inputs.threshold.shape[0] > 1 else channels.sum(0, keepdim=True)


def check_spikes(provider: Provider, case: Case, steps: int = 3) -> None:
    """Backward sees the spikes that forward emitted, each of them."""
    case = driven(provider, case, steps)
    wanted, got = emitted(provider, case), recomputed(provider, case)
    message = f"spikes recomputed {got} are not those emitted {wanted}\n{case.settings}\n{case.note}"
    assert torch.equal(wanted, got), message


def per_channel(case: Case) -> Case:
    """The same parameters, one row per channel."""
    channels = case.inputs.u.shape[1]
    rows = {
        name: p.expand(channels, *p.shape[1:]).contiguous()
        for name, p in case.inputs._asdict().items()
        if name in Inputs._fields[4:] and p is not None and p.shape[0] == 1
    }
    return replace(case, inputs=case.inputs._replace(**rows))
