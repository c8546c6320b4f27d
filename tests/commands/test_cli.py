"""The command line: quick help, listings, the doctor's verdicts, plain text off the terminal."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys

import pytest
from typer.testing import CliRunner

from snn_dendrite_plugin import cli, plugins
from snn_dendrite_plugin.commands import doctor, settings, terminal
from snn_dendrite_plugin.commands import list as listing
from snn_dendrite_plugin.hookspecs import hookimpl
from snn_dendrite_plugin.kernels.contract import Provider

HEAVY = ("torch", "spikingjelly", "snntorch", "matplotlib", "sklearn", "numpy", "triton", "cupy")


def run(*arguments: str):
    return CliRunner().invoke(cli.app, list(arguments))


class Broken:
    @hookimpl
    def snn_dendrite_register_models(self, register):
        raise OSError("the disk is gone")


class Extra:
    @hookimpl
    def snn_dendrite_register_models(self, register):
        register(name="Extra", target="snn_dendrite_plugin.neurons.lnm:LNM", summary="one more [neuron]")


@pytest.fixture
def plugged():
    """Register plugins for the length of a test."""
    used = []

    def register(plugin, name):
        plugins.register_plugin(plugin, name)
        used.append(plugin)

    yield register
    for plugin in used:
        plugins.unregister_plugin(plugin)


# -- the command itself --------------------------------------------------------------------------------------------


def test_help_loads_nothing_heavy(run_python):
    code = f"import sys\nimport snn_dendrite_plugin.cli\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    assert run_python(code) == "[]"


def test_help_names_every_command():
    result = run("--help")
    assert result.exit_code == 0
    for name in plugins.commands():
        assert f"  {name} " in result.output
    assert {"demo", "list", "doctor"} <= set(plugins.commands())


def test_listing_the_commands_imports_none_of_them(run_python):
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom snn_dendrite_plugin.cli import app\n"
        "assert '  doctor ' in CliRunner().invoke(app, ['--help']).output\n"
        f"print([m for m in sys.modules if m.startswith('snn_dendrite_plugin.commands.') or m in {HEAVY!r}])"
    )
    assert run_python(code) == "['snn_dendrite_plugin.commands.terminal']"


class Commands:
    """A stranger's commands: one that works, one whose module is absent, and one whose name is taken."""

    @hookimpl
    def snn_dendrite_register_commands(self, register):
        register(name="count-to", target=count_to, summary="Count.")
        register(name="absent", target="package_that_is_absent.module:command", summary="Will not load.")
        register(name="list", target=count_to)


def count_to(number: int) -> None:
    """Count from 1 to NUMBER."""
    print(*range(1, number + 1))


def test_commands_of_a_plugin(plugged):
    plugged(Commands(), "strangers")
    with pytest.warns(plugins.PluginWarning, match="command 'list' is registered by the plugins 'builtin' of"):
        helped = run("--help").output
    assert re.search(r"^  count-to +Count\.$", helped, re.MULTILINE)
    assert re.search(r"^  absent +Will not load\.$", helped, re.MULTILINE)
    assert run("count-to", "3").output == "1 2 3\n"
    assert "Count from 1 to NUMBER." in run("count-to", "-h").output
    broken = run("absent")
    assert broken.exit_code == 1
    assert broken.stderr.startswith("error: the command 'absent' cannot be loaded: ModuleNotFoundError: No module")
    assert "DendSN" in run("list").output


def test_a_command_hook_that_raises_costs_a_warning(plugged):
    class Faulty:
        @hookimpl
        def snn_dendrite_register_commands(self, register):
            register(name="two words", target=count_to)

    plugged(Faulty(), "faulty")
    with pytest.warns(plugins.PluginWarning, match="'faulty' is used only in part: .* name must be letters and digits"):
        assert run("--version").exit_code == run("--help").exit_code == 0


def test_commands_run_where_the_environment_leaves_the_built_in_plugin_out(run_python):
    code = "import sys\nfrom snn_dendrite_plugin.cli import app\nsys.argv = ['snn-dendrite', 'list']\napp()"
    assert "not selected by SNN_DENDRITE_PLUGINS" in run_python(code, SNN_DENDRITE_PLUGINS="")


def test_version_is_the_distribution_s():
    assert run("--version").output == f"snn-dendrite {importlib.metadata.version('snn-dendrite-plugin')}\n"


