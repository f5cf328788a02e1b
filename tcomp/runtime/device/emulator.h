/* CUDA C for a C compiler: each thread of a block is a fiber of this process (emulator.c). */
#ifndef TCOMP_EMULATOR
#define TCOMP_EMULATOR

#include <stdint.h>

typedef struct {
  unsigned x, y, z;
} emulated_dim3;

extern struct emulated_indices {
  emulated_dim3 thread, block, threads, blocks;
} emulated;

void emulated_barrier(int line);
/* The 8 bytes of a lane whose number differs in the bits of a mask. */
uint64_t emulated_exchange(unsigned lanes, uint64_t own, int mask, int line);
/* The number of a thread in its warp. */
int emulated_lane(void);
/* Wait for the lanes of a warp, all of which must come; gather: and learn where each has its own. */
void emulated_meet(int line);
void emulated_gather(const void *own, const void **all, int line);
void emulated_fault(const char *what);

#define threadIdx emulated.thread
#define blockIdx emulated.block
#define blockDim emulated.threads
#define gridDim emulated.blocks
#define __syncthreads() emulated_barrier(__LINE__)

#define KERNEL(threads) static void
#define INLINE static inline __attribute__((unused))
#define SHARED static __attribute__((section("shared_memory"), aligned(64)))
#define POOLED(t, n, name, at) SHARED t name[n]
#define UNROLL
#define CHECK_ALIGNED(p, t) \
  if ((uintptr_t)(p) & ((sizeof(t) > 16 ? 16 : sizeof(t)) - 1)) emulated_fault("a vector that does not begin at a multiple of its width")
#define UNWATCHED __attribute__((no_sanitize("thread")))
#define VECTOR(t, n, name) \
  typedef struct { t at[n]; } __attribute__((aligned((n) * sizeof(t) > 16 ? 16 : (n) * sizeof(t)))) name

#define EXCHANGE(name, t)                                                         \
  static inline __attribute__((unused)) t name(unsigned lanes, t v, int mask, int line) { \
    union { t value; uint64_t bits; } u = {.bits = 0};                            \
    u.value = v;                                                                  \
    u.bits = emulated_exchange(lanes, u.bits, mask, line);                        \
    return u.value;                                                               \
  }
EXCHANGE(emulated_float, float)
EXCHANGE(emulated_double, double)
EXCHANGE(emulated_int, int)
EXCHANGE(emulated_unsigned, unsigned)
EXCHANGE(emulated_long, long long)
EXCHANGE(emulated_ulong, unsigned long long)
#define __shfl_xor_sync(lanes, v, mask)                                                                      \
  _Generic((v), float: emulated_float, double: emulated_double, int: emulated_int, unsigned: emulated_unsigned, \
           long long: emulated_long, unsigned long long: emulated_ulong)(lanes, v, mask, __LINE__)
#define __fmul_rn(a, b) ((a) * (b))
#define __dmul_rn(a, b) ((a) * (b))

#endif
