/* Preloaded, it records look-ups and connections of native code in the file that AUDIT_LOG names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void record(const char *event, const char *what)
{
    const char *log = getenv("AUDIT_LOG");
    char line[256];
    int size = snprintf(line, sizeof line, "[\"network\", \"%s\", \"%.100s\"]\n", event, what);
    int file = log ? open(log, O_WRONLY | O_APPEND | O_CREAT, 0644) : -1;
    if (file >= 0 && write(file, line, (size_t)size) != size)
        abort();
    if (file >= 0)
        close(file);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **result)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
        dlsym(RTLD_NEXT, "getaddrinfo");
    record("native getaddrinfo", node ? node : "");
    return real(node, service, hints, result);
}

int connect(int socket, const struct sockaddr *address, socklen_t length)
{
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
    if (address && address->sa_family != AF_UNIX)
        record("native connect", address->sa_family == AF_INET ? "IPv4" : "other");
    return real(socket, address, length);
}
