"""The demo trains what it says, tells what came out, and asks for what is missing."""

from __future__ import annotations

import importlib.util
import io
import re

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from snn_dendrite_plugin import cli
from snn_dendrite_plugin.commands import demo
from snn_dendrite_plugin.demo.studies import (
    NEURONS,
    STUDIES,
    Digits,
    SpikeCounter,
    check_finite,
    compare_start,
    load_digits,
    train,
)

HOSTS = ("spikingjelly", "snntorch")


@pytest.fixture(autouse=True)
def _hosts():
    for name in (*HOSTS, "sklearn", "matplotlib"):
        pytest.importorskip(name)


@pytest.fixture
def digits() -> Digits:
    return load_digits(96)


def run(*arguments: str):
    return CliRunner().invoke(cli.app, ["demo", *arguments])


def rows(output: str) -> list[list[str]]:
    """Cells of the results table."""
    lines = [line for line in output.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_digits_are_split_the_same_way_every_time():
    digits, again = load_digits(), load_digits()
    assert all(torch.equal(a, b) for a, b in zip(digits, again, strict=True))
    assert digits.train_images.shape == (1198, 1, 8, 8)
    assert digits.validation_images.shape == (599, 1, 8, 8)
    assert digits.train_images.min() == 0
    assert digits.train_images.max() == 1
    assert set(digits.validation_labels.tolist()) == set(range(10))
    # no image is in both parts
    train_set = {image.numpy().tobytes() for image in digits.train_images}
    assert not train_set & {image.numpy().tobytes() for image in digits.validation_images}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("neuron", NEURONS[1:])
def test_networks_start_as_the_point_network(host, neuron, digits):
    study = STUDIES[host]()
    spikes, flips = compare_start(study, neuron, 3, digits.train_images)
    assert spikes > 1000
    assert flips == 0
    network, point = study.build(neuron, 3), study.build("point", 3)
    assert len(study.neurons(network)) == len(study.neurons(point)) > 1
    assert all(type(node).__name__ in (neuron, "Dendritic") for node in study.neurons(network))
    with torch.no_grad():
        torch.testing.assert_close(study.logits(network, digits.train_images), study.logits(point, digits.train_images))


@pytest.mark.parametrize("host", HOSTS)
def test_a_different_start_is_noticed(host, digits, monkeypatch):
    study = STUDIES[host]()
    build = study.build

    def forgetful(neuron, seed):
        network = build(neuron, seed)
        for node in study.neurons(network) if neuron == "LNM" else ():
            node.model.set_decay(0.01)
        return network

    monkeypatch.setattr(study, "build", forgetful)
    assert compare_start(study, "LNM", 0, digits.train_images)[1] > 0


@pytest.mark.parametrize("host", HOSTS)
def test_training_is_repeatable_learns_and_counts_spikes(host, digits):
    study = STUDIES[host]()
    losses: list[float] = []
    first = train(study, "DendSN", digits, epochs=3, seed=1, progress=losses.append)
    again = train(study, "DendSN", digits, epochs=3, seed=1)
    batches = -(-len(digits.train_labels) // study.batch) * 3
    assert len(losses) == batches
    assert losses[-1] < losses[0]
    assert (first.accuracy, first.spikes) == (again.accuracy, again.spikes)
    for a, b in zip(first.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        study.logits(first.network, digits.validation_images)
    trains = SpikeCounter.trains(study, first.network, digits.validation_images)
    assert {t.shape[:2] for t in trains} == {(study.steps, len(digits.validation_labels))}
    assert first.spikes == pytest.approx(sum(float(t.sum()) for t in trains) / sum(t[0].numel() for t in trains))
    strength = study.neurons(first.network)[0].model.strength
    assert strength.abs().max() > 0  # the dendrites have grown


def test_a_parameter_that_is_no_longer_finite_stops_the_run(digits):
    network = torch.nn.Linear(2, 2)
    check_finite(network, "a test")
    network.bias.data[1] = float("nan")
    with pytest.raises(FloatingPointError, match="bias is no longer finite while training a test"):
        check_finite(network, "a test")


def test_quick_demo_prints_a_table_and_saves_a_picture(tmp_path):
    picture = tmp_path / "demo.png"
    result = run("--quick", "--seed", "2", "--out", str(picture))
    assert result.exit_code == 0, result.output
    header, *table = rows(result.output)
    assert header == ["host", "neuron", "accuracy %", "spikes per neuron", "parameters", "seconds"]
    assert [row[:2] for row in table] == [
        ["spikingjelly", "LIFNode"], ["spikingjelly", "DendSN"], ["spikingjelly", "LNM"],
        ["snntorch", "Leaky"], ["snntorch", "Dendritic"], ["snntorch", "LNM"],
    ]  # fmt: skip
    parameters = [int(row[4].replace(",", "")) for row in table]
    assert parameters[1] - parameters[0] == 7 * 12  # gain, offset and strength of 4 branches, in 7 layers
    assert parameters[4] - parameters[3] == 2 * 12
    assert result.output.count("before training, 0 spikes of") == 4
    assert "One seed, 100 images" in result.output
    assert "\x1b" not in result.output
    from matplotlib import image

    pixels = image.imread(picture)
    assert pixels.shape[0] > 600
    assert pixels.std() > 0.05


def test_several_seeds_of_one_host_show_their_spread(tmp_path):
    result = run("--quick", "--seeds", "2", "--host", "snntorch", "--out", str(tmp_path / "demo.svg"))
    assert result.exit_code == 0, result.output
    _, *table = rows(result.output)
    assert [row[1] for row in table] == ["Leaky", "Dendritic", "LNM"]
    assert all(re.fullmatch(r"\d+\.\d ± \d+\.\d", row[2]) for row in table)
    assert "over 2 seeds" in result.output
    assert (tmp_path / "demo.svg").read_text().startswith("<?xml")


def test_bars_move_on_a_terminal():
    screen = io.StringIO()
    out = Console(file=screen, force_terminal=True, width=100)
    with demo._progress(out, 4) as track, track("DendSN, seed 0") as step:
        assert "nan" not in screen.getvalue()
        for _ in range(4):
            step(0.25)
    assert "DendSN, seed 0" in screen.getvalue()
    assert "100 %" in screen.getvalue()
    assert "loss 0.250" in screen.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "brian"], "--host is 'brian'; it must be one of spikingjelly, snntorch, all"),
        (["--out", "demo.txt"], "--out is 'demo.txt'; it must end in .png, .pdf or .svg"),
        (["--host", "snntroch"], "; did you mean 'snntorch'?"),
        (["--out", "nowhere/demo.png"], "there is no directory 'nowhere'"),
        (["--epochs", "0"], "--epochs"),
    ],
)
def test_wrong_options_are_named(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("missing", "arguments", "message"),
    [
        ({"sklearn"}, [], 'need sklearn, which is not installed: pip install "snn-dendrite-plugin[demo]"'),
        ({"matplotlib"}, [], 'need matplotlib, which is not installed: pip install "snn-dendrite-plugin[plot]"'),
        ({"snntorch"}, ["--host", "snntorch"], 'is not installed: pip install "snn-dendrite-plugin[snntorch]"'),
        (set(HOSTS), [], 'spikingjelly and snntorch are not installed: pip install "snn-dendrite-plugin[all]"'),
    ],
)
def test_what_is_missing_is_named_with_its_extra(missing, arguments, message, monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in missing else found(name, *a))
    result = run("--out", str(tmp_path / "demo.png"), *arguments)
    assert result.exit_code == 1
    assert message in result.output


def test_one_missing_host_is_left_out_with_a_word(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "snntorch" else found(name, *a))
    assert demo.available_hosts("all") == ["spikingjelly"]
    said = capsys.readouterr().err
    assert said == 'snntorch is left out, as it is not installed: pip install "snn-dendrite-plugin[snntorch]"\n'
