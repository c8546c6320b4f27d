// Elementary functions that GCC vectorises inside a lane loop: no calls, no tables, no branches. Relative error about
// 1e-7 in float; NaN goes through, overflow gives infinity, underflow gives 0. double takes the C library's.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

SD_FN float sd_from_bits(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}
SD_FN uint32_t sd_to_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return bits;
}

// exp(x) - 1 = 2^k (exp(r) - 1) + (2^k - 1) with x = k ln 2 + r, |r| <= ln 2 / 2. Returns exp(r) - 1; 2^k comes in two
// factors, as it may leave the normal range.
SD_FN float sd_reduce(float x, float& half, float& rest) {
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer and leaves that in the low bits
  const float moved = sd_fma(x, 1.44269504088896341f, shifter);
  const float k = moved - shifter;
  const int32_t n = int32_t(sd_to_bits(moved)) - int32_t(0x4B400000);
  const int32_t low = n >> 1;
  half = sd_from_bits(uint32_t(low + 127) << 23);
  rest = sd_from_bits(uint32_t(n - low + 127) << 23);
  const float r = sd_fma(k, -1.42860682030941723e-6f, sd_fma(k, -0.693145751953125f, x));
  const float q = sd_horner(r, 1.0f / 2, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040);
  return sd_fma(r * r, q, r);
}
SD_FN float sd_exp(float x) {
  float half, rest;
  const float p = sd_reduce(x, half, rest);
  return (p + 1.0f) * half * rest;
}
SD_FN float sd_expm1(float x) {
  float half, rest;
  const float p = sd_reduce(x, half, rest), scale = half * rest;
  return sd_fma(p, scale, scale - 1.0f);
}

// log(1 + z) for 0 <= z <= 1: 2 artanh(z / (2 + z))
SD_FN float sd_log1p(float z) {
  const float s = z / (2.0f + z), w = s * s;
  return 2.0f * s * sd_horner(w, 1.0f, 1.0f / 3, 1.0f / 5, 1.0f / 7, 1.0f / 9, 1.0f / 11, 1.0f / 13, 1.0f / 15);
}

// base^exponent for base > 0; NaN for a negative base
SD_FN float sd_pow(float base, float exponent) {
  const uint32_t bits = sd_to_bits(base);
  const int32_t n = int32_t(bits - 0x3F3504F3u) >> 23;  // mantissa into [sqrt(1/2), sqrt(2))
  const float m = sd_from_bits(bits - (uint32_t(n) << 23));
  const float s = (m - 1.0f) / (m + 1.0f), w = s * s;
  const float log_m = 2.0f * s * sd_horner(w, 1.0f, 1.0f / 3, 1.0f / 5, 1.0f / 7, 1.0f / 9);
  const float result = sd_exp(exponent * sd_fma(float(n), 0.693147180559945f, log_m));
  return base >= 0.0f ? result : sd_from_bits(0x7FC00000u);
}

// erf(x), given bell = exp(-x^2): a series below 1, above it 1 - bell * (a fit of exp(x^2) erfc(x) on [1, 4]).
SD_FN float sd_erf(float x, float bell) {
  const float a = sd_abs(x), c = a > 4.0f ? 4.0f : a, w = (a < 1.0f ? a * a : 1.0f);
  const float near = sd_horner(w, 1.12837917f, -0.376126269f, 0.112835975f, -0.0268543288f, 0.00518931194f,
                               -0.000801885499f, 7.8824971e-05f);
  const float t = 1.0f / sd_fma(0.5f, c, 1.0f);
  const float tail =
      sd_horner(t, 0.00130932585f, 0.264671479f, 0.377711958f, -0.0281215775f, 0.602384814f, -0.217960584f);
  const float far = sd_fma(-bell, tail, 1.0f);
  const float e = a < 1.0f ? near * a : far;
  return x < 0.0f ? -e : (x == x ? e : x);
}

SD_FN float sd_cos(float x) {
  const float shifter = 12582912.0f;
  const float k = sd_fma(x, 0.318309886183790672f, shifter) - shifter;
  const float r = sd_fma(k, -1.50995799e-7f, sd_fma(k, -9.67502593994140625e-4f, sd_fma(k, -3.140625f, x)));
  const float half = k * 0.5f, whole = (half + shifter) - shifter;  // odd k: half is not an integer
  const float w = r * r;
  const float c =
      sd_horner(w, 1.0f, -1.0f / 2, 1.0f / 24, -1.0f / 720, 1.0f / 40320, -1.0f / 3628800, 1.0f / 479001600);
  return half != whole ? -c : c;
}

SD_FN double sd_exp(double x) { return exp(x); }
SD_FN double sd_expm1(double x) { return expm1(x); }
SD_FN double sd_log1p(double x) { return log1p(x); }
SD_FN double sd_pow(double base, double exponent) { return pow(base, exponent); }
SD_FN double sd_erf(double x, double) { return erf(x); }
SD_FN double sd_cos(double x) { return cos(x); }
