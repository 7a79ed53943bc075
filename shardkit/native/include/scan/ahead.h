/* A tree that is listed, and its first images read, while the process still loads what packs them (gather.c).
 *
 * One thread runs `ahead_run`: folder by folder, level by level, it finds the names and sizes, and while nobody waits
 * for them it also reads the images, up to `room` bytes. The walk takes the folders (`ahead_take`); when the thread has
 * ended (`ahead_end`), the packer's loop finds what was read by its path (`ahead_find`), from any number of threads.
 * Nothing here reports an error: what could not be listed or read, the walk or the loop meets again.
 */
#ifndef SHARDKIT_AHEAD_H
#define SHARDKIT_AHEAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* for the clock of files' times */
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "folder_names.h"

enum { AHEAD_PATH = 4096 }; /* of the paths that are kept, with their NUL */

/* The largest file that is read: opening costs more than its bytes. Larger ones would be copied twice for little. */
enum { AHEAD_FILE = 1 << 15 };

typedef enum { FOLDER_WAITS, FOLDER_BUSY, FOLDER_LISTED, FOLDER_GONE } folder_state;

/* A folder. path: below the root, "" for the root. */
typedef struct {
    char *path;
    uint64_t mark;
    int depth;
    folder_state state;
    Names names;
} ahead_folder;

/* Where a file that was read is, by the mark of its path: `at` is behind the beginning of its ahead_record; 0: none. */
typedef struct {
    uint64_t mark;
    size_t at;
} ahead_slot;

/* A file that was read, in `bytes`: this, then its path, then its bytes. */
typedef struct {
    int64_t size;
    size_t path_length;
} ahead_record;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char *root, *wanted;
    size_t wanted_length, most_names, names;
    int depth, running, unlisted_taken;
    atomic_int stopped, hurried;
    ahead_folder **folders; /* each stays where it is */
    size_t count, most, next, cursor;
    int64_t began; /* in nanoseconds, by the clock of files' times; -1 before */
    /* what was read; of the thread until `running` is 0 */
    uint8_t *bytes;
    size_t room, used;
    ahead_slot *slots;
    size_t slot_count, file_count;
    const char *now; /* the path of the folder that is being listed */
} Ahead;

static uint64_t ahead_mark(const char *text, size_t length)
{
    uint64_t mark = 0xCBF29CE484222325u;
    for (size_t at = 0; at < length; at++)
        mark = (mark ^ (uint8_t)text[at]) * 0x100000001B3u;
    return mark ^ mark >> 32;
}

static int ahead_grow(void **memory, size_t *most, size_t wanted, size_t each)
{
    if (wanted <= *most)
        return 1;
    const size_t more = 2 * wanted + 64;
    void *grown = realloc(*memory, more * each);
    if (grown == NULL)
        return 0;
    *memory = grown;
    *most = more;
    return 1;
}

/* ---- folders; the lock is held ---- */

static ahead_folder *ahead_add_folder(Ahead *self, const char *path, int depth, folder_state state)
{
    if (!ahead_grow((void **)&self->folders, &self->most, self->count + 1, sizeof *self->folders))
        return NULL;
    ahead_folder *folder = calloc(1, sizeof *folder);
    if (folder == NULL || (folder->path = strdup(path)) == NULL) {
        free(folder);
        return NULL;
    }
    folder->mark = ahead_mark(path, strlen(path));
    folder->depth = depth;
    folder->state = state;
    self->folders[self->count++] = folder;
    return folder;
}

/* The folder with this path, if it is known. They are taken about in their order. */
static ahead_folder *ahead_folder_at(Ahead *self, const char *path)
{
    const uint64_t mark = ahead_mark(path, strlen(path));
    for (size_t i = 0; i < self->count; i++) {
        const size_t at = (self->cursor + i) % self->count;
        if (self->folders[at]->mark == mark && strcmp(self->folders[at]->path, path) == 0) {
            self->cursor = at;
            return self->folders[at];
        }
    }
    return NULL;
}

/* ---- files; of the thread alone ---- */

static void ahead_put_slot(ahead_slot *slots, size_t count, ahead_slot slot)
{
    size_t at = slot.mark & (count - 1);
    while (slots[at].at)
        at = (at + 1) & (count - 1);
    slots[at] = slot;
}

static int ahead_more_slots(Ahead *self)
{
    const size_t count = self->slot_count ? 2 * self->slot_count : 1 << 12;
    ahead_slot *slots = calloc(count, sizeof *slots);
    if (slots == NULL)
        return 0;
    for (size_t at = 0; at < self->slot_count; at++)
        if (self->slots[at].at)
            ahead_put_slot(slots, count, self->slots[at]);
    free(self->slots);
    self->slots = slots;
    self->slot_count = count;
    return 1;
}

