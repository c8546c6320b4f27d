"""What `import snn_dendrite_plugin` costs: no framework loaded, and little time beyond pluggy and wrapt."""

from __future__ import annotations

LIMIT = 0.020  # seconds
HEAVY = ("torch", "spikingjelly", "snntorch", "triton", "cupy", "numpy", "matplotlib", "typer", "rich")


def test_import_loads_no_framework(run_python):
    code = f"import sys, snn_dendrite_plugin\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_listing_plugins_loads_no_framework(run_python):
    code = (
        "import sys\nfrom snn_dendrite_plugin import plugins\n"
        "assert plugins.models() and plugins.adapters() and plugins.providers('ttfs') and plugins.installed_plugins()\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    assert run_python(code) == "[]"


def test_importing_the_conversion_subpackage_loads_no_framework(run_python):
    code = f"import sys, snn_dendrite_plugin.convert\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_import_time(run_python, tmp_path):
    timed = "import time\nstart = time.perf_counter()\nimport {}\nprint(time.perf_counter() - start)"
    # Installed packages come with compiled bytecode; give both sides the same cache, filled by a first, unused run.
    environment = {"PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}

    def measure(modules: str) -> float:
        return float(run_python(timed.format(modules), **environment))

    runs = [(measure("pluggy, wrapt"), measure("pluggy, wrapt, snn_dendrite_plugin")) for _ in range(10)][1:]
    added = min(ours for _, ours in runs) - min(base for base, _ in runs)
    assert added < LIMIT, f"importing snn_dendrite_plugin adds {added * 1e3:.1f} ms to pluggy and wrapt"
