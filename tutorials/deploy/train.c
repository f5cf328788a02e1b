/* Trains the digits CNN, whose step and model tcomp exported as step.so and net.so: no Python takes part. Run again after whatever ended it, it
 * goes on where it was. 13_export_and_deploy.py says how the files come about.
 *
 * train FOLDER EPOCHS: reads train_x.bin, train_y.bin, test_x.bin, test_y.bin there; keeps state.safetensors there. Prints the loss of each
 * step, and how many digits of the test are recognised. */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"
#include "step.h"

enum { PIXELS = 64, CLASSES = 10, BATCH = 64 };

static void *contents(const char *folder, const char *name, size_t *size) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  fseek(file, 0, SEEK_END);
  *size = (size_t)ftell(file);
  rewind(file);
  void *data = malloc(*size);
  if (data && fread(data, 1, *size, file) != *size) data = NULL;
  fclose(file);
  return data;
}

/* An order of the images that the epoch alone decides. */
static void shuffle(int *order, int count, unsigned epoch) {
  unsigned long long x = 0x9E3779B97F4A7C15ull * (epoch + 1);
  for (int i = 0; i < count; i++) order[i] = i;
  for (int i = count - 1; i > 0; i--) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    int j = (int)(x % (unsigned)(i + 1)), kept = order[i];
    order[i] = order[j], order[j] = kept;
  }
}

int main(int argc, char **argv) {
  if (argc != 3) return fprintf(stderr, "usage: train FOLDER EPOCHS\n"), 2;
  size_t bytes, label_bytes, test_bytes, unused;
  float *x = contents(argv[1], "train_x.bin", &bytes), *test_x = contents(argv[1], "test_x.bin", &test_bytes);
  int64_t *y = contents(argv[1], "train_y.bin", &label_bytes), *test_y = contents(argv[1], "test_y.bin", &unused);
  if (!x || !y || !test_x || !test_y) return fprintf(stderr, "cannot read the digits in %s\n", argv[1]), 2;
  int images = (int)(label_bytes / sizeof *y), tests = (int)(test_bytes / PIXELS / sizeof *test_x);
  int per_epoch = images / BATCH, epochs = atoi(argv[2]), steps = epochs * per_epoch;

  step_context *step;
  net_context *net;
  int code = step_init(&step, NULL, 0);
  if (code) return fprintf(stderr, "%s\n", step_error_text(code)), 1;
  if ((code = net_init(&net, NULL, 0))) return fprintf(stderr, "%s\n", net_error_text(code)), 1;

  char path[4096];
  snprintf(path, sizeof path, "%s/state.safetensors", argv[1]);
  FILE *saved = fopen(path, "rb");
  if (saved && (fclose(saved), code = step_restore(step, path))) return fprintf(stderr, "%s: %s\n", path, step_error_text(code)), 1;
  const int64_t *counts = step_state(step, "seed, steps, skipped");

  int *order = malloc(images * sizeof *order);
  float *batch = malloc(BATCH * PIXELS * sizeof *batch);
  int64_t labels[BATCH];
  void *workspace = aligned_alloc(64, (step_workspace_bytes(step) + 64) / 64 * 64);
  for (int at = (int)counts[1]; at < steps; at++) {
    shuffle(order, images, (unsigned)(at / per_epoch));
    for (int i = 0; i < BATCH; i++) {
      int chosen = order[at % per_epoch * BATCH + i];
      memcpy(batch + i * PIXELS, x + chosen * PIXELS, PIXELS * sizeof *x);
      labels[i] = y[chosen];
    }
    double rate = 6e-3 * 0.5 * (1 + cos(3.14159265358979 * at / steps));
    float loss;
    const void *inputs[] = {batch, labels, &rate};
    void *outputs[] = {&loss};
    if ((code = step_run(step, inputs, outputs, workspace))) return fprintf(stderr, "%s\n", step_error_text(code)), 1;
    printf("%d %.9g\n", at, loss);
    fflush(stdout);
    if ((at + 1) % per_epoch == 0 && (code = step_save(step, path))) return fprintf(stderr, "%s\n", step_error_text(code)), 1;
  }

  /* the model gets what the step has learnt */
  const char *name;
  for (int i = 0; (name = net_kept(i, &bytes)); i++) memcpy(net_state(net, name), step_state(step, name), bytes);
  int right = 0;
  for (int i = 0; i < tests; i++) {
    float scores[CLASSES];
    const void *inputs[] = {test_x + i * PIXELS};
    void *outputs[] = {scores};
    if ((code = net_run(net, inputs, outputs, NULL))) return fprintf(stderr, "%s\n", net_error_text(code)), 1;
    int best = 0;
    for (int c = 1; c < CLASSES; c++)
      if (scores[c] > scores[best]) best = c;
    right += best == test_y[i];
  }
  printf("%d of %d recognised, %.2f %%\n", right, tests, 100.0 * right / tests);
  step_free(step);
  net_free(net);
  return 0;
}