def test_console_script_is_declared():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="snn-dendrite")
    assert entry.value == "snn_dendrite_plugin.cli:app"
    assert entry.load() is cli.app


def test_unknown_command_is_refused():
    result = run("dmeo")
    assert result.exit_code == 2
    assert "dmeo" in result.output


def test_output_off_the_terminal_is_plain_whatever_the_environment_wants(run_python):
    code = "import sys\nfrom snn_dendrite_plugin.cli import app\nsys.argv = ['snn-dendrite', 'list']\napp()"
    text = run_python(code, FORCE_COLOR="1", PY_COLORS="1", TTY_COMPATIBLE="1", GITHUB_ACTIONS="true")
    assert "DendSN" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_table_on_a_terminal_is_drawn_and_elsewhere_markdown(capsys):
    terminal.show_table(terminal.console(), ["a", "long name"], [["[red]x", 1], ["yy", 22]], right=["long name"])
    assert capsys.readouterr().out.splitlines() == [
        "| a      | long name |",
        "|--------|----------:|",
        "| [red]x |         1 |",
        "| yy     |        22 |",
    ]


def test_failure_goes_to_stderr_with_its_code(capsys):
    import typer

    with pytest.raises(typer.Exit) as caught:
        terminal.fail("no [such] thing", code=3)
    assert caught.value.exit_code == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: no [such] thing\n"


# -- list ----------------------------------------------------------------------------------------------------------


def test_list_shows_models_hosts_providers_and_plugins():
    result = run("list")
    assert result.exit_code == 0
    version = importlib.metadata.version("snn-dendrite-plugin")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.output.splitlines() if "|" in line]
    assert any(line[:3] == ["DendSN", "DendSN", "Dendritic, DendriticParallel"] for line in lines)
    assert [
        "builtin",
        f"snn-dendrite-plugin {version}",
        "adapters, commands, conversions, models, providers",
        "ok",
    ] in lines
    for op in ("soma_dendrite", "ttfs"):
        assert [line[1] for line in lines if line[0] == op] == ["triton", "cupy", "cpu", "torch"]


def test_list_as_json_is_the_inventory():
    assert json.loads(run("list", "--json").output) == listing.inventory()


def test_list_imports_no_host(run_python):
    code = f"""
import sys
from snn_dendrite_plugin.commands import list as listing
listing.inventory()
print([m for m in {HEAVY!r} if m in sys.modules])"""
    assert run_python(code) == "[]"


def test_list_shows_a_plugin_registered_at_run_time(plugged):
    plugged(Extra(), "extra")
    lines = [line for line in run("list").output.splitlines() if "xtra" in line]
    assert "one more [neuron]" in lines[0]
    assert all("registered at run time" in line for line in lines)


def test_version_of_what_is_not_installed():
    assert settings.version_of("surely-not-installed") is None


# -- doctor --------------------------------------------------------------------------------------------------------


def test_doctor_finds_nothing_broken_here():
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert result.output.endswith("Nothing is broken.\n")
    for word in (sys.version.split()[0], "spikingjelly", "Dendritic", "soma_dendrite", "vector instructions"):
        assert word in result.output


def test_doctor_tells_who_runs_each_op_and_why_the_others_do_not():
    report = json.loads(run("doctor", "--json").output)
    assert {(p["op"], p["device"]) for p in report["providers"]} >= {("soma_dendrite", "cpu"), ("ttfs", "cpu")}
    for item in report["providers"]:
        known = {spec.name for spec in plugins.providers(item["op"])}
        assert {item["runs"], *item["others"]} == known
        assert all(item["others"].values())
        if item["device"] == "cpu":
            assert item["runs"] in ("cpu", "torch")


def test_doctor_names_what_is_not_installed_before_all_else(monkeypatch):
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name in ("triton", *doctor._CUPY) else "1")
    report = json.loads(run("doctor", "--json").output)
    for item in report["providers"]:
        if item["device"] == "cpu":
            assert item["others"]["triton"].startswith("triton is not installed: pip install")
            assert item["others"]["cupy"].startswith("cupy is not installed: pip install")


def test_doctor_says_what_it_did_not_try():
    assert "none was run: --check runs them" in run("doctor").output
    rows = doctor.check_providers([])
    skipped = {(row["op"], row["provider"]) for row in rows if row["result"].startswith("not run: ")}
    assert ("ttfs", "cupy") in skipped
    assert {row["provider"] for row in rows} == {"triton", "cupy", "cpu", "torch"}


