/* The part of CUDA's driver interface that tcomp uses through pycuda, on the CPU: a "cubin" is a shared library of the emulator, memory is this
   process's own. Built with declarations of all other functions that pycuda links against, which fail. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, LAUNCH_FAILED = 719, MAX_ALLOCATIONS = 4096 };
typedef uint64_t pointer;
typedef struct {
  void (*stub)(void **);
  const char *(*launch)(void (*)(void **), void **, const unsigned *, const unsigned *, unsigned, char **, const uint64_t *, int, uint64_t);
} function;

static char *blocks[MAX_ALLOCATIONS];
static uint64_t sizes[MAX_ALLOCATIONS];
static unsigned num_blocks;
static int context_depth, context;

int cuInit(unsigned flags) { return SUCCESS; }
int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int *device, int number) { return *device = number, number ? 101 : SUCCESS; }
int cuDeviceGetName(char *name, int length, int device) { return snprintf(name, length, "emulated"), SUCCESS; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { return *major = 8, *minor = 0, SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  switch (attribute) {
    case 16: *value = 46; break; /* multiprocessors */
    case 39: *value = 2048; break;
    case 82: *value = 65536; break;
    case 97: *value = 163 * 1024; break;
    case 81: *value = 164 * 1024; break;
    case 38: *value = 40 << 20; break;
    case 75: *value = 8; break;
    default: *value = 0;
  }
  return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **made, int device) { return *made = &context, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int device) { return SUCCESS; }
int cuCtxPushCurrent_v2(void *pushed) { return context_depth++, SUCCESS; }
int cuCtxPopCurrent_v2(void **popped) { return *popped = &context, context_depth-- > 0 ? SUCCESS : 201; }
int cuCtxDetach(void *of) { return SUCCESS; }
int cuCtxGetDevice(int *device) { return *device = 0, SUCCESS; }
int cuCtxGetApiVersion(void *of, unsigned *version) { return *version = 13000, SUCCESS; }
int cuCtxSynchronize(void) { return context_depth > 0 ? SUCCESS : 201; }

int cuMemAlloc_v2(pointer *made, size_t nbytes) {
  if (nbytes > (size_t)1 << 32 || num_blocks == MAX_ALLOCATIONS || context_depth < 1) return OUT_OF_MEMORY;
  char *memory = aligned_alloc(256, (nbytes + 255) / 256 * 256);
  memset(memory, 0xff, nbytes);
  blocks[num_blocks] = memory, sizes[num_blocks++] = nbytes;
  return *made = (pointer)memory, SUCCESS;
}
int cuMemFree_v2(pointer at) {
  for (unsigned i = 0; i < num_blocks; i++)
    if (blocks[i] == (char *)at) {
      free(blocks[i]);
      blocks[i] = blocks[--num_blocks], sizes[i] = sizes[num_blocks];
      return SUCCESS;
    }
  return INVALID_VALUE;
}
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) { return *free_bytes = *total = (size_t)1 << 32, SUCCESS; }
int cuMemcpyHtoD_v2(pointer to, const void *from, size_t n) { return memcpy((void *)to, from, n), SUCCESS; }
int cuMemcpyDtoH_v2(void *to, pointer from, size_t n) { return memcpy(to, (void *)from, n), SUCCESS; }
int cuMemcpyDtoD_v2(pointer to, pointer from, size_t n) { return memmove((void *)to, (void *)from, n), SUCCESS; }
int cuMemsetD8_v2(pointer to, unsigned char value, size_t n) { return memset((void *)to, value, n), SUCCESS; }

