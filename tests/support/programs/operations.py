"""Random programs: operations of a host on a network, each followed by a comparison with the plain loop.

``outcome(seed)`` runs one program: ``agree``; ``disagree`` where something differs or raises; ``ambiguous`` where
something differs and a potential had come within a rounding of a place where a rounding decides; ``diverged`` where a
potential left for infinity, before which everything agreed.
"""

from __future__ import annotations

import copy
import pickle
import random
import traceback
from collections.abc import Callable

import torch
from torch import Tensor, nn

import snn_dendrite_plugin as sdp

from .nets import LENGTH, drawn_plan, host_leaves, host_net, plain_net

TOLERANCE = {torch.float64: 1e-9, torch.float32: 3e-4}  # of values; gradients are sums of many
NEAR = {torch.float64: 1e-10, torch.float32: 2e-4}  # a rounding, of a potential


BOUND = 1e4  # a polynomial without limits may leave for infinity: nothing to compare there


class Differs(AssertionError):
    """The host's network and the plain loop disagree."""


class Diverged(Exception):
    """A potential of the plain loop has left for infinity."""


class Program:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        r = self.random
        self.plan = drawn_plan(r, r.choice(("spikingjelly", "snntorch")))
        self.tensors = torch.Generator().manual_seed(seed)
        self.net = host_net(self.plan)
        with torch.no_grad():
            for synapse in self.net[::2]:
                for value in synapse.parameters():
                    value.copy_(self.drawn(*value.shape) * 1.2)
        self.loop = plain_net(self.plan, self.net)
        self.batch = r.randint(1, 3)
        self.whole = self.plan.parallel or (self.plan.host == "spikingjelly" and r.random() < 0.5)
        self.said: list[str] = []
        self.waiting: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # inputs and outputs whose graph is kept
        self.set_mode()

    # -- helpers ---------------------------------------------------------------------------------------------------

    def drawn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.tensors, dtype=torch.float64).to(self.plan.dtype)

    def set_mode(self) -> None:
        if self.plan.host == "spikingjelly":
            from spikingjelly.activation_based import functional

            functional.set_step_mode(self.net, "m" if self.whole else "s")

    def through(self, x: Tensor) -> Tensor:
        for module in self.net:
            lead = x.shape[:-2]
            flat = isinstance(module, nn.Conv1d) and x.dim() > 3
            x = module(x.flatten(0, -3)).unflatten(0, lead) if flat else module(x)
        return x

    def same(self, what: str, found: Tensor, expected: Tensor, loose: float = 1.0) -> None:
        if found.shape != expected.shape or found.dtype != expected.dtype:
            raise Differs(f"{what}: {found.dtype} {tuple(found.shape)}, not {expected.dtype} {tuple(expected.shape)}")
        scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
        worst = float((found - expected).detach().abs().max()) if expected.numel() else 0.0
        if not worst <= loose * TOLERANCE[self.plan.dtype] * scale:
            raise Differs(f"{what}: off by {worst:.3g} at a scale of {scale:.3g}")

    def neurons(self):
        return list(zip(self.net[1::2], self.loop.neurons, self.plan.layers, strict=True))

    def compare_states(self) -> None:
        for i, (node, plain, layer) in enumerate(self.neurons()):
            if layer.kind == "ttfs":
                continue  # the potential of the last window is kept in units of its own; its spikes say it all
            names = ("v", "v_dend") if layer.kind == "dendrite" and hasattr(node, "v_dend") else ("v",)
            for name in names:
                key = "mem" if name == "v" and self.plan.host == "snntorch" else name
                expected = plain.held[name]
                if expected is not None and expected.shape == getattr(node, key).shape:
                    self.same(f"state {name} of layer {i}", getattr(node, key).detach(), expected.detach())

    def take_over(self) -> None:
        """The plain loop's parameters become the host's, which were just compared, so that roundings do not add up."""
        leaves = host_leaves(self.net)
        with torch.no_grad():
            for name, value in self.loop.leaves().items():
                value.copy_(leaves[name])

    # -- operations ------------------------------------------------------------------------------------------------

    def forward(self) -> None:
        steps = self.plan.window * self.random.randint(1, 6 if self.plan.window == 1 else 3)
        shape = (steps, self.batch, self.plan.inputs, *[LENGTH] * self.plan.conv)
        x = self.drawn(*shape) + self.random.choice((0.0, 0.7))
        mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        if self.random.random() < 0.15:
            with torch.no_grad():
                y = self.through(mine) if self.whole else torch.stack([self.through(step) for step in mine])
                expected = self.loop(theirs, self.whole)
        else:
            y = self.through(mine) if self.whole else torch.stack([self.through(step) for step in mine])
            expected = self.loop(theirs, self.whole)
            self.waiting.append((mine, y, theirs, expected))
        for neuron in self.loop.neurons:
            v = neuron.held["v"]
            if v is not None and not bool((v.abs() < BOUND).all()):
                raise Diverged
        self.same("spikes", y, expected)
        self.compare_states()

    def backward(self) -> None:
        if not self.waiting:
            self.forward()
        if not self.waiting:
            return
        ours, others = [], []
        for _, y, _, expected in self.waiting:
            weight = self.drawn(*y.shape)
            ours.append((y * weight).sum())
            others.append((expected * weight).sum())
        on_state = self.random.random() < 0.5 and self.plan.layers[-1].kind != "ttfs"
        if on_state:
            node, plain, _ = self.neurons()[-1]
            state = node.mem if self.plan.host == "snntorch" else node.v
            if state.requires_grad and plain.held["v"] is not None:
                weight = self.drawn(*state.shape)
                ours.append((state * weight).sum())
                others.append((plain.held["v"] * weight).sum())
        self.net.zero_grad()
        leaves, expected = host_leaves(self.net), self.loop.leaves()
        if self.random_convert is None and set(leaves) != set(expected):
            raise Differs(f"learned parameters are {sorted(leaves)}, not {sorted(expected)}")
        wanted = [*expected.values(), *(w[2] for w in self.waiting)]
        if not sum(others).requires_grad:
            return
        sum(ours).backward()
        gradients = torch.autograd.grad(sum(others), wanted, allow_unused=True)
        found = [*(leaves[name].grad for name in expected), *(w[0].grad for w in self.waiting)]
        names = [*expected, *(f"input {i}" for i in range(len(self.waiting)))]
        for name, mine, theirs, like in zip(names, found, gradients, wanted, strict=True):
            mine = torch.zeros_like(like) if mine is None else mine
            self.same(f"gradient of {name}", mine, torch.zeros_like(like) if theirs is None else theirs, loose=20.0)
        if self.random.random() < 0.5 and self.random_convert is None:
            rate = 0.02 / max(1.0, *(float(p.grad.abs().max()) for p in leaves.values() if p.grad is not None))
            with torch.no_grad():
                for value in leaves.values():
                    if value.grad is not None:
                        value -= rate * value.grad
            self.take_over()
        (self.detach if self.random.random() < 0.5 else self.reset)()

    random_convert: str | None = None

    def reset(self) -> None:
        self.waiting.clear()
        if self.plan.host == "spikingjelly":
            from spikingjelly.activation_based import functional

            functional.reset_net(self.net)
        elif self.random.random() < 0.5 and "point" not in self.plan.kinds():  # the host loses sight of its own copies
            from snntorch import utils

            utils.reset(self.net)
        else:
            for node in self.net[1::2]:
                node.reset_mem()
        self.loop.reset()

    def detach(self) -> None:
        self.waiting.clear()
        if self.plan.host == "spikingjelly":
            from spikingjelly.activation_based import functional

            functional.detach_net(self.net)
        else:
            for node, _, layer in self.neurons():
                if layer.kind == "point" and self.random_convert is None:  # detach_hidden does not see copies
                    node.mem = node.mem.detach()
                else:
                    node.detach_mem()
        self.loop.detach()

    def copied(self) -> None:
        self.detach()
        self.net = copy.deepcopy(self.net)

    def pickled(self) -> None:
        if "point" in self.plan.kinds() and self.plan.host == "snntorch":
            return  # snnTorch's own neurons hold closures
        self.detach()
        self.net = pickle.loads(pickle.dumps(self.net))

    def loaded(self) -> None:
        """The state dict goes into a network built anew, whose states are fresh."""
        self.forward()  # makes what waits for the channel count
        self.waiting.clear()
        state = self.net.state_dict()
        self.net = host_net(self.plan)
        self.net.load_state_dict(state)
        self.set_mode()
        for node, plain, layer in self.neurons():  # SpikingJelly keeps a threshold that was set out of the state dict
            if self.plan.host == "spikingjelly" and layer.kind != "ttfs":
                node.v_threshold = plain.rule.threshold
        self.loop.reset()

    def other_batch(self) -> None:
        self.reset()
        self.batch = self.random.randint(1, 3)

    def threshold(self) -> None:
        node, plain, layer = self.random.choice(self.neurons())
        if layer.kind == "ttfs":
            return
        self.detach()
        value = self.random.choice((0.3, 0.5, 0.8))
        plain.rule.threshold = value
        if self.plan.host == "spikingjelly":
            node.v_threshold = value
        else:
            node.threshold.fill_(value)
            plain.rule.threshold = float(node.threshold)  # a buffer, in its own dtype

    def tau(self) -> None:
        node, plain, layer = self.random.choice(self.neurons())
        theta_kept = "theta" in plain.parameters and plain.rest != 0  # theta_0 holds the rest, too
        if self.plan.host != "spikingjelly" or layer.kind == "ttfs" or theta_kept or layer.own.get("learn_beta"):
            return
        self.detach()
        layer.tau = self.random.choice((1.5, 3.0, 5.0))
        node.tau = layer.tau
        plain.beta = 1 - 1 / layer.tau
        if "theta" in plain.parameters:
            with torch.no_grad():
                plain.parameters["theta"][:, 1] = plain.beta
                plain.parameters["theta"][:, 0] = 0

    def mode(self) -> None:
        if self.plan.host != "spikingjelly" or "ttfs" in self.plan.kinds():
            return
        self.whole = not self.whole
        self.set_mode()

    def converted(self) -> None:
        """Point neurons become dendritic ones, which compute the same, learn the same weights, and go back."""
        if "point" not in self.plan.kinds():
            return
        self.reset()
        self.random_convert = self.random.choice(("DendSN", "LNM"))
        self.net = sdp.convert(self.net, to=self.random_convert)
        self.reset()
        for _ in range(self.random.randint(1, 2)):
            self.random.choice((self.forward, self.backward))()
        self.reset()
        self.net = sdp.revert(self.net)
        self.reset()
        self.set_mode()
        self.random_convert = None

    def run(self) -> None:
        operations: list[Callable[[], None]] = [
            self.forward, self.forward, self.backward, self.backward, self.backward, self.reset, self.detach,
            self.copied, self.pickled, self.loaded, self.other_batch, self.threshold, self.tau, self.mode,
            self.converted,
        ]  # fmt: skip
        for operation in (self.forward, *self.random.choices(operations, k=self.random.randint(4, 9)), self.backward):
            self.said.append(operation.__name__)
            operation()


def outcome(seed: int) -> tuple[str, str]:
    """``agree``, ``ambiguous`` or ``disagree``, and what differs."""
    program = Program(seed)
    try:
        program.run()
    except Diverged:
        return "diverged", f"seed {seed}"
    except Exception as error:  # whatever the host's network raises, the plain loop does not
        near = program.loop.margin < NEAR[program.plan.dtype]
        where = "" if isinstance(error, Differs) else "\n" + traceback.format_exc()
        kind = "ambiguous" if near and isinstance(error, Differs) else "disagree"
        text = f"seed {seed}, {program.plan.host}, {program.plan.dtype}: {' '.join(program.said)}: {error}{where}"
        return kind, text
    return "agree", ""
