"""The generators of random calls that the kernels are tested with."""

from __future__ import annotations

import kernel_cases
import pytest
import ttfs_cases


@pytest.mark.parametrize("most", [1, 100, 4000])
def test_a_random_case_is_as_small_as_was_asked(most):
    for seed in range(300):
        case = kernel_cases.random_case(seed, most_values=most)
        assert case.inputs.x.numel() <= max(most, case.settings.branches), seed  # one neuron has that many inputs
        assert ttfs_cases.random_case(seed, most_values=most).x.numel() <= most, seed


def test_the_case_of_a_seed_is_always_the_same():
    for module in (kernel_cases, ttfs_cases):
        one, other = (repr(module.random_case(5)) for _ in range(2))
        assert one == other
