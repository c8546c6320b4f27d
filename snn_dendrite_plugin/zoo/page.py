"""The zoo page: every model of SpikingJelly's zoo built with a dendritic neuron, and converted with each wiring."""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
import platform
import re
from collections.abc import Iterator
from typing import Any

import torch
from spikingjelly.activation_based import functional, neuron
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .. import __version__, tables
from ..conversion.api import convert, report, revert
from ..conversion.surgery import count_parameters
from ..conversion.wiring import WIRINGS
from .models import CONSTRUCTORS, TINY, Case, first, make

__all__ = ["SAMPLE", "Measured", "Wired", "column_names", "measure", "page", "rows"]

BRANCHES = 4
SAMPLE = {  # quick ones, with every column of both tables in use
    True: ("SEWResNet", "SpikingVGG", "Spikformer", "MASNN", "SNASNet cell"),
    False: ("sew_resnet18", "spiking_vgg11_bn", "maxformer_cifar", "ottt_spiking_vgg11_ws", "SNASNet"),
}
_GENERAL = (  # a reason names the layers; the page counts the kinds of reasons
    (r"^\S+ \(\w+\): (.*)", r"\1"),
    (r"^\S+ \((\w+)\) lies between.*", r"a \1 lies between"),
    (r"^its layer \S+ is a (\w+),.*", r"its layer is a \1"),
    (r"^its layer \S+ feeds several neurons.*", "its layer feeds several neurons"),
    (r"^several layers feed it.*", "several layers feed it"),
    (r"^the output of \S+ also goes .*", "its layer's output also goes elsewhere"),
    (r"^the channels of \S+ do", "its layer's channels do"),
)


@dataclasses.dataclass(frozen=True)
class Wired:
    """A model after conversion with one wiring.

    Attributes:
        converted, kept: numbers of neurons exchanged, and left as they are.
        rewired: neurons whose layer was rewritten.
        parameters, multiply_adds: of the converted model; multiply-adds of one forward pass.
        difference: largest difference of the outputs in float64; flips, spikes: neuron-steps that differ, and compared.
            None without data.
        reasons: why neurons were wired ``shared`` instead, with their number.
    """

    converted: int
    kept: int
    rewired: int
    parameters: int
    multiply_adds: int
    difference: float | None
    flips: int | None
    spikes: int
    reasons: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Measured:
    """One row: a model as a point network, as built with ``spiking_neuron=``, and converted with each wiring.

    Attributes:
        builds: ``yes``, ``no such argument``, or the error.
        wired: per wiring what came of it, or the error.
    """

    name: str
    shape: tuple[int, ...]
    builds: str
    parameters: int
    multiply_adds: int
    wired: dict[str, Wired | str]


def measure(name: str, tiny: bool) -> Measured:
    """Build and convert one model: with data in float64 where ``tiny``, else in full size on the meta device."""
    case = (TINY if tiny else CONSTRUCTORS)[name]
    if tiny:
        model, x = make(name)
    else:
        x = torch.empty(case.shape, device="meta")
        with torch.device("meta"):
            model = case.build(None).eval()
    output, multiply_adds = _forward(model, x)
    wired: dict[str, Wired | str] = {}
    for wiring in WIRINGS:
        try:
            convert(model, to="DendSN", branches=BRANCHES, wiring=wiring, example_input=x)
        except (ValueError, TypeError) as error:
            wired[wiring] = f"{type(error).__name__}: {error}"
            continue
        wired[wiring] = _wired(model, x, output)
        revert(model)
    return Measured(name, case.shape, _builds(case, x, output), count_parameters(model), multiply_adds, wired)


