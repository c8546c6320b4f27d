"""Faults, planted into the package one at a time: what random programs must be able to find."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import snntorch  # noqa: F401 - hosts first, which bring their adapters
import spikingjelly.activation_based.neuron  # noqa: F401
import torch

from snn_dendrite_plugin.adapters.snntorch.shell import Shell
from snn_dendrite_plugin.adapters.spikingjelly.shell import PluginNode
from snn_dendrite_plugin.neurons.core import SomaDendriteModel
from snn_dendrite_plugin.neurons.dendsn import DendSN
from snn_dendrite_plugin.neurons.ttfs import TTFS

Patch = pytest.MonkeyPatch


def around(patch: Patch, owner: type, name: str, wrapper: Callable) -> None:
    original = getattr(owner, name)
    patch.setattr(owner, name, lambda self, *a, **k: wrapper(self, lambda *b, **m: original(self, *b, **m), *a, **k))


def reset_forgets_the_branches(patch: Patch) -> None:
    def kept(self, original, *arguments):
        branches = getattr(self, "v_dend", None)
        result = original(*arguments)
        if isinstance(branches, torch.Tensor) and branches.numel():
            self.v_dend = branches.detach()
        return result

    around(patch, PluginNode, "reset", kept)
    around(patch, Shell, "reset_mem", kept)


def detach_does_nothing(patch: Patch) -> None:
    patch.setattr(PluginNode, "detach", lambda self: None)
    patch.setattr(Shell, "detach_mem", lambda self: None)


def detach_reset_is_ignored(patch: Patch) -> None:
    around(patch, PluginNode, "firing", lambda self, original: dataclasses.replace(original(), detach=False))


def alpha_is_off_by_a_millionth(patch: Patch) -> None:
    def changed(self, original, dtype):
        inputs = original(dtype)
        return inputs | {"alpha": inputs["alpha"] + 1e-6}

    around(patch, DendSN, "core_inputs", changed)


def states_go_through_float32(patch: Patch) -> None:
    def rounded(self, original, x_seq, states, *arguments, **options):
        return original(x_seq, tuple(state.float().to(state.dtype) for state in states), *arguments, **options)

    around(patch, SomaDendriteModel, "_fused", rounded)


def one_branch_has_no_gradient(patch: Patch) -> None:
    def cut(self, original, dtype):
        inputs = original(dtype)
        k = inputs["strength"]
        return inputs | {"strength": torch.cat((k[:, :1].detach(), k[:, 1:]), 1)}

    around(patch, DendSN, "core_inputs", cut)


def resets_come_at_once(patch: Patch) -> None:
    def early(self, original, *arguments):
        firing = original(*arguments)
        return dataclasses.replace(firing, timing="at_once_retested") if firing.timing == "next_step" else firing

    around(patch, Shell, "firing", early)


def windows_last_too_long(patch: Patch) -> None:
    around(patch, TTFS, "_windows", lambda self, original, dtype: original(dtype) * (1 + 1 / (64 * self.steps)))


def copies_lose_their_states(patch: Patch) -> None:
    def empty(self, original):
        state = original()
        return state | {name: state[name] * 0 for name in self._state_names}

    around(patch, Shell, "__getstate__", empty)


MUTATIONS = [
    reset_forgets_the_branches,
    detach_does_nothing,
    detach_reset_is_ignored,
    alpha_is_off_by_a_millionth,
    states_go_through_float32,
    one_branch_has_no_gradient,
    resets_come_at_once,
    windows_last_too_long,
    copies_lose_their_states,
]
