// The scalars that inputs and spikes are stored in, and their conversion to and from float, in integer arithmetic that
// vectorises and that every processor and GPU has.
#pragma once
#include "common/functions.h"

struct Half {
  uint16_t bits;
};
struct Brain {
  uint16_t bits;
};

SD_FN float widen(float x) { return x; }
SD_FN double widen(double x) { return x; }
SD_FN float widen(Brain x) { return sd_from_bits(uint32_t(x.bits) << 16); }
SD_FN float widen(Half x) {
  const uint32_t magnitude = uint32_t(x.bits & 0x7FFF) << 13;
  const float scaled = sd_from_bits(magnitude) * 5.192296858534828e33f;  // 2^112; subnormals come out right
  const uint32_t infinite = (x.bits & 0x7C00) == 0x7C00 ? 0x7F800000u | magnitude : sd_to_bits(scaled);
  return sd_from_bits(infinite | (uint32_t(x.bits & 0x8000) << 16));
}

template <class To, class From>
struct Narrow {
  SD_FN To of(From x) { return To(x); }
};
template <>
struct Narrow<Brain, float> {
  SD_FN Brain of(float x) {
    const uint32_t bits = sd_to_bits(x);
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
    return Brain{uint16_t(x == x ? rounded : 0x7FC0u)};
  }
};
template <>
struct Narrow<Half, float> {
  SD_FN Half of(float x) {
    const uint32_t bits = sd_to_bits(x), sign = (bits >> 16) & 0x8000u, m = bits & 0x7FFFFFFFu;
    const uint32_t normal = (m - 0x38000000u + 0xFFFu + ((m >> 13) & 1u)) >> 13;
    // below 2^-14: adding 0.5 moves the half subnormal's last bit to the float's last bit, rounded to nearest even
    const uint32_t small = sd_to_bits(sd_from_bits(m) + 0.5f) - 0x3F000000u;
    uint32_t h = m < 0x38800000u ? small : normal;
    h = m >= 0x477FF000u ? 0x7C00u : h;
    h = m > 0x7F800000u ? 0x7E00u : h;
    return Half{uint16_t(h | sign)};
  }
};
