/* The C interface of a compiled model. What stands above this line is the model's own: its tables, and TCOMP_PREFIX. */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define API(name) JOIN(TCOMP_PREFIX, name)
#define EXPORTED __attribute__((visibility("default")))

enum { OK, BAD_ARGUMENT, NO_MEMORY, CPU_TOO_OLD, BAD_INDEX, WRONG_RESULTS, BAD_WEIGHTS };
enum { ALIGN = 64 };

typedef struct API(context) Context;
struct API(context) {
  int num_threads;
  unsigned char *mapped; /* the weights' file, or null */
  const void *constants[NUM_CONSTANTS + 1];
};

/* the generated entry, and the thread pool */
void tcomp_main(const void *const *args, const void *const *constants, void *workspace, const int64_t *dims);
void tcomp_start_pool(int32_t cores);
void tcomp_set_num_threads(int32_t count);
void tcomp_use_threads(int32_t count);
void tcomp_after_fork(void);
void tcomp_pool_parallel_for(int64_t n, API(loop_body) body, void *argument);

static API(parallel_for) own_parallel_for;
static void *own_user;
static int pool_state; /* 0: not started, 1: being started, 2: started */
static pid_t pool_process;

void tcomp_parallel_for(int64_t n, API(loop_body) body, void *argument) {
  API(parallel_for) own = __atomic_load_n(&own_parallel_for, __ATOMIC_ACQUIRE);
  if (own)
    own(n, body, argument, own_user);
  else
    tcomp_pool_parallel_for(n, body, argument);
}

#if defined(__x86_64__)
#include <cpuid.h>

/* Whether the CPU has an instruction set, and the system saves its registers. */
static int has_feature(const Feature *f) {
  unsigned r[4] = {0, 0, 0, 0};
  if (!__get_cpuid_count(f->leaf, f->subleaf, &r[0], &r[1], &r[2], &r[3]) || !(r[f->reg] >> f->bit & 1)) return 0;
  if (!f->state) return 1;
  if (!__get_cpuid(1, &r[0], &r[1], &r[2], &r[3]) || !(r[2] >> 27 & 1)) return 0;
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & f->state) == f->state;
}
#else
static int has_feature(const Feature *f) {
  (void)f;
  return 1;
}
#endif