/* Keep the open file `name` of the folder that is being listed; `most`: the bytes of its record. */
static void ahead_keep(Ahead *self, int fd, const char *name, size_t size, size_t most)
{
    const size_t before = strlen(self->now), length = strlen(name);
    const ahead_record record = {(int64_t)size, before + (before > 0) + length};
    uint8_t *to = self->bytes + self->used + sizeof record;
    if (2 * (self->file_count + 1) > self->slot_count && !ahead_more_slots(self))
        return;
    memcpy(to - sizeof record, &record, sizeof record);
    memcpy(to, self->now, before);
    if (before)
        to[before] = '/';
    memcpy(to + record.path_length - length, name, length);
    if (read(fd, to + record.path_length, size + 1) != (ssize_t)size) /* a byte more shows that it grew */
        return;
    self->used += sizeof record;
    ahead_put_slot(self->slots, self->slot_count, (ahead_slot){ahead_mark((char *)to, record.path_length), self->used});
    self->used += most - sizeof record;
    self->file_count++;
}

/* The size of an image, which is read on the occasion. */
static int64_t ahead_size_of(void *context, int folder, const char *name)
{
    Ahead *self = context;
    if (self->stopped)
        return NAME_OTHER;
    if (self->hurried || self->used == self->room)
        return size_in(folder, name);
    const int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
    if (fd < 0)
        return size_in(folder, name);
    struct stat status;
    int64_t size = NAME_OTHER;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        size = status.st_size;
        const size_t around = sizeof(ahead_record) + strlen(self->now) + 1 + strlen(name);
        if (size > AHEAD_FILE || (uint64_t)size >= self->room - self->used ||
            around >= self->room - self->used - (size_t)size)
            self->used = self->room;
        else if (size > 0)
            ahead_keep(self, fd, name, (size_t)size, around + (size_t)size);
    }
    close(fd);
    return size;
}

/* ---- the thread ---- */

/* The full path of a folder. 0 if it is too long. */
static int ahead_place(const Ahead *self, const char *path, char place[AHEAD_PATH])
{
    const size_t root = strlen(self->root), length = strlen(path);
    if (root + 1 + length >= AHEAD_PATH)
        return 0;
    memcpy(place, self->root, root);
    place[root] = '/';
    memcpy(place + root + 1, path, length + 1);
    return 1;
}

static int ahead_list(Ahead *self, const char *path, Names *found)
{
    char place[AHEAD_PATH];
    if (!ahead_place(self, path, place))
        return 0;
    const int fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    self->now = path;
    const Extensions wanted = {self->wanted, self->wanted_length};
    const int error = list_names(fd, wanted, ahead_size_of, self, found);
    close(fd);
    return !error && !self->stopped;
}

static int by_text(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Add what may be a folder of a listed folder, in order. The lock is held. */
static void ahead_add_below(Ahead *self, const ahead_folder *folder)
{
    const Names *names = &folder->names;
    const char **below = malloc((names->count + 1) * sizeof *below);
    char path[AHEAD_PATH];
    size_t count = 0, before = strlen(folder->path);
    if (below == NULL)
        return;
    for (size_t i = 0; i < names->count; i++) {
        const char *name = names->text + names->names[i].at;
        if (names->names[i].size == NAME_OTHER && name[0] != '.')
            below[count++] = name;
    }
    qsort(below, count, sizeof *below, by_text);
    memcpy(path, folder->path, before);
    if (before)
        path[before++] = '/';
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(below[i]);
        if (before + length >= AHEAD_PATH)
            continue;
        memcpy(path + before, below[i], length + 1);
        if (self->unlisted_taken && ahead_folder_at(self, path) != NULL)
            continue;
        if (ahead_add_folder(self, path, folder->depth + 1, FOLDER_WAITS) == NULL)
            break;
    }
    free(below);
}

/* The time by the clock that stamps files; it lags behind the other by a tick. */
static int64_t ahead_clock(void)
{
    struct timespec now;
#ifdef CLOCK_REALTIME_COARSE
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#else
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - 20000000;
#endif
}

