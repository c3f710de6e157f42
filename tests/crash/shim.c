/* Loaded before the C library (LD_PRELOAD): writes to a database file, or its fsync, fail while a file says so.
   FAULTS is the beginning of the names of those files; full, write or fsync follows. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int is_on(const char *kind)
{
    char path[4096];
    const char *faults = getenv("FAULTS");
    snprintf(path, sizeof path, "%s%s", faults ? faults : "", kind);
    return faults && access(path, F_OK) == 0;
}

static int is_database(int file)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return strstr(path, "/share.db") != NULL;
}

static int fails(int file, const char *kind, int error)
{
    int kept = errno, found = is_on(kind) && is_database(file);
    errno = found ? error : kept;
    return found;
}

#define WRITE(name, offset_type)                                                         \
    ssize_t name(int file, const void *bytes, size_t size, offset_type offset)           \
    {                                                                                    \
        static ssize_t (*real)(int, const void *, size_t, offset_type);                  \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                       \
        if (fails(file, "full", ENOSPC) || fails(file, "write", EIO)) return -1;         \
        return real(file, bytes, size, offset);                                          \
    }
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)

#define SYNC(name)                                                                       \
    int name(int file)                                                                   \
    {                                                                                    \
        static int (*real)(int);                                                         \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                       \
        return fails(file, "fsync", EIO) ? -1 : real(file);                              \
    }
SYNC(fsync)
SYNC(fdatasync)
