"""Conversion, on a host that a stranger's plugin brings: what is found, chosen, carried over, reported and undone."""

from __future__ import annotations

import copy
import io
import re
import sys

import pytest
import torch
from places import DOCS
from torch import nn
from toy_host import LearnedPoint, Point, ToyAdapter, ToyNode, drive, network, plugin, run

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import plugins


@pytest.fixture(autouse=True)
def host():
    adapter = ToyAdapter()
    registered = plugin(adapter)
    plugins.register_plugin(registered, "toy")
    yield adapter
    plugins.unregister_plugin(registered)
    del sys.modules["toy_neurons"]


@pytest.mark.parametrize(
    ("to", "arguments"), [("DendSN", {"branches": 3}), ("LNM", {"degree": 3}), ("LNM", {"degree": 2})]
)
def test_keeps_function_flags_and_sharing(to, arguments):
    model = network()
    model[0].weight.requires_grad_(False)
    model[1].train(False)
    expected = run(model.eval(), drive())
    model[4].train()
    same = sdp.convert(model, to=to, example_input=drive(), **arguments)
    assert same is model
    assert sum(isinstance(module, ToyNode) for module in model.modules()) == 3
    assert {type(model[1].layers[1]).__name__, type(model[4]).__name__} == {to}
    assert model[1].layers[1] is model[1].heads["a"]
    assert [model[4].training, model[1].layers[3].training] == [True, False]
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert 0 < expected.mean() < 1
    assert torch.equal(run(model, drive()), expected)
    report = sdp.report(model)
    assert report.flips == 0
    assert report.output_difference == 0
    assert [line.name for line in report.converted] == ["1.layers.1", "1.layers.3", "4"]
    assert report.converted[0].aliases == ("1.heads.a",)
    assert [(line.name, line.reason) for line in report.skipped] == [("1.heads.b", "Odd has no counterpart")]
    assert report.parameters_after - report.parameters_before == 3 * sum(p.numel() for p in model[4].parameters())


def test_example_run_leaves_no_trace():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return x + torch.rand_like(x)

    model = nn.Sequential(nn.BatchNorm1d(7), Counting(), Point(), nn.Linear(5, 5)).double().train()
    state = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    sdp.convert(model, example_input=drive().transpose(0, 1), branches=2)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert model.training
    assert model[0].training
    assert model[2].memory is None
    assert sdp.report(model).flips == 0  # random numbers are the same in both runs


def test_revert_restores_modules_bits_and_settings():
    model = network()
    originals = [model[1].layers[1], model[1].layers[3], model[4]]
    state = copy.deepcopy(model.state_dict())
    expected = run(model.eval(), drive())
    sdp.convert(model, branches=2)
    assert all(original not in list(model.modules()) for original in originals)
    model[4].threshold = 0.9
    model.train()
    assert sdp.revert(model) is model
    assert [model[1].layers[1], model[1].layers[3], model[4]] == originals
    assert model[1].heads["a"] is originals[0]
    assert model[4].training
    assert model[4].threshold == 0.9  # changed since conversion
    model[4].threshold = 0.2
    assert model.state_dict().keys() == state.keys()
    assert torch.equal(run(model.eval(), drive()), expected)
    with pytest.raises(ValueError, match="nothing to revert"):
        sdp.revert(model)
    with pytest.raises(ValueError, match="was not converted"):
        sdp.report(model)


def test_revert_of_a_part():
    model = sdp.convert(network(), branches=2)
    sdp.revert(model[1])
    assert [line.name for line in sdp.report(model).converted] == ["4"]
    assert sdp.report(model).parameters_after == sum(p.numel() for p in model.parameters())
    sdp.revert(model)
    assert type(model[4]) is Point


def test_a_neuron_that_does_not_run_is_noted():
    model = network()
    model[1].heads["c"] = Point()
    line = sdp.report(sdp.convert(model, example_input=drive())).converted[-2]
    assert (line.name, line.flips, line.notes) == ("1.heads.c", None, ("did not run on the example",))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_wrapped_models_are_refused():
    class FSDPNet(nn.Sequential):
        """fully_shard() renames the class of what it wraps like this."""

    with pytest.raises(ValueError, match="FSDPNet, which fixes its parameters: convert before wrapping"):
        sdp.convert(FSDPNet(Point()))
    with pytest.raises(ValueError, match="convert before wrapping"):
        sdp.convert(nn.Sequential(torch.jit.script(nn.Linear(2, 2)), Point()))