def _forward(model: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """Output of one pass from reset states, and its multiply-adds."""
    functional.reset_net(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = first(model(x))
    functional.reset_net(model)
    return output, counter.get_total_flops() // 2


def _wired(model: nn.Module, x: Tensor, expected: Tensor) -> Wired:
    told: Any = report(model)
    output, multiply_adds = _forward(model, x)
    if output.shape != expected.shape:
        raise RuntimeError(f"converted, the output has shape {tuple(output.shape)}, before {tuple(expected.shape)}")
    notes = [n.removeprefix("shared: ") for line in told.converted for n in line.notes if n.startswith("shared: ")]
    reasons = collections.Counter(_general(note) for note in notes)
    reasons.update(f"kept: {line.reason}" for line in told.skipped)
    return Wired(
        converted=len(told.converted),
        kept=len(told.skipped),
        rewired=sum(bool(line.layer) for line in told.converted),
        parameters=count_parameters(model),
        multiply_adds=multiply_adds,
        difference=told.output_difference,
        flips=told.flips,
        spikes=sum(line.spikes or 0 for line in told.converted),
        reasons=tuple(reasons.most_common()),
    )


def _general(reason: str) -> str:
    for pattern, general in _GENERAL:
        reason, changed = re.subn(pattern, general, reason)
        if changed:
            break
    return reason


def _builds(case: Case, x: Tensor, expected: Tensor) -> str:
    if case.own_neuron:
        return "no such argument"
    try:
        with torch.device(x.device):
            model = case.build(neuron.DendSN).to(x.dtype).eval()
        output, _ = _forward(model, x)
    except (ValueError, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    left = {type(m).__name__ for m in model.modules() if isinstance(m, (neuron.LIFNode, neuron.IFNode))}
    if left or output.shape != expected.shape:
        return f"with {', '.join(sorted(left))} left" if left else f"with an output of {tuple(output.shape)}"
    return "yes"


# -- writing -----------------------------------------------------------------------------------------------------------


def column_names(tiny: bool) -> list[str]:
    """Header of the table of tiny networks, or of that of the constructors."""
    names = ["model", "input", "`spiking_neuron=`", "neurons", "`partition`", "`expand`"]
    names += ["flipped spikes", "largest difference"] if tiny else []
    names += ["parameters", *(f"`{wiring}`" for wiring in WIRINGS)]
    return [*names, "multiply-adds", *(f"`{wiring}`" for wiring in WIRINGS)]


def cells(row: Measured, tiny: bool) -> list[str]:
    """One line of the table, as in :func:`column_names`."""
    good = {wiring: wired for wiring, wired in row.wired.items() if isinstance(wired, Wired)}

    def each(function: Any) -> list[str]:
        return [function(good[wiring]) if wiring in good else str(row.wired[wiring]) for wiring in WIRINGS]

    counts, partition, expand = each(lambda wired: f"{wired.converted} of {wired.converted + wired.kept}")
    _, partition, expand = each(lambda wired: f"{wired.rewired} of {wired.converted}")
    found = [row.name, "×".join(map(str, row.shape)), row.builds, counts, partition, expand]
    if tiny:
        flips = [wired.flips for wired in good.values() if wired.flips is not None]
        differences = [wired.difference for wired in good.values() if wired.difference is not None]
        found.append(f"{sum(flips)} of {sum(wired.spikes for wired in good.values()):,}" if flips else "not counted")
        found.append(f"{max(differences):.1g}" if differences else "not computed")
    found += [f"{row.parameters:,}", *each(lambda wired: f"{wired.parameters - row.parameters:+,}")]
    return [*found, _millions(row.multiply_adds), *each(lambda wired: _millions(wired.multiply_adds))]


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def _reasons(row: Measured) -> list[str]:
    found = [row.name]
    for wiring in ("partition", "expand"):
        wired = row.wired[wiring]
        reasons = wired.reasons if isinstance(wired, Wired) else ((wired, 1),)
        found.append("; ".join(f"{count}: {reason}" for reason, count in reasons) or "none")
    return found


def rows(tiny: bool, sample: bool = False) -> Iterator[Measured]:
    """Every model of one of the tables, or the sample of it, one after the other."""
    for name in TINY if tiny else CONSTRUCTORS:
        if not sample or name in SAMPLE[tiny]:
            yield measure(name, tiny)


def versions() -> str:
    """What the page was made with."""
    found = {"snn-dendrite-plugin": __version__, "Python": platform.python_version()}
    found |= {name: importlib.metadata.version(dist) for name, dist in (("SpikingJelly", "spikingjelly"),)}
    return ", ".join(f"{name} {version}" for name, version in {**found, "torch": torch.__version__}.items())


def page(small: list[Measured], full: list[Measured], command: str) -> str:
    """The page in Markdown."""
    columns = ["model", "wired `shared` under `partition`", "under `expand`"]
    reasons = tables.markdown(columns, map(_reasons, [*small, *full]), padded=False)
    return f"""# SpikingJelly's model zoo, converted

Written by `{command}` with {versions()}.

Every model is built with its own point neurons and converted to DendSN with {BRANCHES} branches, once with each
[wiring](conversion.md#wirings). The columns:

- input: shape of the example, T×N×C×H×W (or what the model takes).
- `spiking_neuron=`: whether the constructor takes `neuron.DendSN`, and the network then runs with no point neuron left.
- neurons: how many were exchanged. `partition`, `expand`: for how many of these the layer before was rewritten; the
  others are wired `shared`, for the reasons [below](#reasons).
- flipped spikes: neuron-steps that differ from the point network's, of those compared, over the three wirings; largest
  difference: of the outputs. Both in float64 and evaluation mode, on one random input.
- parameters: of the point network, then what each wiring adds. `partition` adds the neurons' own parameters alone.
- multiply-adds: of the convolutions, linear layers and matrix products of one forward pass, of the point network and
  with each wiring, as `torch.utils.flop_counter` counts them (halved); those of the neurons are not among them.

## One network of each family, with data

Few channels, so that all of it can be computed; running statistics come from the data, and the neurons fire.

{tables.markdown(column_names(True), [cells(row, True) for row in small], padded=False)}

## Every constructor, shapes only

Of full size, made on the meta device: shapes, parameters and multiply-adds are those of the real network, but nothing
is computed.

{tables.markdown(column_names(False), [cells(row, False) for row in full], padded=False)}

## Reasons

Why neurons are wired `shared` where another wiring was asked for, with their number.

{reasons}
"""
