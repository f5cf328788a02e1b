/* What a model keeps from run to run: written to a safetensors file and read from one. */

#include <stdio.h>

static uint32_t crc32_of(uint32_t crc, const void *data, size_t bytes) {
  static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                     0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
  const unsigned char *at = data;
  for (crc = ~crc; bytes--; at++) {
    crc = table[(crc ^ *at) & 15] ^ crc >> 4;
    crc = table[(crc ^ *at >> 4) & 15] ^ crc >> 4;
  }
  return ~crc;
}

/* As tcomp/export/state.py has it: over the tensors in the order of their names, what is said of each, then its bytes. */
static void write_checksum(char *digits, const unsigned char *state) {
  uint32_t crc = 0;
  for (int i = 0; i < NUM_KEPT; i++) {
    crc = crc32_of(crc, KEPT[i].told, strlen(KEPT[i].told));
    crc = crc32_of(crc, state + KEPT[i].place, (size_t)KEPT[i].bytes);
  }
  for (int i = 0; i < 8; i++) digits[i] = "0123456789abcdef"[crc >> (28 - 4 * i) & 15];
}

EXPORTED int API(save)(const Context *context, const char *path) {
  static const char ending[] = ".part";
  if (!context || !path) return BAD_ARGUMENT;
  size_t length = strlen(path);
  char *part = malloc(length + sizeof ending), *header = malloc(sizeof STATE_HEADER);
  int code = NO_MEMORY;
  if (part && header) {
    memcpy(part, path, length), memcpy(part + length, ending, sizeof ending);
    memcpy(header, STATE_HEADER, sizeof STATE_HEADER);
    write_checksum(header + CHECKSUM_PLACE, context->state);
    FILE *file = fopen(part, "wb");
    int is_whole = file && fwrite(header, 1, sizeof STATE_HEADER - 1, file) == sizeof STATE_HEADER - 1 &&
                   fwrite(context->state, 1, STATE_BYTES, file) == STATE_BYTES && !fflush(file) && !SYNC(file);
    is_whole = file && !fclose(file) && is_whole;
    code = is_whole && !rename(part, path) ? OK : BAD_STATE;
    if (code) remove(part);
  }
  free(part), free(header);
  return code;
}

EXPORTED int API(restore)(Context *context, const char *path) {
  if (!context || !path) return BAD_ARGUMENT;
  const size_t head = sizeof STATE_HEADER - 1, whole = head + STATE_BYTES;
  FILE *file = fopen(path, "rb");
  if (!file) return BAD_STATE;
  unsigned char *data = malloc(whole + 1), *wanted = malloc(head);
  int code = data && wanted ? BAD_STATE : NO_MEMORY;
  if (data && wanted) {
    size_t found = fread(data, 1, whole + 1, file);
    memcpy(wanted, STATE_HEADER, head);
    if (found == whole) {
      write_checksum((char *)wanted + CHECKSUM_PLACE, data + head);
      if (!memcmp(data, wanted, head)) {
        memcpy(context->state, data + head, STATE_BYTES);
        code = OK;
      }
    }
  }
  fclose(file);
  free(data), free(wanted);
  return code;
}

EXPORTED const char *API(kept)(int i, size_t *bytes) {
  if (i < 0 || i >= NUM_KEPT) return NULL;
  if (bytes) *bytes = (size_t)KEPT[i].bytes;
  return KEPT[i].name;
}

EXPORTED void *API(state)(Context *context, const char *name) {
  for (int i = 0; context && name && i < NUM_KEPT; i++)
    if (!strcmp(name, KEPT[i].name)) return context->state + KEPT[i].place;
  return NULL;
}
