/* The C interface of a compiled model. Above this line: the model's own tables, what arrays hold, and what the system gives. */

static API(parallel_for) own_parallel_for;
static void *own_user;

typedef struct API(context) Context;
struct API(context) {
  int num_threads, variant;
  void *held; /* what the weights were read into, or null */
  const void *constants[MAX_CONSTANTS + 1];
};

LOCAL void tcomp_parallel_for(int64_t n, API(loop_body) body, void *argument) {
  API(parallel_for) own = LOAD(&own_parallel_for);
  if (own)
    own(n, body, argument, own_user);
  else
    pool_parallel_for(n, body, argument);
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
  enum { WORDS = 512 };
  const uint64_t factor = 0xD6E8FEB86659FD93u;
  uint64_t lanes[WORDS], row[WORDS], result = bytes;
  for (int i = 0; i < WORDS; i++) lanes[i] = (uint64_t)(i + 1) * 0x9E3779B97F4A7C15u;
  for (size_t at = 0; at < bytes; at += sizeof row) {
    size_t some = bytes - at < sizeof row ? bytes - at : sizeof row;
    if (some < sizeof row) memset(row, 0, sizeof row);
    memcpy(row, data + at, some);
    for (int i = 0; i < WORDS; i++) {
      uint64_t x = (lanes[i] ^ row[i]) * factor;
      lanes[i] = x ^ x >> 32;
    }
  }
  for (int i = 0; i < WORDS; i++) {
    result = (result ^ lanes[i]) * factor;
    result ^= result >> 32;
  }
  return result;
}

EXPORTED int API(init)(Context **context, const char *weights_path, int num_threads) {
  if (!context || !weights_path != !WEIGHTS_FILE_BYTES || num_threads < 0 || num_threads > 1024) return BAD_ARGUMENT;
  *context = NULL;
  int chosen = 0;
  while (chosen < NUM_VARIANTS && !has_features(&VARIANTS[chosen])) chosen++;
  if (chosen == NUM_VARIANTS) return CPU_TOO_OLD;
  Context *made = malloc(sizeof *made);
  if (!made) return NO_MEMORY;
  int code = OK;
  made->held = weights_path ? read_weights(weights_path, &code) : NULL;
  if (code != OK) {
    free(made);
    return code;
  }
  const unsigned char *weights = made->held ? (unsigned char *)made->held + WEIGHTS_START : (const unsigned char *)API(weights);
  start_pool();
  made->num_threads = num_threads;
  made->variant = chosen;
  const Variant *v = &VARIANTS[chosen];
  for (int i = 0; i < v->num_constants; i++) made->constants[i] = weights + CONSTANT_OFFSETS[v->first_constant + i];
  *context = made;
  return OK;
}

EXPORTED void API(free)(Context *context) {
  if (context && context->held) forget_weights(context->held);
  free(context);
}

/* Which of the codes runs, for several kinds of CPUs, counted from the first in the header. */
EXPORTED int API(variant)(const Context *context) { return context->variant; }

EXPORTED size_t API(workspace_bytes)(const Context *context) { return VARIANTS[context->variant].workspace_bytes; }

EXPORTED void API(set_parallel_for)(API(parallel_for) parallel_for, void *user) {
  own_user = user;
  STORE(&own_parallel_for, parallel_for);
}

/* Where the weights lie, as long as the context lives. */
EXPORTED const void *const *API(constants)(const Context *context) { return context->constants; }

EXPORTED int API(run)(Context *context, const void *const *inputs, void *const *outputs, void *workspace) {
  if (!context || (NUM_INPUTS && !inputs) || !outputs || (uintptr_t)workspace % ALIGN) return BAD_ARGUMENT;
  void *args[NUM_INPUTS + NUM_OUTPUTS];
  for (int i = 0; i < NUM_INPUTS; i++)
    if (!(args[i] = (void *)inputs[i])) return BAD_ARGUMENT;
  for (int i = 0; i < NUM_OUTPUTS; i++)
    if (!(args[NUM_INPUTS + i] = outputs[i])) return BAD_ARGUMENT;
  if (!indices_fit(inputs)) return BAD_INDEX;
  void *taken = NULL;
  if (!workspace && !(workspace = taken = take_lines(API(workspace_bytes)(context)))) return NO_MEMORY;
  use_threads(context->num_threads);
  int code = run_entry(&VARIANTS[context->variant], args, context->constants, workspace);
  give_lines(taken);
  return code;
}

EXPORTED int API(selftest)(Context *context, double *error) {
  if (!context) return BAD_ARGUMENT;
  const void *inputs[NUM_INPUTS + 1];
  void *outputs[NUM_OUTPUTS];
  for (int i = 0; i < NUM_INPUTS; i++) inputs[i] = (const unsigned char *)API(golden) + ARRAYS[i].golden;
  int code = OK, made = 0;
  for (; made < NUM_OUTPUTS && code == OK; made++) {
    outputs[made] = take_lines((size_t)ARRAYS[NUM_INPUTS + made].bytes);
    if (!outputs[made]) code = NO_MEMORY;
  }
  if (code == OK) code = API(run)(context, inputs, outputs, NULL);
  double worst = 0;
  for (int i = 0; code != NO_MEMORY && code != BAD_INDEX && i < NUM_OUTPUTS; i++) {
    const Array *a = &ARRAYS[NUM_INPUTS + i];
    double found = difference(outputs[i], (const unsigned char *)API(golden) + a->golden, a->size, a->kind);
    if (found > worst) worst = found;
    if (found > a->tolerance) code = WRONG_RESULTS;
  }
  while (made-- > 0) give_lines(outputs[made]);
  if (error) *error = worst;
  return code;
}
