"""The registry: entry points, selection, duplicates, and what becomes of broken plugins."""

from __future__ import annotations

import re

import pluggy
import pytest
from installed import install, registering

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import plugins

OURS = dict.fromkeys(("DendSN", "LNM", "TTFS"), "snn-dendrite-plugin")
THEIRS = dict.fromkeys(("QIF", "CLIF"), "sample-neurons")
MODELS_HOOK, LAYERS_HOOK = "snn_dendrite_register_models", "snn_dendrite_register_layers"


def test_builtin_plugin_is_an_entry_point_like_any_other(describe):
    models, infos, caught = describe()
    assert models == OURS
    distribution, version, hooks, error = infos["builtin"]
    assert (distribution, version, error) == ("snn-dendrite-plugin", sdp.__version__, None)
    kinds = ("adapters", "commands", "conversions", "models", "providers")
    assert hooks == [f"snn_dendrite_register_{kind}" for kind in kinds]
    assert caught == []


def test_sample_plugin_is_found(describe, sample):
    models, infos, caught = describe(sample)
    assert models == {**OURS, **THEIRS}
    assert infos["sample"] == ["sample-neurons", "1.0", [LAYERS_HOOK, MODELS_HOOK], None]
    assert caught == []


@pytest.mark.parametrize(
    ("selection", "expected"),
    [("", set()), ("builtin", set(OURS)), ("sample", set(THEIRS)), (" sample , builtin ", {*OURS, *THEIRS})],
)
def test_environment_selects_plugins(describe, sample, selection, expected):
    models, infos, caught = describe(sample, SNN_DENDRITE_PLUGINS=selection)
    assert set(models) == expected
    left_out = {name for name, (*_, error) in infos.items() if error == "not selected by SNN_DENDRITE_PLUGINS"}
    assert left_out == {"builtin", "sample"} - {name.strip() for name in selection.split(",")}
    assert caught == []


def test_selecting_a_plugin_that_is_not_installed_warns(describe, sample):
    models, _, caught = describe(sample, SNN_DENDRITE_PLUGINS="builtin,sampel")
    message = "SNN_DENDRITE_PLUGINS names sampel, which is not installed; installed plugins: builtin, sample"
    assert (set(models), caught) == (set(OURS), [["PluginWarning", message]])


