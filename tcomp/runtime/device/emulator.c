/* Runs CUDA kernels on the CPU, and watches them.

Blocks run one after another. Each thread of a block is a fiber, a stack of its own; a warp's lanes run in turn until each waits or is done,
then the next warp's, in an order that the caller chooses: a missing barrier shows in some order as another result.

Kernels are compiled with -fsanitize=thread, which makes the compiler call a hook before each access to memory. The hooks here note for every
byte who wrote it last, and who read it, since the last barrier: two threads that touch a byte without a barrier between them, one of them
writing, are a race, and so are two blocks of one launch. An access outside of all that the program was given is an error, too.
*/

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "emulator.h"

enum { MAX_THREADS = 1024, WARP = 32, MAX_REGIONS = 4096, MESSAGE = 512 };
static const size_t STACK = 256 * 1024;

struct emulated_indices emulated;

enum state { READY, AT_BARRIER, EXCHANGING, DONE };
typedef struct {
  void *stack_pointer;
  enum state state;
  int line;
  uint64_t value;
  emulated_dim3 index;
} fiber;

static fiber fibers[MAX_THREADS];
static char *stacks;
static void *scheduler;
static fiber *current;
static void (*kernel)(void **);
static void **arguments;
static char message[MESSAGE];
static int failed;

/* memory */

typedef struct {
  uint32_t written_at, read_at;       /* phase of the last access: phases end at barriers, and are never used again */
  uint16_t writer, reader;            /* the thread; ANY for several */
  uint32_t writing_block, reading_block;
} cell;
enum { ANY = 0xffff };
#define ANY_BLOCK 0xffffffffu
typedef struct {
  char *begin, *end;
  cell *cells;
  uint32_t since; /* the phase from which accesses count: of shared memory, the block's first one */
} region;

static region regions[MAX_REGIONS];
static int num_regions;
static uint32_t phase, block_number;
static region *last_region;

extern char __start_shared_memory[] __attribute__((weak));
extern char __stop_shared_memory[] __attribute__((weak));

static void fail(const char *format, ...);

static int add_region(char *begin, size_t nbytes) {
  if (num_regions == MAX_REGIONS) return 1;
  cell *cells = calloc(nbytes ? nbytes : 1, sizeof *cells);
  if (!cells) return 1;
  regions[num_regions++] = (region){begin, begin + nbytes, cells, 0};
  return 0;
}

static void drop_regions(void) {
  while (num_regions) free(regions[--num_regions].cells);
  last_region = NULL;
}

static region *region_of(char *at) {
  if (last_region && at >= last_region->begin && at < last_region->end) return last_region;
  for (int i = 0; i < num_regions; i++)
    if (at >= regions[i].begin && at < regions[i].end) return last_region = &regions[i];
  return NULL;
}

static unsigned thread_number(void) { return (unsigned)(current - fibers); }

static void race(const char *first, unsigned block, unsigned thread, const char *second, char *at) {
  char other[64];
  if (block == ANY_BLOCK) snprintf(other, sizeof other, "threads of other blocks");
  else if (block != block_number) snprintf(other, sizeof other, "block %u", block);
  else if (thread == ANY) snprintf(other, sizeof other, "other threads");
  else snprintf(other, sizeof other, "thread %u", thread);
  region *r = region_of(at);
  int is_shared = r->begin == __start_shared_memory;
  fail("race: thread %u of block %u %s byte %td of %s, which %s %s with no barrier between", thread_number(), block_number,
       second, at - r->begin, is_shared ? "shared memory" : "a buffer", other, first);
}

static void touch(char *at, size_t n, int writes) {
  if (!current || failed) return;
  char *own = stacks + STACK * thread_number();
  if (at >= own && at < own + STACK) return;
  if (at >= (char *)&emulated && at < (char *)(&emulated + 1)) return;
  region *r = region_of(at);
  if (!r || at + n > r->end) {
    fail("out of bounds: thread %u of block %u %s %zu bytes %s", thread_number(), block_number, writes ? "writes" : "reads", n,
         r ? "beyond a buffer's end" : "where no buffer is");
    return;
  }
  uint16_t me = (uint16_t)thread_number();
  for (cell *c = r->cells + (at - r->begin), *end = c + n; c < end; c++) {
    if (c->written_at > r->since &&
        (c->writing_block != block_number || (c->writer != me && c->written_at == phase))) {
      race("wrote", c->writing_block, c->writer, writes ? "writes" : "reads", r->begin + (c - r->cells));
      return;
    }
    if (writes) {
      int others = c->reading_block != block_number || (c->reader != me && c->read_at == phase);
      if (c->read_at > r->since && others) {
        race("read", c->reading_block, c->reader, "writes", r->begin + (c - r->cells));
        return;
      }
      c->written_at = phase, c->writer = me, c->writing_block = block_number;
    } else {
      uint16_t reader = c->read_at == phase && c->reading_block == block_number && c->reader != me ? ANY : me;
      c->reading_block = c->read_at > r->since && c->reading_block != block_number ? ANY_BLOCK : block_number;
      c->read_at = phase, c->reader = reader;
    }
  }
}

