/* What the machine says of itself. */
#ifndef DEVICE_H
#define DEVICE_H

/* A line for people: board or phone, kernel, governor, processors. */
void print_device(void);

/* {"model", "kernel", "governor", "cores": [{"cpu", "part", "max_khz"}]}; null for what it does not say. */
void print_device_json(void);

/* The processors that this process may run on, as a JSON list. */
void print_processors_json(void);

/* `text` as a JSON string. */
void print_quoted(const char *text);

/* The most memory that this process had at once; 0 where the kernel does not say. */
long peak_memory_bytes(void);

#endif
