/* The C interface of a compiled model. Above this line: the model's own tables, what arrays hold, and what the system gives. */

static API(parallel_for) own_parallel_for;
static void *own_user;

typedef struct API(context) Context;
struct API(context) {
  int num_threads, variant;
  void *held;           /* what the weights were read into, or null */
  unsigned char *state; /* what is kept from run to run */
  const void *initial_state;
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
    case BAD_STATE: return "the file of what the model keeps cannot be written, is missing, damaged, or of another model";
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
  made->initial_state = weights + STATE_PLACE;
  made->state = take_lines(STATE_BYTES);
  if (!made->state) {
    if (made->held) forget_weights(made->held);
    free(made);
    return NO_MEMORY;
  }
  memcpy(made->state, made->initial_state, STATE_BYTES);
  start_pool();
  made->num_threads = num_threads;
  made->variant = chosen;
  const Variant *v = &VARIANTS[chosen];
  for (int i = 0; i < v->num_constants; i++) made->constants[i] = weights + CONSTANT_OFFSETS[v->first_constant + i];
  *context = made;
  return OK;
}

EXPORTED void API(free)(Context *context) {
  if (!context) return;
  if (context->held) forget_weights(context->held);
  give_lines(context->state);
  free(context);
}

/* Which of the codes runs, for several kinds of CPUs, counted from the first in the header. */
EXPORTED int API(variant)(const Context *context) { return context ? context->variant : -1; }

EXPORTED size_t API(workspace_bytes)(const Context *context) { return context ? VARIANTS[context->variant].workspace_bytes : 0; }

EXPORTED void API(set_parallel_for)(API(parallel_for) parallel_for, void *user) {
  own_user = user;
  STORE(&own_parallel_for, parallel_for);
}

/* Where the weights lie, as long as the context lives. */
EXPORTED const void *const *API(constants)(const Context *context) { return context->constants; }

/* A run with what is kept at `state`: the addresses of all arrays, those of the caller and those kept, in the program's order. */
static int run_on(const Context *context, unsigned char *state, const void *const *inputs, void *const *outputs, void *workspace, void **args) {
  for (int i = 0; i < NUM_INPUTS + NUM_OUTPUTS; i++) {
    args[i] = ARRAYS[i].kept >= 0 ? state + ARRAYS[i].kept : i < NUM_INPUTS ? (void *)*inputs++ : *outputs++;
    if (!args[i]) return BAD_ARGUMENT;
  }
  if (!indices_fit((const void *const *)args)) return BAD_INDEX;
  void *taken = NULL;
  if (!workspace && !(workspace = taken = take_lines(API(workspace_bytes)(context)))) return NO_MEMORY;
  use_threads(context->num_threads);
  int code = run_entry(&VARIANTS[context->variant], args, context->constants, workspace);
  give_lines(taken);
  return code;
}

EXPORTED int API(run)(Context *context, const void *const *inputs, void *const *outputs, void *workspace) {
  void *args[NUM_INPUTS + NUM_OUTPUTS];
  if (!context || (NUM_GIVEN && !inputs) || (NUM_TAKEN && !outputs) || (uintptr_t)workspace % ALIGN) return BAD_ARGUMENT;
  return run_on(context, context->state, inputs, outputs, workspace, args);
}

EXPORTED int API(selftest)(Context *context, double *error) {
  if (!context) return BAD_ARGUMENT;
  const void *inputs[NUM_GIVEN + 1];
  void *outputs[NUM_TAKEN + 1], *args[NUM_INPUTS + NUM_OUTPUTS];
  for (int i = 0, at = 0; i < NUM_INPUTS; i++)
    if (ARRAYS[i].kept < 0) inputs[at++] = (const unsigned char *)API(golden) + ARRAYS[i].golden;
  int code = OK, made = 0;
  for (int i = NUM_INPUTS; i < NUM_INPUTS + NUM_OUTPUTS && code == OK; i++) {
    if (ARRAYS[i].kept >= 0) continue;
    outputs[made] = take_lines((size_t)ARRAYS[i].bytes);
    if (outputs[made]) made++;
    else code = NO_MEMORY;
  }
  unsigned char *state = take_lines(STATE_BYTES); /* what the context keeps is left alone */
  if (!state) code = NO_MEMORY;
  if (state) memcpy(state, context->initial_state, STATE_BYTES);
  if (code == OK) code = run_on(context, state, inputs, outputs, NULL, args);
  double worst = 0;
  for (int i = NUM_INPUTS; code != NO_MEMORY && code != BAD_INDEX && i < NUM_INPUTS + NUM_OUTPUTS; i++) {
    const Array *a = &ARRAYS[i];
    double found = difference(args[i], (const unsigned char *)API(golden) + a->golden, a->size, a->kind);
    if (found > worst) worst = found;
    if (found > a->tolerance) code = WRONG_RESULTS;
  }
  give_lines(state);
  while (made-- > 0) give_lines(outputs[made]);
  if (error) *error = worst;
  return code;
}
