"""``snn-dendrite list``: which neuron models, host adapters, kernel providers and plugins there are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from .. import plugins
from ..specs import OPS
from .settings import source, version_of
from .terminal import console, heading, show_table

__all__ = ["command", "inventory"]


def inventory() -> dict[str, list[dict[str, Any]]]:
    """Everything registered, as plain data by kind, ``models``, ``layers`` and so on. Imports no host.

    Example:
        >>> from snn_dendrite_plugin.commands.list import inventory
        >>> inventory()["models"][0]["hosts"]
        {'spikingjelly': ['DendSN'], 'snntorch': ['Dendritic', 'DendriticParallel']}
    """
    adapters = plugins.adapters().values()
    return {
        "models": [_shown(model, adapters) for model in plugins.models().values()],
        "layers": [_shown(layer, adapters) for layer in plugins.layers().values()],
        "conversions": [_shown(conversion) for conversion in plugins.conversions().values()],
        "adapters": [
            {
                "name": adapter.name,
                "host": adapter.host,
                "host_version": version_of(adapter.host),
                "trigger": adapter.trigger,
                "summary": adapter.summary,
            }
            for adapter in adapters
        ],
        "providers": [
            {"op": op, "name": spec.name, "priority": spec.priority, "summary": spec.summary}
            for op in OPS
            for spec in plugins.providers(op)
        ],
        "plugins": [
            {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "hooks": list(info.hooks),
                "error": info.error,
            }
            for info in plugins.installed_plugins()
        ],
    }


def _shown(spec: Any, adapters: Iterable[Any] = ()) -> dict[str, Any]:
    """A model, layer or conversion as plain data, with its names in the hosts."""
    version = version_of(spec.distribution) if spec.distribution else None
    hosts = {adapter.host: spec.names_in(adapter.host) for adapter in adapters}
    return {
        "name": spec.name,
        **({"hosts": hosts} if hosts else {}),
        "summary": spec.summary,
        "distribution": spec.distribution,
        "version": version,
    }


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List neuron models, layers, conversions, hosts, kernel providers and plugins.

    Example: snn-dendrite list --json
    """
    found = inventory()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    out = console()
    hosts = [adapter["host"] for adapter in found["adapters"]]
    for title, kind in (("Neuron models", "models"), ("Synaptic layers", "layers")):
        if found[kind]:
            heading(out, title)
            show_table(
                out,
                [kind.removesuffix("s"), *[f"in {host}" for host in hosts], "what it is", "from"],
                [
                    [m["name"], *[", ".join(m["hosts"][host]) for host in hosts], m["summary"], source(m)]
                    for m in found[kind]
                ],
            )
    heading(out, "Conversions")
    out.print("Beside every neuron model, convert(to=...) takes:")
    show_table(out, ["to", "what it is", "from"], [[c["name"], c["summary"], source(c)] for c in found["conversions"]])
    heading(out, "Host adapters")
    show_table(
        out,
        ["adapter", "host", "installed", "activated by the import of"],
        [[a["name"], a["host"], a["host_version"] or "no", a["trigger"]] for a in found["adapters"]],
    )
    heading(out, "Kernel providers")
    out.print("Of those that can run a call the highest priority does; `snn-dendrite doctor` tells which.")
    show_table(
        out,
        ["operation", "provider", "priority", "what it is"],
        [[p["op"], p["name"], p["priority"], p["summary"]] for p in found["providers"]],
        right=["priority"],
    )
    heading(out, "Plugins")
    show_table(
        out,
        ["plugin", "from", "offers", "state"],
        [
            [p["name"], source(p), ", ".join(h.rpartition("_")[2] for h in p["hooks"]), p["error"] or "ok"]
            for p in found["plugins"]
        ],
    )