BROKEN = {
    "raises at import": ("raise RuntimeError('built for another world')", "RuntimeError: built for another world"),
    "leaves at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "raises no Exception": ("raise type('Stop', (BaseException,), {})('now')", "Stop: now"),
    "lacks a package": ("import package_that_is_absent", "ModuleNotFoundError: No module named 'package_that_is_absen"),
    "is not Python": ("def", "SyntaxError: "),
    "has no hooks": ("x = 1", "ValueError: plugin 'broken' implements no hook"),
    "misspells a hook": (
        "from snn_dendrite_plugin import hookimpl\n@hookimpl\ndef snn_dendrite_register_modles(register): pass",
        "ValueError: plugin 'broken' implements the unknown hook 'snn_dendrite_register_modles'",
    ),
    "misspells an argument": (
        "from snn_dendrite_plugin import hookimpl\n@hookimpl\ndef snn_dendrite_register_models(regist): pass",
        "PluginValidationError: ",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_plugin_costs_one_warning(describe, sample, fault):
    code, error = BROKEN[fault]
    install(sample, "broken-neurons", "broken = broken_neurons", "broken_neurons", code)
    models, infos, caught = describe(sample)
    assert set(models) == {*OURS, *THEIRS}
    [(category, message)] = caught
    assert category == "PluginWarning"
    assert message.startswith(f"plugin 'broken' of broken-neurons is not used: loading it raised {error}")
    assert re.search(r" \(after \d+\.\d\d s\)$", message)
    assert infos["broken"][:3] == ["broken-neurons", "1.0", []]
    assert infos["broken"][3].startswith(error)


def test_entry_point_to_a_missing_module_costs_one_warning(describe, tmp_path):
    models, _, caught = describe(install(tmp_path / "site", "broken-neurons", "broken = nowhere.at_all"))
    assert models == OURS
    [(_, message)] = caught
    assert "'broken' of broken-neurons is not used: loading it raised ModuleNotFoundError: No module nam" in message


@pytest.mark.parametrize("text", [b"nonsense without a target\n", b"\xff\xfe = not.text\n"])
def test_unreadable_entry_points_cost_one_warning(describe, tmp_path, text):
    site = install(tmp_path / "site", "garbled-neurons", "")
    (site / "garbled_neurons-1.0.dist-info" / "entry_points.txt").write_bytes(b"[snn_dendrite_plugin]\n" + text)
    models, _, caught = describe(site)
    assert models == OURS
    [(category, message)] = caught
    assert category == "PluginWarning"
    assert "garbled" in message


FAULTY_HOOKS = {
    "leaves": ("raise SystemExit(3)", "SystemExit: 3"),
    "raises no Exception": ("raise type('Stop', (BaseException,), {})('now')", "Stop: now"),
    "raises": ("raise KeyError('weights')", "KeyError: 'weights'"),
    "unknown field": ("register(name='B', target='m:B', colour='red')", "TypeError: "),
    "bad name": ("register(name='not a name', target='m:B')", "ValueError: name must be a Python identifier, got 'not"),
    "bad target": ("register(name='B', target='m.B')", "ValueError: target must read 'package.module:Object', got "),
}


@pytest.mark.parametrize("fault", FAULTY_HOOKS)
def test_hook_that_raises_costs_one_warning_and_keeps_what_it_registered(describe, tmp_path, fault):
    line, error = FAULTY_HOOKS[fault]
    code = f"""
    from snn_dendrite_plugin import hookimpl

    @hookimpl
    def snn_dendrite_register_models(register):
        register(name="A", target="m:A")
        {line}
    """
    models, infos, caught = describe(install(tmp_path / "site", "half-neurons", "half = half", "half", code))
    assert models == {**OURS, "A": "half-neurons"}
    [(_, message)] = caught
    assert message.startswith(f"plugin 'half' of half-neurons is used only in part: {MODELS_HOOK} raised {error}")
    assert re.search(r" \(after \d+\.\d\d s\)$", message)
    assert infos["half"][3].startswith(f"{MODELS_HOOK} raised {error}")


def test_built_in_model_keeps_its_name_against_another_plugin(describe, tmp_path):
    code = registering(name="DendSN", target="other:DendSN")
    # "aaa" sorts before "builtin" in every listing of the path, and still comes second
    models, infos, caught = describe(install(tmp_path / "site", "aaa-neurons", "aaa = other", "other", code))
    assert models == OURS
    assert infos["aaa"][3] is None
    message = (
        "neuron model 'DendSN' is registered by the plugins 'builtin' of snn-dendrite-plugin and 'aaa' of aaa-neurons; "
        "the one of 'builtin' of snn-dendrite-plugin is kept"
    )
    assert caught == [["PluginWarning", message]]


def test_names_inside_a_host_do_not_collide_either(describe, tmp_path):
    code = registering(name="Dendritic", target="other:Dendritic")  # what snnTorch calls DendSN
    models, _, caught = describe(install(tmp_path / "site", "other-neurons", "other = other", "other", code))
    assert models == OURS
    assert caught[0][1].startswith("neuron model 'snntorch.Dendritic' is registered by the plugins 'builtin' of")


def test_two_distributions_may_use_one_entry_point_name(describe, tmp_path):
    site = install(tmp_path / "site", "first-neurons", "neurons = one", "one", registering(name="A", target="m:A"))
    install(site, "second-neurons", "neurons = two", "two", registering(name="B", target="m:B"))
    models, infos, caught = describe(site)
    assert models == {**OURS, "A": "first-neurons", "B": "second-neurons"}
    assert sorted(info[0] for info in infos.values()) == ["first-neurons", "second-neurons", "snn-dendrite-plugin"]
    assert caught == []


def test_plugin_module_that_is_itself_imported_first(run_python, tmp_path):
    """It imports this package, which then meets it half imported: the plugin is taken up once it is complete."""
    code = registering(name="A", target="m:A")
    site = install(tmp_path / "site", "one-file", "one = one", "one", code)
    script = "import one\nfrom snn_dendrite_plugin import plugins\nprint('A' in plugins.models())"
    assert run_python(script, site, flags=("-W", "error")) == "True"


def test_providers_come_by_priority():
    for op in ("soma_dendrite", "ttfs"):
        found = plugins.providers(op)
        assert [spec.name for spec in found] == ["triton", "cupy", "cpu", "torch"]
        assert [spec.priority for spec in found] == [30, 20, 10, 0]
        assert {spec.op for spec in found} == {op}
    with pytest.raises(ValueError, match="op must be one of 'soma_dendrite', 'ttfs', got 'matmul'"):
        plugins.providers("matmul")


def test_built_in_names_in_the_hosts():
    models = plugins.models()
    assert {name: spec.names_in("snntorch") for name, spec in models.items()} == {
        "DendSN": ["Dendritic", "DendriticParallel"],
        "LNM": ["LNM", "LNMParallel"],
        "TTFS": ["TTFS"],
    }
    assert [spec.names_in("spikingjelly") for spec in models.values()] == [["DendSN"], ["LNM"], ["TTFS"]]


def test_adapters_of_the_two_hosts():
    assert {spec.host: spec.trigger for spec in plugins.adapters().values()} == {
        "spikingjelly": "spikingjelly.activation_based.neuron",
        "snntorch": "snntorch",
    }


class Extra:
    @sdp.hookimpl
    def snn_dendrite_register_providers(self, register):
        register(name="npu", op="ttfs", target=self, priority=40, summary="a made-up accelerator")


def test_provider_registered_at_run_time_comes_and_goes():
    extra = Extra()
    name = plugins.register_plugin(extra, "extra")
    try:
        assert name == "extra"
        assert plugins.providers("ttfs")[0].load() is extra
        info = plugins.installed_plugins()[-1]
        assert (info.name, info.distribution, info.hooks) == ("extra", None, ("snn_dendrite_register_providers",))
        with pytest.raises(ValueError, match="[Pp]lugin"):
            plugins.register_plugin(extra)
    finally:
        plugins.unregister_plugin(extra)
    assert "npu" not in {spec.name for spec in plugins.providers("ttfs")}
    assert "extra" not in {info.name for info in plugins.installed_plugins()}
    with pytest.raises(ValueError, match="is not registered"):
        plugins.unregister_plugin(extra)


def test_run_time_plugin_without_hooks_is_refused():
    class Empty:
        pass

    empty = Empty()
    with pytest.raises(ValueError, match="implements no hook; mark functions named snn_dendrite_register_adapters"):
        plugins.register_plugin(empty)
    assert not plugins.get_manager().is_registered(empty)


def test_run_time_plugin_with_a_wrong_hook_leaves_no_trace():
    class Wrong:
        @sdp.hookimpl
        def snn_dendrite_register_models(self, regist):
            pass

    wrong = Wrong()
    for _ in range(2):  # the second time too: the first left nothing behind
        with pytest.raises(pluggy.PluginValidationError, match="regist"):
            plugins.register_plugin(wrong)
    assert not plugins.get_manager().is_registered(wrong)


def test_specs_load_their_targets():
    spec = plugins.ModelSpec("Ordered", "collections:OrderedDict")
    assert spec.load().__name__ == "OrderedDict"
    assert plugins.ModelSpec("Plain", dict).load() is dict
    with pytest.raises(ModuleNotFoundError):
        plugins.ModelSpec("Absent", "absent_package.module:Class").load()
    assert len({spec, plugins.ModelSpec("Ordered", "collections:OrderedDict")}) == 1


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: plugins.ModelSpec(3, "m:C"), TypeError, "name must be a string, got 3"),
        (lambda: plugins.ModelSpec("C", None), TypeError, "target must be"),
        (lambda: plugins.ModelSpec("C", 5), TypeError, "or a class, got 5"),
        (lambda: plugins.ModelSpec("C", "m:C", host_names="D"), TypeError, "host_names must map hosts to class names"),
        (lambda: plugins.ModelSpec("C", "m:C", host_names={"h": "a-b"}), ValueError, r"host_names\['h'\] must be"),
        (lambda: plugins.AdapterSpec("a", "h", "h..n", "m:a"), ValueError, "trigger must be a module's full name"),
        (lambda: plugins.ProviderSpec("p", "conv", "m:p", 1), ValueError, "op must be one of"),
        (lambda: plugins.ProviderSpec("p", "ttfs", "m:p", "high"), TypeError, "priority must be a number, got 'high'"),
    ],
)
def test_wrong_fields_are_named(build, error, match):
    with pytest.raises(error, match=match):
        build()


