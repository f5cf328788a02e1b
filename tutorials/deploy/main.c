/* Recognises digits with the model that tcomp exported as `digits`: reads images of 8 x 8 floats from standard input. */

#include <stdio.h>

#include "digits.h"

int main(void) {
  digits_context *digits;
  double error;
  int code = digits_init(&digits, NULL, 0);
  if (!code) code = digits_selftest(digits, &error);
  if (code) return fprintf(stderr, "%s\n", digits_error_text(code)), 1;
  fprintf(stderr, "self-test: off by %.1e\n", error);

  float image[64], scores[10];
  while (fread(image, sizeof image, 1, stdin) == 1) {
    const void *inputs[] = {image};
    void *outputs[] = {scores};
    if ((code = digits_run(digits, inputs, outputs, NULL))) return fprintf(stderr, "%s\n", digits_error_text(code)), 1;
    int best = 0;
    for (int i = 1; i < 10; i++)
      if (scores[i] > scores[best]) best = i;
    printf("%d", best);
  }
  printf("\n");
  digits_free(digits);
  return 0;
}