def test_slow_provider_is_said_once_and_by_the_doctor(run_python):
    code = """
import json, warnings
from snn_dendrite_plugin.kernels import providers
providers._broken["soma_dendrite", "cpu"] = "built without a compiler"  # as where the library was not built
import torch
from snn_dendrite_plugin.neurons.lnm import LNM
from snn_dendrite_plugin.neurons.dendsn import DendSN
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for model in (LNM(), LNM(), DendSN()):
        model.run(torch.rand(2, 3, 4))
from snn_dendrite_plugin.commands.doctor import examine
print(json.dumps([[str(w.message) for w in caught], examine()["slow"]]))
"""
    (said,), slow = json.loads(run_python(code, torch=True))
    assert said.startswith("soma_dendrite on cpu runs on the provider 'torch', a loop in PyTorch")
    assert "cpu: built without a compiler" in said
    assert slow == ["soma_dendrite on cpu has no compiled kernel here and runs slowly"]


def test_doctor_reports_a_broken_plugin(plugged):
    with pytest.warns(plugins.PluginWarning):
        plugged(Broken(), "broken")
    result = run("doctor")
    assert result.exit_code == 1
    wanted = "plugin 'broken' (registered at run time): snn_dendrite_register_models raised OSError: the disk is gone"
    assert wanted in result.output


@pytest.mark.parametrize(("name", "message"), [("nonsense", "'nonsense' is not registered"), ("triton", "triton")])
def test_doctor_reports_a_forced_provider_that_cannot_run(monkeypatch, name, message):
    monkeypatch.setenv("SNN_DENDRITE_PROVIDER", name)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(doctor, "_devices", lambda: ["cpu"])
    result = run("doctor")
    assert result.exit_code == 1
    assert message in result.output.partition("Broken:")[2]


def test_a_plugin_left_out_by_choice_is_not_broken(run_python):
    code = "from snn_dendrite_plugin.commands.doctor import examine\n"
    code += "report = examine()\nprint(report['plugins'][0]['state'], report['problems'])"
    assert run_python(code, torch=True, SNN_DENDRITE_PLUGINS="") == "not selected by SNN_DENDRITE_PLUGINS []"


@pytest.mark.parametrize(("installed", "problems"), [(None, 0), ("9.9", 1)])
def test_a_missing_host_is_no_problem_but_one_that_does_not_import_is(monkeypatch, installed, problems):
    monkeypatch.setitem(sys.modules, "snntorch", None)
    versions = {"snntorch": installed}
    monkeypatch.setattr(doctor, "version_of", lambda name: versions.get(name, "1"))
    report = doctor.examine()
    assert len(report["problems"]) == problems, report["problems"]
    state = next(a["state"] for a in report["adapters"] if a["host"] == "snntorch")
    assert "not installed" in state if installed is None else "cannot be imported: ModuleNotFoundError" in state


class Impostor(Provider):
    """A provider that computes the reference's spikes, upside down."""

    name = "impostor"

    def why_not(self, device, dtype, settings, steps=1, degree=1):
        return None

    def forward(self, inputs, settings):
        from snn_dendrite_plugin.kernels.soma_dendrite.reference import provider

        out = provider.forward(inputs, settings)
        return out._replace(spikes=1 - out.spikes)

    def backward(self, *arguments):
        from snn_dendrite_plugin.kernels.soma_dendrite.reference import provider

        return provider.backward(*arguments)


class ImpostorPlugin:
    @hookimpl
    def snn_dendrite_register_providers(self, register):
        register(name="impostor", op="soma_dendrite", target=Impostor(), priority=-1)


def test_check_catches_a_provider_that_disagrees(plugged, monkeypatch):
    monkeypatch.setattr(doctor, "_devices", lambda: ["cpu"])
    problems: list[str] = []
    rows = doctor.check_providers(problems)
    assert problems == []
    assert {row["provider"] for row in rows} >= {"torch"}
    plugged(ImpostorPlugin(), "impostors")
    doctor.check_providers(problems)
    assert len(problems) == 2  # DendSN and LNM
    assert all("'impostor' of soma_dendrite on cpu disagrees with torch" in problem for problem in problems)
