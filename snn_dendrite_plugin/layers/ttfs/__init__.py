"""Time-coded layers: spike ``times``, ``synapses``, ``pooling``, ``windows``, and what is ``clocked``."""