def test_revert_follows_dtype_and_copies():
    model = nn.Sequential(nn.Linear(5, 5), LearnedPoint())
    sdp.convert(model, to="LNM", learn_theta=False)
    copied = copy.deepcopy(model).double()
    sdp.revert(copied)
    assert copied[1].w.dtype == torch.float64
    assert type(model[1]).__name__ == "LNM"
    sdp.revert(model)
    assert model[1].w.dtype == torch.float32


def test_whole_model_can_be_saved_and_loaded(tmp_path):
    model = sdp.convert(nn.Sequential(nn.Linear(5, 5), Point()).double(), to="LNM")
    expected = run(model, drive())
    model[1].memory = None
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    fresh = sdp.convert(nn.Sequential(nn.Linear(5, 5), Point()).double(), to="LNM")
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(run(fresh, drive()), expected)


def test_root_neuron():
    point = Point(threshold=0.7)
    node = sdp.convert(point, to="LNM", example_input=drive())
    assert type(node).__name__ == "LNM"
    assert node.threshold == 0.7
    assert sdp.report(node).converted[0].name == "(root)"
    assert sdp.revert(node) is point


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        ("1.*", None, ["1.layers.1", "1.layers.3"]),
        ("*.heads.a", None, ["1.layers.1"]),  # any of a shared neuron's names will do
        (Point, ["4", "*.3"], ["1.layers.1"]),
        (lambda name, module: module.threshold == 0.8, None, ["1.layers.1"]),
        (["4", "1.layers.3"], None, ["1.layers.3", "4"]),
        (None, lambda name, module: name == "4", ["1.layers.1", "1.layers.3"]),
    ],
)
def test_include_and_exclude(include, exclude, names):
    model = sdp.convert(network(), include=include, exclude=exclude)
    assert [line.name for line in sdp.report(model).converted] == names


def test_dry_run_changes_nothing():
    model = network()
    modules, state = list(model.modules()), copy.deepcopy(model.state_dict())
    plan = sdp.convert(model, branches=3, dry_run=True, example_input=drive())
    assert plan.dry_run
    assert list(model.modules()) == modules
    assert model.state_dict().keys() == state.keys()
    done = sdp.report(sdp.convert(model, branches=3))
    assert (plan.parameters_before, plan.parameters_after) == (done.parameters_before, done.parameters_after)
    assert done.parameters_after == sum(p.numel() for p in model.parameters())


