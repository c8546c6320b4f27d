// The same names as math_cpu.h, from CUDA's own library.
#pragma once
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
SD_FN float sd_from_bits(uint32_t bits) { return __uint_as_float(bits); }
SD_FN uint32_t sd_to_bits(float x) { return __float_as_uint(x); }
SD_FN float sd_exp(float x) { return expf(x); }
SD_FN float sd_expm1(float x) { return expm1f(x); }
SD_FN float sd_log1p(float x) { return log1pf(x); }
SD_FN float sd_pow(float base, float exponent) { return powf(base, exponent); }
SD_FN float sd_erf(float x, float) { return erff(x); }
SD_FN float sd_cos(float x) { return cosf(x); }
SD_FN double sd_exp(double x) { return exp(x); }
SD_FN double sd_expm1(double x) { return expm1(x); }
SD_FN double sd_log1p(double x) { return log1p(x); }
SD_FN double sd_pow(double base, double exponent) { return pow(base, exponent); }
SD_FN double sd_erf(double x, double) { return erf(x); }
SD_FN double sd_cos(double x) { return cos(x); }
