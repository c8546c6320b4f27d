"""The soma-dendrite pair in Triton; only :mod:`.provider` may be imported where triton is missing."""
