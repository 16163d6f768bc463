/* The floor that everything else is measured against: a ping-pong, and a relay A-R-B-R-A, over socketpairs.
 *
 *   relay direct ROUNDS SIZE     median nanoseconds of A-B-A
 *   relay routed ROUNDS SIZE     median nanoseconds of A-R-B-R-A
 *
 * Blocking reads and writes, one process a party, as little as a kernel lets anybody do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[65536];

static void transfer(int in, int out, size_t size) {
    size_t got = 0;
    while (got < size) {
        ssize_t n = read(in, buffer + got, size - got);
        if (n <= 0) _exit(0);
        got += (size_t)n;
    }
    if (write(out, buffer, size) != (ssize_t)size) _exit(0);
}

static int compare(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int routed = strcmp(argv[1], "routed") == 0;
    long rounds = atol(argv[2]);
    size_t size = (size_t)atol(argv[3]);
    int ar[2], rb[2];
    if (size > sizeof buffer || socketpair(AF_UNIX, SOCK_STREAM, 0, ar) || socketpair(AF_UNIX, SOCK_STREAM, 0, rb)) return 1;
    pid_t relay = -1, echo;
    if (routed && (relay = fork()) == 0) {
        close(ar[0]);
        close(rb[1]);
        for (;;) {
            transfer(ar[1], rb[0], size);
            transfer(rb[0], ar[1], size);
        }
    }
    int far = routed ? rb[1] : ar[1];
    if ((echo = fork()) == 0) {
        close(ar[0]);
        if (routed) close(rb[0]);
        for (;;) transfer(far, far, size);
    }
    close(ar[1]);
    close(rb[0]);
    close(rb[1]);
    long *times = malloc(sizeof(long) * (size_t)rounds);
    for (long i = -rounds / 10; i < rounds; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        if (write(ar[0], buffer, size) != (ssize_t)size) return 1;
        size_t got = 0;
        while (got < size) {
            ssize_t n = read(ar[0], buffer + got, size - got);
            if (n <= 0) return 1;
            got += (size_t)n;
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        if (i >= 0) times[i] = (b.tv_sec - a.tv_sec) * 1000000000L + (b.tv_nsec - a.tv_nsec);
    }
    qsort(times, (size_t)rounds, sizeof(long), compare);
    printf("%ld\n", times[rounds / 2]);
    close(ar[0]);
    waitpid(echo, NULL, 0);
    if (relay > 0) waitpid(relay, NULL, 0);
    return 0;
}
