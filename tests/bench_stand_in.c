/* Honours the words of <model>_bench: what deploy runs on a device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#ifndef OK
#define OK 1
#endif

int main(int argc, char **argv)
{
    int threads = 1, repeat = 1, json = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json"))
            json = 1;
        else if (i + 1 < argc && !strcmp(argv[i], "--threads"))
            threads = atoi(argv[++i]);
        else if (i + 1 < argc && !strcmp(argv[i], "--repeat"))
            repeat = atoi(argv[++i]);
        else if (i + 1 < argc && !strcmp(argv[i], "--warmup"))
            i++;
        else if (i + 1 < argc && !strcmp(argv[i], "--affinity") && strspn(argv[i + 1], "0123456789,-") == strlen(argv[i + 1]))
            i++;
        else {
            fprintf(stderr, "what is %s?\n", argv[i]);
            return 2;
        }
    }
    struct utsname name;
    uname(&name);
    if (json)
        printf("{\"schema\":1,\"model\":\"tiny\",\"device\":{\"model\":\"A board\",\"kernel\":\"%s\",\"governor\":\"performance\","
               "\"cores\":[{\"id\":0,\"max_mhz\":1800}]},\"threads\":%d,\"affinity\":[0],"
               "\"latency_us\":{\"median\":1500.5,\"min\":1400,\"p90\":1600,\"p99\":1700,\"samples\":%d},"
               "\"cold_us\":9000,\"peak_memory_bytes\":7000000,"
               "\"operators\":[{\"name\":\"dense\",\"median_us\":100}],"
               "\"output\":{\"checksum\":\"%s\",\"expected\":\"00ff\",\"ok\":%s}}\n",
               name.release, threads, repeat, OK ? "00ff" : "beef", OK ? "true" : "false");
    fprintf(stderr, "done\n");
    return OK ? 0 : 5;
}
