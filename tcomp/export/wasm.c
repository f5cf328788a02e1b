/* A compiled model as a WebAssembly module: one thread, arrays at fixed addresses. */

#define EXPORTED(name) __attribute__((export_name(#name)))

enum { PAGE = 1 << 16 };

extern unsigned char __heap_base;

/* Memory. Blocks are taken from the end and never given back; those of kernels are kept on a list. */

static uintptr_t heap_end;

static void *take(uint64_t bytes) {
  uintptr_t start = heap_end ? heap_end : ((uintptr_t)&__heap_base + ALIGN - 1) / ALIGN * ALIGN;
  uint64_t end = start + (bytes + ALIGN - 1) / ALIGN * ALIGN;
  uint64_t have = (uint64_t)__builtin_wasm_memory_size(0) * PAGE;
  if (end > UINT32_MAX) return 0;
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (size_t)-1) return 0;
  heap_end = (uintptr_t)end;
  return (void *)start;
}

typedef struct Block Block;
struct Block {
  Block *next;
  uint64_t bytes;
};
static Block *blocks;
static int32_t failures;

void *tcomp_take(int64_t bytes) {
  for (Block **at = &blocks; *at; at = &(*at)->next)
    if ((*at)->bytes >= (uint64_t)bytes) {
      Block *found = *at;
      *at = found->next;
      return (char *)found + ALIGN;
    }
  Block *made = take((uint64_t)bytes + ALIGN);
  if (!made) {
    failures++;
    return 0;
  }
  made->bytes = (uint64_t)bytes;
  return (char *)made + ALIGN;
}

void tcomp_give(void *pointer) {
  Block *block = (Block *)((char *)pointer - ALIGN);
  block->next = blocks;
  blocks = block;
}

void tcomp_parallel_for(int64_t n, void (*body)(void *, int64_t, int64_t), void *argument) { body(argument, 0, n); }
int32_t tcomp_failures(void) { return failures; }
void tcomp_begin_run(void) {}
void tcomp_end_run(void) {}
int32_t tcomp_flush_denormals(void) { return 0; }
void tcomp_restore_mode(int32_t mode) { (void)mode; }

static const void *constants[MAX_CONSTANTS + 1];
static void *arrays[NUM_INPUTS + NUM_OUTPUTS];
static void *workspace;

/* Makes room for the workspace, and for all inputs and results. */
EXPORTED(init) int init(void) {
  for (int i = 0; i < VARIANTS[0].num_constants; i++) constants[i] = (const unsigned char *)API(weights) + CONSTANT_OFFSETS[i];
  for (int i = 0; i < NUM_INPUTS + NUM_OUTPUTS; i++)
    if (!(arrays[i] = take((uint64_t)ARRAYS[i].bytes + 1))) return NO_MEMORY;
  workspace = take(VARIANTS[0].workspace_bytes + 1);
  return workspace ? OK : NO_MEMORY;
}

/* Where an input lies; results follow the inputs. */
EXPORTED(address) void *address(int i) { return arrays[i]; }

EXPORTED(run) int run(void) {
  if (!indices_fit((const void *const *)arrays)) return BAD_INDEX;
  return VARIANTS[0].entry(arrays, constants, workspace, 0);
}

/* Runs the model on the inputs stored at export; the largest relative difference of its results from those stored, in the 2-norm; -1 if it
 * is more than rounding explains. */
EXPORTED(selftest) double selftest(void) {
  double worst = 0;
  int is_right = 1;
  for (int i = 0; i < NUM_INPUTS; i++) __builtin_memcpy(arrays[i], (const unsigned char *)API(golden) + ARRAYS[i].golden, ARRAYS[i].bytes);
  if (run() != OK) return -1;
  for (int i = NUM_INPUTS; i < NUM_INPUTS + NUM_OUTPUTS; i++) {
    double found = difference(arrays[i], (const unsigned char *)API(golden) + ARRAYS[i].golden, ARRAYS[i].size, ARRAYS[i].kind);
    worst = found > worst ? found : worst;
    is_right &= found <= ARRAYS[i].tolerance;
  }
  return is_right ? worst : -1;
}
