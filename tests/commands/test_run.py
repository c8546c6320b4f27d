"""``snn-dendrite run``: unmodified scripts, as Python would run them, with their point neurons swapped."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from fresh import run_with_torch
from places import SCRIPTS
from typer.testing import CliRunner

from snn_dendrite_plugin import swap
from snn_dendrite_plugin.cli import app
from snn_dendrite_plugin.commands.run import LOST, NOTHING_SWAPPED
from snn_dendrite_plugin.commands.settings import parse_settings
from snn_dendrite_plugin.neurons.base import NeuronModel


def execute(tmp_path: Path, code: str, *arguments: str, options: tuple[str, ...] = (), name: str = "script.py"):
    """Run code under ``snn-dendrite run`` in this process; the result with exit code, stdout and stderr."""
    script = tmp_path / name
    script.write_text(code)
    return CliRunner().invoke(app, ["run", *options, str(script), *arguments])


def number_after(text: str, words: str) -> float:
    """The number that follows the last occurrence of ``words``."""
    return float(re.findall(rf"{words}\D*([\d.]*\d)", text)[-1])


# -- the three scripts -------------------------------------------------------------------------------------------------


def test_spikingjelly_script(tmp_path):
    script = SCRIPTS / "spikingjelly_digits.py"
    alone = run_with_torch(script, "-T", "3", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    options = ["--swap", "LIFNode=DendSN", "--swap", "IFNode=DendSN", "--set", "branches=2"]
    swapped = CliRunner().invoke(app, ["run", *options, str(script), "-T", "3"])
    assert swapped.exit_code == 0, swapped.stderr
    assert "2 LIFNode built as DendSN (branches=2); 1 IFNode built as DendSN (branches=2)" in swapped.stderr
    assert "DendSN(branches=2" in swapped.stdout
    assert "spiking layers: 3" in swapped.stdout  # counted by isinstance
    assert "DendSN" not in alone.stdout
    assert number_after(swapped.stdout, "max_test_acc") > 0.3  # of 10 classes, after two epochs
    assert number_after(alone.stdout, "max_test_acc") > 0.3


def test_snntorch_script(tmp_path):
    script = SCRIPTS / "snntorch_digits.py"
    alone = run_with_torch(script, cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    command = ("-m", "snn_dendrite_plugin", "run", "--swap", "Leaky=Dendritic", "--set", "branches=2")
    swapped = run_with_torch(*command, script, cwd=tmp_path)
    assert swapped.returncode == 0, swapped.stderr
    assert swapped.stderr.splitlines()[-1] == "snn-dendrite run: 2 Leaky built as Dendritic (branches=2)"
    assert "Dendritic(" in swapped.stdout
    assert "Dendritic" not in alone.stdout
    # The same seeds, and the same function at the start.
    assert number_after(swapped.stdout, "first loss") == number_after(alone.stdout, "first loss")
    assert number_after(swapped.stdout, "Test accuracy") > 60
    assert number_after(alone.stdout, "Test accuracy") > 60


def test_script_with_arguments_and_checkpoints(tmp_path):
    """A checkpoint of the point network goes on as a dendritic one, and a dendritic one is resumed."""
    script = str(SCRIPTS / "train_checkpointed.py")
    point, dendritic = tmp_path / "point", tmp_path / "dendritic"
    options = ["--neuron", "plif", "--T", "3", "--output-dir"]
    alone = run_with_torch(script, *options, str(point), "--epochs", "1", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    start = ["run", "--swap", "ParametricLIFNode=DendSN", "--provider", "torch", script, *options, str(dendritic)]
    swapped = CliRunner().invoke(app, [*start, "--epochs", "1", "--weights", str(point / "checkpoint_latest.pth")])
    assert swapped.exit_code == 0, swapped.stderr
    assert "<All keys matched successfully>" in swapped.stdout
    assert "2 ParametricLIFNode built as DendSN" in swapped.stderr
    # It starts where the point network ended.
    assert number_after(swapped.stdout, "Start accuracy") == number_after(alone.stdout, "Epoch 0 loss .* test accuracy")
    saved = torch.load(dendritic / "checkpoint_latest.pth")
    assert any(key.endswith("model.strength") for key in saved["model"])
    resumed = CliRunner().invoke(app, [*start, "--epochs", "2", "--resume", str(dendritic / "checkpoint_latest.pth")])
    assert resumed.exit_code == 0, resumed.stderr
    assert "resumed at epoch 1" in resumed.stdout
    assert number_after(resumed.stdout, "Epoch 1 loss .* test accuracy") > 0.3


# -- as Python runs a script -------------------------------------------------------------------------------------------


def test_arguments_path_and_name_are_the_scripts(tmp_path):
    (tmp_path / "helper_of_the_script.py").write_text("value = 7\n")
    code = (
        "import sys, helper_of_the_script\n"
        "class Here: pass\n"
        "import pickle; assert type(pickle.loads(pickle.dumps(Here()))) is Here\n"
        "print(__name__, sys.argv[1:], sys.path[0], __file__, helper_of_the_script.value)\n"
    )
    before = list(sys.path), list(sys.argv), sys.modules["__main__"]
    result = execute(tmp_path, code, "--lr", "0.1", "--help", "-x")
    assert result.exit_code == 0, result.stderr
    file = tmp_path / "script.py"
    assert result.stdout.strip() == f"__main__ ['--lr', '0.1', '--help', '-x'] {tmp_path.resolve()} {file} 7"
    assert "nothing was to be swapped" in result.stderr
    assert (sys.path, sys.argv, sys.modules["__main__"]) == before
    sys.modules.pop("helper_of_the_script")


def test_plugin_is_active_and_modules_and_directories_run(tmp_path, monkeypatch):
    code = "from spikingjelly.activation_based import neuron\n"
    code += "print(neuron.DendSN(branches=3).model.branches, __name__)\n"
    assert execute(tmp_path, code, name="__main__.py").stdout == "3 __main__\n"
    assert CliRunner().invoke(app, ["run", str(tmp_path)]).stdout == "3 __main__\n"
    (tmp_path / "a_module_of_the_user.py").write_text(code + "import sys; print(sys.argv[1:])\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["run", "-m", "a_module_of_the_user", "-v"])
    assert result.stdout == "3 __main__\n['-v']\n", result.stderr


@pytest.mark.parametrize(
    ("code", "exit_code", "text"),
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit('no data found')", 1, "no data found"),
        ("raise SystemExit(True)", 1, ""),
        ("def f():\n    return 1 / 0\nf()", 1, "ZeroDivisionError: division by zero"),
        ("def f(:", 1, "SyntaxError"),
        ("raise KeyboardInterrupt", 130, "KeyboardInterrupt"),
        ("from spikingjelly.activation_based import neuron\nneuron.LIFNode(tau=2)", 1, "AssertionError"),
        ("from spikingjelly.activation_based import neuron\nneuron.LIFNode(tua=2.0)", 1, "'tua'"),
    ],
)
def test_exit_codes_and_exceptions_are_the_scripts(tmp_path, code, exit_code, text):
    made = "from spikingjelly.activation_based.neuron import LIFNode\nLIFNode()\n" if "def f(:" not in code else ""
    result = execute(tmp_path, made + code, options=("--swap", "LIFNode=DendSN"))
    assert result.exit_code == exit_code
    assert text in result.stderr
    assert "built as DendSN" in result.stderr  # the summary is told all the same
    if "1 / 0" in code:
        frames = [line for line in result.stderr.splitlines() if line.lstrip().startswith("File ")]
        assert frames
        assert all("script.py" in frame for frame in frames)


def test_swap_that_matches_nothing_is_an_error_at_the_end(tmp_path):
    code = "from spikingjelly.activation_based import neuron\nneuron.IFNode()\nprint('done')\n"
    result = execute(tmp_path, code, options=("--swap", "LIFNode=DendSN"))
    assert result.stdout == "done\n"
    assert result.exit_code == NOTHING_SWAPPED == 3
    assert "constructed no LIFNode" in result.stderr
    failed = execute(tmp_path, code + "raise SystemExit(5)\n", options=("--swap", "LIFNode=DendSN"))
    assert failed.exit_code == 5  # the script's own wins


def test_provider_holds_in_the_script_and_its_children_and_no_longer(tmp_path, monkeypatch):
    monkeypatch.delenv("SNN_DENDRITE_PROVIDER", raising=False)
    code = (
        "import os; from snn_dendrite_plugin.kernels import providers\n"
        "print(providers.forced(), os.environ['SNN_DENDRITE_PROVIDER'])\n"
    )
    result = execute(tmp_path, code, options=("--provider", "torch"))
    assert result.stdout == "torch torch\n", result.stderr
    assert "SNN_DENDRITE_PROVIDER" not in os.environ


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--swap", "LIFNod=DendSN"],
            r"LIFNod is no neuron.*; did you mean 'LIFNode'\?.*spikingjelly has .*LIFNode.*snntorch has Leaky",
        ),
        (["--swap", "snntorch.LIFNode=DendSN"], r"snntorch.LIFNode is no neuron.*snntorch has Leaky"),
        (["--swap", "nest.LIFNode=DendSN"], r"no host that is installed; .* adapter are spikingjelly.*snntorch"),
        (
            ["--swap", "LIFNode=DendSM"],
            r"DendSM is no registered neuron model; did you mean 'DendSN'\? there are DendSN \(Dendritic.*LNM",
        ),
        (["--swap", "IzhikevichNode=DendSN"], r"IzhikevichNode cannot be swapped: .*; spikingjelly has .*LIFNode"),
        (["--swap", "Synaptic=LNM"], r"Synaptic cannot be swapped: .*synaptic current"),
        (["--swap", "DendSN=LNM"], r"DendSN cannot be swapped: is already a DendSN"),
        (["--swap", "LIFNode"], r"--swap is 'LIFNode'; it must read NEURON=MODEL"),
        (["--swap", "LIFNode=LNM", "--swap", "LIFNode=DendSN"], r"names LIFNode twice"),
        (["--swap", "LIFNode=LNM", "--swap", "spikingjelly.LIFNode=DendSN"], r"swapped twice, for LNM and for DendSN"),
        (
            ["--swap", "LIFNode=DendSN", "--set", "branch=4"],
            r"branch is no argument of DendSN; did you mean 'branches'\? it takes .*branches",
        ),
        (["--swap", "LIFNode=DendSN", "--set", "branches=0"], r"branches is 0; a dendrite needs an integer"),
        (["--swap", "LIFNode=DendSN", "--set", "branches"], r"--set is 'branches'; it must read NAME=VALUE"),
        (["--swap", "LIFNode=DendSN", "--set", "branches=2*2"], r"branches is '2\*2'; it must be a Python literal"),
        (["--swap", "LIFNode=DendSN", "--set", "activation=cube"], r"activation is 'cube'; it must be one of"),
        (["--swap", "LIFNode=DendSN", "--set", "wiring=fold"], r"wiring is 'fold', which needs other synapses"),
        (["--swap", "LIFNode=TTFS"], r"TTFS cannot take the place of LIFNode .*sdp.convert\(network, to='TTFS'"),
        (["--swap", "Leaky=TTFS", "--set", "steps=15"], r"TTFS cannot take the place of Leaky .*calibration=inputs"),
        (["--set", "branches=4"], r"branches is set, but no neuron is swapped"),
        (["--provider", "abacus"], r"provider is 'abacus'; registered providers are"),
    ],
)
def test_wrong_options_are_told_before_the_script_starts(tmp_path, options, message):
    marker = tmp_path / "started"
    result = execute(tmp_path, f"open({str(marker)!r}, 'w')", options=tuple(options))
    assert result.exit_code == 2
    assert not marker.exists()
    text = result.stderr.replace("\n", " ")
    assert re.search(message, text), text


@pytest.mark.parametrize("options", [["--swap", "LIFNode=DendSN"], ["--swap=LIFNode=DendSN"], ["--provider", "cpu"]])
def test_options_after_the_script_are_told_unless_they_are_its_own(tmp_path, options):
    marker = tmp_path / "started"
    result = execute(tmp_path, f"open({str(marker)!r}, 'w')", "--lr", "0.1", *options)
    assert result.exit_code == 2
    assert not marker.exists()
    assert f"error: {' '.join(options)} stands after {tmp_path / 'script.py'}, which would get it" in result.stderr
    code = "import sys; print(sys.argv[1:])"
    kept = execute(tmp_path, code, "--", *options)
    assert (kept.exit_code, kept.stdout) == (0, f"{options}\n")
    own = execute(tmp_path, f"{code} # the script's own {options[0]}", *options)
    assert (own.exit_code, own.stdout) == (0, f"{options}\n")
    other = execute(tmp_path, code, "--", "--lr", "--swap")  # neither is one of ours
    assert other.stdout == "['--', '--lr', '--swap']\n", other.stderr


def test_script_that_failed_is_not_blamed_for_what_it_did_not_construct(tmp_path):
    result = execute(tmp_path, "import surely_not_there", options=("--swap", "LIFNode=DendSN"))
    assert result.exit_code == 1
    assert "No module named 'surely_not_there'" in result.stderr
    assert "0 LIFNode built as DendSN" in result.stderr
    assert "constructed no" not in result.stderr


@pytest.mark.parametrize(("name", "extra"), [("LIFNode", "spikingjelly"), ("snntorch.Leaky", "snntorch")])
def test_host_that_is_missing_is_named_with_its_extra(monkeypatch, name, extra):
    from snn_dendrite_plugin.swap import rules

    monkeypatch.setattr(rules, "_hosts", lambda wanted="": iter(()))
    with pytest.raises(ValueError, match=rf'pip install "snn-dendrite-plugin\[{extra}\]"$'):
        swap.plan_swaps({name: "DendSN"})


def test_missing_script(tmp_path):
    result = CliRunner().invoke(app, ["run", str(tmp_path / "absent.py")])
    assert result.exit_code == 2
    assert "absent.py' does not exist" in result.stderr


def test_parse_settings():
    assert parse_settings(["a=1", "b=[1, 2]", "c=relu", "d=None", "e='x=y'"]) == {
        "a": 1, "b": [1, 2], "c": "relu", "d": None, "e": "x=y",
    }  # fmt: skip
    with pytest.raises(ValueError, match="must read NAME=VALUE"):
        parse_settings(["4"])
    with pytest.raises(ValueError, match="must be a Python literal"):
        parse_settings(["a=__import__('os')"])


# -- training that is lost ---------------------------------------------------------------------------------------------

DIVERGES = """
import torch, snntorch as snn
net = torch.nn.Sequential(torch.nn.Linear(4, 3), snn.Leaky(beta=0.9, init_hidden=True), torch.nn.Linear(3, 2))
net[0].weight.data[0, 0] = {value}
for step in range({steps}):
    loss = net(torch.rand(2, 4)).nansum()
