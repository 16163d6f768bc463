/* The first process of an enclave: mounts, modules, lo, heartbeat, entropy; then it hands over to the host and reaps.
 *
 * May not: read anything but the measured command line and its own ramdisk (in mode vm also the simulated platform's
 * credential, which in mode nitro it never looks at), or start anything but the host.
 * Rule: docs/architecture.md, "Boot"; AWS's init (heartbeat 0xB7 to CID 3, port 9000); linux/nsm.h.
 *
 * Build: gcc -static -Os, nothing but libc. Everything that it says goes to the console, a line each, after "init: ".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HEARTBEAT 0xB7
#define HEARTBEAT_PORT 9000
#define NITRO_PARENT 3
#define CREDENTIAL "/tea-start"
#define CREDENTIAL_FD 3
#define NSM_IOCTL _IOWR(0x0A, 0, struct nsm_exchange)
#define SEED_ROUNDS 4
#define LOOK_SECONDS 10

struct nsm_exchange {
    struct iovec request, response;
};

static char cmdline[4096];

static void say(const char *format, ...) {
    struct timespec now;
    char line[512];
    va_list arguments;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int used = snprintf(line, sizeof line, "init: [%ld.%02ld] ", (long)now.tv_sec, now.tv_nsec / 10000000);
    va_start(arguments, format);
    used += vsnprintf(line + used, sizeof line - used - 1, format, arguments);
    va_end(arguments);
    if (used > (int)sizeof line - 2) used = sizeof line - 2;
    line[used++] = '\n';
    if (write(1, line, used) < 0) return;
}

/* The one way out: there is nothing to go back to. A launcher reads the last line. */
static void power_off(const char *why, int status) {
    say("end: %s (status %d)", why, status);
    sync();
    reboot(RB_AUTOBOOT);
    for (;;) pause();
}

static void fail(const char *what) {
    say("FAILED: %s: %s", what, strerror(errno));
    power_off("the enclave could not boot", 1);
}

static void mount_at(const char *kind, const char *place, unsigned long flags, const char *options) {
    mkdir(place, 0755);
    if (mount(kind, place, kind, flags, options) != 0 && errno != EBUSY) fail(place);
}

static void open_console(void) {
    int console = open("/dev/console", O_RDWR);
    if (console < 0) return;
    for (int number = 0; number < 3; number++) dup2(console, number);
    if (console > 2) close(console);
}

/* The value of NAME= on the command line, "" when it is not there. Static: one call at a time. */
static const char *option(const char *name) {
    static char value[256];
    size_t length = strlen(name);
    value[0] = 0;
    for (const char *at = cmdline; *at;) {
        size_t word = strcspn(at, " \n");
        if (word > length && strncmp(at, name, length) == 0 && at[length] == '=') {
            size_t size = word - length - 1;
            if (size >= sizeof value) size = sizeof value - 1;
            memcpy(value, at + length + 1, size);
            value[size] = 0;
        }
        at += word;
        at += strspn(at, " \n");
    }
    return value;
}

static void read_cmdline(void) {
    int file = open("/proc/cmdline", O_RDONLY);
    ssize_t size = file < 0 ? -1 : read(file, cmdline, sizeof cmdline - 1);
    if (size < 0) fail("/proc/cmdline");
    cmdline[size] = 0;
    close(file);
}

/* Modules in the order of /modules/order; every one in it must load. */
static void load_modules(void) {
    char name[128], path[160];
    FILE *order = fopen("/modules/order", "re");
    if (order == NULL) return;
    while (fgets(name, sizeof name, order) != NULL) {
        name[strcspn(name, "\n")] = 0;
        snprintf(path, sizeof path, "/modules/%s", name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0) {
            say("missing module %s", name);
            fail(path);
        }
        if (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST) {
            say("module %s does not load", name);
            fail(path);
        }
        close(file);
    }
    fclose(order);
}

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0 || ioctl(sock, SIOCSIFFLAGS, &request) != 0) say("lo is not up: %s", strerror(errno));
    if (sock >= 0) close(sock);
}

/* One byte to the launcher and back: it says that the enclave runs. 0 when it was answered. */
static int heartbeat(unsigned int cid, unsigned int port) {
    unsigned char beat = HEARTBEAT;
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    struct timeval patience = {.tv_sec = 5};
    int sock = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (sock < 0) return -1;
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(sock, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof patience);
    int good = connect(sock, (struct sockaddr *)&address, sizeof address) == 0 && write(sock, &beat, 1) == 1 &&
               read(sock, &beat, 1) == 1 && beat == HEARTBEAT;
    close(sock);
    return good ? 0 : -1;
}

