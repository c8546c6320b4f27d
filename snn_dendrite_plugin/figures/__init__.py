"""Figures of a network in use: output shapes, parameters, spikes, synaptic and neuronal operations, layer by layer."""

from .api import LayerFigures, Summary, summary

__all__ = ["LayerFigures", "Summary", "summary"]