static void start_pool(void) {
  int expected = 0;
  if (__atomic_compare_exchange_n(&pool_state, &expected, 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    pool_process = getpid();
    tcomp_start_pool((int32_t)(cores > 0 ? cores : 1));
    tcomp_set_num_threads((int32_t)(cores > 0 ? cores : 1));
    __atomic_store_n(&pool_state, 2, __ATOMIC_RELEASE);
  }
  while (__atomic_load_n(&pool_state, __ATOMIC_ACQUIRE) != 2) usleep(10);
}

EXPORTED int API(abi_version)(void) { return ABI_VERSION; }

EXPORTED const char *API(describe)(void) { return DESCRIPTION; }

EXPORTED const char *API(error_text)(int code) {
  switch (code) {
    case OK: return "no error";
    case BAD_ARGUMENT: return "an argument is null or not aligned";
    case NO_MEMORY: return "out of memory";
    case CPU_TOO_OLD: return "this CPU lacks instructions that the model was compiled for: " FEATURE_NAMES;
    case BAD_INDEX: return "an index in an input is out of range";
    case WRONG_RESULTS: return "the results differ from those stored at export";
    case BAD_WEIGHTS: return "the file of weights is missing, or is not the one that was exported";
    default: return "unknown error code";
  }
}

/* As tcomp/export/weights.py has it. */
static uint64_t hash64(const unsigned char *data, size_t bytes) {
  enum { LANES = 512 };
  const uint64_t factor = 0xD6E8FEB86659FD93u;
  uint64_t lanes[LANES], row[LANES], result = bytes;
  for (int i = 0; i < LANES; i++) lanes[i] = (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
  for (size_t at = 0; at < bytes; at += sizeof row) {
    size_t some = bytes - at < sizeof row ? bytes - at : sizeof row;
    if (some < sizeof row) memset(row, 0, sizeof row);
    memcpy(row, data + at, some);
    for (int i = 0; i < LANES; i++) {
      uint64_t x = (lanes[i] ^ row[i]) * factor;
      lanes[i] = x ^ x >> 32;
    }
  }
  for (int i = 0; i < LANES; i++) {
    result = (result ^ lanes[i]) * factor;
    result ^= result >> 32;
  }
  return result;
}

/* The file of weights, mapped; null where it is not the one that was exported. */
static unsigned char *map_weights(const char *path) {
  struct stat told;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return NULL;
  void *found = MAP_FAILED;
  if (!fstat(file, &told) && S_ISREG(told.st_mode) && (uint64_t)told.st_size == WEIGHTS_FILE_BYTES)
    found = mmap(NULL, WEIGHTS_FILE_BYTES, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (found == MAP_FAILED) return NULL;
  if (hash64(found, WEIGHTS_FILE_BYTES) == WEIGHTS_HASH) return found;
  munmap(found, WEIGHTS_FILE_BYTES);
  return NULL;
}

EXPORTED int API(init)(Context **context, const char *weights_path, int num_threads) {
  if (!context || !weights_path != !WEIGHTS_FILE_BYTES || num_threads < 0 || num_threads > 1024) return BAD_ARGUMENT;
  *context = NULL;
  for (int i = 0; i < NUM_FEATURES; i++)
    if (!has_feature(&FEATURES[i])) return CPU_TOO_OLD;
  Context *made = malloc(sizeof *made);
  if (!made) return NO_MEMORY;
  made->mapped = weights_path ? map_weights(weights_path) : NULL;
  if (weights_path && !made->mapped) {
    free(made);
    return BAD_WEIGHTS;
  }
  const unsigned char *weights = made->mapped ? made->mapped + WEIGHTS_START : API(weights);
  start_pool();
  made->num_threads = num_threads;
  for (int i = 0; i < NUM_CONSTANTS; i++) made->constants[i] = weights + CONSTANT_OFFSETS[i];
  *context = made;
  return OK;
}

EXPORTED void API(free)(Context *context) {
  if (context && context->mapped) munmap(context->mapped, WEIGHTS_FILE_BYTES);
  free(context);
}

EXPORTED size_t API(workspace_bytes)(const Context *context) {
  (void)context;
  return WORKSPACE_BYTES;
}

EXPORTED void API(set_parallel_for)(API(parallel_for) parallel_for, void *user) {
  own_user = user;
  __atomic_store_n(&own_parallel_for, parallel_for, __ATOMIC_RELEASE);
}

/* Where the weights lie, as long as the context lives. */
EXPORTED const void *const *API(constants)(const Context *context) { return context->constants; }

/* An entry that the Python loader uses: addresses of all arguments, of the constants, of the workspace. */
EXPORTED void API(entry)(const void *const *args, const void *const *constants, void *workspace, const int64_t *dims) {
  pid_t own = getpid(), seen = __atomic_load_n(&pool_process, __ATOMIC_ACQUIRE);
  /* a child of a fork has none of the threads */
  if (seen != own && __atomic_compare_exchange_n(&pool_process, &seen, own, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) tcomp_after_fork();
  tcomp_main(args, constants, workspace, dims);
}

EXPORTED void API(use_threads)(int count) { tcomp_use_threads(count); }

EXPORTED int API(run)(Context *context, const void *const *inputs, void *const *outputs, void *workspace) {
  if (!context || (NUM_INPUTS && !inputs) || !outputs || (uintptr_t)workspace % ALIGN) return BAD_ARGUMENT;
  const void *args[NUM_INPUTS + NUM_OUTPUTS];
  for (int i = 0; i < NUM_INPUTS; i++)
    if (!(args[i] = inputs[i])) return BAD_ARGUMENT;
  for (int i = 0; i < NUM_OUTPUTS; i++)
    if (!(args[NUM_INPUTS + i] = outputs[i])) return BAD_ARGUMENT;
  if (!indices_fit(inputs)) return BAD_INDEX;
  void *taken = NULL;
  if (!workspace && !(workspace = taken = aligned_alloc(ALIGN, (WORKSPACE_BYTES + ALIGN) / ALIGN * ALIGN))) return NO_MEMORY;
  tcomp_use_threads(context->num_threads);
  API(entry)(args, context->constants, workspace, NULL);
  free(taken);
  return OK;
}

EXPORTED int API(selftest)(Context *context, double *error) {
  if (!context) return BAD_ARGUMENT;
  const void *inputs[NUM_INPUTS + 1];
  void *outputs[NUM_OUTPUTS];
  for (int i = 0; i < NUM_INPUTS; i++) inputs[i] = API(golden) + ARRAYS[i].golden;
  int code = OK, made = 0;
  for (; made < NUM_OUTPUTS && code == OK; made++) {
    outputs[made] = aligned_alloc(ALIGN, (ARRAYS[NUM_INPUTS + made].bytes + ALIGN) / ALIGN * ALIGN);
    if (!outputs[made]) code = NO_MEMORY;
  }
  if (code == OK) code = API(run)(context, inputs, outputs, NULL);
  double worst = 0;
  for (int i = 0; code != NO_MEMORY && code != BAD_INDEX && i < NUM_OUTPUTS; i++) {
    const Array *a = &ARRAYS[NUM_INPUTS + i];
    double found = difference(outputs[i], API(golden) + a->golden, a->size, a->kind);
    if (found > worst) worst = found;
    if (found > a->tolerance) code = WRONG_RESULTS;
  }
  while (made-- > 0) free(outputs[made]);
  if (error) *error = worst;
  return code;
}
