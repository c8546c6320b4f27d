"""Distributions laid out as installed ones are, for plugins that come by entry points."""

from __future__ import annotations

import textwrap
from pathlib import Path


def install(site: Path, distribution: str, entry_points: str, module: str = "", code: str = "") -> Path:
    """Lay out an installed distribution in ``site``, metadata and all."""
    metadata = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[snn_dendrite_plugin]\n{entry_points}\n")
    if module:
        (site / f"{module}.py").write_text(textwrap.dedent(code))
    return site


def registering(**fields) -> str:
    return f"""
    from snn_dendrite_plugin import hookimpl

    @hookimpl
    def snn_dendrite_register_models(register):
        register(**{fields!r})
    """