#define HOOKS(n)                                                            \
  void __tsan_read##n(void *at) { touch(at, n, 0); }                        \
  void __tsan_write##n(void *at) { touch(at, n, 1); }                       \
  void __tsan_unaligned_read##n(void *at) { touch(at, n, 0); }              \
  void __tsan_unaligned_write##n(void *at) { touch(at, n, 1); }             \
  void __tsan_volatile_read##n(void *at) { touch(at, n, 0); }               \
  void __tsan_volatile_write##n(void *at) { touch(at, n, 1); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void *at, size_t n) { touch(at, n, 0); }
void __tsan_write_range(void *at, size_t n) { touch(at, n, 1); }
void *__tsan_memcpy(void *to, const void *from, size_t n) {
  touch((char *)from, n, 0), touch(to, n, 1);
  return memcpy(to, from, n);
}
void *__tsan_memset(void *to, int value, size_t n) {
  touch(to, n, 1);
  return memset(to, value, n);
}
void __tsan_init(void) {}
void __tsan_func_entry(void *at) { (void)at; }
void __tsan_func_exit(void) {}

/* fibers */

#if defined(__x86_64__)
void emulated_switch(void **from, void *to);
__asm__(
    ".text\n.globl emulated_switch\n.hidden emulated_switch\n.type emulated_switch, @function\nemulated_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n");
static void *prepared(char *stack, void (*entry)(void)) {
  uint64_t *top = (uint64_t *)(stack + STACK) - 1; /* as after a call: 8 bytes beyond a multiple of 16 */
  *--top = (uint64_t)entry;
  return top - 6;
}
#elif defined(__aarch64__)
void emulated_switch(void **from, void *to);
__asm__(
    ".text\n.globl emulated_switch\n.hidden emulated_switch\nemulated_switch:\n"
    "  sub sp, sp, #160\n  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n  stp d8, d9, [sp, #96]\n"
    "  stp d10, d11, [sp, #112]\n  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n  add sp, sp, #160\n  ret\n");
static void *prepared(char *stack, void (*entry)(void)) {
  uint64_t *frame = (uint64_t *)(stack + STACK) - 20;
  memset(frame, 0, 160);
  frame[11] = (uint64_t)entry;
  return frame;
}
#else
#error "the emulator runs on x86-64 and AArch64"
#endif

static void wait_as(enum state state, int line) {
  fiber *own = current;
  own->state = state, own->line = line;
  emulated_switch(&own->stack_pointer, scheduler);
}

static void fail(const char *format, ...) {
  if (!failed) {
    va_list list;
    va_start(list, format);
    vsnprintf(message, sizeof message, format, list);
    va_end(list);
  }
  failed = 1;
  if (current) wait_as(DONE, 0); /* never resumed */
}

void emulated_barrier(int line) { wait_as(AT_BARRIER, line); }

uint64_t emulated_exchange(unsigned lanes, uint64_t own, int mask, int line) {
  unsigned lane = thread_number() % WARP;
  if (!(lanes >> lane & 1)) fail("thread %u of block %u exchanges with lanes that do not count it", thread_number(), block_number);
  current->value = own;
  wait_as(EXCHANGING, line);
  fiber *other = fibers + (thread_number() / WARP * WARP + (lane ^ (unsigned)mask));
  uint64_t found = other->value;
  wait_as(EXCHANGING, -line); /* until all have read */
  return found;
}

int emulated_lane(void) { return (int)(thread_number() % WARP); }

void emulated_fault(const char *what) { fail("thread %u of block %u: %s", thread_number(), block_number, what); }

void emulated_meet(int line) { wait_as(EXCHANGING, line); }

void emulated_gather(const void *own, const void **all, int line) {
  current->value = (uint64_t)own;
  wait_as(EXCHANGING, line);
  for (unsigned lane = 0; lane < WARP; lane++) all[lane] = (const void *)fibers[thread_number() / WARP * WARP + lane].value;
  wait_as(EXCHANGING, -line); /* until all have read */
}

static void run_thread(void) {
  kernel(arguments);
  wait_as(DONE, 0);
}

static void resume(fiber *f) {
  current = f;
  f->state = READY;
  emulated.thread = f->index;
  emulated_switch(&scheduler, f->stack_pointer);
  current = NULL;
}

static unsigned random_number(uint64_t *seed) {
  *seed = *seed * 6364136223846793005u + 1442695040888963407u;
  return (unsigned)(*seed >> 33);
}

