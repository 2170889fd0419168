/* Preloaded into a program that takes long to load: it goes as far as its main() and is forked there for each request.

   Requests come over the socket whose number is in FORK_SERVER: a byte, and with it the files that the fork has as its
   stdin, stdout and stderr. The answer is what waitpid() says of it. Once the socket is closed, so is the program. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILES = 3 };

typedef int Main(int, char **, char **);
typedef int Start(Main *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);

static Main *program;

static int receive(int socket, int files[FILES])
{
    char byte;
    union {
        struct cmsghdr aligned;
        char bytes[CMSG_SPACE(FILES * sizeof(int))];
    } control;
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control)};
    ssize_t size;
    do
        size = recvmsg(socket, &message, 0);
    while (size < 0 && errno == EINTR);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (size != 1 || header == NULL || header->cmsg_len != CMSG_LEN(FILES * sizeof(int)))
        return 0;
    memcpy(files, CMSG_DATA(header), FILES * sizeof(int));
    return 1;
}

static int serve(int argc, char **argv, char **environment)
{
    const char *number = getenv("FORK_SERVER");
    if (number == NULL)
        return program(argc, argv, environment);
    int socket = atoi(number), files[FILES], status;
    unsetenv("FORK_SERVER"); /* should it start other programs, they are to run as ever */
    while (receive(socket, files)) {
        pid_t child = fork();
        if (child == 0) {
            for (int file = 0; file < FILES; file++)
                dup2(files[file], file);
            close(socket);
            return program(argc, argv, environment);
        }
        for (int file = 0; file < FILES; file++)
            close(files[file]);
        if (child < 0)
            break;
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
        if (write(socket, &status, sizeof(status)) != sizeof(status))
            break;
    }
    _exit(0);
}

int __libc_start_main(Main *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*loader_fini)(void), void *stack_end)
{
    Start *start = (Start *)dlsym(RTLD_NEXT, "__libc_start_main");
    program = main;
    return start(serve, argc, argv, init, fini, loader_fini, stack_end);
}
