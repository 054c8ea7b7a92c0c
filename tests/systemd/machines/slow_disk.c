/* Preloaded into a program, makes its disk slow: each fsync and fdatasync takes SLOW_FSYNC_MS longer,
 * each rename SLOW_RENAME_MS. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void wait_for_ms(const char *variable)
{
    const char *text = getenv(variable);
    long ms = text ? atol(text) : 0;
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0) {
    }
}

int fsync(int file)
{
    wait_for_ms("SLOW_FSYNC_MS");
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}

int fdatasync(int file)
{
    wait_for_ms("SLOW_FSYNC_MS");
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}

int rename(const char *from, const char *to)
{
    wait_for_ms("SLOW_RENAME_MS");
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
}
