"""The zoo page in docs/: a sample of its rows is measured again, and every model is on it."""

from __future__ import annotations

import importlib.metadata
import re

import pytest
from places import DOCS
from typer.testing import CliRunner

pytest.importorskip("spikingjelly")
from snn_dendrite_plugin.cli import app  # noqa: E402
from snn_dendrite_plugin.zoo import models as zoo  # noqa: E402
from snn_dendrite_plugin.zoo import page as zoo_page  # noqa: E402

PAGE = DOCS / "zoo.md"


def tables(text: str) -> list[dict[str, list[str]]]:
    """The page's tables: name of the model -> its line, in the order of the page."""
    found: list[dict[str, list[str]]] = []
    for block in re.findall(r"^\| model .*\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE):
        lines = [line.strip("| ").split(" | ") for line in block.splitlines()]
        found.append({line[0]: line for line in lines})
    return found


@pytest.fixture(scope="module")
def written():
    return tables(PAGE.read_text())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("zoo") / "zoo.md"
    result = CliRunner().invoke(app, ["zoo", "--sample", "--out", str(out)])
    assert result.exit_code == 0, result.output
    return tables(out.read_text())


def test_every_model_is_on_the_page(written):
    small, full, reasons = written
    assert list(small) == list(zoo.TINY)
    assert list(full) == list(zoo.CONSTRUCTORS)
    assert set(reasons) == {*zoo.TINY, *zoo.CONSTRUCTORS}
    for tiny, lines in ((True, small), (False, full)):
        assert {len(line) for line in lines.values()} == {len(zoo_page.column_names(tiny))}


def test_the_page_says_what_the_tests_ask_for(written):
    small, full, _ = written
    for tiny, lines in ((True, small), (False, full)):
        at = {name: zoo_page.column_names(tiny).index(name) for name in ("`spiking_neuron=`", "neurons", "parameters")}
        for name, line in lines.items():
            own = (zoo.TINY if tiny else zoo.CONSTRUCTORS)[name].own_neuron
            assert line[at["`spiking_neuron=`"]] == ("no such argument" if own else "yes")
            converted, _, every = line[at["neurons"]].partition(" of ")
            assert converted == every
            parameters, shared, partition, _ = (int(n.replace(",", "")) for n in line[at["parameters"] :][:4])
            assert 0 < partition <= shared < 0.05 * parameters  # the neurons' own alone
    flips = zoo_page.column_names(True).index("flipped spikes")
    for line in small.values():
        assert line[flips].startswith("0 of ")
        assert float(line[flips + 1]) < 1e-9


def test_a_sample_measured_again_gives_the_same_rows(written, measured):
    version = importlib.metadata.version("spikingjelly")
    if f"SpikingJelly {version}," not in PAGE.read_text():
        pytest.skip(f"the page was written with another SpikingJelly than {version}")
    difference = zoo_page.column_names(True).index("largest difference")
    for tiny, page, again in zip((True, False), written, measured, strict=False):
        assert set(again) == set(zoo_page.SAMPLE[tiny])
        for name, line in again.items():
            expected = list(page[name])
            if tiny:  # a rounding, which depends on the machine
                assert float(line[difference]) < 1e-9
                expected[difference] = line[difference]
            assert line == expected
    assert len(measured[2]) == len(measured[0]) + len(measured[1])
    assert all(written[2][name] == line for name, line in measured[2].items())


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    result = CliRunner().invoke(app, ["zoo", "--out", str(tmp_path / "no" / "zoo.md")])
    assert result.exit_code == 2
    assert "there is no directory" in result.output
