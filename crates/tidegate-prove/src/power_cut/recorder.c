/* Writes down every change that a process makes to the files of one folder, with data and in order.
 *
 * Loaded into the process with LD_PRELOAD. A change and its record are made under one lock, so the
 * record's order is the order in which the kernel saw the changes. Calls go to the kernel directly.
 *
 * Environment:
 *   TIDEGATE_RECORD_FOLDER  the folder, as an absolute path without symbolic links
 *   TIDEGATE_RECORD_TO      the file that the record is written to, elsewhere
 *   TIDEGATE_KILL_AT        the process ends at the change of this number, from 1, as if by kill -9
 *   TIDEGATE_FAIL_SYNCS     numbers of syncs, from 1 and rising, that fail with EIO; e.g. 3,4,17
 *
 * Record, numbers little-endian: kind (1 byte), file (4), offset or length (8), bytes of data (4), data.
 * Files are numbered by their first use. Memory that is mapped is not seen: SQLite maps its -shm file
 * alone, which is made anew after a crash.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { FOUND = 1, CREATED, WROTE, TRUNCATED, SYNCED, SYNC_FAILED, UNLINKED, FOLDER_SYNCED };

#define MAX_FDS 4096
#define MAX_FILES 4096
#define FOLDER UINT32_MAX

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int ready, out = -1;
static char folder[PATH_MAX];
static size_t folder_length;
/* File behind each descriptor, and the name of each file; 0 and NULL where there is none. */
static uint32_t file_of[MAX_FDS];
static char *name_of[MAX_FILES];
static uint32_t files;
/* Failed syncs of each file, and how many of them each descriptor has told: the kernel tells every
 * descriptor that was open of a failure, each at its next sync. */
static uint32_t failures[MAX_FILES], told[MAX_FDS];
static unsigned long syncs, changes, kill_at;
static const char *fail_at;
static char buffer[1 << 20];
static size_t buffered;

static void die(const char *why) {
    syscall(SYS_write, 2, why, strlen(why));
    syscall(SYS_exit_group, 86);
}

static void flush(void) {
    size_t done = 0;
    while (done < buffered) {
        long wrote = syscall(SYS_write, out, buffer + done, buffered - done);
        if (wrote <= 0) die("recorder: cannot write the record\n");
        done += (size_t)wrote;
    }
    buffered = 0;
}

static void put(const void *data, size_t length) {
    const char *from = data;
    while (length > 0) {
        size_t room = sizeof buffer - buffered;
        size_t part = length < room ? length : room;
        memcpy(buffer + buffered, from, part);
        buffered += part;
        from += part;
        length -= part;
        if (buffered == sizeof buffer) flush();
    }
}

static void record(enum kind kind, uint32_t file, uint64_t offset, const void *data, uint32_t length) {
    uint8_t byte = (uint8_t)kind;
    put(&byte, 1);
    put(&file, 4);
    put(&offset, 8);
    put(&length, 4);
    put(data, length);
    if (++changes == kill_at) {
        flush();
        syscall(SYS_exit_group, 87);
    }
}

__attribute__((constructor)) static void begin(void) {
    const char *of = getenv("TIDEGATE_RECORD_FOLDER"), *to = getenv("TIDEGATE_RECORD_TO");
    const char *kill = getenv("TIDEGATE_KILL_AT");
    fail_at = getenv("TIDEGATE_FAIL_SYNCS");
    if (kill) kill_at = strtoul(kill, NULL, 10);
    if (!of || !to) return;
    folder_length = strlen(of);
    if (folder_length >= sizeof folder) die("recorder: the folder's path is too long\n");
    memcpy(folder, of, folder_length + 1);
    out = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (out < 0) die("recorder: cannot create the record\n");
    ready = 1;
}

__attribute__((destructor)) static void end(void) {
    if (!ready) return;
    /* Kept for ever: a thread that is still at work must not change what is no longer recorded. */
    pthread_mutex_lock(&lock);
    flush();
}

/* The name within the folder, "" for the folder itself, NULL for anything else. */
static const char *inside(const char *path) {
    if (!ready || strncmp(path, folder, folder_length) != 0) return NULL;
    const char *name = path + folder_length;
    if (*name == 0) return name;
    if (*name != '/') return NULL;
    name++;
    return strchr(name, '/') ? NULL : name;
}

static uint32_t find(const char *name) {
    for (uint32_t file = 1; file <= files; file++)
        if (name_of[file] && strcmp(name_of[file], name) == 0) return file;
    return 0;
}

static uint32_t add(const char *name) {
    if (files + 1 >= MAX_FILES) die("recorder: too many files\n");
    files++;
    name_of[files] = strdup(name);
    return files;
}

