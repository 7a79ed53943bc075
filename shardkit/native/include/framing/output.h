/* A file that a thread writes block by block while the caller fills the next block: checksum, write, and the beginning
 * of write-back in one pass, without the GIL. Needs no Python; output_object.h has the type for it (framing.c).
 *
 * The caller fills `output_filling` and gives it away, from one thread at a time. A file of one block never gets a
 * thread: the caller's writes it. Call crc32c_setup() before.
 */
#ifndef SHARDKIT_FRAMING_OUTPUT_H
#define SHARDKIT_FRAMING_OUTPUT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* for sync_file_range */
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "../crc32c.h"
#include "../grow.h"

/* BLOCK_BYTES: a block is given away with this many, so that the first bytes reach the disk soon and few calls are
 * needed. BLOCKS: what waits, about their product, lets the caller go on while the disk is busy. */
enum { BLOCKS = 4, BLOCK_BYTES = 1 << 19, MOST_PIECES = 512 /* of one call: well under every system's IOV_MAX */ };
static const int64_t PAGE = 4096;
static const size_t MOST_WAITING = (size_t)BLOCKS * BLOCK_BYTES;

/* Data that belongs before byte `at` of a block, and is not copied. owner: what keeps it alive. */
typedef struct {
    size_t at;
    const uint8_t *data;
    size_t size;
    void *owner;
} insertion;

typedef struct {
    uint8_t *bytes;
    size_t length, room, size; /* size: with what is inserted */
    insertion *insertions;
    size_t count, insertion_room;
} block;

typedef struct {
    int fd, started, ending, failed; /* failed: errno; what is given away afterwards is dropped */
    pid_t process;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    block blocks[BLOCKS];
    uint64_t given, written; /* blocks */
    uint64_t released;       /* blocks that are empty again: for the caller, who owns what was inserted */
    int ready;               /* whether the block to fill is empty: for the caller */
    size_t waiting;          /* bytes given away and not written */
    uint32_t crc;
    int64_t length; /* of the file */
} output;

/* Write everything. Returns 0 or errno. */
static int write_whole(int fd, struct iovec *pieces, size_t count)
{
    while (count > 0) {
        ssize_t done = writev(fd, pieces, count < MOST_PIECES ? (int)count : MOST_PIECES);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        for (; count > 0 && (size_t)done >= pieces->iov_len; pieces++, count--)
            done -= (ssize_t)pieces->iov_len;
        if (count > 0) {
            pieces->iov_base = (uint8_t *)pieces->iov_base + done;
            pieces->iov_len -= (size_t)done;
        }
    }
    return 0;
}

static int write_block(output *self, const block *from)
{
    struct iovec *pieces = malloc((2 * from->count + 1) * sizeof *pieces);
    size_t count = 0, at = 0;
    uint32_t crc = self->crc;
    if (pieces == NULL)
        return ENOMEM;
    for (size_t i = 0; i <= from->count; i++) {
        const size_t to = i < from->count ? from->insertions[i].at : from->length;
        if (to > at)
            pieces[count++] = (struct iovec){from->bytes + at, to - at};
        if (i < from->count && from->insertions[i].size)
            pieces[count++] = (struct iovec){(void *)from->insertions[i].data, from->insertions[i].size};
        at = to;
    }
    for (size_t i = 0; i < count; i++)
        crc = crc32c(crc, pieces[i].iov_base, pieces[i].iov_len);
    const int failed = write_whole(self->fd, pieces, count);
    free(pieces);
    if (failed)
        return failed;
    const int64_t start = self->length & -PAGE, stop = (self->length + (int64_t)from->size) & -PAGE;
    self->length += (int64_t)from->size;
    self->crc = crc;
#ifdef SYNC_FILE_RANGE_WRITE /* whole pages, so that a flush at the end waits less */
    if (stop > start)
        (void)sync_file_range(self->fd, start, stop - start, SYNC_FILE_RANGE_WRITE);
#else
    (void)start, (void)stop;
#endif
    return 0;
}

/* Write the first block that waits, with the lock held before and after. */
static void write_first(output *self)
{
    const block *first = self->blocks + self->written % BLOCKS;
    int failed = self->failed;
    pthread_mutex_unlock(&self->lock);
    if (!failed)
        failed = write_block(self, first);
    pthread_mutex_lock(&self->lock);
    if (failed && !self->failed)
        self->failed = failed;
    self->waiting -= first->size;
    self->written++;
    pthread_cond_broadcast(&self->changed);
}

static void *output_run(void *of)
{
    output *self = of;
    pthread_mutex_lock(&self->lock);
    for (;;) {
        while (!self->ending && self->written == self->given)
            pthread_cond_wait(&self->changed, &self->lock);
        if (self->written == self->given)
            break;
        write_first(self);
    }
    pthread_mutex_unlock(&self->lock);
    return NULL;
}

static void output_start(output *self, int fd)
{
    memset(self, 0, sizeof *self);
    self->fd = fd;
    self->process = getpid();
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->changed, NULL);
}

static block *output_filling(output *self)
{
    return self->blocks + self->given % BLOCKS;
}

/* Give the block that was filled away. last: no other follows. Without a thread it is written here. */
static void output_give(output *self, int last)
{
    if (output_filling(self)->size == 0)
        return;
    self->ready = 0;
    pthread_mutex_lock(&self->lock);
    self->waiting += output_filling(self)->size;
    self->given++;
    if (!self->started && !last)
        self->started = pthread_create(&self->thread, NULL, output_run, self) == 0;
    if (!self->started)
        write_first(self);
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

/* Wait at most a tenth of a second until a block is free, and not too much waits; with `all`, until nothing waits. Returns
 * whether that is so. */
static int output_has_room(output *self, int all)
{
    struct timespec until;
    pthread_mutex_lock(&self->lock);
    for (int waited = 0;; waited = 1) {
        const uint64_t blocks = self->given - self->written;
        const int room = all ? blocks == 0 : blocks < BLOCKS && self->waiting < MOST_WAITING;
        if (room || waited) {
            pthread_mutex_unlock(&self->lock);
            return room;
        }
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        (void)pthread_cond_timedwait(&self->changed, &self->lock, &until);
    }
}

/* errno of what failed, or 0. */
static int output_failed(output *self)
{
    pthread_mutex_lock(&self->lock);
    const int failed = self->failed;
    pthread_mutex_unlock(&self->lock);
    return failed;
}

/* End the thread, which writes what waits before. */
static void output_join(output *self)
{
    if (!self->started)
        return;
    pthread_mutex_lock(&self->lock);
    self->ending = 1;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
    pthread_join(self->thread, NULL);
    self->started = self->ending = 0;
}

/* In a process that was forked, there is no thread, and the lock may be held for ever: nothing is written there. */
static void output_check_process(output *self)
{
    if (self->process == getpid())
        return;
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->changed, NULL);
    self->process = getpid();
    self->started = self->ending = 0;
    self->written = self->given;
    self->waiting = 0;
    self->failed = ESRCH;
}

/* Write nothing more; the file may be closed then. */
static void output_stop(output *self)
{
    output_check_process(self);
    pthread_mutex_lock(&self->lock);
    if (!self->failed)
        self->failed = ECANCELED;
    pthread_mutex_unlock(&self->lock);
    output_join(self);
}

/* Free everything but the owners, after output_stop. */
static void output_free(output *self)
{
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
    for (int i = 0; i < BLOCKS; i++) {
        free(self->blocks[i].bytes);
        free(self->blocks[i].insertions);
    }
}

#endif