print("the script is done")
"""


@pytest.mark.filterwarnings("ignore::snn_dendrite_plugin.neurons.watch.NonFiniteWarning")
@pytest.mark.parametrize("steps", [1, 100])
def test_a_network_that_is_lost_ends_with_4(tmp_path, steps):
    code = DIVERGES.format(value="float('nan')", steps=steps)
    result = execute(tmp_path, code, options=("--swap", "Leaky=LNM"))
    assert result.exit_code == LOST == 4
    assert "the script is done" in result.stdout
    found = "net.0.weight" if steps == 1 else "the potential of layer '1' (LNM)"
    assert f"error: {found} became NaN or infinite in training" in result.stderr
    fine = execute(tmp_path, DIVERGES.format(value=1.0, steps=steps), options=("--swap", "Leaky=LNM"))
    assert fine.exit_code == 0, fine.stderr


def test_check_finite_stops_at_the_first_step(tmp_path):
    code = DIVERGES.format(value="float('nan')", steps=1)
    result = execute(tmp_path, code, options=("--check-finite", "--swap", "Leaky=LNM"))
    assert result.exit_code == 1
    assert "done" not in result.stdout
    assert "layer '1' (LNM): 2 of 6 values of its state 'v' are NaN or infinite" in result.stderr
    assert NeuronModel.watched is None