TRAIN = """
import torch
torch.manual_seed(0)
x = torch.rand(6, 64, 8)
y = (x.mean(0)[:, :4].sum(1) > x.mean(0)[:, 4:].sum(1)).long()

def train(net, node, forward, reset):
    (learned,) = node.parameters()
    before, losses = learned.detach().clone(), []
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(40):
        reset(net)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(net), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0], losses
    assert not torch.equal(before, learned)
"""
NATIVE = {
    "spikingjelly": """
import snn_dendrite_plugin
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.neuron import QIF

node = QIF()
assert isinstance(node, neuron.BaseNode) and QIF is neuron.QIF
net = torch.nn.Sequential(layer.Linear(8, 32), node, layer.Linear(32, 2))
functional.set_step_mode(net, "m")
train(net, node, lambda net: net(x).mean(0), functional.reset_net)
""",
    "snntorch": """
import snntorch as snn
from snntorch import utils
import snn_dendrite_plugin
from snntorch import QIF

node = QIF(init_hidden=True)
assert isinstance(node, snn.SpikingNeuron) and QIF is snn.QIF
net = torch.nn.Sequential(torch.nn.Linear(8, 32), node, torch.nn.Linear(32, 2))
train(net, node, lambda net: torch.stack([net(step) for step in x]).mean(0), utils.reset)
""",
}


@pytest.mark.parametrize("host", NATIVE)
def test_sample_neuron_is_native_and_trains(run_python, sample, host):
    pytest.importorskip(host)
    code = "import warnings\nwarnings.filterwarnings('error', 'adapter')\n" + TRAIN + NATIVE[host] + "print('trained')"
    assert run_python(code, sample, torch=True) == "trained"


def test_unhashable_plugin_is_refused_before_it_is_half_registered():
    from types import SimpleNamespace

    from snn_dendrite_plugin import plugins

    with pytest.raises(TypeError, match="cannot be hashed"):
        plugins.register_plugin(SimpleNamespace())
    assert "DendSN" in plugins.models()
