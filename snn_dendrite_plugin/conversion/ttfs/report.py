"""What a conversion to first spikes measured."""

from __future__ import annotations

import dataclasses

from ...layers import LayerActivity
from ..report import Report

__all__ = ["TTFSReport"]


@dataclasses.dataclass(frozen=True)
class TTFSReport(Report):
    """What a conversion measured on the calibration data; ``print`` it for a table.

    Attributes:
        layers: spikes per neuron, silent and saturated shares and window of every emitting layer, the encoder first.
        inputs: number of images compared.
        agreement: share of the inputs with the same argmax as the ReLU network.
        largest_difference: largest absolute difference of the outputs; ``relative_difference``: divided by the largest
            absolute output.
        windows: number of windows until the output can be read, the encoder's included.
        latency: their summed duration, in the unit of the activations (layers in parallel count once, the longest).
        spikes_per_neuron: over all firing neurons, encoder left out.
        never: share of the firing neurons that fired for no input.
        input_range: the values that the encoder maps to its last and first spike.
    """

    columns = ("layer", "neurons", "spikes/neuron", "never fire", "saturated", "window")
    right = columns[1:]

    layers: tuple[LayerActivity, ...]
    inputs: int
    agreement: float
    largest_difference: float
    relative_difference: float
    windows: int
    latency: float
    input_range: tuple[float, float]

    @property
    def spikes_per_neuron(self) -> float:
        neurons = sum(line.neurons for line in self.layers[1:])
        return sum(line.spikes_per_neuron * line.neurons for line in self.layers[1:]) / max(1, neurons)

    @property
    def never(self) -> float:
        neurons = sum(line.neurons for line in self.layers[1:])
        return sum(line.never * line.neurons for line in self.layers[1:]) / max(1, neurons)

    @property
    def saturated(self) -> float:
        """Share of all emitted values, encoder included, that were clipped to their window."""
        neurons = sum(line.neurons for line in self.layers)
        return sum(line.saturated * line.neurons for line in self.layers) / max(1, neurons)

    def rows(self) -> list[tuple[str, ...]]:
        """The table's rows: layer, neurons, spikes per neuron, never fire, saturated, window."""
        rows: list[tuple[str, ...]] = []
        for line in self.layers:
            shares = (f"{line.spikes_per_neuron:.4f}", f"{line.never:.4f}", f"{line.saturated:.2g}")
            rows.append((line.name, str(line.neurons), *shares, f"{line.window:.4g}"))
        return rows

    def summary(self) -> str:
        """Two lines: what was compared, and what the spikes cost."""
        return (
            f"{self.inputs} inputs: argmax agreement {self.agreement:.4f}, largest output difference "
            f"{self.largest_difference:.2g} (relative {self.relative_difference:.2g})\n"
            f"{self.spikes_per_neuron:.4f} spikes per neuron without the encoder, {self.never:.4f} never fire; "
            f"{self.windows} windows, latency {self.latency:.4g}"
        )
