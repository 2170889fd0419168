/* Whether times mean anything. */
#ifndef EMULATION_H
#define EMULATION_H

#include <stdbool.h>

/* Whether an emulator of programs, such as qemu-user, runs this one. A virtual machine is none: its processor is real. */
bool is_emulated(void);

#endif
