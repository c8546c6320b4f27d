"""How compiled code is found and run: one module per way, ``cpu`` (C++), ``cupy`` (CUDA C++) and ``triton``."""
