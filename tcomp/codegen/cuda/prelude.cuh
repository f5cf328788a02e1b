/* What kernels are written in, for nvcc; the CPU's emulation of CUDA takes the same text, after a header of its own. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define INLINE static __device__ __forceinline__
#define SHARED __shared__ __align__(32)
/* Shared memory beyond what code may declare: parts of what a block is given when it is launched. */
extern __shared__ __align__(128) unsigned char shared_pool[];
#define POOLED(t, n, name, at) t *const name = (t *)(shared_pool + (at))
#define UNROLL _Pragma("unroll")
#define CHECK_ALIGNED(p, t)
#define VECTOR(t, n, name) \
  typedef struct __align__((n) * sizeof(t) > 16 ? 16 : (n) * sizeof(t)) { t at[n]; } name

/* Conversions of float16 are instructions: here, and not the ones of arithmetic.h. */
#define HAS_F16_CONVERSIONS
INLINE float f32_from_f16(uint16_t a) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(a));
  return r;
}
INLINE uint16_t f16_from_f32(float x) {
  uint16_t r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
#endif
#define ALIGNED
#define RESTRICT __restrict__
#define VECTORS 0
#define AT(v, i) (v).at[i]
#define EITHER(vector, lanes) lanes
#define LANES(n, x) UNROLL for (int i = 0; i < (n); i++) x
#define ALL_LANES 0xffffffffu
#define IS_ALIGNED(p, t) (((uintptr_t)(p) & ((sizeof(t) > 16 ? 16 : sizeof(t)) - 1)) == 0)

/* What a lane of the warp has, whose number differs in the bits of a mask. */
#define FROM_LANE(name, t) \
  INLINE t name##_from_lane(t v, int mask) { return __shfl_xor_sync(ALL_LANES, v, mask); }
FROM_LANE(f32, float)
FROM_LANE(f64, double)
FROM_LANE(i32, int32_t)
FROM_LANE(u32, uint32_t)
FROM_LANE(i64, long long)
FROM_LANE(u64, unsigned long long)

/* Products that are rounded before anything is added to them. */
INLINE float f32_mul_rounded(float a, float b) { return __fmul_rn(a, b); }
INLINE double f64_mul_rounded(double a, double b) { return __dmul_rn(a, b); }
