"""The nested graph of a neuron, and the neuron of a nested graph. The form is that of the package's docstring."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import nir
import numpy as np

from .parameters import CLOSE, Parameters

__all__ = ["Nested", "Through", "collapse", "expand", "parse", "write"]

MARK = "snn_dendrite_plugin"  # metadata of our graphs: the name of the model


# -- as a graph ------------------------------------------------------------------------------------------------------


def write(p: Parameters, shape: tuple[int, ...], dt: float) -> nir.NIRGraph:
    """The nested graph of a neuron whose input has ``shape [Cx, *]`` without time and batch.

    Raises:
        ValueError: ``fold`` wiring with more than two axes after the channels.
    """
    fold = p.wiring == "fold"
    channels = shape[0] // p.branches if fold else shape[0]
    size, space = (channels, *shape[1:]), shape[1:]

    def full(rows: Any) -> np.ndarray:
        """``[C or 1]`` for every neuron."""
        return np.broadcast_to(np.reshape(rows, (-1, *[1] * len(space))), size).astype(np.float64)

    leak = 1 - p.theta[:, 1]
    perfect = bool((leak == 0).all())
    share = leak if p.scaled_soma else np.ones_like(leak)  # (1 - theta_1) R
    threshold, v_reset = full(p.threshold), full(p.v_reset)
    if perfect:
        soma = nir.IF(r=full(1 / dt), v_threshold=threshold, v_reset=v_reset)
    else:
        soma = nir.LIF(
            tau=full(dt / leak),
            r=full(1.0 if p.scaled_soma else 1 / leak),
            v_leak=full(p.theta[:, 0] / leak),
            v_threshold=threshold,
            v_reset=v_reset,
        )
    nodes: dict[str, nir.NIRNode] = {
        "input": nir.Input(np.array(shape)),
        "soma": soma,
        "output": nir.Output(np.array(size)),
    }
    edges = [("soma", "output")]
    if p.model == "LNM":
        nodes["direct"] = nir.Scale(full(p.direct / share))
        edges += [("input", "direct"), ("direct", "soma")]
    elif fold:
        _write_fold(p, nodes, edges, share, shape, channels, dt)
    else:
        for b in range(p.branches):
            rest = 1 - p.alpha[:, b]
            inside = rest if p.scaled_branches else np.ones_like(rest)  # (1 - alpha) R
            gain = 1.0 if p.gain is None else p.gain[:, b]
            offset = np.zeros_like(rest) if p.offset is None else p.offset[:, b]
            nodes[f"gain_{b}"] = nir.Scale(full(gain / inside))
            nodes[f"branch_{b}"] = nir.LI(tau=full(dt / rest), r=full(inside / rest), v_leak=full(offset / rest))
            nodes[f"strength_{b}"] = nir.Scale(full(p.strength[:, b] / share))
            names = ("input", f"gain_{b}", f"branch_{b}", f"strength_{b}", "soma")
            edges += zip(names, names[1:], strict=False)
        if (p.direct != 0).any():
            nodes["direct"] = nir.Scale(full(p.direct / share))
            edges += [("input", "direct"), ("direct", "soma")]
    return nir.NIRGraph(nodes, edges, metadata={MARK: p.model})


def _write_fold(p: Parameters, nodes, edges, share, shape, channels, dt) -> None:
    def wide(table: np.ndarray) -> np.ndarray:
        """``[C or 1, B]`` for every channel of the input."""
        flat = np.broadcast_to(table, (channels, p.branches)).reshape(-1, *[1] * (len(shape) - 1))
        return np.broadcast_to(flat, shape).astype(np.float64)

    rest = 1 - p.alpha
    gain = np.ones_like(rest) if p.gain is None else p.gain
    offset = np.zeros_like(rest) if p.offset is None else p.offset
    nodes["branches"] = nir.LI(tau=wide(dt / rest), r=wide(gain / rest), v_leak=wide(offset / rest))
    nodes["strength"] = _sums(p.strength / share[:, None], shape, channels, p.branches)
    edges += [("input", "branches"), ("branches", "strength"), ("strength", "soma")]
    if (p.direct != 0).any():
        table = np.broadcast_to((p.direct / share)[:, None], (len(share), p.branches))
        nodes["direct"] = _sums(table, shape, channels, p.branches)
        edges += [("input", "direct"), ("direct", "soma")]


def _sums(table: np.ndarray, shape: tuple[int, ...], channels: int, branches: int) -> nir.NIRNode:
    """Weighted sums over each neuron's channels, as a linear layer or a convolution of size 1."""
    weight = np.zeros((channels, channels * branches))
    for c, row in enumerate(np.broadcast_to(table, (channels, branches))):
        weight[c, c * branches : (c + 1) * branches] = row
    bias = np.zeros(channels)
    if len(shape) == 1:
        return nir.Linear(weight)
    if len(shape) == 2:
        return nir.Conv1d(shape[1], weight[..., None], 1, 0, 1, 1, bias)
    if len(shape) == 3:
        return nir.Conv2d(tuple(shape[1:]), weight[..., None, None], 1, 0, 1, 1, bias)
    raise ValueError(f"its input has {len(shape) - 1} axes after the channels, and NIR has convolutions of 1 and 2")


