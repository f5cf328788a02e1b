/* Elements of arrays as numbers, and how far arrays are apart. */

static int64_t integer_at(const void *array, int64_t i, int kind) {
  switch (kind) {
    case INT8: return ((const int8_t *)array)[i];
    case INT16: return ((const int16_t *)array)[i];
    case INT32: return ((const int32_t *)array)[i];
    case INT64: return ((const int64_t *)array)[i];
    case UINT16: return ((const uint16_t *)array)[i];
    case UINT32: return ((const uint32_t *)array)[i];
    case UINT64: return (int64_t)((const uint64_t *)array)[i];
    default: return ((const uint8_t *)array)[i]; /* BOOL, UINT8 */
  }
}

static float from_bits(uint32_t bits) {
  union { uint32_t bits; float number; } both = {bits};
  return both.number;
}

static double from_half(uint16_t half) {
  uint32_t exponent = half >> 10 & 31, fraction = half & 1023u;
  double size = exponent == 31 ? from_bits(0x7f800000u | fraction << 13)
                : exponent     ? from_bits((exponent + 112) << 23 | fraction << 13)
                               : fraction / 16777216.0;
  return half >> 15 ? -size : size;
}

static double number_at(const void *array, int64_t i, int kind) {
  switch (kind) {
    case FLOAT64: return ((const double *)array)[i];
    case FLOAT32: return ((const float *)array)[i];
    case FLOAT16: return from_half(((const uint16_t *)array)[i]);
    case BFLOAT16: return from_bits((uint32_t)((const uint16_t *)array)[i] << 16);
    default: return (double)integer_at(array, i, kind);
  }
}

static int is_finite(double x) { return x - x == 0; }

/* ||got - want|| / ||want||; infinite where one is a NaN and the other is not. */
static double difference(const void *got, const void *want, int64_t size, int kind) {
  double apart = 0, length = 0;
  for (int64_t i = 0; i < size; i++) {
    double g = number_at(got, i, kind), w = number_at(want, i, kind);
    if (g == w || (g != g && w != w)) {
      if (is_finite(w)) length += w * w;
      continue;
    }
    if (!is_finite(g) || !is_finite(w)) return HUGE_VAL;
    apart += (g - w) * (g - w);
    length += w * w;
  }
  return apart == 0 ? 0 : length == 0 ? HUGE_VAL : sqrt(apart / length);
}

/* Whether all inputs that hold places in tables keep to their range. */
static int indices_fit(const void *const *inputs) {
  for (int c = 0; c < NUM_CHECKS; c++)
    for (int64_t i = 0; i < ARRAYS[CHECKS[c].input].size; i++) {
      int64_t x = integer_at(inputs[CHECKS[c].input], i, ARRAYS[CHECKS[c].input].kind);
      if (x < CHECKS[c].low || x > CHECKS[c].high) return 0;
    }
  return 1;
}
