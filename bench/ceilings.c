// What the machine can do at most: fused multiply-adds from registers, and copies between arrays larger than the caches.
// Compiled when the benchmarks run, once per vector width (-DWIDTH=bytes), with the flags that width needs.
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef float vec __attribute__((vector_size(WIDTH)));
enum { kChains = 12, kMaxThreads = 256 };  // latency 4 times two ports needs 8 chains; 12 fit 16 registers

typedef struct {
  int64_t n;
  const float* from;
  float* to;
  float sink;
} Job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Each chain is a variable of its own: gcc keeps an array of them in memory and then measures the cache.
#define CHAINS(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define START(c) vec a##c = y + (float)c;
#define STEP(c) a##c = a##c * x + y;
#define HOLD(c) __asm__ volatile("" : "+x"(a##c));
#define SUM(c) s += a##c;

static void* fma_job(void* p) {
  Job* job = p;
  vec x, y, s;
  for (int i = 0; i < WIDTH / 4; i++) x[i] = 0.9999f, y[i] = 1e-4f, s[i] = 0;
  CHAINS(START)
  for (int64_t i = 0; i < job->n; i++) {
    CHAINS(STEP)
    CHAINS(HOLD)
  }
  CHAINS(SUM)
  job->sink = s[0];
  return 0;
}

#if defined(__AVX512BF16__)
#define PAIRS(c) a##c = (vec)_mm512_dpbf16_ps((__m512)a##c, (__m512bh)x, (__m512bh)y);
static void* bf16_job(void* p) {
  Job* job = p;
  vec x, y, s;
  for (int i = 0; i < WIDTH / 4; i++) x[i] = 0x1p-40f, y[i] = 0x1p-40f, s[i] = 0;
  CHAINS(START)
  for (int64_t i = 0; i < job->n; i++) {
    CHAINS(PAIRS)
    CHAINS(HOLD)
  }
  CHAINS(SUM)
  job->sink = s[0];
  return 0;
}
#else
static void* bf16_job(void* p) {
  (void)p;
  return 0;
}
#endif

static void* copy_job(void* p) {
  Job* job = p;
  for (int64_t i = 0; i < job->n; i += WIDTH / 4) *(vec*)(job->to + i) = *(const vec*)(job->from + i);
  return 0;
}

static void* stream_job(void* p) {
  Job* job = p;
#if defined(__x86_64__)
  for (int64_t i = 0; i < job->n; i += 4) _mm_stream_ps(job->to + i, _mm_load_ps(job->from + i));
  _mm_sfence();
#else
  copy_job(job);
#endif
  return 0;
}

// Seconds that the jobs take together.
static double run(void* (*body)(void*), Job* jobs, int threads) {
  pthread_t id[kMaxThreads];
  double start = now();
  for (int t = 1; t < threads; t++)
    if (pthread_create(&id[t], 0, body, &jobs[t])) abort();
  body(&jobs[0]);
  for (int t = 1; t < threads; t++) pthread_join(id[t], 0);
  return now() - start;
}

double fma_gflops(int threads, int64_t rounds) {
  Job jobs[kMaxThreads];
  for (int t = 0; t < threads; t++) jobs[t] = (Job){.n = rounds};
  return 2e-9 * (WIDTH / 4) * kChains * (double)rounds * threads / run(fma_job, jobs, threads);
}

// Products of pairs of bfloat16 numbers, summed in float32; 0 where this file was compiled without them.
double bf16_gflops(int threads, int64_t rounds) {
#if defined(__AVX512BF16__)
  Job jobs[kMaxThreads];
  for (int t = 0; t < threads; t++) jobs[t] = (Job){.n = rounds};
  return 4e-9 * (WIDTH / 4) * kChains * (double)rounds * threads / run(bf16_job, jobs, threads);
#else
  (void)threads, (void)rounds, (void)bf16_job;
  return 0;
#endif
}

// GB/s, read and written bytes together; n floats per array, which must be aligned and touched.
double copy_gbs(int threads, int64_t n, const float* from, float* to, int stream) {
  Job jobs[kMaxThreads];
  int64_t part = n / threads / 64 * 64;
  for (int t = 0; t < threads; t++) jobs[t] = (Job){.n = part, .from = from + t * part, .to = to + t * part};
  return 8e-9 * (double)(part * threads) / run(stream ? stream_job : copy_job, jobs, threads);
}
