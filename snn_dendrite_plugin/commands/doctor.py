"""``snn-dendrite doctor``: versions, hosts, plugins, and which kernel provider runs where and why; what is broken."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from .. import plugins
from .settings import source, version_of
from .terminal import console, heading, show_table

__all__ = ["check_providers", "command", "examine"]

_PACKAGES = ("snn-dendrite-plugin", "torch", "spikingjelly", "snntorch", "triton", "cupy", "numpy", "pluggy", "wrapt",
             "typer", "rich", "matplotlib", "scikit-learn", "nir")  # fmt: skip
_CUPY = ("cupy", "cupy-cuda12x", "cupy-cuda13x", "cupy-cuda11x")  # one package under several names


def examine(check: bool = False) -> dict[str, Any]:
    """Look at the installation; ``problems`` lists what is broken, and is empty on a healthy one.

    A host that is not installed, or a provider that cannot run here, is no problem. ``check`` also runs every provider
    that can run and compares it with the reference.

    Example:
        >>> from snn_dendrite_plugin.commands.doctor import examine
        >>> report = examine()
        >>> sorted(report)
        ['adapters', 'checks', 'environment', 'machine', 'plugins', 'problems', 'providers', 'slow', 'versions']
    """
    problems: list[str] = []
    report: dict[str, Any] = {
        "versions": _versions(),
        "machine": _machine(problems),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith("SNN_DENDRITE_")},
        "plugins": _plugins(problems),
        "adapters": _adapters(problems),
        "providers": _providers(problems),
        "checks": check_providers(problems) if check else [],
    }
    report["slow"] = _slow(report["providers"])
    report["problems"] = list(dict.fromkeys(problems))  # each once, in order
    return report


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        found[package] = _version(package) or "not installed"
    return found


def _version(package: str) -> str | None:
    names = _CUPY if package == "cupy" else (package,)
    return next((v for v in map(version_of, names) if v), None)


def _machine(problems: list[str]) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"system": f"{platform.system()} {platform.machine()}", "processor": _processor(), "cores": str(cores)}
    compiler = os.environ.get("CXX") or next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    found["C++ compiler"] = compiler or "none found"
    try:
        import torch
    except Exception as error:
        problems.append(f"torch cannot be imported: {type(error).__name__}: {error}")
        return found
    found["torch threads"] = str(torch.get_num_threads())
    found["vector instructions"] = torch.backends.cpu.get_cpu_capability()
    found["CUDA of torch"] = torch.version.cuda or "none (a build for the CPU)"
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            found[f"cuda:{i}"] = f"{p.name}, compute capability {p.major}.{p.minor}, {p.total_memory / 2**30:.0f} GiB"
    else:
        found["GPU"] = "none that torch can use"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _plugins(problems: list[str]) -> list[dict[str, Any]]:
    found = []
    for info in plugins.installed_plugins():
        item: dict[str, Any] = {"name": info.name, "distribution": info.distribution, "version": info.version}
        left_out = bool(info.error and info.error.startswith("not selected"))
        item["state"], item["seconds"] = info.error or "ok", info.seconds
        if info.error and not left_out:
            problems.append(f"plugin {info.name!r} ({source(item)}): {info.error}")
        found.append(item)
    return found


def _adapters(problems: list[str]) -> list[dict[str, Any]]:
    """Import every installed host and see which neurons the adapters show there."""
    found = []
    for spec in plugins.adapters().values():
        item: dict[str, Any] = {"name": spec.name, "host": spec.host, "version": version_of(spec.host), "neurons": []}
        found.append(item)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                host = importlib.import_module(spec.trigger)
                importlib.import_module("snn_dendrite_plugin").activate()
        except Exception as error:
            if item["version"] is None:
                item["state"] = "host not installed"
            else:
                item["state"] = f"host cannot be imported: {type(error).__name__}: {error}"
                problems.append(f"{spec.host} {item['version']}: {item['state']}")
            continue
        own = [str(w.message) for w in caught if issubclass(w.category, plugins.PluginWarning)]
        problems.extend(own)
        names = [name for model in plugins.models().values() for name in model.names_in(spec.host)]
        item["neurons"] = [name for name in names if hasattr(host, name)]
        missing = [name for name in names if name not in item["neurons"]]
        item["state"] = "active" if not missing else f"active, without {', '.join(missing)}"
        if missing and not own:
            problems.append(f"{spec.host} {item['version']} lacks {', '.join(missing)} after activation")
    return found


# -- providers -----------------------------------------------------------------------------------------------------


def _devices() -> list[str]:
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


class _Case(NamedTuple):
    """A typical call of an operation, and the model that makes it."""

    op: str
    label: str
    settings: Any
    model: Callable[[], Any]
    binary: bool = False  # the input is spikes


def _cases() -> list[_Case]:
    """A typical call of every operation; one whose operation cannot be imported is left out."""
    from ..kernels.soma_dendrite.contract import Settings
    from ..neurons.dendsn import DendSN
    from ..neurons.lnm import LNM

    cases = [
        _Case("soma_dendrite", "DendSN, 4 branches", Settings(branches=4), lambda: DendSN(4, strength_init=0.3)),
        _Case("soma_dendrite", "LNM", Settings(), lambda: LNM(theta=[0.01, 0.5, 0.05, 0.02])),
    ]
    try:
        from ..kernels.ttfs.contract import Settings as WindowSettings
        from ..neurons.ttfs import TTFS
    except ImportError:
        return cases
    return [*cases, _Case("ttfs", "TTFS, 16 steps", WindowSettings(steps=16), lambda: TTFS(steps=16), binary=True)]


def _providers(problems: list[str]) -> list[dict[str, Any]]:
    """For every operation and device: who runs a float32 call, and why not each of the others."""
    try:
        import torch

        from ..kernels import providers
    except Exception:  # torch's absence is told already
        return []
    found = []
    for op, label, settings, *_ in _cases():
        for device in map(torch.device, _devices()):
            item: dict[str, Any] = {"op": op, "case": label, "device": device.type, "runs": None, "others": {}}
            found.append(item)
            if not plugins.providers(op):  # left out by choice: see the plugins
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of the slow provider: told below
                    item["runs"] = providers.choose(op, device, torch.float32, settings).name
            except providers.ProviderError as error:
                problems.append(f"{op} on {device.type}: {error}")
            for name, reason in providers.explain(op, device, torch.float32, settings):
                if name != item["runs"]:
                    item["others"][name] = _not_installed(name) or reason or _why_idle(op, name, device.type, providers)
    return found


def _not_installed(provider: str) -> str | None:
    """That the package a provider is called after is missing, which comes before all else that it lacks."""
    if provider not in ("triton", "cupy") or _version(provider) is not None:
        return None
    return f'{provider} is not installed: pip install "snn-dendrite-plugin[{provider}]"'


def _slow(found: list[dict[str, Any]]) -> list[str]:
    """What runs on the reference, a loop in PyTorch, although it was not asked for by name."""
    from ..kernels import providers

    slow = [p for p in found if p["runs"] == providers.REFERENCE and p["others"] and providers.forced() is None]
    return list(dict.fromkeys(f"{p['op']} on {p['device']} has no compiled kernel here and runs slowly" for p in slow))


def _why_idle(op: str, name: str, device: str, providers: Any) -> str:
    """Why a provider that could run a call was not chosen for it."""
    if providers.forced() is not None:
        return f"can run; {providers.forced()!r} is chosen explicitly"
    provider = next(spec.load() for spec in plugins.providers(op) if spec.name == name)
    if providers.idle_on(provider, device):
        return f"can run, but is not chosen automatically on {device}"
    return "can run, at a lower priority"


def check_providers(problems: list[str]) -> list[dict[str, Any]]:
    """Run every provider that can run, forward and backward, and compare it with the reference.

    Returns one row per operation, device and provider, also for those that cannot run, with the number of spikes that
    differ and the relative error of the gradient; appends to ``problems`` what is off. Compiled providers may compile
    first, which takes up to a minute.
    """
    import torch

    from ..kernels import providers

    rows = []
    for case in _cases():
        op = case.op
        for device in map(torch.device, _devices()):
            reasons = dict(providers.explain(op, device, torch.float32, case.settings))
            results = {}
            for name in sorted(reasons, key=lambda n: n != providers.REFERENCE):  # the reference first
                row: dict[str, Any] = {"op": op, "case": case.label, "device": device.type, "provider": name}
                rows.append(row)
                if reasons[name] is not None:
                    row["result"] = f"not run: {_not_installed(name) or reasons[name]}"
                    continue
                try:
                    with providers.use_provider(name):
                        results[name] = _run_once(case, device)
                except Exception as error:
                    row["result"] = f"{type(error).__name__}: {error}"
                    problems.append(f"provider {name!r} fails {op} on {device.type}: {row['result']}")
                    continue
                spikes, gradient = results[name]
                wanted, reference = results.get(providers.REFERENCE, results[name])
                flipped = int((spikes != wanted).sum())
                error_ratio = float((gradient - reference).norm() / reference.norm().clamp_min(1e-12))
                row["result"] = f"{flipped} of {spikes.numel()} spikes differ, gradient off by {error_ratio:.1e}"
                if flipped > spikes.numel() // 1000 or not error_ratio < 1e-2:
                    problems.append(f"provider {name!r} of {op} on {device.type} disagrees with torch: {row['result']}")
    return rows


def _run_once(case: _Case, device: Any) -> tuple[Any, Any]:
    """Spikes and input gradient of one call."""
    import torch

    from ..kernels.surrogates import Surrogate
    from ..neurons.base import Firing

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, 8, 64, generator=generator).to(device)
    if case.binary:
        x = (x > 0.9).float()
    x.requires_grad_()
    spikes, _ = case.model().to(device).run(x, firing=Firing(surrogate=Surrogate("atan")))
    (spikes * torch.linspace(0, 1, spikes.shape[0], device=device).reshape(-1, 1, 1)).sum().backward()
    assert x.grad is not None
    return spikes.detach().cpu(), x.grad.cpu()


# -- the command ---------------------------------------------------------------------------------------------------


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Also run every kernel provider and compare it with the reference.")
    ] = False,
) -> None:
    """Tell versions, hosts, plugins, and who runs which kernel.

    Ends with code 1 if something is broken: a plugin, a host that is installed but does not import, a neuron that
    could not be added to a host, or a provider that was forced but cannot run. Nothing is run without --check: what a
    provider can do is what it says of itself.

    Example: snn-dendrite doctor --check
    """
    report = examine(check)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _show(report)
    if report["problems"]:
        raise typer.Exit(1)


def _show(report: dict[str, Any]) -> None:
    out = console()
    heading(out, "Versions")
    show_table(out, ["package", "version"], report["versions"].items())
    heading(out, "Machine")
    show_table(out, ["part", "what it is"], report["machine"].items())
    if report["environment"]:
        heading(out, "Environment")
        show_table(out, ["variable", "value"], [[k, v or "(empty)"] for k, v in report["environment"].items()])
    heading(out, "Plugins")
    show_table(
        out,
        ["plugin", "from", "seconds", "state"],
        [[p["name"], source(p), f"{p['seconds']:.3f}", p["state"]] for p in report["plugins"]],
        right=["seconds"],
    )
    heading(out, "Hosts")
    show_table(
        out,
        ["host", "version", "state", "neurons added"],
        [[a["host"], a["version"] or "-", a["state"], ", ".join(a["neurons"])] for a in report["adapters"]],
    )
    heading(out, "Kernels: which provider runs a float32 call, and why not the others")
    if not report["checks"]:
        out.print("As they say themselves; none was run: --check runs them and compares the results.")
    rows = []
    for p in report["providers"]:
        rows.append([p["op"], p["case"], p["device"], p["runs"] or "NONE", "runs"])
        rows.extend(["", "", "", f"({name})", reason] for name, reason in p["others"].items())
    show_table(out, ["operation", "call", "device", "provider", "why"], rows)
    if report["checks"]:
        heading(out, "Providers compared with the reference")
        show_table(
            out,
            ["operation", "call", "device", "provider", "result"],
            [[c["op"], c["case"], c["device"], c["provider"], c["result"]] for c in report["checks"]],
        )
    for line in report["slow"]:
        out.print(f"\nSlow: {line}", soft_wrap=True, markup=False)
    if not report["problems"]:
        out.print("\nNothing is broken.")
        return
    heading(out, f"Broken: {len(report['problems'])}")
    for problem in report["problems"]:
        out.print(f"- {problem}", soft_wrap=True, markup=False)
