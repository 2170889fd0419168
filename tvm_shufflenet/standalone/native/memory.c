/* What compilers call for copying and filling memory, for a library without a C library. */
#include <stddef.h>

typedef unsigned char vector __attribute__((vector_size(16), aligned(1), may_alias));

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
  unsigned char *out = to;
  const unsigned char *in = from;
  for (; bytes >= 64; bytes -= 64, in += 64, out += 64) {
    const vector a = ((const vector *)in)[0], b = ((const vector *)in)[1];
    const vector c = ((const vector *)in)[2], d = ((const vector *)in)[3];
    ((vector *)out)[0] = a;
    ((vector *)out)[1] = b;
    ((vector *)out)[2] = c;
    ((vector *)out)[3] = d;
  }
  while (bytes-- > 0) *out++ = *in++;
  return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
  unsigned char *out = to;
  const unsigned char *in = from;
  if (out <= in || out >= in + bytes) {
    while (bytes-- > 0) *out++ = *in++;
  } else {
    while (bytes-- > 0) out[bytes] = in[bytes];
  }
  return to;
}

void *memset(void *to, int value, size_t bytes) {
  unsigned char *out = to;
  vector filled;
  for (int lane = 0; lane < 16; lane++) filled[lane] = (unsigned char)value;
  for (; bytes >= 64; bytes -= 64, out += 64) {
    ((vector *)out)[0] = filled;
    ((vector *)out)[1] = filled;
    ((vector *)out)[2] = filled;
    ((vector *)out)[3] = filled;
  }
  while (bytes-- > 0) *out++ = (unsigned char)value;
  return to;
}
