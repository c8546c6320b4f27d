"""``snn-dendrite bench``: ours against the hosts' own neurons and the other ways to run a dendritic layer, in one run.

All contestants of a case take turns round by round, so that a noisy machine is noisy for all of them alike; read the
ratios. Times are the 20, 50 and 80 % quantiles over the rounds. Bandwidth is the ideal traffic (inputs read and outputs
written once, see :func:`.baselines.ideal_accesses`) over the time, as a share of a copy of the same tensor measured in
the same rounds.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib.metadata
import logging
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from .. import tables
from ..kernels.providers import ProviderError, explain, use_provider
from ..kernels.soma_dendrite import Settings
from ..suggest import one_of
from . import baselines

__all__ = ["CASES", "Case", "Result", "bench", "check", "environment", "plot", "table", "write_csv"]

log = logging.getLogger("snn_dendrite_plugin")


@dataclasses.dataclass(frozen=True)
class Case:
    """One input and the model that takes it."""

    model: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    matrix: bool = True  # whether the O(T^2) form fits

    @property
    def label(self) -> str:
        return f"{self.model} {list(self.shape)} {str(self.dtype).removeprefix('torch.')}"


@dataclasses.dataclass(frozen=True)
class Result:
    """Quantiles of one contestant in one case, in milliseconds; ``held`` is what it keeps for backward, in MB."""

    case: Case
    contestant: str
    mode: str
    low: float
    median: float
    high: float
    ratio: float  # median over the median of SpikingJelly's LIFNode (or of the copy where that host is missing)
    bandwidth: float  # share of the copy bandwidth
    held: float


# CPU sizes: a convolutional layer (2.1 M values) at several T, a dense layer, and one small enough to be launch-bound.
CASES = {
    "targets": [
        Case("DendSN fold", (8, 16, 64, 256)),
        Case("LNM", (8, 16, 64, 256)),
        Case("DendSN fold", (256, 4, 64, 32), matrix=False),
        Case("LNM", (256, 4, 64, 32)),
        Case("DendSN shared", (32, 64, 1024)),
    ],
    "lengths": [
        Case(model, (t, max(1, 64 // t), 64, 256), matrix=t <= 64)
        for model in ("DendSN fold", "DendSN shared", "LNM")
        for t in (1, 4, 16, 64, 256)
    ],
    "sizes": [Case(model, (8, n, 64, 64)) for model in ("DendSN fold", "LNM") for n in (1, 8, 64)],
    "gpu": [
        Case(model, (t, 2**25 // (64 * 1024 * t), 64, 1024), dtype, matrix=t <= 16)
        for model in ("DendSN fold", "DendSN shared", "LNM")
        for dtype in (torch.float32, torch.bfloat16)
        for t in (4, 8, 16, 64, 256)
    ],
}

# What ratios are to, the first of these that ran, and how a table's header calls it.
BASELINES = {"SpikingJelly LIFNode": "LIFNode", "point network (LIFNode)": "point network", "copy": "copy"}
TRAINING = "training"  # the preset of bench_training.training_step


def environment(device: torch.device) -> dict[str, str]:
    """Versions and machine class, for the table's caption and the CSV."""
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("triton", "spikingjelly", "snntorch", "snn-dendrite-plugin"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        capability = torch.backends.cpu.get_cpu_capability()
        machine = f"{platform.machine()} {capability}, {torch.get_num_threads()} threads"
    return {"device": machine, **versions}


def _providers(model: str, device: torch.device, dtype: torch.dtype) -> list[str]:
    settings = baselines.MODELS[model]().core_settings()
    found = explain("soma_dendrite", device, dtype, Settings(**settings))
    return [name for name, reason in found if reason is None]


def _forced(name: str, contestant: baselines.Contestant) -> baselines.Contestant:
    def forward(x: Tensor) -> Tensor:
        with use_provider(name):
            return contestant(x)

    forward.provider = name  # type: ignore[attr-defined]
    return forward


def contestants(case: Case, device: torch.device, compile_too: bool) -> dict[str, baselines.Contestant]:
    """Everyone who can run a case on this machine, ours first; an absent host is left out and said in the log.

    ``op and kernel`` calls the model without a host, once for each provider; the rows named like a class of a host are
    what its users call, with the reset, and run on the provider that is chosen there.
    """
    torch.manual_seed(0)
    model = baselines.MODELS[case.model]().to(device)
    runs: dict[str, baselines.Contestant] = {}
    for name in _providers(case.model, device, case.dtype):
        if name == "triton" and device.type == "cpu":
            continue  # the interpreter is for tests
        runs[f"ours, op and kernel ({name})"] = _forced(name, baselines.fused(model))
    optional: list[tuple[str, Callable[[], baselines.Contestant]]] = [
        (f"ours, neuron.{baselines.node_name(case.model)}", lambda: baselines.node_spikingjelly(case.model, device)),
        ("SpikingJelly LIFNode", baselines.lif_spikingjelly),
        ("snnTorch Leaky loop", baselines.leaky_snntorch),
    ]
    if case.model == "DendSN shared" and len(case.shape) == 3:
        optional.insert(0, ("ours, snn.DendriticParallel", lambda: baselines.parallel_snntorch(device)))
    if case.model == "LNM" and device.type == "cuda":
        optional.append(("SpikingJelly FlexSN", lambda: baselines.flexsn_lnm(model.theta)))
    for name, build in optional:
        try:
            contestant = build()
            runs[name] = contestant.to(device) if isinstance(contestant, torch.nn.Module) else contestant
        except (ImportError, AttributeError) as error:
            log.warning("%s is left out: %s: %s", name, type(error).__name__, error)
    runs["plain torch loop"] = baselines.loop(model)
    if compile_too and case.shape[0] <= 16:
        runs["torch.compile of the loop"] = baselines.compiled_loop(model)
    if case.model == "DendSN fold" and case.matrix:
        runs["T x T matrix form"] = baselines.matrix_form(model)
    return runs


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_of(action: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        action()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    action()
    return (time.perf_counter() - begin) * 1e3


def _held(contestant: baselines.Contestant, x: Tensor, device: torch.device) -> float:
    """MB that a forward pass keeps for its backward pass: device memory, or on the CPU the tensors autograd saves."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        out = contestant(x)
        held = torch.cuda.memory_allocated(device) - before - out.numel() * out.element_size()
        return max(held, 0) / 1e6
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        contestant(x)
    seen.pop(x.untyped_storage().data_ptr(), None)
    return sum(seen.values()) / 1e6


def run_case(
    case: Case, device: torch.device, rounds: int, compile_too: bool, budget: float = 20.0, alone: bool = False
) -> list[Result]:
    """Measure one case: forward, and forward plus backward, all contestants in turn, or each ``alone`` in a row."""
    x = torch.rand(case.shape, device=device, dtype=case.dtype).mul_(1.5).requires_grad_()
    target = torch.empty_like(x)
    runs = contestants(case, device, compile_too)
    actions: dict[tuple[str, str], Callable[[], object]] = {("copy", "forward"): lambda: target.copy_(x.detach())}
    held = {}
    for name, contestant in runs.items():
        provider = getattr(contestant, "provider", None)
        try:
            out = contestant(x)
        except ProviderError as error:
            log.warning("%s: %s", name, error)
            continue
        gradient = torch.rand_like(out)
        del out

        def forward(contestant=contestant):
            with torch.no_grad():
                contestant(x)

        def both(contestant=contestant, gradient=gradient, provider=provider):
            x.grad = None
            spikes = contestant(x)
            if provider is None:
                spikes.backward(gradient)
            else:
                with use_provider(provider):
                    spikes.backward(gradient)

        actions[name, "forward"] = forward
        actions[name, "forward+backward"] = both
        held[name] = _held(contestant, x, device)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in actions}
    for action in actions.values():  # warm up, compile, autotune
        action()
        action()
    _synchronise(device)
    groups = [[key] for key in actions] if alone else [list(actions)]
    for group in groups:
        begin = time.perf_counter()
        for i in range(rounds):
            for key in group:
                times[key].append(time_of(actions[key], device))
            if i >= 4 and time.perf_counter() - begin > budget / len(groups):
                break
    medians = {key: statistics.median(values) for key, values in times.items()}
    size = x.element_size() * x.numel()
    copy_rate = 2 * size / medians["copy", "forward"]
    results = []
    for (name, mode), values in times.items():
        base = medians.get((next(iter(BASELINES)), mode), medians["copy", "forward"])
        traffic = 2 * size if name == "copy" else baselines.bytes_moved(case.model, x, mode != "forward")
        low, _, _, high = statistics.quantiles(values, n=5, method="inclusive")
        results.append(
            Result(
                case, name, mode, low, medians[name, mode], high, medians[name, mode] / base,
                traffic / medians[name, mode] / copy_rate, held.get(name, 0.0),
            )
        )  # fmt: skip
    return results


def check(preset: str, device: str) -> None:
    """Raises ``ValueError`` for an unknown preset or device, ``RuntimeError`` for one that is not there."""
    one_of("preset", preset, (*CASES, TRAINING))
    one_of("device", device.partition(":")[0], ("cpu", "cuda"))
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise RuntimeError("device is 'cuda' but torch sees no CUDA device")


def bench(
    preset: str = "targets",
    device: str | torch.device = "cpu",
    rounds: int = 30,
    compile_too: bool = False,
    alone: bool = False,
) -> list[Result]:
    """Run a preset of :data:`CASES`; with ``alone`` each contestant repeats on its own, its data still in the caches.

    The preset ``training`` is :func:`~snn_dendrite_plugin.bench.training.training_step`.

    Raises:
        ValueError: an unknown preset.
        RuntimeError: the device is not there.

    Example::

        >>> from snn_dendrite_plugin.bench.measure import bench, table
        >>> print(table(bench("targets", rounds=5)))            # doctest: +SKIP
    """
    check(preset, str(device))
    device = torch.device(device)
    if preset == TRAINING:
        from .training import training_step

        return training_step(device, rounds)
    results = []
    for case in CASES[preset]:
        results += run_case(case, device, rounds, compile_too, alone=alone)
    return results


def _baseline(results: Iterable[Result]) -> str:
    """The contestant that the ratios of one case and mode are to; without a host it is the copy, always forward."""
    ran = {r.contestant for r in results}
    return next((name for name in BASELINES if name in ran), "copy")


def _blocks(results: Iterable[Result]) -> list[list[Result]]:
    """The results of each case and mode, in the order of the table."""
    blocks: dict[tuple[str, bool], list[Result]] = {}
    for result in results:
        blocks.setdefault((result.case.label, result.mode != "forward"), []).append(result)
    return [blocks[key] for key in sorted(blocks)]


def table(results: Iterable[Result], width: int | None = None) -> str:
    """A plain text table, folded to a width, one block per case and mode; its header says what the ratios are to."""
    texts = []
    for block in _blocks(results):
        rows = []
        for r in block:
            measured = not math.isnan(r.held)
            rest = [f"{r.bandwidth:.1%}", f"{r.held:.1f}"] if measured else ["", ""]
            rows.append([r.contestant, f"{r.low:.3f}", f"{r.median:.3f}", f"{r.high:.3f}", f"{r.ratio:.3f}", *rest])
        columns = ["ms", "20 %", "median", "80 %", f"x {BASELINES[_baseline(block)]}", "of copy", "held MB"]
        texts.append(f"{block[0].case.label}, {block[0].mode}\n{tables.plain(columns, rows, columns[1:], width)}")
    return "\n\n".join(texts)


def write_csv(results: Iterable[Result], path: str | Path, device: torch.device) -> None:
    """All results with the environment in every row."""
    fixed = environment(device)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "shape", "dtype", "contestant", "mode", "ms_20", "ms_50", "ms_80", "ratio",
                         "ratio_to", "share_of_copy_bandwidth", "held_mb", *fixed])  # fmt: skip
        for block in _blocks(results):
            baseline = _baseline(block)
            for r in block:
                shape = "x".join(map(str, r.case.shape))
                writer.writerow([r.case.model, shape, str(r.case.dtype).removeprefix("torch."), r.contestant, r.mode,
                                 r.low, r.median, r.high, r.ratio, baseline, r.bandwidth, r.held,
                                 *fixed.values()])  # fmt: skip


def plot(results: Iterable[Result], path: str | Path) -> None:
    """Bars of the forward plus backward times, one panel per case, on a log scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [r for r in results if r.mode != "forward"]
    labels = list(dict.fromkeys(r.case.label for r in rows))
    figure, axes = pyplot.subplots(len(labels), 1, figsize=(7, 1 + 1.9 * len(labels)), squeeze=False)
    for ax, label in zip(axes[:, 0], labels, strict=True):
        chosen = sorted((r for r in rows if r.case.label == label), key=lambda r: -r.median)
        colours = ["#d55e00" if r.contestant.startswith("ours") else "#56b4e9" for r in chosen]
        errors = [[r.median - r.low for r in chosen], [r.high - r.median for r in chosen]]
        ax.barh([r.contestant for r in chosen], [r.median for r in chosen], xerr=errors, color=colours)
        ax.set_xscale("log")
        ax.set_title(label, fontsize=9)
        ax.tick_params(labelsize=8)
    axes[-1, 0].set_xlabel("forward + backward, ms (median; 20 to 80 %)")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
