/* Shifts the clock of a process by the seconds in the file that HALFHEARD_CAMPAIGN_CLOCK names,
   which may change at any time. Only the time of day: what measures durations stays right. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t none = 0;
static volatile int64_t *shift = &none;

__attribute__((constructor)) static void open_shift(void)
{
    const char *path = getenv("HALFHEARD_CAMPAIGN_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *map = mmap(0, sizeof none, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (map != MAP_FAILED)
        shift = map;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    int done = syscall(SYS_clock_gettime, id, ts);
    if (done == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        ts->tv_sec += *shift;
    return done;
}

int gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    int done = syscall(SYS_gettimeofday, tv, zone);
    if (done == 0 && tv)
        tv->tv_sec += *shift;
    return done;
}

time_t time(time_t *out)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (out)
        *out = ts.tv_sec;
    return ts.tv_sec;
}
