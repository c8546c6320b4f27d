// What the entry points of every op share: instruction sets, scratch memory, and threads that share out chunks of work.
#pragma once
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

inline int best_level() {
#ifdef SD_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
    return 2;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
  return 0;
}

// The wanted level if this processor has it, else the best one: 0 baseline, 1 AVX2, 2 AVX-512.
inline int usable_level(int level) {
  static const int best = best_level();
  return level < 0 || level > best ? best : level;
}

struct Memory {  // a thread's scratch, kept between calls
  char* block = nullptr;
  int64_t size = 0;
  ~Memory() { free(block); }
  char* of(int64_t wanted) {
    if (wanted > size) {
      free(block);
      block = nullptr, size = 0;
      void* fresh = nullptr;
      if (posix_memalign(&fresh, 64, size_t(wanted))) return nullptr;
      block = (char*)fresh, size = wanted;
    }
    return block;
  }
};
inline thread_local Memory memory;

struct Team {
  void (*chunk)(const void* job, int64_t index, char* scratch);
  const void* job;
  int64_t chunks, scratch;  // scratch: bytes per thread
  int64_t next = 0;
  int failed = 0;
};

inline void* work(void* argument) {
  Team& team = *(Team*)argument;
  char* scratch = memory.of(team.scratch);
  if (!scratch) {
    __atomic_store_n(&team.failed, 1, __ATOMIC_RELAXED);
    return nullptr;
  }
  for (int64_t i; (i = __atomic_fetch_add(&team.next, 1, __ATOMIC_RELAXED)) < team.chunks;)
    team.chunk(team.job, i, scratch);
  return nullptr;
}
inline void work_in_team(void* argument) { work(argument); }

// The OpenMP runtime that torch has already loaded, so that no second pool of threads competes with it.
typedef void (*Parallel)(void (*)(void*), void*, unsigned, unsigned);
inline Parallel parallel = nullptr;

inline void run_team(Team& team, int threads) {
  if (threads <= 1) {
    work(&team);
  } else if (parallel) {
    parallel(work_in_team, &team, unsigned(threads), 0);
  } else {
    pthread_t others[64];
    int started = 0;
    while (started < threads - 1 && started < 64 && !pthread_create(&others[started], nullptr, work, &team)) ++started;
    work(&team);
    for (int i = 0; i < started; ++i) pthread_join(others[i], nullptr);
  }
}
