"""Which provider is chosen: where they come from, what they are told, and whose explicit choice counts on a thread."""

from __future__ import annotations

import threading

import pytest
import torch

from snn_dendrite_plugin import plugins, use_provider
from snn_dendrite_plugin.kernels import providers
from snn_dendrite_plugin.kernels.contract import Provider
from snn_dendrite_plugin.kernels.providers import ProviderError, acting_for, choose, forced
from snn_dendrite_plugin.kernels.soma_dendrite.contract import Settings
from snn_dendrite_plugin.kernels.soma_dendrite.reference import TorchProvider
from snn_dendrite_plugin.kernels.specs import BUILTIN, OPS, ProviderSpec
from snn_dendrite_plugin.neurons.lnm import LNM

CPU = torch.device("cpu")
CALL = ("soma_dendrite", CPU, torch.float32)


class Shelf:
    """Providers are found by walking attributes, too."""

    provider = TorchProvider()


class Short(TorchProvider):
    """Runs short sequences of quadratic neurons, and nothing else."""

    name = "short"

    def why_not(self, device, dtype, settings, steps=1, degree=1):
        return None if steps <= 4 and degree == 2 else f"T is {steps} and K is {degree}"


class Shy(TorchProvider):
    name = "shy"
    automatic_devices = ("cuda",)


@pytest.fixture
def offered():
    """``offered(spec, ...)`` puts providers beside the built-in ones, as a registry of the test's own."""

    def offer(*specs):
        best_first = sorted((*specs, *BUILTIN), key=lambda spec: -spec.priority)
        providers.choose_from(lambda op: [spec for spec in best_first if spec.op == op])

    yield offer
    providers.choose_from(plugins.providers)


@pytest.mark.parametrize("op", OPS)
def test_every_built_in_provider_is_one_and_carries_its_name(op):
    for spec in BUILTIN:
        provider = spec.load()
        assert isinstance(provider, Provider)
        assert provider.name == spec.name


def test_without_a_registry_the_built_in_ones_serve(offered):
    providers.choose_from(None)
    assert [name for name, _ in providers.explain(*CALL, Settings())] == ["triton", "cupy", "cpu", "torch"]
    assert choose(*CALL, Settings()).name in ("cpu", "torch")


def test_the_registry_gives_the_same_ones():
    for op in OPS:
        assert plugins.providers(op) == [spec for spec in BUILTIN if spec.op == op]


def test_kernels_import_nothing_above_them(run_python):
    code = """
import sys, snn_dendrite_plugin.kernels.soma_dendrite, snn_dendrite_plugin.kernels.ttfs
print([name for name in sys.modules if name.startswith(("snn_dendrite_plugin.neurons", "snn_dendrite_plugin.layers"))])
"""
    assert run_python(code, torch=True) == "[]"


def test_a_target_may_be_an_attribute_of_an_attribute(offered):
    offered(ProviderSpec("shelved", "soma_dendrite", f"{__name__}:Shelf.provider", 99))
    assert choose(*CALL, Settings()) is Shelf.provider


def test_a_provider_is_told_length_and_degree(offered):
    offered(ProviderSpec("short", "soma_dendrite", Short(), 99))
    for steps, degree, name in ((4, 2, "short"), (5, 2, None), (4, 3, None)):
        with use_provider("short"):
            model = LNM(degree=degree)
            if name is None:
                with pytest.raises(ProviderError, match=f"T is {steps} and K is {degree}"):
                    model.run(torch.rand(steps, 2, 3))
            else:
                model.run(torch.rand(steps, 2, 3))
    assert choose(*CALL, Settings(), 4, 2).name == "short"
    assert choose(*CALL, Settings(), 5, 2).name != "short"


def test_a_provider_may_wait_to_be_asked(offered):
    offered(ProviderSpec("shy", "soma_dendrite", Shy(), 99))
    assert choose(*CALL, Settings()).name != "shy"
    with use_provider("shy"):
        assert choose(*CALL, Settings()).name == "shy"


@pytest.mark.parametrize(
    ("target", "reason"),
    [("absent_package.module:provider", "No module named 'absent_package'"), (object(), "is no .*contract.Provider")],
)
def test_what_is_no_provider_costs_a_reason(offered, target, reason):
    offered(ProviderSpec("broken", "soma_dendrite", target, 99))
    assert choose(*CALL, Settings()).name != "broken"
    with use_provider("broken"), pytest.raises(ProviderError, match=f"cannot be loaded: .*{reason}"):
        choose(*CALL, Settings())


def on_a_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_two_threads_keep_their_own_choice():
    entered, left = threading.Barrier(2, timeout=30), threading.Barrier(2, timeout=30)
    seen = {}

    def run(name, first):
        with use_provider(name):
            entered.wait()
            seen[name, "both inside"] = forced()
            if not first:
                left.wait()  # the other one leaves first, whichever entered first
            with use_provider("torch"):
                seen[name, "nested"] = forced()
            seen[name, "alone"] = forced()
        if first:
            left.wait()
        seen[name, "outside"] = forced()

    threads = [threading.Thread(target=run, args=(name, name == "cpu")) for name in ("cpu", "cupy")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("cpu", "cupy"):
        states = [seen[name, when] for when in ("both inside", "nested", "alone", "outside")]
        assert states == [name, "torch", name, None]
    assert providers._forced == {}


def test_a_thread_without_a_choice_of_its_own_has_none():
    with use_provider("torch"):
        assert on_a_thread(forced) is None
    assert forced() is None


def test_backward_on_another_thread_acts_for_the_thread_of_its_forward(offered, monkeypatch):
    """Autograd runs a GPU's backward passes on a thread of its own; here a thread of ours calls it."""
    ran = []

    class Marked(TorchProvider):
        name = "marked"

        def backward(self, *arguments, **named):
            ran.append((self.name, threading.get_ident()))
            return super().backward(*arguments, **named)

    offered(ProviderSpec("marked", "soma_dendrite", Marked(), -1))
    x = torch.rand(3, 2, 4, requires_grad=True)
    with use_provider("marked"):
        spikes, _ = LNM().run(x)
        other = on_a_thread(lambda: (spikes.sum().backward(retain_graph=True), threading.get_ident())[1])
    assert ran == [("marked", other)]
    on_a_thread(lambda: spikes.sum().backward())  # outside the block the choice is automatic
    assert len(ran) == 1


def test_acting_for_a_thread_is_undone_and_knows_threads_without_a_choice():
    with use_provider("cpu"):
        here = threading.get_ident()

        def there():
            with use_provider("torch"):
                with acting_for(here):
                    inside = forced()
                return inside, forced()

        assert on_a_thread(there) == ("cpu", "torch")
        with acting_for(-1):
            assert forced() is None
        assert forced() == "cpu"


def test_the_backward_pass_of_a_compiled_graph_sees_the_choice_on_threads_of_autograds_own(monkeypatch):
    """Such a thread was not started by Python, and a compiled graph does not say for whom it runs."""
    alien = type("alien", (threading._DummyThread,), {"__init__": lambda self: None})()
    with use_provider("cpu"):

        def seen():
            monkeypatch.setattr(threading, "current_thread", lambda: alien)
            name = forced()
            with use_provider("torch"):
                providers._forced[-1] = ("cupy",)  # a third thread disagrees with the first
                own = forced()
            both = forced()
            del providers._forced[-1]
            monkeypatch.undo()
            return name, own, both

        assert on_a_thread(seen) == ("cpu", "torch", None)
