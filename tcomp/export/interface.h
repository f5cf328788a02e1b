/* @name@: a model compiled by tcomp @version@ for @target@.
 *
 * Inputs:
@inputs@
 * Results:
@outputs@
 *
 * Arrays are dense, the last axis contiguous. Functions return @NAME@_OK or another code below; none of them ends the process. A context may
 * be used by several threads at once, each with a workspace of its own.
 */
#ifndef TCOMP_@NAME@_H
#define TCOMP_@NAME@_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_ABI_VERSION @abi@
#define @NAME@_NUM_INPUTS @num_inputs@
#define @NAME@_NUM_OUTPUTS @num_outputs@
#define @NAME@_WORKSPACE_BYTES @workspace_bytes@

enum {
  @NAME@_OK = 0,
  @NAME@_BAD_ARGUMENT = 1,   /* a pointer is null, or a workspace is not aligned to 64 bytes */
  @NAME@_NO_MEMORY = 2,
  @NAME@_CPU_TOO_OLD = 3,    /* this CPU lacks instructions that the code uses */
  @NAME@_BAD_INDEX = 4,      /* an input that holds places in a table has one out of range; nothing was written */
  @NAME@_WRONG_RESULTS = 5,  /* the self-test's results are not those stored at export */
  @NAME@_BAD_WEIGHTS = 6,    /* the file of weights is missing, or not the one that was exported */
  @NAME@_BAD_STATE = 7       /* a file of what the model keeps cannot be written, is missing, damaged, or of another model */
};

typedef struct @name@_context @name@_context;

/* The version of this interface that the library was built with. */
int @name@_abi_version(void);

/* What a code means. */
const char *@name@_error_text(int code);

/* Names, shapes and dtypes of inputs and results, as JSON. */
const char *@name@_describe(void);

/* A context. weights_path: @weights@; num_threads: 0 for as many as there are cores. */
int @name@_init(@name@_context **context, const char *weights_path, int num_threads);
void @name@_free(@name@_context *context);

/* Which of the codes for several kinds of CPUs runs, in the order in which the top of this file names them. */
int @name@_variant(const @name@_context *context);

/* Bytes of the memory that a run works in; at most @NAME@_WORKSPACE_BYTES. */
size_t @name@_workspace_bytes(const @name@_context *context);

/* Runs the model. inputs, outputs: an address for each, in the order above; workspace: aligned to 64 bytes, or NULL to take memory for this
 * call. Results may not overlap inputs. */
int @name@_run(@name@_context *context, const void *const *inputs, void *const *outputs, void *workspace);

/* Parallel loops run on the caller's own threads from now on: parallel_for(n, body, argument, user) must call body(argument, begin, end) for
 * ranges that cover 0 .. n, and return when all have run. NULL for the threads that the library starts itself. */
typedef void (*@name@_loop_body)(void *argument, int64_t begin, int64_t end);
typedef void (*@name@_parallel_for)(int64_t n, @name@_loop_body body, void *argument, void *user);
void @name@_set_parallel_for(@name@_parallel_for parallel_for, void *user);

/* Runs the model on inputs stored at export; *error: the relative difference of its results from those stored, in the 2-norm, at most. */
int @name@_selftest(@name@_context *context, double *error);
@state@
#ifdef __cplusplus
}
#endif

#endif
