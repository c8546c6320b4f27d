"""Which room of the package may import which, read off the source without importing anything."""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "snn_dendrite_plugin"
# What a room may import of ours; itself always. The package's own module is the room "".
ROOMS: dict[str, set[str]] = {
    "": {
        "activation",
        "conversion",
        "figures",
        "hookspecs",
        "kernels",
        "layers",
        "neurons",
        "plotting",
        "plugins",
        "swap",
    },
    "__main__": {"cli"},
    "cli": {"", "builtin", "commands", "plugins"},
    "specs": {"kernels"},
    "tables": set(),
    "guard": set(),
    "suggest": set(),
    "hookspecs": {"specs"},
    "builtin": {"hookspecs", "kernels"},
    "registered": {"guard", "specs"},
    "plugins": {"hookspecs", "kernels", "registered", "specs"},
    "activation": {"guard", "plugins", "specs"},
    "kernels": set(),
    "neurons": {"kernels"},
    "layers": {"kernels", "neurons"},
    "plotting": {"kernels", "neurons"},
    "adapters.base": {"kernels", "neurons", "plugins", "specs"},
    "adapters.patching": set(),
    "adapters.nir": {"kernels", "neurons"},
    "adapters.*": {
        "adapters.base",
        "adapters.nir",
        "adapters.patching",
        "kernels",
        "neurons",
        "layers",
        "plugins",
        "specs",
    },
    "conversion": {"adapters.base", "kernels", "neurons", "layers", "plugins", "specs", "suggest", "tables"},
    "figures": {"conversion", "kernels", "tables"},
    "swap": {"adapters.base", "conversion", "plugins", "specs", "suggest"},
    "bench": {"", "conversion", "kernels", "neurons", "plugins", "suggest", "tables"},
    "demo": {"", "plotting"},
    "zoo": {"", "conversion", "tables"},
    "commands": {
        "",
        "bench",
        "conversion",
        "demo",
        "figures",
        "kernels",
        "neurons",
        "plugins",
        "specs",
        "suggest",
        "swap",
        "tables",
        "zoo",
    },
}
# What a room may import of others, beside the standard library. "*" stands for the adapter's own host.
OUTSIDE: dict[str, set[str]] = {
    "cli": {"typer"},
    "hookspecs": {"pluggy"},
    "plugins": {"pluggy"},
    "activation": {"wrapt"},
    "kernels": {"torch", "triton", "cupy"},
    "neurons": {"torch"},
    "layers": {"torch"},
    "plotting": {"torch", "matplotlib"},
    "adapters.base": {"torch"},
    "adapters.nir": {"torch", "nir", "numpy"},
    "adapters.*": {"torch", "wrapt", "*"},
    "conversion": {"torch", "rich"},
    "figures": {"torch", "rich"},
    "swap": {"torch"},
    "bench": {"torch", "matplotlib", "spikingjelly", "snntorch"},
    "demo": {"torch", "matplotlib", "sklearn", "spikingjelly", "snntorch"},
    "zoo": {"torch", "numpy", "spikingjelly"},
    "commands": {"torch", "typer", "rich"},
}


class Import(NamedTuple):
    """``module`` imports ``target``; for type checkers only where ``typing``, inside a function where ``late``."""

    module: str
    target: str
    typing: bool
    late: bool


def modules(folders: dict[str, Path]) -> dict[str, Path]:
    """Dotted names and files of all modules in ``folders``, which are packages by their dotted names."""
    found = {}
    for package, folder in folders.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = file
    return found


def imports(files: dict[str, Path]) -> list[Import]:
    """Every import statement, those in functions included."""
    found: list[Import] = []
    for module, file in files.items():
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for node, typing, late in _statements(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                # `from package import name` imports the module of that name where there is one.
                names = [f"{base}.{alias.name}" for alias in node.names]
                targets = [name if name in files else base for name in names]
            found += [Import(module, target, typing, late) for target in dict.fromkeys(targets)]
    return found


def _statements(
    node: ast.AST, typing: bool = False, late: bool = False
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, typing, late
        else:
            guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _statements(child, typing or guarded, late or inside)


def room(module: str) -> str:
    """The room of a module of ours: its first folder or file; for adapters also the host."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2]) if parts[:1] == ["adapters"] else ".".join(parts[:1])


def _rule(table: dict[str, set[str]], of: str) -> set[str]:
    if of.startswith("adapters.") and of not in table:
        return {of.partition(".")[2] if name == "*" else name for name in table.get("adapters.*", ())}
    return table.get(of, set())


def forbidden(found: list[Import]) -> list[str]:
    """The imports that the tables do not allow, as ``module imports target``."""
    wrong = []
    for module, target, *_ in found:
        here = room(module)
        if target.partition(".")[0] == PACKAGE:
            allowed = room(target) == here or room(target) in _rule(ROOMS, here)
        else:
            top = target.partition(".")[0]
            allowed = top in sys.stdlib_module_names or top in _rule(OUTSIDE, here)
        if not allowed:
            wrong.append(f"{module} imports {target}")
    return list(dict.fromkeys(wrong))


def circle(found: list[Import], without: set[str] = frozenset()) -> list[str]:
    """One circle of modules that import each other, at import or later, as a path; empty where there is none.

    A package that loads a module of its own when it is asked for something closes none.
    """
    graph: dict[str, set[str]] = {}
    for module, target, typing, late in found:
        own = late and target.startswith(f"{module}.")
        if not typing and not own and module != target and f"{module} imports {target}" not in without:
            graph.setdefault(module, set()).add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []
