// Enough of CUDA to run a kernel's text on the CPU: one thread of the block is one thread of the system where the
// kernel synchronises, else they run one after the other. Slow; for tests on machines without a GPU.
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include <thread>
#include <utility>
#include <vector>

#define __CUDACC__ 1
#define __device__
#define __global__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(threads)

struct Dim {
  unsigned x;
};
static thread_local Dim threadIdx, blockIdx;
static Dim gridDim;
static pthread_barrier_t barrier;
static double shuffled[SD_THREADS];

static float __uint_as_float(unsigned bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
static unsigned __float_as_uint(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  return bits;
}
static void __syncthreads() { pthread_barrier_wait(&barrier); }
template <class S>
static S __shfl_down_sync(unsigned, S value, int step) {
  shuffled[threadIdx.x] = double(value);
  __syncthreads();
  const unsigned from = threadIdx.x % 32 + step < 32 ? threadIdx.x + step : threadIdx.x;
  const S result = S(shuffled[from]);
  __syncthreads();
  return result;
}

union Argument {
  int64_t integer;
  double number;
};
template <class P>
static P convert(const Argument& a) {
  if constexpr (__is_same(P, double)) return a.number;
  else return P(a.integer);
}

template <class... P, size_t... I>
static void call(void (*kernel)(P...), const Argument* a, std::index_sequence<I...>) {
  kernel(convert<P>(a[I])...);
}

template <class... P>
static void launch(void (*kernel)(P...), int64_t blocks, bool together, const Argument* a) {
  gridDim.x = unsigned(blocks);
  auto run = [&](unsigned block, unsigned thread) {
    blockIdx.x = block, threadIdx.x = thread;
    call(kernel, a, std::index_sequence_for<P...>());
  };
  pthread_barrier_init(&barrier, nullptr, SD_THREADS);
  for (unsigned block = 0; block < blocks; ++block) {
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < SD_THREADS; ++thread)
      if (together) threads.emplace_back(run, block, thread);
      else run(block, thread);
    for (auto& thread : threads) thread.join();
  }
  pthread_barrier_destroy(&barrier);
}
