// What an optimizer step costs at least: the same streams over the same buffers, with almost no arithmetic.
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

enum { kMaxThreads = 256 };

typedef struct {
  int64_t n;
  float *p, *m, *v;
  const float* g;
  double sum;
} Job;

// Four arrays read, three written: the traffic of Adam.
static void* step_job(void* a) {
  Job* j = a;
  float *restrict p = j->p, *restrict m = j->m, *restrict v = j->v;
  const float* restrict g = j->g;
  for (int64_t i = 0; i < j->n; i++) {
    m[i] += 1e-9f * g[i];
    v[i] += 1e-9f * g[i];
    p[i] -= 1e-9f * (m[i] + v[i]);
  }
  return 0;
}

static void* read_job(void* a) {
  Job* j = a;
  float s[64] = {0};
  for (int64_t i = 0; i + 64 <= j->n; i += 64)
    for (int k = 0; k < 64; k++) s[k] += j->g[i + k];
  for (int k = 0; k < 64; k++) j->sum += s[k];
  return 0;
}

static double run(void* (*body)(void*), int threads, int64_t n, float* p, const float* g, float* m, float* v) {
  pthread_t id[kMaxThreads];
  Job jobs[kMaxThreads];
  int64_t part = (n / threads + 63) / 64 * 64;
  for (int t = 0; t < threads; t++) {
    int64_t at = t * part < n ? t * part : n, size = n - at < part ? n - at : part;
    jobs[t] = (Job){size, p + at, m + at, v + at, g + at, 0};
  }
  for (int t = 1; t < threads; t++)
    if (pthread_create(&id[t], 0, body, &jobs[t])) abort();
  body(&jobs[0]);
  double sum = jobs[0].sum;
  for (int t = 1; t < threads; t++) {
    pthread_join(id[t], 0);
    sum += jobs[t].sum;
  }
  return sum;
}

double stream_step(int threads, int64_t n, float* p, const float* g, float* m, float* v) {
  return run(step_job, threads, n, p, g, m, v);
}
double stream_read(int threads, int64_t n, float* p, const float* g, float* m, float* v) {
  return run(read_job, threads, n, p, g, m, v);
}
