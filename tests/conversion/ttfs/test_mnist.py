"""The TTFS examples: on small digits for everyone, and by name on the MNIST that SNN_DENDRITE_DATA points to."""

from __future__ import annotations

import os
import re
import statistics

import pytest
from fresh import run_with_torch
from places import EXAMPLES


def run(script: str, *arguments: str, data: bool) -> str:
    environment = {"SNN_DENDRITE_DATA": os.environ["SNN_DENDRITE_DATA"]} if data else {}
    done = run_with_torch(EXAMPLES / script, *arguments, cwd=EXAMPLES, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern: str, text: str) -> list[tuple[float, ...]]:
    found = [tuple(float(value) for value in match.groups()) for match in re.finditer(pattern, text)]
    assert found, text
    return found


NUMBER = r"([0-9.e+-]+[0-9])"
EXACT = rf"torch.float(\d+): (\d+) images, argmax agreement {NUMBER}, largest difference {NUMBER}, relative {NUMBER}"
TUNED = rf"T +(\d+): ReLU {NUMBER}, converted {NUMBER}, after \d+ steps {NUMBER}"


def test_examples_on_small_digits():
    text = run("ttfs_train.py", "--epochs", "2", data=False)
    ((apart,),) = numbers(rf"weights apart by {NUMBER}", text)
    assert apart < 1e-9
    text = run("ttfs_convert.py", "--epochs", "4", "--steps", "20", "--show", "exact", "tune", data=False)
    for bits, images, agreement, largest, relative in numbers(EXACT, text):
        assert (images, agreement) == (1797, 1.0)
        assert largest < 1e-10 if bits == 64 else relative < 1e-4
    for _, relu, _, tuned in numbers(TUNED, text):
        assert tuned > relu - 0.03


@pytest.mark.data
@pytest.mark.parametrize("network", ["mlp", "vgg", "resnet"])
def test_all_ten_thousand_images_agree(network):
    text = run("ttfs_convert.py", "--network", network, "--epochs", "2", "--show", "exact", data=True)
    found = numbers(EXACT, text)
    assert [row[0] for row in found] == [32, 64]
    for bits, images, agreement, largest, relative in found:
        assert (images, agreement) == (10000, 1.0)
        assert largest < 1e-10 if bits == 64 else relative < 1e-4


@pytest.mark.data
@pytest.mark.parametrize("network", ["mlp", "vgg"])
def test_fine_tuning_on_the_clock_recovers_the_relu_network(network):
    steps, rounds = ("100", "10") if network == "mlp" else ("250", "4")
    arguments = ("--network", network, "--epochs", rounds, "--seeds", "3", "--steps", steps)
    found = numbers(TUNED, run("ttfs_convert.py", *arguments, "--show", "tune", data=True))
    assert [row[0] for row in found] == [8, 16] * 3
    for steps_per_window in (8, 16):
        loss = [relu - tuned for t, relu, _, tuned in found if t == steps_per_window]
        assert statistics.mean(loss) <= 0.005


@pytest.mark.data
def test_an_activity_penalty_saves_spikes():
    text = run("ttfs_train.py", "--epochs", "5", "--penalty", "1.0", data=True)
    ((accuracy, spikes),) = numbers(rf"time-coded accuracy {NUMBER}, hidden spikes per neuron {NUMBER}", text)
    assert spikes < 0.3
    assert accuracy > 0.9
