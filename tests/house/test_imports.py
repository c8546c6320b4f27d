"""The rooms of the package import only what they may, and never in a circle."""

from __future__ import annotations

from pathlib import Path

import pytest
from import_rules import PACKAGE, ROOMS, circle, forbidden, imports, modules, room
from places import ROOT

FOLDERS = {PACKAGE: ROOT / PACKAGE, f"{PACKAGE}.adapters": ROOT / "adapters", f"{PACKAGE}.kernels": ROOT / "kernels"}
# Imports against the rules, and why they are there. One that is mended leaves the list.
STRAY: dict[str, str] = {}
# Imports that close a circle, all of them inside a function.
CIRCULAR = {
    f"{PACKAGE}.bench.measure imports {PACKAGE}.bench.training": "the presets of one file are run by the other",
}


@pytest.fixture(scope="module")
def found():
    return imports(modules(FOLDERS))


def test_rooms_import_only_what_they_may(found):
    assert sorted(forbidden(found)) == sorted(STRAY)


def test_no_circles(found):
    assert circle(found, without={*STRAY, *CIRCULAR}) == []
    for name in CIRCULAR:
        assert circle(found, without={*STRAY, *CIRCULAR} - {name}), f"no circle any more: {name}"


def test_every_rule_is_of_a_room_that_exists(found):
    there = {room(module) for module, *_ in found} | {room(target) for _, target, *_ in found}
    assert {name for name in ROOMS if name and "*" not in name} <= there


def plant(folder: Path, **sources: str) -> list[str]:
    """Module files by their dotted names (``__`` for a dot) in ``folder``; their imports."""
    for name, text in sources.items():
        file = folder.joinpath(*name.split("__")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return imports(modules({PACKAGE: folder}))


@pytest.mark.parametrize(
    ("module", "text", "target"),
    [
        ("kernels__op", "from ..plugins import load", "plugins"),
        ("kernels__op", "def late():\n    from .. import neurons", ""),
        ("neurons__base", "import numpy", "numpy"),
        ("layers__deep__er", "from ...conversion import api", "conversion"),
        ("adapters__snntorch__shell", "from ..spikingjelly import surrogates", "adapters.spikingjelly"),
        ("adapters__snntorch__shell", "import spikingjelly", "spikingjelly"),
        ("conversion__api", "from snn_dendrite_plugin.adapters.snntorch import shell", "adapters.snntorch"),
        ("swap__rules", "from ..commands import run", "commands"),
    ],
)
def test_a_planted_import_is_found(tmp_path, module, text, target):
    (tmp_path / "neurons").mkdir()
    found = plant(tmp_path, **{module: text})
    ours = target in {"", "plugins", "conversion", "commands"} or target.startswith("adapters.")
    wanted = ".".join(filter(None, (PACKAGE if ours else "", target)))
    assert forbidden(found) == [f"{PACKAGE}.{module.replace('__', '.')} imports {wanted}"]


def test_what_is_allowed_is_not_found(tmp_path):
    own = "import math, torch, snntorch.utils\nfrom .. import base\nfrom ...kernels import op\nfrom .shell import x"
    assert forbidden(plant(tmp_path, adapters__snntorch__nodes=own, adapters__base="", kernels__op="")) == []


def test_a_planted_circle_is_found(tmp_path):
    first, second = "from .b import x", "from . import c"
    third = "def late():\n    from .a import y"
    assert circle(plant(tmp_path, swap__a=first, swap__b=second)) == []
    found = plant(tmp_path, swap__a=first, swap__b=second, swap__c=third)
    assert {name.rpartition(".")[2] for name in circle(found)} == {"a", "b", "c"}
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .a import y"
    assert circle(plant(tmp_path, swap__c=typed)) == []
