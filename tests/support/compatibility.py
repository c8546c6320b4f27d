"""``docs/compatibility.md``, from the tests: ``python tests/support/compatibility.py`` writes it, ``--check`` compares.

A test names the row that it shows by a marker::

    @pytest.mark.feature("torch.export", host="snnTorch", neuron="LNM, Dendritic", result="works")

``host`` and ``neuron`` may name a test's parameters, as in ``neuron="{name}"``; a parameter ``subject`` says both by
itself. ``result`` is ``works`` or ``refused``; what is marked as failing is ``wrong``. A cell without a test is empty.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
HOSTS = {"SpikingJelly": ("DendSN", "LNM", "TTFS"), "snnTorch": ("Dendritic", "LNM", "TTFS")}
LETTERS = {"works": "W", "refused": "R", "wrong": "X"}
HEAD = """# Compatibility

What is around a neuron in torch and in its host, by host and neuron, as the tests of this project show it.
`python tests/support/compatibility.py` writes this page from them; a row names the test file that shows it.

- **W**: works, equal to the same network without the feature where there is something to compare with.
- **R**: refused, with an error that says what.
- **X**: wrong or an error today, by a test that is known to fail.
- empty: not tested.

"""

Cells = dict[tuple[str, str], dict[str, set[str]]]


class Collector:
    """A pytest plugin that notes the features of all tests that were collected."""

    def __init__(self) -> None:
        self.rows: dict[str, Cells] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
        self.files: dict[str, set[str]] = defaultdict(set)
        self.errors: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed or report.skipped:
            self.errors.append(f"{report.nodeid}: {report.longreprtext or report.outcome}")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for marker in item.iter_markers("feature"):
                self.note(item, *marker.args, **marker.kwargs)

    def note(self, item: pytest.Item, name: str, host: str = "", neuron: str = "", result: str = "works") -> None:
        parameters = getattr(item, "callspec", None)
        values = parameters.params if parameters else {}
        subject = values.get("subject")
        host = host.format(**values) or subject.host
        names = neuron.format(**values) or subject.neuron
        result = "wrong" if item.get_closest_marker("xfail") else result
        for one in names.split(","):
            if one.strip() not in HOSTS[host]:
                raise ValueError(f"{item.nodeid}: {host} has no neuron {one.strip()!r}")
            self.rows[name][host, one.strip()][LETTERS[result]].add(item.nodeid)
        self.files[name].add(item.nodeid.partition("::")[0])


def page() -> str:
    """The page as the tests have it now."""
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "feature(" in path.read_text()]
    collector, said = Collector(), io.StringIO()
    with contextlib.redirect_stdout(said):
        options = ("--collect-only", "-q", "-o", "addopts=--import-mode=importlib --strict-markers")
        code = pytest.main([*options, f"--rootdir={ROOT}", *files], plugins=[collector])
    if code or collector.errors:
        raise RuntimeError("\n".join((*collector.errors, said.getvalue())))
    columns = [(host, neuron) for host, neurons in HOSTS.items() for neuron in neurons]
    lines = [["feature", *(f"{host} {neuron}" for host, neuron in columns), "shown by"]]
    lines.append(["---", *[":-:"] * len(columns), "---"])
    for name in sorted(collector.rows, key=str.lower):
        cells = ["/".join(sorted(collector.rows[name][column])) for column in columns]
        shown = ", ".join(f"[{Path(file).stem}](../{file})" for file in sorted(collector.files[name]))
        lines.append([name, *cells, shown])
    return HEAD + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    made = page()
    if "--check" not in sys.argv:
        PAGE.write_text(made)
    elif made != PAGE.read_text():
        sys.exit("docs/compatibility.md is not what the tests say; run python tests/support/compatibility.py")