# -- and back --------------------------------------------------------------------------------------------------------


class Nested(nir.NIRNode):
    """A nested graph of ours as one node, so that a host's importer makes one module of it."""

    def __init__(self, graph: nir.NIRGraph) -> None:
        self.graph = graph
        self.input_type = {"input": next(iter(graph.input_type.values()))}
        self.output_type = {"output": next(iter(graph.output_type.values()))}
        self.metadata = graph.metadata


def collapse(graph: nir.NIRNode) -> nir.NIRNode:
    """``graph`` with a :class:`Nested` node for every nested graph of our form; the graph given is left as it is."""
    if not isinstance(graph, nir.NIRGraph):
        return graph
    if _is_ours(graph):
        node = Nested(graph)
        nodes = {"input": nir.Input(node.input_type), "neuron": node, "output": nir.Output(node.output_type)}
        return nir.NIRGraph(nodes, [("input", "neuron"), ("neuron", "output")], type_check=False)
    nodes = {
        name: Nested(node) if isinstance(node, nir.NIRGraph) and _is_ours(node) else node
        for name, node in graph.nodes.items()
    }
    return nir.NIRGraph(nodes, list(graph.edges), metadata=graph.metadata, type_check=False)


def expand(graph: nir.NIRGraph) -> nir.NIRGraph:
    """The opposite of :func:`collapse`."""
    nodes = {name: node.graph if isinstance(node, Nested) else node for name, node in graph.nodes.items()}
    return nir.NIRGraph(nodes, list(graph.edges), metadata=graph.metadata, type_check=False)


def _is_ours(graph: nir.NIRGraph) -> bool:
    mark = graph.metadata.get(MARK) if isinstance(graph.metadata, dict) else None
    mark = mark.decode() if isinstance(mark, bytes) else mark
    return mark in ("DendSN", "LNM") and isinstance(graph.nodes.get("soma"), (nir.LIF, nir.IF))


