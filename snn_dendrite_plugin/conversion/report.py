"""What a conversion did: one line per neuron, and the totals."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

from .. import tables

__all__ = ["REPORT_KEY", "ConversionReport", "ConvertedNeuron", "Report", "SkippedNeuron"]

REPORT_KEY = "_snn_dendrite_report"  # attribute of a converted model


class Report:
    """What a conversion did: base class of all reports; ``print`` one for a table, which rich folds to a terminal."""

    columns: ClassVar[tuple[str, ...]] = ()
    right: ClassVar[tuple[str, ...]] = ()  # the columns that are aligned right

    def rows(self) -> list[tuple[str, ...]]:
        """The table's rows, one text per column."""
        raise NotImplementedError(f"{type(self).__name__} must implement rows()")

    def summary(self) -> str:
        """What is said under the table."""
        raise NotImplementedError(f"{type(self).__name__} must implement summary()")

    def only(self, names: Collection[str], parameters: int) -> Report:
        """This report without what is no longer converted.

        Args:
            names: qualified names of the modules that conversion put there and that are still there.
            parameters: elements of all parameters of the model as it is now.
        """
        return self

    def __str__(self) -> str:
        return f"{tables.plain(self.columns, self.rows(), self.right)}\n{self.summary()}"

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        """On a terminal, through rich: the same table, folded to the width that there is."""
        from rich.text import Text

        width = None if console.soft_wrap else options.max_width
        yield Text(tables.plain(self.columns, self.rows(), self.right, width=width, rule=True))
        yield Text(self.summary())


@dataclasses.dataclass(frozen=True)
class ConvertedNeuron:
    """One neuron that was (or, in a dry run, would be) replaced.

    Attributes:
        name: its qualified name in the model, ``"(root)"`` where the model itself is a neuron.
        aliases: its other names, where the module is shared.
        host: the host's name.
        before, after: class names.
        wiring: ``shared``, ``partition`` or ``expand``, ``""`` for a model that has no wiring.
        layer: name of the synaptic layer that was rewritten, ``""`` for none.
        parameters_before, parameters_after: the neuron's own parameters; None where per-channel parameters wait for the
            first forward pass.
        spikes, flips: neuron-steps compared on the example input, and how many of them differ; None when not counted.
        notes: what the user should know, e.g. hooks that stay on the replaced module.
    """

    in_checkpoints: ClassVar[bool] = True

    name: str
    host: str
    before: str
    after: str
    aliases: tuple[str, ...] = ()
    wiring: str = ""
    layer: str = ""
    parameters_before: int = 0
    parameters_after: int | None = 0
    spikes: int | None = None
    flips: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def flip_share(self) -> float | None:
        """Flipped share of the compared neuron-steps, None when not counted."""
        return None if self.flips is None else self.flips / max(1, self.spikes or 0)


@dataclasses.dataclass(frozen=True)
class SkippedNeuron:
    """One neuron that stayed as it was, and why."""

    in_checkpoints: ClassVar[bool] = True

    name: str
    before: str
    reason: str


@dataclasses.dataclass(frozen=True)
class ConversionReport(Report):
    """Result of a conversion; ``print`` it for a table, ``rich.print`` it for one that fits the terminal.

    Attributes:
        to: the registered model that neurons were converted to.
        converted, skipped: one entry per neuron.
        parameters_before, parameters_after: elements of all parameters of the model, shared ones once. Per-channel
            parameters that wait for the first forward pass count as 0 (give ``example_input`` to have them made).
        output_difference: largest absolute difference of the model's outputs on the example input, None when not run.
        dry_run: nothing was changed.

    Example:
        >>> import torch, snn_dendrite_plugin as sdp
        >>> from spikingjelly.activation_based import neuron
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), neuron.LIFNode())
        >>> plan = sdp.convert(net, to="DendSN", branches=2, dry_run=True)
        >>> [line.name for line in plan.converted], plan.parameters_before, plan.parameters_after
        (['1'], 15, 21)
    """

    in_checkpoints: ClassVar[bool] = True
    columns = ("neuron", "was", "is", "wiring", "parameters", "flipped spikes", "notes")

    to: str
    converted: tuple[ConvertedNeuron, ...]
    skipped: tuple[SkippedNeuron, ...]
    parameters_before: int
    parameters_after: int
    output_difference: float | None = None
    dry_run: bool = False

    @property
    def flips(self) -> int | None:
        """Flipped spikes of all converted neurons on the example input, None when not counted."""
        counted = [line.flips for line in self.converted if line.flips is not None]
        return sum(counted) if counted else None

    @property
    def flip_share(self) -> float | None:
        """Flipped share of all compared neuron-steps, None when not counted."""
        if self.flips is None:
            return None
        return self.flips / max(1, sum(line.spikes or 0 for line in self.converted))

    def after(self, earlier: ConversionReport) -> ConversionReport:
        """This report together with that of an earlier conversion of the same model."""
        names = {line.name for line in self.converted}
        kept = tuple(line for line in earlier.converted if line.name not in names)
        done = names | {line.name for line in kept}
        return dataclasses.replace(
            self,
            to=self.to if self.to == earlier.to else f"{earlier.to}, {self.to}",
            converted=kept + self.converted,
            skipped=tuple(line for line in self.skipped if line.name not in done),
            parameters_before=earlier.parameters_before,
        )

    def only(self, names: Collection[str], parameters: int) -> ConversionReport:
        kept = tuple(line for line in self.converted if line.name in names)
        if len(kept) == len(self.converted):
            return self
        return dataclasses.replace(self, converted=kept, parameters_after=parameters)

    # -- printing --------------------------------------------------------------------------------------------------

    def rows(self) -> list[tuple[str, ...]]:
        """The table's rows: neuron, was, is, wiring, parameters, flipped spikes, notes."""
        rows: list[tuple[str, ...]] = []
        for line in self.converted:
            flips = "" if line.flips is None else f"{line.flips} of {line.spikes}"
            after = "at first forward" if line.parameters_after is None else str(line.parameters_after)
            layer = f"{line.layer} rewritten" if line.layer else ""
            shared = f"also {', '.join(line.aliases)}" if line.aliases else ""
            notes = "; ".join(note for note in (layer, shared, *line.notes) if note)
            parameters = f"{line.parameters_before} -> {after}"
            rows.append((line.name, line.before, line.after, line.wiring, parameters, flips, notes))
        rows += [(line.name, line.before, "(kept)", "", "", "", line.reason) for line in self.skipped]
        return rows

    def summary(self) -> str:
        """One line: counts, parameters, and what the example input showed."""
        verb = "to convert" if self.dry_run else "converted"
        text = (
            f"{len(self.converted)} neurons {verb} to {self.to}, {len(self.skipped)} kept; "
            f"parameters {self.parameters_before} -> {self.parameters_after}"
        )
        if self.flips is not None:
            text += f"; {self.flips} spikes flipped (share {self.flip_share:.2g})"
        if self.output_difference is not None:
            text += f"; largest output difference {self.output_difference:.2g}"
        return text