/* An image begins with the length of a shared library, which follows. */
int cuModuleLoadDataEx(void **module, const void *image, unsigned n, void *options, void *values) {
  char name[] = "/tmp/emulatedXXXXXX";
  uint64_t length;
  memcpy(&length, image, 8);
  int file = mkstemp(name);
  int failed = write(file, (const char *)image + 8, length) != (ssize_t)length;
  close(file);
  *module = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  unlink(name);
  return failed || !*module ? INVALID_VALUE : SUCCESS;
}
int cuModuleLoadData(void **module, const void *image) { return cuModuleLoadDataEx(module, image, 0, NULL, NULL); }
int cuModuleUnload(void *module) { return SUCCESS; }
int cuModuleGetFunction(void **made, void *module, const char *name) {
  char word[512];
  snprintf(word, sizeof word, "%s_call", name);
  function *f = malloc(sizeof *f);
  f->stub = (void (*)(void **))dlsym(module, word);
  *(void **)&f->launch = dlsym(module, "emulated_launch");
  *made = f;
  return f->stub && f->launch ? SUCCESS : 500;
}
int cuFuncSetBlockShape(void *f, int x, int y, int z) { return SUCCESS; }
int cuFuncSetSharedSize(void *f, unsigned n) { return SUCCESS; }
int cuFuncGetAttribute(int *value, int attribute, void *f) { return *value = 0, SUCCESS; }

/* Streams do what they are given at once, but while they are captured; a graph is what was noted then. */
typedef struct {
  function *launched; /* NULL for a copy, or for zeros where `from` is 0 */
  unsigned grid[3], block[3];
  void *words;
  pointer to, from;
  size_t n;
} record;
static record records[256];
static unsigned num_records;
static int is_captured, stream;

static int done(const record *r) {
  if (!r->launched) {
    if (r->from) memmove((void *)r->to, (void *)r->from, r->n);
    else memset((void *)r->to, 0, r->n);
    return SUCCESS;
  }
  const char *wrong = r->launched->launch(r->launched->stub, r->words, r->grid, r->block, num_blocks, blocks, sizes, 0, 0);
  if (wrong) fprintf(stderr, "%s\n", wrong);
  return wrong ? LAUNCH_FAILED : SUCCESS;
}
static int noted(record r, size_t nbytes) {
  if (!is_captured) return done(&r);
  if (num_records == 256) return OUT_OF_MEMORY;
  if (r.words) r.words = memcpy(malloc(nbytes), r.words, nbytes);
  return records[num_records++] = r, SUCCESS;
}
int cuStreamCreate(void **made, unsigned flags) { return *made = &stream, SUCCESS; }
int cuStreamDestroy_v2(void *of) { return SUCCESS; }
int cuStreamSynchronize(void *of) { return SUCCESS; }
int cuStreamBeginCapture_v2(void *of, int mode) { return is_captured = 1, num_records = 0, of == &stream ? SUCCESS : INVALID_VALUE; }
int cuStreamEndCapture(void *of, void **graph) {
  record *kept = calloc(num_records + 1, sizeof *kept);
  memcpy(kept, records, num_records * sizeof *kept);
  kept[num_records].n = (size_t)-1;
  return *graph = kept, is_captured = 0, SUCCESS;
}
int cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) { return *exec = graph, SUCCESS; }
int cuGraphDestroy(void *graph) { return SUCCESS; }
int cuGraphExecDestroy(void *exec) { return SUCCESS; }
int cuGraphLaunch(void *exec, void *on) {
  for (record *r = exec; r->n != (size_t)-1; r++)
    if (done(r)) return LAUNCH_FAILED;
  return SUCCESS;
}
int cuMemcpyDtoDAsync_v2(pointer to, pointer from, size_t n, void *on) { return noted((record){.to = to, .from = from, .n = n}, 0); }
int cuMemsetD8Async(pointer to, unsigned char value, size_t n, void *on) {
  return value ? INVALID_VALUE : noted((record){.to = to, .n = n}, 0);
}
int cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream_of_launch,
                   void **parameters, void **extra) {
  if (context_depth < 1 || parameters || !extra || (uintptr_t)extra[0] != 1) return INVALID_VALUE;
  if (is_captured != (stream_of_launch == &stream)) return INVALID_VALUE; /* beside the capture */
  record r = {.launched = f, .grid = {gx, gy, gz}, .block = {bx, by, bz}, .words = extra[1]};
  return noted(r, *(size_t *)extra[3]);
}
int cuFuncSetAttribute(void *f, int attribute, int value) { return SUCCESS; }
int cuGetErrorString(int error, const char **text) { return *text = "it is the fake driver's error", SUCCESS; }
int cuGetErrorName(int error, const char **text) { return *text = "FAKE", SUCCESS; }
