/* What an exported model needs of Linux: its own threads, files mapped into memory, and of the CPU what it can do. */

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCAL
#define EXPORTED __attribute__((visibility("default")))
#define SYNC(file) fsync(fileno(file))
#define LOAD(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define STORE(p, x) __atomic_store_n(p, x, __ATOMIC_RELEASE)

/* the thread pool and the memory of kernels */
void tcomp_start_pool(int32_t cores);
void tcomp_set_num_threads(int32_t count);
void tcomp_use_threads(int32_t count);
void tcomp_after_fork(void);
void tcomp_pool_parallel_for(int64_t n, API(loop_body) body, void *argument);

static int pool_state; /* 0: not started, 1: being started, 2: started */
static pid_t pool_process;

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

static int has_features(const Variant *v) {
  for (int i = 0; i < v->num_features; i++)
    if (!has_feature(&FEATURES[v->first_feature + i])) return 0;
  return 1;
}

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

static uint64_t hash64(const unsigned char *data, size_t bytes);

/* The file of weights, mapped; null where it is not the one that was exported. */
static void *read_weights(const char *path, int *code) {
  struct stat told;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  *code = BAD_WEIGHTS;
  if (file < 0) return NULL;
  void *found = MAP_FAILED;
  if (!fstat(file, &told) && S_ISREG(told.st_mode) && (uint64_t)told.st_size == WEIGHTS_FILE_BYTES)
    found = mmap(NULL, WEIGHTS_FILE_BYTES, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (found == MAP_FAILED) return NULL;
  if (hash64(found, WEIGHTS_FILE_BYTES) == WEIGHTS_HASH) {
    *code = OK;
    return found;
  }
  munmap(found, WEIGHTS_FILE_BYTES);
  return NULL;
}

static void forget_weights(void *held) { munmap(held, WEIGHTS_FILE_BYTES); }

/* Memory that begins at a cache line. */
static void *take_lines(size_t bytes) { return aligned_alloc(ALIGN, (bytes + ALIGN) / ALIGN * ALIGN); }
static void give_lines(void *taken) { free(taken); }

static void pool_parallel_for(int64_t n, API(loop_body) body, void *argument) { tcomp_pool_parallel_for(n, body, argument); }
static void use_threads(int count) { tcomp_use_threads(count); }

static int run_entry(const Variant *v, void *const *args, const void *const *constants, void *workspace) {
  pid_t own = getpid(), seen = LOAD(&pool_process);
  /* a child of a fork has none of the threads */
  if (seen != own && __atomic_compare_exchange_n(&pool_process, &seen, own, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) tcomp_after_fork();
  return v->entry(args, constants, workspace, NULL);
}

/* What the Python loader calls: the addresses of all arguments, of the constants, of the workspace. */
EXPORTED int API(entry)(int variant, void *const *args, const void *const *constants, void *workspace) {
  return run_entry(&VARIANTS[variant], args, constants, workspace);
}

EXPORTED void API(use_threads)(int count) { use_threads(count); }