/* List and read, until nothing is left or `ahead_stop`. For one thread, once. */
static void ahead_run(Ahead *self)
{
    pthread_mutex_lock(&self->lock);
    if (!self->stopped && self->began < 0) {
        self->began = ahead_clock();
        self->running = 1;
        self->bytes = self->room ? malloc(self->room) : NULL;
        self->room = self->bytes == NULL ? 0 : self->room;
        if (self->count == 0)
            ahead_add_folder(self, "", 0, FOLDER_WAITS);
    }
    while (self->running && !self->stopped && self->next < self->count && self->names < self->most_names) {
        ahead_folder *folder = self->folders[self->next++];
        if (folder->state != FOLDER_WAITS)
            continue;
        folder->state = FOLDER_BUSY;
        pthread_mutex_unlock(&self->lock);
        Names found = {0};
        const int listed = ahead_list(self, folder->path, &found);
        pthread_mutex_lock(&self->lock);
        folder->state = listed ? FOLDER_LISTED : FOLDER_GONE;
        folder->names = found;
        self->names += found.count;
        if (listed && folder->depth < self->depth)
            ahead_add_below(self, folder);
        pthread_cond_broadcast(&self->changed);
    }
    self->stopped = 1;
    self->running = 0;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

/* ---- what others ask ---- */

static int ahead_start(Ahead *self, const char *root, Extensions wanted, size_t room, size_t most_names, int depth)
{
    memset(self, 0, sizeof *self);
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->changed, NULL);
    self->root = strdup(root);
    self->wanted = malloc(wanted.length + 1);
    self->room = room;
    self->most_names = most_names;
    self->depth = depth;
    self->began = -1;
    if (self->root == NULL || self->wanted == NULL)
        return 0;
    memcpy(self->wanted, wanted.text, wanted.length);
    self->wanted_length = wanted.length;
    return 1;
}

/* The names in a folder, once; waits for a folder that is being listed. From now on, nothing is read. 0 if it was not
 * listed, and will not be. */
static int ahead_take(Ahead *self, const char *path, Names *names)
{
    self->hurried = 1;
    pthread_mutex_lock(&self->lock);
    ahead_folder *folder = ahead_folder_at(self, path);
    if (folder == NULL) {
        if (!self->stopped) { /* the thread must not list it again */
            ahead_add_folder(self, path, 0, FOLDER_GONE);
            self->unlisted_taken = 1;
        }
    } else {
        while (folder->state == FOLDER_BUSY)
            pthread_cond_wait(&self->changed, &self->lock);
    }
    const int listed = folder != NULL && folder->state == FOLDER_LISTED;
    if (listed) {
        *names = folder->names;
        folder->names = (Names){0};
        self->names -= names->count;
    }
    if (folder != NULL)
        folder->state = FOLDER_GONE;
    pthread_mutex_unlock(&self->lock);
    return listed;
}

static void ahead_stop(Ahead *self)
{
    self->stopped = 1;
}

/* Stop, and wait for the thread. */
static void ahead_end(Ahead *self)
{
    ahead_stop(self);
    pthread_mutex_lock(&self->lock);
    while (self->running)
        pthread_cond_wait(&self->changed, &self->lock);
    pthread_mutex_unlock(&self->lock);
}

/* The mark of the file PREFIX/PATH; prefix: "" or a path. */
static uint64_t ahead_mark_below(const char *prefix, const char *path, size_t length)
{
    char whole[AHEAD_PATH];
    size_t before = strlen(prefix);
    if (before + 1 + length >= AHEAD_PATH)
        return 0;
    memcpy(whole, prefix, before);
    if (before)
        whole[before++] = '/';
    memcpy(whole + before, path, length);
    return ahead_mark(whole, before + length);
}

/* Bring to the cache the slot of a mark, or what a slot of it leads to. */
static void ahead_fetch_slot(const Ahead *self, uint64_t mark)
{
    if (self->slot_count)
        __builtin_prefetch(self->slots + (mark & (self->slot_count - 1)));
}

static void ahead_fetch_record(const Ahead *self, uint64_t mark)
{
    const size_t at = self->slot_count ? self->slots[mark & (self->slot_count - 1)].at : 0;
    for (size_t line = 0; at && line < 4; line++)
        __builtin_prefetch(self->bytes + at - sizeof(ahead_record) + 64 * line);
}

/* The bytes of the file PREFIX/PATH, which has this mark, if it was read with this size; after `ahead_end`. */
static const uint8_t *ahead_find(const Ahead *self, uint64_t mark, const char *prefix, const char *path, size_t length,
                                 int64_t size)
{
    const size_t before = strlen(prefix), whole = before + (before > 0) + length;
    if (self->slot_count == 0)
        return NULL;
    for (size_t at = mark & (self->slot_count - 1); self->slots[at].at; at = (at + 1) & (self->slot_count - 1)) {
        if (self->slots[at].mark != mark)
            continue;
        ahead_record record;
        const uint8_t *found = self->bytes + self->slots[at].at;
        memcpy(&record, found - sizeof record, sizeof record);
        if (record.path_length == whole && memcmp(found, prefix, before) == 0 &&
            (before == 0 || found[before] == '/') && memcmp(found + whole - length, path, length) == 0)
            return record.size == size ? found + whole : NULL;
    }
    return NULL;
}

static void ahead_free(Ahead *self)
{
    for (size_t i = 0; i < self->count; i++) {
        free_names(&self->folders[i]->names);
        free(self->folders[i]->path);
        free(self->folders[i]);
    }
    free(self->folders);
    free(self->root);
    free(self->wanted);
    free(self->bytes);
    free(self->slots);
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
}

#endif
