"""Models appear in hosts imported before or after activation, and leave them again."""

from __future__ import annotations

import functools
import importlib
import sys
import textwrap
import threading
import warnings
from types import SimpleNamespace

import pytest

import snn_dendrite_plugin as sdp
from snn_dendrite_plugin import plugins


class Adapter:
    """An adapter that writes into the module ``toyhost`` and keeps the contract."""

    def __init__(self):
        self.installed = {}

    def install(self, spec):
        host = sys.modules["toyhost"]
        name = spec.name_in("toyhost")
        if name in self.installed or hasattr(host, name):
            return
        self.installed[name] = spec
        setattr(host, name, spec)

    def uninstall(self):
        for name in self.installed:
            delattr(sys.modules["toyhost"], name)
        self.installed.clear()


class ToyPlugin:
    """A plugin with one adapter and one model, for a host that the test puts on the path."""

    def __init__(self, adapter):
        self.adapter = adapter

    @sdp.hookimpl
    def snn_dendrite_register_adapters(self, register):
        register(name="toy", host="toyhost", trigger="toyhost", target=self.adapter)

    @sdp.hookimpl
    def snn_dendrite_register_models(self, register):
        register(name="ToyNeuron", target="snn_dendrite_plugin.neurons.lnm:LNM")


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host on the path, not imported yet, and the adapter for it."""
    (tmp_path / "toyhost.py").write_text("__version__ = '7.1'\nOwn = object()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "toyhost", raising=False)
    adapter = Adapter()
    plugin = ToyPlugin(adapter)
    plugins.register_plugin(plugin, "toy")
    load = functools.partial(importlib.import_module, "toyhost")
    yield SimpleNamespace(adapter=adapter, plugin=plugin, path=tmp_path, load=load)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", plugins.PluginWarning)  # the test may have broken the adapter
        sdp.activate()
        if plugins.get_manager().is_registered(plugin):
            plugins.unregister_plugin(plugin)
    sys.modules.pop("toyhost", None)


def test_host_imported_after_activation_gets_the_models(host):
    toyhost = host.load()
    assert toyhost.ToyNeuron.name == "ToyNeuron"
    assert {"ToyNeuron", "DendSN", "LNM", "TTFS"} == set(host.adapter.installed)


def test_host_imported_before_activation_gets_the_models(host):
    sdp.deactivate()
    toyhost = host.load()
    assert not hasattr(toyhost, "ToyNeuron")
    sdp.activate()
    assert toyhost.ToyNeuron.name == "ToyNeuron"


def test_deactivation_removes_the_models_and_activation_brings_them_back(host):
    toyhost = host.load()
    before = toyhost.Own
    sdp.deactivate()
    assert not hasattr(toyhost, "ToyNeuron")
    assert toyhost.Own is before
    sdp.activate()
    assert hasattr(toyhost, "ToyNeuron")


def test_host_imported_while_inactive_stays_as_it_is_though_a_hook_was_waiting(host):
    sdp.activate()  # leaves a post-import hook behind that cannot be taken back
    sdp.deactivate()
    assert not hasattr(host.load(), "ToyNeuron")
    assert host.adapter.installed == {}


def test_activation_after_deactivation_works_for_a_host_imported_later(host):
    for _ in range(3):
        sdp.deactivate()
        sdp.activate()
    assert hasattr(host.load(), "ToyNeuron")


def test_activation_twice_installs_once(host):
    toyhost = host.load()
    first = toyhost.ToyNeuron
    sdp.activate()
    sdp.activate()
    assert toyhost.ToyNeuron is first


def test_name_that_the_host_has_is_left_alone(host):
    (host.path / "toyhost.py").write_text("DendSN = 'the host grew its own'\n")
    with pytest.warns(plugins.PluginWarning, match=r"'DendSN' is not shown in toyhost .* which has a DendSN"):
        toyhost = host.load()
    sdp.deactivate()
    with pytest.warns(plugins.PluginWarning, match="'DendSN' is not shown"):
        sdp.activate()
    assert toyhost.DendSN == "the host grew its own"


def test_plugin_registered_at_run_time_appears_in_an_active_host_and_leaves_it(host):
    toyhost = host.load()

    class Late:
        @sdp.hookimpl
        def snn_dendrite_register_models(self, register):
            register(name="LateNeuron", target="snn_dendrite_plugin.neurons.lnm:LNM")

    late = Late()
    plugins.get_manager().register(late, "late")  # the pluggy way
    try:
        assert toyhost.LateNeuron.name == "LateNeuron"
        assert hasattr(toyhost, "ToyNeuron")
    finally:
        plugins.unregister_plugin(late)
    assert not hasattr(toyhost, "LateNeuron")
    assert hasattr(toyhost, "ToyNeuron")


def test_plugin_registered_while_inactive_changes_no_host(host):
    sdp.deactivate()
    toyhost = host.load()
    plugins.unregister_plugin(host.plugin)
    plugins.register_plugin(host.plugin, "toy")
    assert not hasattr(toyhost, "ToyNeuron")


def test_adapter_leaves_with_its_plugin(host):
    toyhost = host.load()
    plugins.unregister_plugin(host.plugin)
    assert not hasattr(toyhost, "DendSN")


def test_failing_install_warns_and_spares_the_import(host, monkeypatch):
    def install(spec):
        raise RuntimeError("host has changed")

    monkeypatch.setattr(host.adapter, "install", install)
    with pytest.warns(plugins.PluginWarning) as caught:
        toyhost = host.load()
    assert toyhost.__version__ == "7.1"
    text = next(str(warning.message) for warning in caught if "ToyNeuron" in str(warning.message))
    expected = "adapter 'toy' cannot install neuron model 'ToyNeuron' in toyhost 7.1: RuntimeError: host has changed"
    assert text == expected


def test_model_that_cannot_be_installed_spares_the_others(host, monkeypatch):
    install = host.adapter.install

    def picky(spec):
        if spec.name == "LNM":
            raise ImportError("no LNM today")
        install(spec)

    monkeypatch.setattr(host.adapter, "install", picky)
    with pytest.warns(plugins.PluginWarning, match="neuron model 'LNM' in toyhost 7.1: ImportError: no LNM today"):
        toyhost = host.load()
    assert hasattr(toyhost, "ToyNeuron")
    assert not hasattr(toyhost, "LNM")


def test_adapter_that_cannot_be_loaded_warns(host):
    class Broken:
        @sdp.hookimpl
        def snn_dendrite_register_adapters(self, register):
            register(name="absent", host="toyhost", trigger="toyhost", target="absent_package.adapters:adapter")

    broken = Broken()
    plugins.register_plugin(broken, "broken")
    try:
        with pytest.warns(plugins.PluginWarning, match="adapter 'absent' cannot be loaded for toyhost 7.1: ModuleNotF"):
            toyhost = host.load()
        assert hasattr(toyhost, "ToyNeuron")
    finally:
        plugins.unregister_plugin(broken)


def test_failing_uninstall_warns(host, monkeypatch):
    host.load()
    uninstall = host.adapter.uninstall
    monkeypatch.setattr(host.adapter, "uninstall", lambda: 1 / 0)
    with pytest.warns(plugins.PluginWarning, match="adapter 'toy' cannot be uninstalled: ZeroDivisionError"):
        sdp.deactivate()
    uninstall()


def test_failing_host_import_raises_its_own_error(host):
    (host.path / "toyhost.py").write_text("raise OSError('a library is missing')\n")
    with pytest.raises(OSError, match="a library is missing"):
        host.load()
    (host.path / "toyhost.py").write_text("__version__ = '7.2 repaired'\n")
    importlib.invalidate_caches()
    sdp.activate()
    assert hasattr(host.load(), "ToyNeuron")


def test_host_being_imported_by_another_thread_is_waited_for(host):
    code = """
        import threading
        started, go = threading.Event(), threading.Event()
        threading.current_thread().events.append((started, go))
        started.set()
        go.wait(10)
        late = 1
    """
    (host.path / "toyhost.py").write_text(textwrap.dedent(code))
    sdp.deactivate()
    seen = []

    def install(spec):
        seen.append(hasattr(sys.modules["toyhost"], "late"))

    host.adapter.install = install
    importer = threading.Thread(target=host.load)
    importer.events = []
    importer.start()
    while not (importer.events and importer.events[0][0].is_set()):
        pass
    activator = threading.Thread(target=sdp.activate)
    activator.start()
    activator.join(0.2)
    importer.events[0][1].set()
    importer.join(10)
    activator.join(10)
    assert seen
    assert all(seen)


ORDERS = {
    "plugin first": "import snn_dendrite_plugin as sdp\nimport toyhost",
    "host first": "import toyhost\nimport snn_dendrite_plugin as sdp",
    "from the host": "import snn_dendrite_plugin as sdp\nfrom toyhost import Dendritic\nimport toyhost",
}


@pytest.mark.parametrize("order", ORDERS)
def test_import_orders_in_a_fresh_interpreter(run_python, install_toy, order):
    assert run_python(f"{ORDERS[order]}\nprint(toyhost.Dendritic)", install_toy) == "DendSN"


def test_host_that_is_missing_costs_nothing(run_python, install_toy):
    (install_toy / "toyhost.py").unlink()
    code = "import snn_dendrite_plugin\ntry:\n    import toyhost\nexcept ImportError as error:\n    print(error)"
    assert run_python(code, install_toy, flags=("-W", "error")) == "No module named 'toyhost'"


def test_all_plugins_disabled_leaves_hosts_alone(run_python, install_toy):
    code = "import snn_dendrite_plugin, toyhost\nprint(hasattr(toyhost, 'Dendritic'))"
    assert run_python(code, install_toy, SNN_DENDRITE_PLUGINS="") == "False"


@pytest.fixture
def install_toy(tmp_path):
    """A host and an installed plugin with an adapter for it, by real entry-point metadata."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "toyhost.py").write_text("")
    (site / "toyplugin.py").write_text(
        textwrap.dedent("""
        import sys
        from snn_dendrite_plugin import hookimpl

        class adapter:
            @staticmethod
            def install(spec):
                names = {"DendSN": "Dendritic"}
                setattr(sys.modules["toyhost"], names.get(spec.name, spec.name), spec.name)

        @hookimpl
        def snn_dendrite_register_adapters(register):
            register(name="toy", host="toyhost", trigger="toyhost", target="toyplugin:adapter")
        """)
    )
    metadata = site / "toy_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[snn_dendrite_plugin]\ntoy = toyplugin\n")
    return site


@pytest.mark.parametrize(
    "module", ["snntorch.shell", "snntorch.surrogates", "spikingjelly.adapter", "spikingjelly.shell"]
)
def test_an_adapter_s_module_may_be_what_is_imported_first(module, run_python):
    code = f"""
import warnings
warnings.filterwarnings("error", message=".*neuron model.*")
import snn_dendrite_plugin.adapters.{module}
import snntorch
from spikingjelly.activation_based import neuron
print(snntorch.Dendritic.__name__, neuron.DendSN.__name__)
"""
    assert run_python(code, torch=True) == "Dendritic DendSN"
