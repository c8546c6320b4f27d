// Rows of a block: reading them from strided memory in any scalar, writing them to contiguous memory.
#pragma once
#include "common/dtypes.h"
#include "common/scalars.h"

struct Box {
  int64_t n, c, l;
  int dn, dc, dl;
};
struct Strides {
  int64_t n, c, l;
};

// The box as up to three nested runs, neighbouring ones merged; the innermost is the last.
struct Runs {
  int count[3];
  int64_t stride[3];
  Runs(const Box& box, const Strides& s) {
    int at = 2;
    const int sizes[3] = {box.dl, box.dc, box.dn};
    const int64_t strides[3] = {s.l, s.c, s.n};
    count[2] = 1, stride[2] = 1;
    for (int i = 0; i < 3; ++i) {
      if (sizes[i] == 1) continue;
      if (count[at] == 1) count[at] = sizes[i], stride[at] = strides[i];
      else if (strides[i] == stride[at] * count[at]) count[at] *= sizes[i];
      else --at, count[at] = sizes[i], stride[at] = strides[i];
    }
    for (int i = 0; i < at; ++i) count[i] = 1, stride[i] = 0;
  }
  bool contiguous() const { return count[0] == 1 && count[1] == 1 && stride[2] == 1; }
};

template <class From, class To>
static void copy_run(int n, const From* from, int64_t stride, To* to) {
  if (stride == 1) {
#pragma omp simd
    for (int i = 0; i < n; ++i) to[i] = widen(from[i]);
  } else if (stride == 0) {
    const auto one = widen(from[0]);
    for (int i = 0; i < n; ++i) to[i] = one;
  } else if (stride == 2) {
#pragma omp simd
    for (int i = 0; i < n; ++i) to[i] = widen(from[2 * i]);
  } else if (stride == 4) {
#pragma omp simd
    for (int i = 0; i < n; ++i) to[i] = widen(from[4 * i]);
  } else {
    for (int i = 0; i < n; ++i) to[i] = widen(from[i * stride]);
  }
}

template <class From, class To>
static void read_runs(const From* from, const Runs& runs, To* to) {
  for (int i = 0; i < runs.count[0]; ++i)
    for (int j = 0; j < runs.count[1]; ++j, to += runs.count[2])
      copy_run(runs.count[2], from + i * runs.stride[0] + j * runs.stride[1], runs.stride[2], to);
}

template <class From, class To>
static void write_runs(const From* from, const Runs& runs, To* to) {
  for (int i = 0; i < runs.count[0]; ++i)
    for (int j = 0; j < runs.count[1]; ++j, from += runs.count[2]) {
      To* at = to + i * runs.stride[0] + j * runs.stride[1];
      const int n = runs.count[2];
      const int64_t stride = runs.stride[2];
      if (stride == 1) {
#pragma omp simd
        for (int k = 0; k < n; ++k) at[k] = Narrow<To, From>::of(from[k]);
      } else {
        for (int k = 0; k < n; ++k) at[k * stride] = Narrow<To, From>::of(from[k]);
      }
    }
}

// Writes `bytes` from one aligned row to another past the caches: a result much larger than these would be read into
// them only to be overwritten, and push out what the other rows need.
static void stream_row(int64_t bytes, const char* from, char* to) {
  int64_t i = 0;
#if defined(SD_X86) && defined(__AVX512F__)
  for (; i + 64 <= bytes; i += 64) _mm512_stream_si512((__m512i*)(to + i), _mm512_load_si512(from + i));
#elif defined(SD_X86) && defined(__AVX__)
  for (; i + 32 <= bytes; i += 32)
    _mm256_stream_si256((__m256i*)(to + i), _mm256_load_si256((const __m256i*)(from + i)));
#elif defined(SD_X86)
  for (; i + 16 <= bytes; i += 16) _mm_stream_si128((__m128i*)(to + i), _mm_load_si128((const __m128i*)(from + i)));
#endif
  if (i < bytes) memcpy(to + i, from + i, size_t(bytes - i));
}

const int64_t PAST_CACHES = 8 << 20;  // bytes of a result from which on it is streamed

// A source or target of rows in scalar IO; rows that already lie in memory as state scalars are used in place.
template <class S>
struct Rows {
  char* base;
  int io;
  Runs runs;
  bool direct;
  bool streamed = false;
  Rows(const void* p, int io_, const Box& box, const Strides& s, bool copy = false)
      : base((char*)p), io(io_), runs(box, s), direct(!copy && runs.contiguous() && io_ == own()) {
    const int64_t first = box.n * s.n + box.c * s.c + box.l * s.l;
    base += first * size();
  }
  static int own() { return sizeof(S) == 8 ? FLOAT64 : FLOAT32; }
  int64_t size() const { return io == FLOAT64 ? 8 : io == FLOAT32 ? 4 : 2; }
  // Where the row at `offset` elements can be read: in place, or in `buffer` after copying it there.
  const S* read(int64_t offset, S* buffer) const {
    const char* at = base + offset * size();
    if (direct) return (const S*)at;
    load(at, buffer);
    return buffer;
  }
  void load(const char* at, S* buffer) const {
    if (io == own()) read_runs((const S*)at, runs, buffer);
    else if constexpr (sizeof(S) == 4) {
      if (io == FLOAT16) read_runs((const Half*)at, runs, buffer);
      else read_runs((const Brain*)at, runs, buffer);
    }
  }
  // Asks for a row ahead of its use: rows of one block lie a whole time step apart, too far for the hardware to guess.
  void prefetch(int64_t offset) const {
    if (!runs.contiguous()) return;
    const char* at = base + offset * size();
    const int64_t bytes = runs.count[2] * size();
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i);
  }
  // As a target of `values` in all: whether its rows are streamed.
  void stream(int64_t values) {
    streamed = direct && values * size() >= PAST_CACHES && uintptr_t(base) % 64 == 0;
    direct = direct && !streamed;
  }
  S* target(int64_t offset, S* buffer) const { return direct ? (S*)(base + offset * size()) : buffer; }
  // Completes a row that was written to target(offset, buffer).
  void write(int64_t offset, const S* buffer) const {
    char* at = base + offset * size();
    if (direct) return;
    if (streamed && uintptr_t(at) % 64 == 0) stream_row(runs.count[2] * size(), (const char*)buffer, at);
    else if (io == own()) write_runs(buffer, runs, (S*)at);
    else if constexpr (sizeof(S) == 4) {
      if (io == FLOAT16) write_runs(buffer, runs, (Half*)at);
      else write_runs(buffer, runs, (Brain*)at);
    }
  }
};
