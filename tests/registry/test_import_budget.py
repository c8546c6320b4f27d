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


def test_modules_that_need_torch_load_nothing_else_before_they_are_used(run_python):
    heavy = sorted({*HEAVY} - {"torch", "numpy"})  # torch brings numpy
    code = f"""
import sys
import snn_dendrite_plugin.kernels.soma_dendrite.triton.provider
import snn_dendrite_plugin.kernels.ttfs.triton.provider
import snn_dendrite_plugin.plotting
print(sorted(set({heavy!r}) & set(sys.modules)))"""
    assert run_python(code) == "[]"


def test_import_time(run_python, tmp_path):
    # CPU time: on a busy machine the wall clock measures the neighbours.
    code = """
import time
import pluggy, wrapt
start = time.process_time()
import snn_dendrite_plugin
print(time.process_time() - start)
"""
    # Installed packages come with compiled bytecode; so do these, from a first, unused run.
    environment = {"PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    run_python(code, **environment)
    # The minimum only approaches the undisturbed cost from above: five rounds, and more while there is doubt.
    added = min(float(run_python(code, **environment)) for _ in range(5))
    for _ in range(35):
        if added < LIMIT:
            break
        added = min(added, float(run_python(code, **environment)))
    assert added < LIMIT, f"importing snn_dendrite_plugin adds {added * 1e3:.1f} ms to pluggy and wrapt"
