"""Plugins that are slow, hang, leave, or want a name of the host's own: a word with their name, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from installed import install, registering

MODELS_HOOK = "snn_dendrite_register_models"
IMPATIENT = "from snn_dendrite_plugin import guard, hookimpl\nguard.SLOW, guard.STUCK = 0.05, 0.3\n"
SLEEPY = f"""
import time
{IMPATIENT}
time.sleep(0.1)

@hookimpl
def snn_dendrite_register_models(register):
    time.sleep(0.1)
"""


@pytest.fixture
def impatient(tmp_path):
    """A plugin that shortens the registry's patience; first on the path, it is loaded before the others."""
    code = IMPATIENT + "@hookimpl\ndef snn_dendrite_register_models(register): pass\n"
    return install(tmp_path / "first", "quick-neurons", "quick = quick", "quick", code)


def test_slow_plugin_is_named_with_its_time_and_the_way_out(describe, sample, impatient):
    install(sample, "sleepy-neurons", "sleepy = sleepy", "sleepy", SLEEPY)
    models, infos, caught = describe(impatient, sample)
    assert "QIF" in models
    slow = [message for _, message in caught if "'sleepy' of sleepy-neurons took" in message]
    assert [message.partition(" the plugin")[0] for message in slow] == ["loading", f"calling {MODELS_HOOK} of"]
    for message in slow:
        assert float(re.search(r"took ([\d.]+) s", message)[1]) >= 0.1
        left = re.search(r"; SNN_DENDRITE_PLUGINS=(\S+) leaves it out$", message)[1]
        assert set(left.split(",")) == {"builtin", "sample", "quick"}
    assert infos["sleepy"][3] is None  # slow, not broken
    _, _, quiet = describe(impatient, sample, SNN_DENDRITE_PLUGINS=left)
    assert not any("sleepy" in message for _, message in quiet)


def test_plugin_that_hangs_is_named_and_one_that_is_interrupted_too(impatient, sample, tmp_path):
    code = IMPATIENT + "import sys\nprint('hangs', flush=True)\nsys.stdin.read(1)\nraise KeyboardInterrupt"
    install(sample, "hung-neurons", "hung = hung", "hung", code)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (impatient, sample)))}
    program = subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-c", "import snn_dendrite_plugin"],
        env=variables, cwd=tmp_path, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        first = program.stderr.readline()  # before it is let go
        _, rest = program.communicate("x", timeout=60)
    finally:
        program.kill()
    said = re.fullmatch(
        r"snn_dendrite_plugin: still loading the plugin 'hung' of hung-neurons after 0.3 s; (.*)\n", first
    )
    assert said, first
    assert said[1].startswith("SNN_DENDRITE_PLUGINS=builtin,")
    assert program.returncode not in (0, None)
    assert "KeyboardInterrupt" in rest
    assert "while loading the plugin 'hung' of hung-neurons" in rest


def test_built_in_plugin_starts_no_thread(run_python):
    code = "import threading\nthreading.Thread.start = None\nfrom snn_dendrite_plugin import plugins\n"
    code += "print(len(plugins.models()))"
    assert run_python(code) == "3"


@pytest.mark.parametrize(("host", "name"), [("spikingjelly.activation_based.neuron", "LIFNode"), ("snntorch", "Leaky")])
def test_name_of_the_hosts_own_is_refused_with_a_word(run_python, tmp_path, host, name):
    code = registering(name=name, target="snn_dendrite_plugin.neurons.lnm:LNM")
    site = install(tmp_path / "site", "bold-neurons", "bold = bold", "bold", code)
    script = f"""
import importlib, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import snn_dendrite_plugin
    host = importlib.import_module({host!r})
assert host.{name}.__module__.startswith(host.__name__.partition(".")[0]), host.{name}
assert host.LNM
print(*[str(w.message) for w in caught if w.category.__name__ == "PluginWarning"], sep="\\n")
"""
    (said,) = run_python(script, site, torch=True).splitlines()
    assert said.startswith(f"neuron model '{name}' of bold-neurons is not shown in {host.partition('.')[0]} ")
    assert said.endswith(f"which has a {name} of its own: choose another name")
