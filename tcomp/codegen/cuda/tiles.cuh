/* Tiles of 16 x 16 elements that the lanes of a warp hold together, and their products (CUDA C++ Programming Guide, "Warp Matrix Functions").
   Tiles lie in memory row by row; of one whose name ends with t the rows run along the other axis of the matrix. */

#ifdef __CUDACC__
#include <mma.h>

#define TILE_OF(name, use, d, t, order)                                                               \
  typedef nvcuda::wmma::fragment<nvcuda::wmma::use, 16, 16, 16, t, nvcuda::wmma::order> tile_##name##_##d; \
  INLINE void tile_load_##name##_##d(tile_##name##_##d *to, const uint16_t *from, int step) {         \
    nvcuda::wmma::load_matrix_sync(*to, (const t *)from, step);                                       \
  }
#define TILE_PRODUCT(a, b, d)                                                                                    \
  INLINE void tile_multiply_##a##_##b##_##d(tile_f32 *c, const tile_##a##_##d *left, const tile_##b##_##d *right) { \
    nvcuda::wmma::mma_sync(*c, *left, *right, *c);                                                               \
  }
typedef nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> tile_f32;
INLINE void tile_fill_f32(tile_f32 *to, float v) { nvcuda::wmma::fill_fragment(*to, v); }
INLINE void tile_store_f32(float *to, const tile_f32 *from, int step) {
  nvcuda::wmma::store_matrix_sync(to, *from, step, nvcuda::wmma::mem_row_major);
}

#else /* each lane holds 8 neighbours */
enum { TILE_SIDE = 16, TILE_EACH = 8 };
typedef struct { float at[TILE_EACH]; } tile_f32;

INLINE void tile_is_aligned(const void *at, int step, int size) {
  if ((uintptr_t)at % 32 || step * size % 16) emulated_fault("a tile begins, or its rows lie, where the device cannot take them");
}
INLINE void tile_fill_f32(tile_f32 *to, float v) { LANES(TILE_EACH, to->at[i] = v;) }
INLINE void tile_store_f32(float *to, const tile_f32 *from, int step) {
  const int first = emulated_lane() * TILE_EACH;
  tile_is_aligned(to, step, sizeof *to);
  LANES(TILE_EACH, to[(first + i) / TILE_SIDE * step + (first + i) % TILE_SIDE] = from->at[i];)
  emulated_meet(__LINE__);
}
UNWATCHED static inline float tile_element(const void *const *lanes, int row, int column) {
  const int at = row * TILE_SIDE + column;
  return ((const float *)lanes[at / TILE_EACH])[at % TILE_EACH];
}
UNWATCHED static inline __attribute__((unused)) void tile_multiply(float *c, const float *a, const float *b, int a_is_turned, int b_is_turned) {
  const void *left[32], *right[32];
  const int first = emulated_lane() * TILE_EACH;
  emulated_gather(a, left, __LINE__);
  emulated_gather(b, right, __LINE__);
  for (int n = 0; n < TILE_EACH; n++) {
    const int i = (first + n) / TILE_SIDE, j = (first + n) % TILE_SIDE;
    float sum = 0;
    for (int k = 0; k < TILE_SIDE; k++)
      sum += (a_is_turned ? tile_element(left, k, i) : tile_element(left, i, k)) *
             (b_is_turned ? tile_element(right, j, k) : tile_element(right, k, j));
    c[n] += sum;
  }
  emulated_meet(__LINE__); /* until all have read */
}
#define TILE_OF(name, use, d, t, order)                                                        \
  typedef struct { float at[TILE_EACH]; } tile_##name##_##d;                                   \
  INLINE void tile_load_##name##_##d(tile_##name##_##d *to, const uint16_t *from, int step) {  \
    const int first = emulated_lane() * TILE_EACH;                                             \
    tile_is_aligned(from, step, sizeof *from);                                                 \
    LANES(TILE_EACH, to->at[i] = f32_from_##d(from[(first + i) / TILE_SIDE * step + (first + i) % TILE_SIDE]);) \
    emulated_meet(__LINE__);                                                                   \
  }
#define TILE_PRODUCT(a, b, d)                                                                                    \
  INLINE void tile_multiply_##a##_##b##_##d(tile_f32 *c, const tile_##a##_##d *left, const tile_##b##_##d *right) { \
    tile_multiply(c->at, left->at, right->at, sizeof #a > 2, sizeof #b > 2);                                     \
  }
#endif

#define TILES(d, t)                     \
  TILE_OF(a, matrix_a, d, t, row_major) \
  TILE_OF(at, matrix_a, d, t, col_major) \
  TILE_OF(b, matrix_b, d, t, row_major) \
  TILE_OF(bt, matrix_b, d, t, col_major) \
  TILE_PRODUCT(a, b, d)                 \
  TILE_PRODUCT(a, bt, d)                \
  TILE_PRODUCT(at, b, d)                \
  TILE_PRODUCT(at, bt, d)