def test_two_conversions_are_reported_together():
    model = network()
    points = sum(p.numel() for p in model.parameters())
    sdp.convert(model, to="DendSN", include="4")
    sdp.convert(model, to="LNM", include="1.*")
    report = sdp.report(model)
    assert {line.name: line.after for line in report.converted} == {
        "4": "DendSN", "1.layers.1": "LNM", "1.layers.3": "LNM",
    }  # fmt: skip
    assert [line.name for line in report.skipped] == ["1.heads.b"]
    assert report.parameters_before == points
    assert report.parameters_after == sum(p.numel() for p in model.parameters())
    with pytest.raises(ValueError, match="no neuron of the model can be converted.*4 .DendSN.: is a DendSN already"):
        sdp.convert(model, to="DendSN", include="4")


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"to": "Dend"}, ValueError, "to is 'Dend'; registered neuron models are DendSN, LNM"),
        ({"branchs": 3}, TypeError, "unexpected argument 'branchs'; it takes .*branches"),
        ({"branches": 0}, ValueError, "branches is 0"),
        ({"include": "layer*"}, ValueError, r"'layer\*' matches no neuron; .* are 1.layers.1 \(Point\), .*4 \("),
        ({"include": ["4", "5"]}, ValueError, "'5' matches no neuron"),
        ({"include": 3}, TypeError, "include has 3"),
        ({"exclude": "*"}, ValueError, "no neuron of the model can be converted to DendSN: .*excluded"),
        ({"include": "*.b"}, ValueError, "Odd has no counterpart"),
        ({"start": "zero"}, ValueError, "start is 'zero'; it must be one of preserve"),
        ({"strength_init": 0.1}, ValueError, "strength_init is 0.1.*start='fresh'"),
        ({"strength": "softmax"}, ValueError, "strength is 'softmax'.*start='fresh'"),
        ({"direct": 0.0}, ValueError, "direct is 0.0"),
        ({"threshold": 0.5}, ValueError, "threshold is 0.5, but neuron 1.layers.1 has 0.8"),
        ({"wiring": "fold"}, ValueError, "wiring is 'fold'.*partition"),
        ({"wiring": "partition"}, ValueError, "needs example_input"),
        ({"to": "LNM", "wiring": "expand"}, ValueError, "LNM has no branches"),
        ({"calibration": []}, ValueError, "calibration"),
        ({"example_input": torch.rand(7, 3, 4).double()}, ValueError, r"input \(\(7, 3, 4\) float64 on cpu\) does not"),
        ({"example_input": torch.rand(7, 3, 5)}, ValueError, "example_input .* does not run through Sequential"),
        ({"example_input": 3}, TypeError, "example_input is int"),
    ],
)
def test_errors_leave_the_model_alone(keywords, error, message):
    model = network().train()
    modules, state = list(model.modules()), copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        sdp.convert(model, **keywords)
    assert list(model.modules()) == modules
    assert all(module.training for module in modules)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert not any(module._forward_hooks for module in modules)


def test_error_after_the_swap_takes_it_back(host, monkeypatch):
    model = network()
    modules = list(model.modules())

    def fail(root):
        if not isinstance(root[4], Point):
            raise RuntimeError("host failed")

    monkeypatch.setattr(host, "after_swap", fail)
    with pytest.raises(RuntimeError, match="host failed"):
        sdp.convert(model, branches=2)
    assert list(model.modules()) == modules


def test_not_a_module_and_no_neurons():
    with pytest.raises(TypeError, match="model is list"):
        sdp.convert([Point()])
    with pytest.raises(ValueError, match="Linear has no neuron of a host; hosts: .*toy"):
        sdp.convert(nn.Linear(2, 2))


def test_other_starts():
    model = network()
    sdp.convert(model, include="4", start="fresh", strength_init=0.25, threshold=0.5)
    assert model[4].model.strength.tolist() == [[0.25] * 4]
    assert model[4].threshold == 0.5
    sdp.convert(model, include="1.layers.1", start="published", branches=2)
    published = model[1].layers[1].model
    assert published.strength_mode == "softmax"
    assert published.alpha.tolist() == [[0.5, 0.5]]
    assert published.direct.tolist() == [[0.0]]


def test_hooks_and_plain_references_are_told():
    model = network()
    model[4].register_forward_hook(lambda *_: None)
    model.everything = [model[4]]
    line = sdp.report(sdp.convert(model, include="4")).converted[0]
    assert line.notes == ("1 forward hook left behind", "everything still refers to the old module")


def test_per_channel_parameters_wait_or_come_with_the_example():
    model = sdp.convert(network(), to="LNM", per_channel=True)
    assert [line.parameters_after for line in sdp.report(model).converted] == [None] * 3
    assert "at first forward" in str(sdp.report(model))
    model = sdp.convert(network(), to="LNM", per_channel=True, example_input=drive())
    assert [line.parameters_after for line in sdp.report(model).converted] == [24, 24, 16]
    assert sdp.report(model).parameters_after == sum(p.numel() for p in model.parameters())


def test_flips_are_counted():
    model = network(torch.float32)
    spikes = run(model.eval(), drive(torch.float32))
    model[4].memory = None
    sdp.convert(model, include="4", start="fresh", threshold=0.4, example_input=drive(torch.float32))
    line = sdp.report(model).converted[0]
    expected = int((run(model, drive(torch.float32)) != spikes).sum())
    assert expected > 0
    assert (line.flips, line.spikes) == (expected, spikes.numel())
    assert sdp.report(model).output_difference == 1


