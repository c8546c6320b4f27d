"""A spike that backward recomputes is the one that forward emitted, to the last bit, on the CPU."""

from __future__ import annotations

import pytest
import torch
from at_threshold import check_spikes, driven, emitted, per_channel, recomputed, threshold_case
from kernel_cases import Case

from snn_dendrite_plugin.kernels.launch.cpu import LEVELS
from snn_dendrite_plugin.kernels.soma_dendrite import cpu
from snn_dendrite_plugin.kernels.soma_dendrite.contract import Inputs, Settings

CPU = torch.device("cpu")
library_reason = cpu.provider.why_not(CPU, torch.float32, Settings())
needs_library = pytest.mark.skipif(library_reason is not None, reason=str(library_reason))


@needs_library
@pytest.mark.parametrize("level", LEVELS)
def test_backward_recomputes_the_spikes_that_were_emitted(level):
    for seed in range(25):
        check_spikes(cpu.CpuProvider(level), threshold_case(seed))


@needs_library
@pytest.mark.long
@pytest.mark.parametrize("level", LEVELS)
def test_backward_recomputes_the_spikes_that_were_emitted_in_random_cases(level):
    for seed in range(25, 1000):
        check_spikes(cpu.CpuProvider(level), threshold_case(seed))


def fold_case(shape: tuple[int, ...]) -> Case:
    fold = {"branches": 4, "wiring": "fold", "activation": "leaky_relu", "reset": "hard", "timing": "at_once"}
    return threshold_case(7, shape, **fold, fire_once=False)


@needs_library
@pytest.mark.parametrize("level", LEVELS)
def test_spikes_are_recomputed_where_backward_cuts_smaller_blocks(level):
    """Several channels to a block forward, one backward: parameters per lane there, one number here."""
    check_spikes(cpu.CpuProvider(level), per_channel(fold_case((180, 2, 12, 47))))


@needs_library
@pytest.mark.parametrize("level", LEVELS)
def test_equal_parameters_give_equal_spikes_per_layer_and_per_channel(level):
    provider = cpu.CpuProvider(level)
    for seed in range(25):
        case = driven(provider, threshold_case(seed))
        apart = per_channel(case)
        spikes = provider.forward(case.inputs, case.settings).spikes
        assert torch.equal(spikes, provider.forward(apart.inputs, case.settings).spikes), case.note
        together = recomputed(provider, case).sum(0, keepdim=True)
        assert torch.equal(together, recomputed(provider, apart).sum(0, keepdim=True)), case.note


@needs_library
def test_spikes_do_not_depend_on_the_cut():
    """A channel's neurons alone are cut into other blocks than among many."""
    case = driven(cpu.provider, per_channel(fold_case((6, 3, 40, 13))))
    spikes = cpu.provider.forward(case.inputs, case.settings).spikes
    for channel in (0, 17, 39):
        one = slice(channel, channel + 1)
        parameters = [None if p is None else p[one] for p in case.inputs[4:]]
        states = [None if s is None else s[:, one] for s in case.inputs[1:4]]
        x = case.inputs.x[:, :, 4 * channel : 4 * channel + 4]
        alone = cpu.provider.forward(Inputs(x, *states, *parameters), case.settings)
        assert torch.equal(spikes[:, :, one], alone.spikes)


class _Rounded(cpu.CpuProvider):
    """Backward that sees its input an ulp higher."""

    def backward(self, saved, *others, **named):
        return super().backward(saved._replace(x=torch.nextafter(saved.x, torch.tensor(1e9))), *others, **named)


@needs_library
def test_the_check_sees_a_last_bit():
    provider, found = _Rounded(), 0
    for seed in range(25):
        case = driven(provider, threshold_case(seed))
        found += not torch.equal(emitted(provider, case), recomputed(provider, case))
    assert found >= 20
