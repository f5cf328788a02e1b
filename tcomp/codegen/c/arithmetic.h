/* Arithmetic that C leaves open: integers that wrap, extrema of NaN, conversions, floats of 16 bits. */

/* Integers. Sums and products wrap; quotients are rounded down; a divisor of 0 gives 0. */
#define INTEGER(name, t, wide)                                                                    \
  INLINE t name##_add(t a, t b) { return (t)((wide)a + (wide)b); }                                \
  INLINE t name##_sub(t a, t b) { return (t)((wide)a - (wide)b); }                                \
  INLINE t name##_mul(t a, t b) { return (t)((wide)a * (wide)b); }                                \
  INLINE t name##_neg(t a) { return (t)(0 - (wide)a); }                                           \
  INLINE t name##_shl(t a, t b) { return (t)((wide)a << b); }                                     \
  INLINE t name##_min(t a, t b) { return a < b ? a : b; }                                         \
  INLINE t name##_max(t a, t b) { return b < a ? a : b; }
#define SIGNED(name, t, wide)                                                                     \
  INTEGER(name, t, wide)                                                                          \
  INLINE t name##_abs(t a) { return a < 0 ? name##_neg(a) : a; }                                  \
  INLINE t name##_floordiv(t a, t b) {                                                            \
    if (b == 0) return 0;                                                                         \
    if (b == -1) return name##_neg(a);                                                            \
    t q = (t)(a / b), r = (t)(a % b);                                                             \
    return (t)(r != 0 && (r ^ b) < 0 ? q - 1 : q);                                                \
  }                                                                                               \
  INLINE t name##_floormod(t a, t b) {                                                            \
    if (b == 0 || b == -1) return 0;                                                              \
    t r = (t)(a % b);                                                                             \
    return (t)(r != 0 && (r ^ b) < 0 ? r + b : r);                                                \
  }
#define UNSIGNED(name, t, wide)                                                                   \
  INTEGER(name, t, wide)                                                                          \
  INLINE t name##_abs(t a) { return a; }                                                          \
  INLINE t name##_floordiv(t a, t b) { return (t)(b == 0 ? 0 : a / b); }                          \
  INLINE t name##_floormod(t a, t b) { return (t)(b == 0 ? 0 : a % b); }
SIGNED(i8, int8_t, uint32_t)
SIGNED(i16, int16_t, uint32_t)
SIGNED(i32, int32_t, uint32_t)
SIGNED(i64, int64_t, uint64_t)
UNSIGNED(u8, uint8_t, uint32_t)
UNSIGNED(u16, uint16_t, uint32_t)
UNSIGNED(u32, uint32_t, uint32_t)
UNSIGNED(u64, uint64_t, uint64_t)

/* Floats. Extrema of a NaN are NaN; those with a number behind (`_of_number`) need not ask for it twice. */
#define FLOAT(name, t, bits_name, bits_t)                                                         \
  INLINE t name##_min(t a, t b) { return a != a || a < b ? a : b; }                               \
  INLINE t name##_max(t a, t b) { return a != a || a > b ? a : b; }                               \
  INLINE t name##_min_of_number(t a, t b) { return b < a ? b : a; }                               \
  INLINE t name##_max_of_number(t a, t b) { return b > a ? b : a; }                               \
  INLINE t name##_of_##bits_name(bits_t a) { t r; memcpy(&r, &a, sizeof r); return r; }           \
  INLINE bits_t bits_name##_of_##name(t a) { bits_t r; memcpy(&r, &a, sizeof r); return r; }
FLOAT(f32, float, u32, uint32_t)
FLOAT(f64, double, u64, uint64_t)

/* Floats to integers, toward zero; what lies outside becomes the nearest end, NaN becomes 0. */
#define SATURATE(name, t, low, high)                                                              \
  INLINE t name##_from_f64(double x) { return (t)(x >= (high) ? (t)((high) - 1) : x > (low) ? (t)x : x <= (low) ? (t)(low) : 0); } \
  INLINE t name##_from_f32(float x) { return name##_from_f64(x); }
#define SATURATE_64(name, t, low, least, high, most)                                              \
  INLINE t name##_from_f64(double x) { return x >= (high) ? (most) : x > (low) ? (t)x : x <= (low) ? (least) : 0; } \
  INLINE t name##_from_f32(float x) { return name##_from_f64(x); }
SATURATE(i8, int8_t, -128.0, 128.0)
SATURATE(i16, int16_t, -32768.0, 32768.0)
SATURATE(i32, int32_t, -2147483648.0, 2147483648.0)
SATURATE_64(i64, int64_t, -9223372036854775808.0, INT64_MIN, 9223372036854775808.0, INT64_MAX)
SATURATE(u8, uint8_t, 0.0, 256.0)
SATURATE(u16, uint16_t, 0.0, 65536.0)
SATURATE(u32, uint32_t, 0.0, 4294967296.0)
SATURATE_64(u64, uint64_t, 0.0, 0, 18446744073709551616.0, UINT64_MAX)

/* Floats of 16 bits, kept as their bits. */
INLINE float f32_from_bf16(uint16_t a) { return f32_of_u32((uint32_t)a << 16); }
INLINE uint16_t bf16_from_f32(float x) {
  uint32_t bits = u32_of_f32(x);
  if (x != x) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + (bits >> 16 & 1) + 0x7fff) >> 16);
}
#ifndef HAS_F16_CONVERSIONS
/* The exponent is moved to its place by a product, which turns subnormal numbers into normal ones as well. */
INLINE float f32_from_f16(uint16_t a) {
  uint32_t size = (uint32_t)(a & 0x7fff) << 13, sign = (uint32_t)(a & 0x8000) << 16;
  uint32_t finite = u32_of_f32(f32_of_u32(size) * 5192296858534827628530496329220096.0f);
  return f32_of_u32((size >= 0x0f800000 ? size | 0x7f800000 : finite) | sign);
}
INLINE uint16_t f16_from_f32(float x) {
  uint32_t bits = u32_of_f32(x), size = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
  if (size > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (size >> 13 & 0x1ff));
  if (size >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  /* added to 0.5, a number below 2^-14 is rounded to a multiple of 2^-24, the least such float */
  if (size < 0x38800000) return (uint16_t)(sign | (u32_of_f32(f32_of_u32(size) + 0.5f) - 0x3f000000));
  return (uint16_t)(sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13));
}
#endif
/* float64 to float32 such that rounding once more is right: what is not exact is truncated and gets an odd last bit. */
INLINE float f32_odd_from_f64(double x) {
  float near = (float)x;
  if (near == x || x != x) return near;
  uint32_t bits = u32_of_f32(near);
  return f32_of_u32((fabs((double)near) > fabs(x) ? bits - 1 : bits) | 1);
}
INLINE double f64_from_bf16(uint16_t a) { return f32_from_bf16(a); }
INLINE double f64_from_f16(uint16_t a) { return f32_from_f16(a); }
INLINE uint16_t bf16_from_f64(double x) { return bf16_from_f32(f32_odd_from_f64(x)); }
INLINE uint16_t f16_from_f64(double x) { return f16_from_f32(f32_odd_from_f64(x)); }
