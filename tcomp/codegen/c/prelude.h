/* What generated functions are written in: a few macros. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && !defined(TCOMP_PLAIN_C)
#define VECTORS 1
#pragma GCC diagnostic ignored "-Wpsabi" /* vectors are passed among inline functions alone */
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* lanes past an edge are read, and never used */
#endif
#define INLINE static inline __attribute__((always_inline, unused))
#define KERNEL static __attribute__((noinline, unused))
#define ALIGNED __attribute__((aligned(64)))
#define RESTRICT __restrict__
#define PREFETCH(p, level) __builtin_prefetch(p, 0, 4 - (level))
/* a vector of n elements of type t; element i of a vector; of two ways to write something, the one on vectors */
#define VECTOR(t, n, name)                                                                                             \
  typedef t name __attribute__((vector_size((n) * sizeof(t)), aligned((n) * sizeof(t) > 64 ? 64 : (n) * sizeof(t)))); \
  typedef name name##_in_memory __attribute__((aligned(sizeof(t)), may_alias))
#define AT(v, i) (v)[i]
#define EITHER(vector, lanes) vector
#else
#define VECTORS 0
#define INLINE static
#define KERNEL static
#define ALIGNED
#define RESTRICT restrict
#define PREFETCH(p, level) ((void)(p))
#define VECTOR(t, n, name) typedef struct { t at[n]; } name
#define AT(v, i) (v).at[i]
#define EITHER(vector, lanes) lanes
#endif
#define LANES(n, x) for (int i = 0; i < (n); i++) x
