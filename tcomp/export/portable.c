/* What an exported model needs of any system with a C library: files, memory, and OpenMP's threads where the compiler has them. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define LOCAL static
#define EXPORTED
#define SYNC(file) 0
#define LOAD(p) (*(p))
#define STORE(p, x) (*(p) = (x))

static int32_t failures;

static uint64_t hash64(const unsigned char *data, size_t bytes);

/* Memory that begins at a cache line; what was asked of the system lies in front. */
static void *take_lines(size_t bytes) {
  unsigned char *all = bytes < SIZE_MAX - 2 * ALIGN ? malloc(bytes + 2 * ALIGN) : NULL;
  if (!all) return NULL;
  unsigned char *start = all + sizeof all;
  start += (ALIGN - (uintptr_t)start % ALIGN) % ALIGN;
  memcpy(start - sizeof all, &all, sizeof all);
  return start;
}

static void give_lines(void *taken) {
  if (!taken) return;
  void *all;
  memcpy(&all, (unsigned char *)taken - sizeof all, sizeof all);
  free(all);
}

static void *tcomp_take(int64_t bytes) {
  void *taken = take_lines((size_t)bytes);
  if (!taken) {
#ifdef _OPENMP
#pragma omp atomic
#endif
    failures++;
  }
  return taken;
}

static void tcomp_give(void *taken) { give_lines(taken); }
static int32_t tcomp_failures(void) { return failures; }
static void tcomp_parallel_for(int64_t n, API(loop_body) body, void *argument);

static int has_features(const Variant *v) {
  (void)v;
  return 1;
}

static void start_pool(void) {}
static int threads_in_use;
static void use_threads(int count) { threads_in_use = count; }

static void pool_parallel_for(int64_t n, API(loop_body) body, void *argument) {
#ifdef _OPENMP
  int asked = threads_in_use ? threads_in_use : omp_get_max_threads();
#pragma omp parallel num_threads(asked)
  {
    int64_t count = omp_get_num_threads(), own = omp_get_thread_num();
    int64_t begin = n / count * own + (own < n % count ? own : n % count);
    int64_t end = begin + n / count + (own < n % count);
    if (begin < end) body(argument, begin, end);
  }
#else
  body(argument, 0, n);
#endif
}

static void *read_weights(const char *path, int *code) {
  *code = BAD_WEIGHTS;
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  unsigned char *data = take_lines((size_t)WEIGHTS_FILE_BYTES + 1);
  if (!data) *code = NO_MEMORY;
  size_t found = data ? fread(data, 1, (size_t)WEIGHTS_FILE_BYTES + 1, file) : 0;
  fclose(file);
  if (found == WEIGHTS_FILE_BYTES && hash64(data, found) == WEIGHTS_HASH) {
    *code = OK;
    return data;
  }
  give_lines(data);
  return NULL;
}

static void forget_weights(void *held) { give_lines(held); }

static int run_entry(const Variant *v, void *const *args, const void *const *constants, void *workspace) {
  return v->entry(args, constants, workspace, NULL);
}
