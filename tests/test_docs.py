"""Code in README.md and docs/ runs and prints what it says; so do the examples in docstrings."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
from pathlib import Path

import pytest
import typer
from places import ROOT

import snn_dendrite_plugin
from snn_dendrite_plugin import cli

os.environ.setdefault("MPLBACKEND", "Agg")

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = re.compile(r"#\s*prints?:? (.+)$", re.MULTILINE)  # a line's output, said in a comment: `# prints 0`


def blocks() -> list:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start(1))
            found.append(pytest.param(page, line, match.group(1), id=f"{page.name}:{line}"))
    return found


def modules() -> list[str]:
    names = [snn_dendrite_plugin.__name__]
    for module in pkgutil.walk_packages(snn_dendrite_plugin.__path__, f"{snn_dendrite_plugin.__name__}."):
        source = Path(module.module_finder.find_spec(module.name).origin)
        if source.suffix == ".py" and ">>>" in source.read_text():  # the compiled library looks like a module, too
            names.append(module.name)
    return names


@pytest.fixture(autouse=True)
def _hosts():
    for name in ("spikingjelly", "snntorch", "matplotlib", "sklearn"):
        pytest.importorskip(name)


@pytest.fixture
def _tidy(tmp_path, monkeypatch):
    """Run in an empty directory; leave the hosts as they were, and no figure open."""
    monkeypatch.chdir(tmp_path)
    yield
    snn_dendrite_plugin.activate()  # an example may have taken the neurons out
    import matplotlib.pyplot

    matplotlib.pyplot.close("all")


# Pages that show commands, figures or rooms, not how to write Python.
WITHOUT_CODE = {"architecture.md", "commands.md", "compatibility.md", "index.md", "performance.md", "run.md", "zoo.md"}


def test_there_are_blocks_in_every_page_that_teaches():
    with_code = {param.values[0].name for param in blocks()}
    assert with_code == {page.name for page in PAGES} - WITHOUT_CODE


@pytest.mark.usefixtures("_tidy")
@pytest.mark.parametrize(("page", "line", "code"), blocks())
def test_code_block_runs_and_prints_what_it_says(page, line, code):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile("\n" * line + code, str(page), "exec"), {"__name__": "block"})
    printed = out.getvalue().splitlines()
    for wanted in SHOWN.findall(code):
        assert wanted.strip() in printed


@pytest.mark.usefixtures("_tidy")
@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] in ("triton", "cupy"):
            pytest.skip(f"needs {error.name}")
        raise
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name}"


WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md"]
LINK = re.compile(r"\]\(([^)#\s]+)\)|src=\"([^\"]+)\"")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for pair in LINK.findall(page.read_text()):
        target = pair[0] or pair[1]
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


PLACE = re.compile(r"(?<![\w./-])((?:snn_dendrite_plugin|adapters|kernels|csrc|tests|examples|docs)/[\w./-]*\w)")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_files_and_folders_that_are_named_exist(page):
    for name in PLACE.findall(page.read_text()):
        if "HOST" not in name:  # a pattern
            assert any((root / name).exists() for root in (ROOT, ROOT / "kernels")), f"{page.name} names {name}"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_commands_and_options_that_are_shown_exist(page):
    group = typer.main.get_command(cli.app)
    context = group.make_context("snn-dendrite", ["list"])
    for name, rest in re.findall(r"snn-dendrite ([a-z]+)\b([^`\n|#]*)", page.read_text()):
        assert name in group.list_commands(context), f"{page.name} shows snn-dendrite {name}"
        command = group.get_command(context, name).load()
        known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
        own = rest.split(".py")[0]  # what follows a script is the script's
        assert set(re.findall(r"(?<!\S)--[a-z][\w-]*", own)) <= known | {"--help"}, f"{page.name}: {name}{rest}"