/* Random bytes of the NSM into the kernel's pool, credited: nothing else in an enclave is random at this moment. */
static void seed_from_nsm(int nsm) {
    static const unsigned char request[] = {0x69, 'G', 'e', 't', 'R', 'a', 'n', 'd', 'o', 'm'};
    static const unsigned char start[] = {0xa1, 0x69, 'G', 'e', 't', 'R', 'a', 'n', 'd', 'o', 'm',
                                          0xa1, 0x66, 'r', 'a', 'n', 'd', 'o', 'm'};
    struct {
        struct rand_pool_info head;
        unsigned char bytes[256];
    } pool;
    unsigned char response[0x3000];
    int device = open("/dev/random", O_WRONLY | O_CLOEXEC), seeded = 0;
    if (device < 0) fail("/dev/random");
    for (int round = 0; round < SEED_ROUNDS; round++) {
        struct nsm_exchange exchange = {{(void *)request, sizeof request}, {response, sizeof response}};
        if (ioctl(nsm, NSM_IOCTL, &exchange) != 0) fail("NSM GetRandom");
        size_t size = exchange.response.iov_len, at = sizeof start, count = 0;
        if (size < at + 2 || memcmp(response, start, sizeof start) != 0) fail("NSM GetRandom: another answer");
        if (response[at] == 0x58) count = response[at + 1], at += 2;
        else if (response[at] == 0x59 && size > at + 2) count = response[at + 1] << 8 | response[at + 2], at += 3;
        if (count == 0 || count > sizeof pool.bytes || at + count > size) fail("NSM GetRandom: another size");
        pool.head.entropy_count = (int)count * 8;
        pool.head.buf_size = (int)count;
        memcpy(pool.head.buf, response + at, count);
        if (ioctl(device, RNDADDENTROPY, &pool) != 0) fail("RNDADDENTROPY");
        seeded += (int)count;
    }
    explicit_bzero(response, sizeof response);
    explicit_bzero(&pool, sizeof pool);
    close(device);
    say("seeded with %d bytes of the NSM", seeded);
}

/* The host's file system becomes a mount of its own on /: a worker may then change its root, which rootfs refuses. */
static void enter_root(void) {
    if (mount("/rootfs", "/rootfs", NULL, MS_BIND, NULL) != 0) fail("/rootfs");
    if (chdir("/rootfs") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
        fail("moving /rootfs to /");
}

static void mount_all(void) {
    mount_at("devtmpfs", "/dev", MS_NOSUID | MS_NOEXEC, "mode=0755");
    mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755,size=16m");
    mount_at("tmpfs", "/tmp", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m");
    if (mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
        say("no cgroup2: %s", strerror(errno));
    symlink("/proc/self/fd", "/dev/fd");
}

static long used_memory(void) {
    char text[512];
    unsigned long total = 0, available = 0;
    int file = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    if (size <= 0) return 0;
    text[size] = 0;
    const char *found = strstr(text, "MemAvailable:");
    sscanf(text, "MemTotal: %lu", &total);
    if (found != NULL) sscanf(found, "MemAvailable: %lu", &available);
    return (long)(total - available) / 1024;
}

static pid_t start_host(const char *mode, const char *parent, int credential) {
    static char *environment[] = {"PATH=/usr/bin", "LANG=C.UTF-8", NULL};
    char *arguments[16] = {"/usr/bin/python3.11", "-I", "-m", "tea.runtime", "--mode", (char *)mode,
                           "--parent", (char *)parent, "--approvers", "/etc/tea/approvers.yaml"};
    int count = 10;
    pid_t child = fork();
    if (child != 0) return child;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    if (credential >= 0) {
        if (credential != CREDENTIAL_FD) dup2(credential, CREDENTIAL_FD);
        else fcntl(credential, F_SETFD, 0);
        arguments[count++] = "--credential-fd";
        arguments[count++] = "3";
    }
    arguments[count] = NULL;
    execve(arguments[0], arguments, environment);
    fail(arguments[0]);
    return -1;
}

int main(void) {
    char mode[16], parent[64];
    int credential = -1, status = 0;
    umask(0022);
    signal(SIGPIPE, SIG_IGN);
    mount_at("devtmpfs", "/dev", 0, NULL);
    open_console();
    mount_at("proc", "/proc", 0, NULL);
    read_cmdline();
    snprintf(mode, sizeof mode, "%s", option("tea.mode"));
    snprintf(parent, sizeof parent, "%s", option("tea.parent"));
    int nitro = strcmp(mode, "nitro") == 0;
    say("up, mode %s, parent %s", mode, parent);
    if (!nitro && strcmp(mode, "vm") != 0) errno = EINVAL, fail("tea.mode= is neither nitro nor vm");
    load_modules();
    say("modules are loaded");
    loopback_up();
    if (nitro) {
        if (heartbeat(NITRO_PARENT, HEARTBEAT_PORT) != 0) fail("heartbeat");
        int nsm = open("/dev/nsm", O_RDWR | O_CLOEXEC);
        if (nsm < 0) fail("/dev/nsm");
        if (chmod("/dev/nsm", 0600) != 0) fail("/dev/nsm");
        seed_from_nsm(nsm);
        close(nsm);
    } else {
        unsigned int cid = 0, port = 0;
        if (sscanf(option("tea.heartbeat"), "%u:%u", &cid, &port) == 2)
            say("heartbeat %s", heartbeat(cid, port) == 0 ? "answered" : "not answered");
        credential = open(CREDENTIAL, O_RDONLY | O_CLOEXEC);
        if (credential < 0) fail(CREDENTIAL);
        unlink(CREDENTIAL);
    }
    umount("/proc");
    enter_root();
    mount_all();
    open_console();
    if (nitro && chmod("/dev/nsm", 0600) != 0) fail("/dev/nsm");
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    pid_t host = start_host(mode, parent, credential);
    if (host < 0) fail("fork");
    if (credential >= 0) close(credential);
    say("the host is process %d", (int)host);
    for (long shown = 0;;) {
        struct timespec patience = {.tv_sec = LOOK_SECONDS};
        sigtimedwait(&ends, NULL, &patience);
        long used = used_memory();
        if (labs(used - shown) >= 4) say("memory used: %ld MiB", shown = used);
        for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0;) {
            if (ended != host) continue;
            /* What it has measured is locked into the NSM: another host could not say what it started as. */
            int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            kill(-1, SIGKILL);
            power_off(code == 0 ? "the host has ended" : "the host has FAILED", code);
        }
    }
}
