/* Prints the filters of a session of process 1234 on a device and under QEMU: a line each, numbers by commas. */
#include <stdio.h>

#include "system_calls.h"

int main(void)
{
    const enum session_kind kinds[] = {NATIVE_SESSION, EMULATED_SESSION};
    for (size_t kind = 0; kind < 2; kind++) {
        struct call_filter filter;
        session_filter(&filter, kinds[kind], 1234);
        for (unsigned i = 0; i < filter.length; i++) {
            struct sock_filter of = filter.code[i];
            printf("%s%u %u %u %u", i ? "," : "", of.code, of.jt, of.jf, of.k);
        }
        printf("\n");
    }
    return 0;
}
