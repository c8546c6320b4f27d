"""The registry as a fresh interpreter sees it, with plugins that are installed for the test."""

from __future__ import annotations

import json
import shutil
import tomllib

import pytest
from installed import install
from places import SAMPLE

DESCRIBE = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import snn_dendrite_plugin
    from snn_dendrite_plugin import plugins
    names = {name: spec.distribution for name, spec in plugins.models().items()}
    infos = {info.name: [info.distribution, info.version, list(info.hooks), info.error]
             for info in plugins.installed_plugins()}
print(json.dumps([names, infos, [[w.category.__name__, str(w.message)] for w in caught]]))
"""


@pytest.fixture
def sample(tmp_path):
    """The sample plugin, installed: its package and the metadata its pyproject.toml asks for."""
    project = tomllib.loads((SAMPLE / "pyproject.toml").read_text())["project"]
    entries = project["entry-points"]["snn_dendrite_plugin"]
    site = install(tmp_path / "site", project["name"], "\n".join(f"{key} = {value}" for key, value in entries.items()))
    shutil.copytree(SAMPLE / "sample_neurons", site / "sample_neurons")
    return site


@pytest.fixture
def describe(run_python):
    """Models, plugins and warnings, as a fresh interpreter sees them."""

    def run(*paths, **environment):
        return json.loads(run_python(DESCRIBE, *paths, **environment))

    return run