/* The numbers below n: as they are, backwards, or shuffled. */
static void arrange(unsigned *places, unsigned n, int order, uint64_t *seed) {
  for (unsigned i = 0; i < n; i++) places[i] = order == 1 ? n - 1 - i : i;
  for (unsigned i = n; order == 2 && i > 1; i--) {
    unsigned j = random_number(seed) % i, kept = places[i - 1];
    places[i - 1] = places[j], places[j] = kept;
  }
}

/* Run a warp until all of its lanes are at a barrier or done. */
static void run_warp(unsigned first, unsigned count, int order, uint64_t *seed) {
  unsigned lanes[WARP];
  arrange(lanes, count, order, seed);
  while (!failed) {
    unsigned exchanging = 0, ready = 0;
    for (unsigned i = 0; i < count && !failed; i++) {
      fiber *f = &fibers[first + lanes[i]];
      if (f->state == READY) resume(f);
    }
    for (unsigned i = 0; i < count; i++) {
      fiber *f = &fibers[first + i];
      exchanging += f->state == EXCHANGING;
      ready += f->state == READY;
    }
    if (failed || !exchanging) return;
    for (unsigned i = 1; i < count; i++)
      if (fibers[first + i].line != fibers[first].line || fibers[first + i].state != EXCHANGING) {
        fail("lanes of the warp of thread %u in block %u exchange at different places, or some do not", first, block_number);
        return;
      }
    for (unsigned i = 0; i < count; i++) fibers[first + i].state = READY;
  }
}

static void run_block(unsigned count, int order, uint64_t *seed) {
  static unsigned warps[MAX_THREADS / WARP];
  unsigned num_warps = (count + WARP - 1) / WARP;
  size_t shared = (size_t)(__stop_shared_memory - __start_shared_memory);
  if (shared) memset(__start_shared_memory, 0xff, shared); /* of floats, NaN */
  regions[0].since = phase;
  for (unsigned i = 0; i < count; i++) {
    fibers[i].stack_pointer = prepared(stacks + STACK * i, run_thread);
    fibers[i].state = READY;
    fibers[i].index.x = i % emulated.threads.x;
    fibers[i].index.y = i / emulated.threads.x % emulated.threads.y;
    fibers[i].index.z = i / emulated.threads.x / emulated.threads.y;
  }
  for (;;) {
    phase++;
    arrange(warps, num_warps, order, seed);
    for (unsigned w = 0; w < num_warps && !failed; w++) {
      unsigned first = warps[w] * WARP;
      run_warp(first, count - first < WARP ? count - first : WARP, order, seed);
    }
    if (failed) return;
    unsigned waiting = 0;
    for (unsigned i = 0; i < count; i++) waiting += fibers[i].state == AT_BARRIER;
    if (!waiting) return;
    for (unsigned i = 0; i < count; i++)
      if (fibers[i].state != AT_BARRIER || fibers[i].line != fibers[0].line) {
        fail("barrier: in block %u thread %u waits at one that thread %u does not come to", block_number,
             fibers[0].state == AT_BARRIER ? 0 : i, fibers[0].state == AT_BARRIER ? i : 0);
        return;
      }
    for (unsigned i = 0; i < count; i++) fibers[i].state = READY;
  }
}

/* Run a launch; returns what went wrong, or NULL. It may touch `num_buffers` buffers, and no other memory.
   order: 0 forwards, 1 backwards, 2 shuffled by the seed. */
const char *emulated_launch(void (*function)(void **), void **args, const unsigned *grid, const unsigned *block, unsigned num_buffers,
                            char **buffers, const uint64_t *sizes, int order, uint64_t seed) {
  unsigned count = block[0] * block[1] * block[2];
  if (count > MAX_THREADS || !count) return "a block has from 1 to 1024 threads";
  stacks = mmap(NULL, STACK * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) return "there is no memory for the threads' stacks";
  failed = add_region(__start_shared_memory, (size_t)(__stop_shared_memory - __start_shared_memory)); /* regions[0] */
  for (unsigned i = 0; i < num_buffers && !failed; i++) failed = add_region(buffers[i], sizes[i]);
  if (failed) {
    drop_regions();
    munmap(stacks, STACK * count);
    return "there is no memory to watch the buffers with";
  }
  kernel = function, arguments = args;
  emulated.blocks = (emulated_dim3){grid[0], grid[1], grid[2]};
  emulated.threads = (emulated_dim3){block[0], block[1], block[2]};
  phase = 0;
  uint64_t blocks = (uint64_t)grid[0] * grid[1] * grid[2];
  for (uint64_t i = 0; i < blocks && !failed; i++) {
    uint64_t b = order == 1 ? blocks - 1 - i : i;
    emulated.block = (emulated_dim3){(unsigned)(b % grid[0]), (unsigned)(b / grid[0] % grid[1]), (unsigned)(b / grid[0] / grid[1])};
    block_number = (uint32_t)b;
    run_block(count, order, &seed);
  }
  drop_regions();
  munmap(stacks, STACK * count); /* each program has an emulator of its own */
  return failed ? message : NULL;
}