def parse(graph: nir.NIRGraph, dt: float) -> Parameters:
    """The numbers of the neuron that a nested graph of our form holds.

    Raises:
        ValueError: the graph was changed so that it is no neuron of ours any more; the message says where.
    """
    nodes = graph.nodes
    soma = nodes["soma"]
    mark = graph.metadata[MARK]
    if isinstance(soma, nir.IF):
        leak, offset, share = _rows(soma.r, "soma.r") * 0, 0.0, _rows(soma.r, "soma.r") * dt
    else:
        leak, share = dt / _rows(soma.tau, "soma.tau"), _rows(soma.r, "soma.r")
        offset, share = leak * _rows(soma.v_leak, "soma.v_leak"), share * leak
    rows = np.broadcast_arrays(leak, offset, share)
    v_reset = _rows(soma.v_reset, "soma.v_reset")
    if len(v_reset) > 1:
        raise ValueError("soma.v_reset differs between channels; a neuron of ours has one for the layer")
    common: dict[str, Any] = {
        "model": mark.decode() if isinstance(mark, bytes) else str(mark),
        "theta": np.stack((rows[1], 1 - rows[0]), axis=1),
        "threshold": _rows(soma.v_threshold, "soma.v_threshold"),
        "v_reset": float(v_reset[0]),
        "scaled_soma": isinstance(soma, nir.LIF) and np.allclose(soma.r, 1.0, **CLOSE),
    }
    share = rows[2]
    if "branches" in nodes:
        return _parse_fold(nodes, dt, share, common)
    direct = _rows(nodes["direct"].scale, "direct") * share if "direct" in nodes else share * 0
    count = sum(name.startswith("branch_") for name in nodes)
    if not count:
        none = dict.fromkeys(("alpha", "gain", "offset", "strength"))
        return Parameters(wiring="shared", direct=direct, **none, **common)
    columns: dict[str, list[np.ndarray]] = {"alpha": [], "gain": [], "offset": [], "strength": []}
    scaled = True
    for b in range(count):
        branch = nodes[f"branch_{b}"]
        rest = dt / _rows(branch.tau, f"branch_{b}.tau")
        r = _rows(branch.r, f"branch_{b}.r")
        scaled &= bool(np.allclose(r, 1.0, **CLOSE))
        columns["alpha"].append(1 - rest)
        columns["gain"].append(_rows(nodes[f"gain_{b}"].scale, f"gain_{b}") * r * rest)
        columns["offset"].append(_rows(branch.v_leak, f"branch_{b}.v_leak") * rest)
        columns["strength"].append(_rows(nodes[f"strength_{b}"].scale, f"strength_{b}") * share)
    tables = {name: np.stack(np.broadcast_arrays(*found), axis=1) for name, found in columns.items()}
    return Parameters(wiring="shared", direct=direct, scaled_branches=scaled, **tables, **common)


def _parse_fold(nodes, dt, share, common) -> Parameters:
    branches, strength = nodes["branches"], nodes["strength"].weight
    channels = strength.shape[0]
    fan = strength.shape[1] // channels

    def table(values: np.ndarray, name: str) -> np.ndarray:
        found = np.broadcast_to(_rows(values, f"branches.{name}"), (channels * fan,)).reshape(channels, fan)
        return found[:1] if (found == found[:1]).all() else found

    def weights(values: np.ndarray) -> np.ndarray:
        flat = values.reshape(channels, channels, fan)
        found = flat[np.arange(channels), np.arange(channels)] * share[:, None]
        if np.count_nonzero(flat) > np.count_nonzero(found):
            raise ValueError("strength connects channels of different neurons; branches of ours belong to one neuron")
        return found[:1] if (found == found[:1]).all() else found

    rest = dt / table(branches.tau, "tau")
    r = table(branches.r, "r")
    offset = table(branches.v_leak, "v_leak") * rest
    direct = weights(nodes["direct"].weight)[:, 0] if "direct" in nodes else np.zeros(1)
    return Parameters(
        wiring="fold",
        alpha=1 - rest,
        gain=r * rest,
        offset=offset if offset.any() else None,
        strength=weights(strength),
        direct=direct,
        scaled_branches=bool(np.allclose(r, 1.0, **CLOSE)),
        **common,
    )


def _rows(values: Any, name: str) -> np.ndarray:
    """``[C, *]`` as one value, or one per channel."""
    values = np.asarray(values, dtype=np.float64)
    values = values.reshape(values.shape[0], -1) if values.ndim else values.reshape(1, 1)
    if (values != values[:, :1]).any():
        raise ValueError(f"{name} differs between positions; a neuron of ours has one value for a channel")
    column = values[:, 0]
    return column[:1].copy() if (column == column[0]).all() else column.copy()


class Through:
    """A module seen through: its own names, but for those given here."""

    def __init__(self, module: ModuleType, **own: Callable[..., Any]) -> None:
        self._module = module
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
