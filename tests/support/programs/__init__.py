"""Random programs of host operations, against a plain loop with its own state and its own equations."""
