// The scalars that inputs and spikes are stored in, by the numbers that launch/cpu.py gives them.
#pragma once
enum Scalar { FLOAT32, FLOAT64, FLOAT16, BFLOAT16 };