def test_example_as_arguments_or_function():
    for example in ((drive(),), {"input": drive()}, lambda model: model(drive())):
        assert sdp.report(sdp.convert(network(), example_input=example)).flips == 0


def test_print(monkeypatch):
    from rich.console import Console

    report = sdp.report(sdp.convert(network(), branches=2, example_input=drive()))
    lines = str(report).splitlines()
    assert lines[0].split() == ["neuron", "was", "is", "wiring", "parameters", "flipped", "spikes", "notes"]
    assert lines[1].split()[:4] == ["1.layers.1", "Point", "DendSN", "shared"]
    assert lines[-1] == report.summary()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert str(report).splitlines() == lines  # no control codes: the text may go anywhere
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, width=80, color_system=None).print(report)
    drawn = screen.getvalue()
    assert max(map(len, drawn.splitlines())) <= 80
    assert "1.layers.1" in drawn  # names are not torn


def test_third_party_model_says_how_it_keeps_the_function():
    class Adaptive(sdp.NeuronModel):
        def __init__(self, beta=0.5, strength=1.0):
            super().__init__()
            self.beta = beta
            self.strength = nn.Parameter(torch.tensor(strength))

        def step(self, x, states, firing):
            spikes, v = firing.update(memory=self.beta * states[0], drive=x * (1 + self.strength))
            return spikes, (v,)

    class Plugin:
        @sdp.hookimpl
        def snn_dendrite_register_models(self, register):
            register(name="Adaptive", target=Adaptive)

    registered = Plugin()
    plugins.register_plugin(registered, "adaptive")
    try:
        with pytest.raises(ValueError, match="Adaptive does not say how it keeps the function"):
            sdp.convert(network(), to="Adaptive")
        Adaptive.preserving_start = classmethod(lambda cls: {"strength": 0.0})
        model = sdp.convert(network(), to="Adaptive", example_input=drive())
        assert sdp.report(model).flips == 0
        with pytest.raises(ValueError, match=r"strength is 2\.0"):
            sdp.convert(network(), to="Adaptive", strength=2.0)
    finally:
        plugins.unregister_plugin(registered)


def test_point_weights_load_strictly():
    point = nn.Sequential(nn.Linear(5, 5), LearnedPoint(), nn.Linear(5, 4), Point()).double()
    model = sdp.convert(copy.deepcopy(point), to="DendSN", branches=2)
    with torch.no_grad():
        point[0].weight.mul_(2)
        point[1].w.fill_(1.5)
    model.load_state_dict(point.state_dict())
    assert torch.equal(run(model, drive()), run(point, drive()))
    with torch.no_grad():
        model[3].model.strength.fill_(0.3)
    kept = copy.deepcopy(model.state_dict())
    again = sdp.convert(point, to="DendSN", branches=2)
    again.load_state_dict(kept)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in kept.items())


def test_point_weights_need_the_channels():
    point = nn.Sequential(nn.Linear(5, 5), Point())
    state = point.state_dict()
    model = sdp.convert(point, to="LNM", per_channel=True)
    with pytest.raises(RuntimeError, match="neuron 1 has per-channel parameters"):
        model.load_state_dict(state)


def test_example_of_the_documentation(capsys):
    pytest.importorskip("spikingjelly.activation_based.neuron")
    page = DOCS / "conversion.md"
    code = re.search(r"```python\n(.*?)```", page.read_text(), re.DOTALL).group(1)
    scope = {}
    exec(code, scope)
    assert "20 neurons converted to DendSN, 0 kept" in capsys.readouterr().out
    assert type(scope["net"].sn1).__name__ == "LIFNode"


def test_relu_networks_become_ttfs():
    relu = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.rand(32, 6)
    timed = sdp.convert(relu, to="TTFS", calibration=x)
    torch.testing.assert_close(timed(x), relu(x), rtol=0, atol=1e-5)
    assert sdp.report(timed) is timed.report
    assert isinstance(relu[1], nn.ReLU)
    plan = sdp.convert(relu, to="TTFS", example_input=x, dry_run=True)
    assert type(plan) is type(timed.report)
    with pytest.raises(ValueError, match="start is 'fresh', which to='TTFS' does not use"):
        sdp.convert(relu, to="TTFS", calibration=x, start="fresh")
