"""``snn-dendrite convert``: whole-network checkpoints are converted, hostile ones refused before they run."""

from __future__ import annotations

import os
import pickle
import re
import sys
import zipfile

import pytest
import snntorch as snn
import torch
from places import SAMPLE
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model import spikformer
from torch import nn
from typer.testing import CliRunner

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import plugins
from snn_dendrite_plugin.cli import app
from snn_dendrite_plugin.conversion.checkpoint import CheckpointError, convert_checkpoint, load_network
from snn_dendrite_plugin.swap.stand_in import _new_point


def network() -> nn.Module:
    return nn.Sequential(
        layer.Conv2d(1, 4, 3, bias=False),
        layer.BatchNorm2d(4),
        neuron.LIFNode(tau=3.0, surrogate_function=surrogate.ATan(), detach_reset=True),
        layer.AvgPool2d(2),
        nn.Flatten(),
        layer.Linear(36, 5),
        neuron.ParametricLIFNode(surrogate_function=surrogate.ATan()),
    )


def convert(*arguments: object):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def outputs(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    net.eval()
    functional.reset_net(net)
    with torch.no_grad():
        return torch.stack([net(x) for _ in range(4)])


def test_whole_network(tmp_path):
    net, x = network().double(), torch.rand(3, 1, 8, 8, dtype=torch.float64) * 20
    nn.init.normal_(net[5].weight)  # so that the last layer spikes
    expected = outputs(net, x)
    functional.reset_net(net)
    torch.save(net, tmp_path / "in.pt")
    result = convert(tmp_path / "in.pt", tmp_path / "out.pt", "--to", "DendSN", "--set", "branches=2")
    assert result.exit_code == 0, result.stderr
    assert "2 neurons converted to DendSN" in result.stdout
    converted = torch.load(tmp_path / "out.pt", weights_only=False)
    assert [type(converted[i]) for i in (2, 6)] == [neuron.DendSN] * 2
    assert converted[2].model.branches == 2
    assert torch.equal(outputs(converted, x), expected)
    assert expected.any()
    # What we wrote is itself a checkpoint that passes.
    again = load_network(tmp_path / "out.pt")
    assert torch.equal(outputs(again, x), expected)
    assert type(sdp.revert(again)[2]) is neuron.LIFNode
    assert sorted(os.listdir(tmp_path)) == ["in.pt", "out.pt"]


def test_network_of_the_model_zoo(tmp_path):
    net = spikformer.Spikformer(
        T=1, img_size_h=16, img_size_w=16, patch_size=16, embed_dims=32, num_heads=2, num_classes=4, depths=1
    )
    torch.save(net, tmp_path / "in.pt")
    (report,) = convert_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", to="LNM")
    assert len(report.converted) > 5
    assert type(load_network(tmp_path / "out.pt")).__name__ == "Spikformer"


def test_network_inside_a_dict_keeps_the_rest(tmp_path):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    torch.save({"net": network(), "epoch": 3, "optimizer": optimizer.state_dict()}, tmp_path / "in.pt")
    assert convert(tmp_path / "in.pt", tmp_path / "out.pt").exit_code == 0
    found = load_network(tmp_path / "out.pt")
    assert type(found["net"][2]) is neuron.DendSN
    assert found["epoch"] == 3
    assert found["optimizer"]["param_groups"][0]["momentum"] == 0.9


@pytest.mark.parametrize("node", ["neuron.DendSN(branches=2)", "snn.Dendritic(beta=0.9, branches=2)"])
def test_nodes_load_in_a_fresh_process_whose_hosts_are_not_imported(tmp_path, run_python, node):
    torch.save(eval(node), tmp_path / "node.pt")
    code = (
        f"import warnings; warnings.simplefilter('error', UserWarning)\nfrom pathlib import Path; import torch\n"
        f"import snn_dendrite_plugin\nnode = torch.load(Path({str(tmp_path / 'node.pt')!r}), weights_only=False)\n"
        f"from spikingjelly.activation_based import neuron; import snntorch as snn\n"
        f"print(type(node) in (neuron.DendSN, snn.Dendritic), node.model.branches)\n"
    )
    assert run_python(code, torch=True) == "True 2"


# -- hostile and broken files ------------------------------------------------------------------------------------------


class Calls:
    """Unpickles by calling a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _write_pickle(path, value):
    path.write_bytes(pickle.dumps(value, protocol=2))


def _write_zip(path, value):
    """The archive of torch.save, with a pickle that torch.save would not write."""
    torch.save(nn.Linear(2, 2), path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(name, pickle.dumps(value, protocol=4) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize("write", [lambda path, value: torch.save(value, path), _write_pickle, _write_zip])
@pytest.mark.parametrize("attack", ["command", "code", "spec", "hidden"])
def test_hostile_checkpoint_is_refused_and_nothing_runs(tmp_path, write, attack):
    touched = tmp_path / "touched"
    calls = {
        "command": Calls(os.system, f"touch {touched}"),
        "code": Calls(exec, f"open({str(touched)!r}, 'w')"),
        # Classes of ours that import what they are told are not let through either.
        "spec": Calls(sdp.plugins.ModelSpec, "Spec", "os:system"),
        "hidden": [network(), Calls(open, str(touched), "w")],
    }
    write(tmp_path / "in.pt", {"model": nn.Linear(2, 2), "extra": calls[attack]})
    result = convert(tmp_path / "in.pt", tmp_path / "out.pt")
    assert result.exit_code == 1
    assert "in.pt is refused" in result.stderr
    assert "could run any code" in result.stderr
    assert not touched.exists()
    assert not (tmp_path / "out.pt").exists()


def test_function_that_makes_empty_neurons_imports_hosts_alone(tmp_path, monkeypatch):
    (tmp_path / "bystander.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save({"model": network(), "extra": Calls(_new_point, "bystander", "Net")}, tmp_path / "in.pt")
    with pytest.raises(CheckpointError, match="module is 'bystander'; it must be one of a host"):
        load_network(tmp_path / "in.pt")
    assert "bystander" not in sys.modules


def test_registered_classes_of_a_plugin_are_allowed_and_no_others(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SAMPLE))
    import sample_neurons.plugin
    import sample_neurons.signed

    plugins.register_plugin(sample_neurons.plugin, "sample")
    try:
        net = nn.Sequential(layer.SignedLinear(4, 3), neuron.QIF(), sample_neurons.signed.SignedLinear(3, 3), snn.QIF())
        torch.save(net, tmp_path / "in.pt")
        again = load_network(tmp_path / "in.pt")
        assert [type(module) for module in again] == [type(module) for module in net]
        monkeypatch.setattr(sample_neurons.signed, "Other", type("Other", (nn.Linear,), {}), raising=False)
        sample_neurons.signed.Other.__module__ = "sample_neurons.signed"
        torch.save(nn.Sequential(sample_neurons.signed.Other(2, 2)), tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match=r"contains sample_neurons\.signed\.Other, not known"):
            load_network(tmp_path / "other.pt")
    finally:
        plugins.unregister_plugin(sample_neurons.plugin)
    with pytest.raises(CheckpointError, match=r"contains .*sample_neurons\.qif\.QIF"):
        load_network(tmp_path / "in.pt")


def test_refusal_names_what_is_not_known(tmp_path):
    torch.save({"model": network(), "extra": Calls(os.system, "true")}, tmp_path / "in.pt")
    with pytest.raises(CheckpointError, match=r"contains (posix|nt)\.system, not known to be harmless"):
        load_network(tmp_path / "in.pt")


def test_classes_that_generate_code_are_refused(tmp_path):
    cls = getattr(neuron, "FlexSN", None)
    if cls is None:
        pytest.skip("this SpikingJelly has no FlexSN")
    torch.save({"model": network(), "extra": cls.__new__(cls)}, tmp_path / "in.pt")
    with pytest.raises(CheckpointError, match=r"contains spikingjelly\.activation_based\.neuron\.flexsn\S*\.FlexSN"):
        load_network(tmp_path / "in.pt")


def test_unsafe_loads_with_a_warning(tmp_path):
    touched = tmp_path / "touched"
    torch.save({"model": network(), "extra": Calls(os.system, f"touch {touched}")}, tmp_path / "in.pt")
    result = convert(tmp_path / "in.pt", tmp_path / "out.pt", "--unsafe")
    assert result.exit_code == 0, result.stderr
    assert "warning" in result.stderr
    assert touched.exists()


def test_classes_of_the_users_own_are_allowed_by_name(tmp_path, monkeypatch):
    (tmp_path / "users_networks.py").write_text(
        "from torch import nn\nfrom spikingjelly.activation_based import neuron\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.lif = neuron.LIFNode()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    import users_networks

    torch.save(users_networks.Net(), "in.pt")
    refused = convert("in.pt", "out.pt")
    assert refused.exit_code == 1
    assert "contains users_networks.Net, not known to be harmless" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "--allow package.module.Class" in refused.stderr
    allowed = convert("in.pt", "out.pt", "--allow", "users_networks.Net")
    assert allowed.exit_code == 0, allowed.stderr
    assert type(torch.load("out.pt", weights_only=False).lif) is neuron.DendSN
    wrong = convert("in.pt", "out.pt", "--allow", "users_networks.Nets")
    assert wrong.exit_code == 1
    assert "--allow users_networks.Nets is not in it; did you mean 'users_networks.Net'?" in wrong.stderr
    del sys.modules["users_networks"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: torch.save(network().state_dict(), path), r"holds a state_dict \(\d+ tensors\).*load_state_dict"),
        (lambda path: torch.save({"model": network().state_dict(), "epoch": 1}, path), "state_dict under 'model'"),
        (lambda path: torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False), "a state_dict"),
        (lambda path: torch.save({"epoch": 1}, path), "holds a dict with 'epoch', none of which is a network"),
        (lambda path: torch.save(torch.ones(3), path), "holds a Tensor, not a network"),
        (lambda path: path.write_bytes(b"hello, no pickle"), "in.pt is no PyTorch checkpoint$"),
        (lambda path: path.write_bytes(b""), "in.pt is no PyTorch checkpoint$"),
        (lambda path: path.write_bytes(b"PK nothing"), "cannot be read as a checkpoint|is refused"),
        (lambda path: torch.save(nn.Linear(2, 2), path), "no neuron of a host"),
    ],
)  # fmt: skip
def test_files_without_a_network_to_convert(tmp_path, write, message):
    write(tmp_path / "in.pt")
    result = convert(tmp_path / "in.pt", tmp_path / "out.pt")
    assert result.exit_code == 1
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "in.pt")
    assert "is a TorchScript archive" in convert(tmp_path / "in.pt", tmp_path / "out.pt").stderr


def test_class_of_a_script_is_not_found(tmp_path, monkeypatch):
    class Net(nn.Linear):
        pass

    Net.__qualname__, Net.__module__ = "NetOfAScript", "__main__"
    monkeypatch.setattr(sys.modules["__main__"], "NetOfAScript", Net, raising=False)
    torch.save(Net(2, 2), tmp_path / "in.pt")
    monkeypatch.delattr(sys.modules["__main__"], "NetOfAScript")
    result = convert(tmp_path / "in.pt", tmp_path / "out.pt", "--unsafe")
    assert result.exit_code == 1
    assert "a class that a script defines is not found outside of it" in result.stderr


def test_wrong_arguments(tmp_path):
    torch.save(network(), tmp_path / "in.pt")
    source, target = tmp_path / "in.pt", tmp_path / "out.pt"
    for arguments, message in (
        ((tmp_path / "absent.pt", target), "absent.pt', which does not exist"),
        ((source, source), "is both the input and the output"),
        ((source, tmp_path / "absent" / "out.pt"), "there is no directory"),
        (
            (source, target, "--to", "DendSM"),
            "registered neuron models are DendSN, LNM, TTFS; conversions are TTFS; did you mean 'DendSN'?",
        ),
        ((source, target, "--set", "branches=0"), "branches is 0"),
        ((source, target, "--set", "branches"), "must read NAME=VALUE"),
        ((source, target, "--set", "strength_init=0.5"), "start='fresh'"),
    ):
        result = convert(*arguments)
        assert result.exit_code == 2
        assert message in result.stderr
    assert not target.exists()
    assert convert(source, target, "--set", "strength_init=0.5", "--start", "fresh").exit_code == 0
    assert snn.Leaky  # both hosts are imported: neither hinders the other
