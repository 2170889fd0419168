/* The types that the libraries of all models share, and the version of their interface. */
#ifndef TVMSN_INTERFACE
#define TVMSN_INTERFACE 1

#include <stddef.h>
#include <stdint.h>

/* What a function answers; _status_text() says it in words. */
enum tvmsn_status {
  TVMSN_OK = 0,
  TVMSN_NULL = 1,    /* a null pointer where none may be */
  TVMSN_COUNT = 2,   /* another number of inputs or outputs than the network has, or of threads than there can be */
  TVMSN_SIZE = 3,    /* a buffer of another size than the network's */
  TVMSN_OVERLAP = 4, /* buffers that share memory */
  TVMSN_BUSY = 5,    /* another thread is running this instance */
  TVMSN_MEMORY = 6,  /* no memory */
  TVMSN_THREAD = 7,  /* the system started no thread */
  TVMSN_CPU = 8      /* the CPU lacks instructions that the library was compiled for */
};

/* An input or output: contiguous elements of `type` ("float32", ...) in the order of `shape`. */
typedef struct {
  const char *name;
  const char *type;
  int rank;
  const int64_t *shape;
  size_t bytes;
} tvmsn_tensor;

/* The caller's buffers. An element's own alignment is enough. */
typedef struct {
  const void *data;
  size_t bytes;
} tvmsn_input;

typedef struct {
  void *data;
  size_t bytes;
} tvmsn_output;

#endif