static int open_recorded(const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    if (!name) return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before;
    int existed = *name == 0 || syscall(SYS_newfstatat, AT_FDCWD, path, &before, 0) == 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    int error = errno;
    if (fd >= MAX_FDS) die("recorder: too many descriptors\n");
    if (fd >= 0 && *name == 0) {
        file_of[fd] = FOLDER;
    } else if (fd >= 0) {
        uint32_t file = find(name);
        if (!existed || !file) {
            if (file) die("recorder: a file is gone that nobody deleted\n");
            file = add(name);
            record(existed ? FOUND : CREATED, file, 0, name, (uint32_t)strlen(name));
        }
        if (existed && (flags & O_TRUNC)) record(TRUNCATED, file, 0, "", 0);
        file_of[fd] = file;
        told[fd] = failures[file];
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE_ARGUMENT(flags, mode)                                   \
    mode_t mode = 0;                                                 \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                           \
        va_list arguments;                                           \
        va_start(arguments, flags);                                  \
        mode = va_arg(arguments, mode_t);                            \
        va_end(arguments);                                           \
    }

int open(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return open_recorded(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return open_recorded(path, flags | O_LARGEFILE, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    if (path[0] == '/' || at == AT_FDCWD) return open_recorded(path, flags, mode);
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    if (path[0] == '/' || at == AT_FDCWD) return open_recorded(path, flags | O_LARGEFILE, mode);
    return (int)syscall(SYS_openat, at, path, flags | O_LARGEFILE, mode);
}

int close(int fd) {
    if (fd >= 0 && fd < MAX_FDS && file_of[fd]) {
        pthread_mutex_lock(&lock);
        file_of[fd] = 0;
        int result = (int)syscall(SYS_close, fd);
        pthread_mutex_unlock(&lock);
        return result;
    }
    return (int)syscall(SYS_close, fd);
}

static uint32_t recorded(int fd) {
    return ready && fd >= 0 && fd < MAX_FDS ? file_of[fd] : 0;
}

static ssize_t write_recorded(int fd, const void *data, size_t length, off_t offset, int at_position) {
    uint32_t file = recorded(fd);
    if (!file) {
        return at_position ? syscall(SYS_write, fd, data, length)
                           : syscall(SYS_pwrite64, fd, data, length, offset);
    }
    pthread_mutex_lock(&lock);
    if (at_position) offset = (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
    ssize_t wrote = at_position ? syscall(SYS_write, fd, data, length)
                                : syscall(SYS_pwrite64, fd, data, length, offset);
    int error = errno;
    if (wrote > 0) record(WROTE, file, (uint64_t)offset, data, (uint32_t)wrote);
    pthread_mutex_unlock(&lock);
    errno = error;
    return wrote;
}

ssize_t write(int fd, const void *data, size_t length) {
    return write_recorded(fd, data, length, 0, 1);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return write_recorded(fd, data, length, offset, 0);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return write_recorded(fd, data, length, offset, 0);
}

static void refuse(int fd, const char *call) {
    if (recorded(fd)) die(call);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    refuse(fd, "recorder: writev is not recorded\n");
    return syscall(SYS_writev, fd, parts, count);
}

int posix_fallocate(int fd, off_t offset, off_t length) {
    refuse(fd, "recorder: posix_fallocate is not recorded\n");
    return syscall(SYS_fallocate, fd, 0, offset, length) == 0 ? 0 : errno;
}

int fallocate(int fd, int mode, off_t offset, off_t length) {
    refuse(fd, "recorder: fallocate is not recorded\n");
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

static int truncate_recorded(int fd, off_t length) {
    uint32_t file = recorded(fd);
    if (!file) return (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_ftruncate, fd, length);
    int error = errno;
    if (result == 0) record(TRUNCATED, file, (uint64_t)length, "", 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t length) { return truncate_recorded(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncate_recorded(fd, length); }

/* Whether the next sync is one of those that are to fail. */
static int is_to_fail(void) {
    syncs++;
    if (!fail_at || !*fail_at) return 0;
    char *rest;
    if (strtoul(fail_at, &rest, 10) != syncs) return 0;
    fail_at = *rest == ',' ? rest + 1 : rest;
    return 1;
}

static int sync_recorded(int fd, long call) {
    uint32_t file = recorded(fd);
    if (!file) return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    int result, error = 0;
    int fails = file != FOLDER && is_to_fail();
    if (fails) failures[file]++;
    if (file != FOLDER && told[fd] != failures[file]) {
        told[fd] = failures[file];
        record(SYNC_FAILED, file, 0, "", 0);
        result = -1;
        error = EIO;
    } else {
        /* The disk is a simulated one: that the call returns is what matters. */
        record(file == FOLDER ? FOLDER_SYNCED : SYNCED, file == FOLDER ? 0 : file, 0, "", 0);
        result = 0;
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int fsync(int fd) { return sync_recorded(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_recorded(fd, SYS_fdatasync); }

int unlink(const char *path) {
    const char *name = inside(path);
    if (!name || !*name) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    int error = errno;
    if (result == 0) {
        uint32_t file = find(name);
        if (file) {
            free(name_of[file]);
            name_of[file] = NULL;
        }
        record(UNLINKED, file, 0, name, (uint32_t)strlen(name));
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int rename(const char *from, const char *to) {
    const char *old = inside(from), *new = inside(to);
    if (old || new) die("recorder: rename is not recorded\n");
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
