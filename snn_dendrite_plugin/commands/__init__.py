"""The commands of ``snn-dendrite``, one module each, and what they share."""
