/* A tree that is listed, and its first images read, while the process still loads what packs them (gather.c).
 *
 * One thread runs `ahead_run`: folder by folder, level by level, it finds the names and sizes, and reads the images on the
 * occasion, up to the room for them. As soon as the walk takes a folder (`ahead_take`), listing comes first: the walk lists
 * the folders that it meets itself, the thread those behind them, and the images that were passed over are read when all
 * is listed. When the thread has ended (`ahead_end`), the packer's loop finds what was read by its path, from any number
 * of threads. Nothing here reports an error: what could not be listed or read, the walk or the loop meets again.
 */
#ifndef SHARDKIT_AHEAD_H
#define SHARDKIT_AHEAD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* for the clock of files' times */
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

#include "folder_names.h"
#include "read_files.h"

/* The largest file that is read: opening costs more than its bytes. Larger ones would be copied twice for little. */
enum { AHEAD_FILE = 1 << 15 };

typedef enum { FOLDER_WAITS, FOLDER_BUSY, FOLDER_LISTED, FOLDER_GONE } folder_state;

/* A folder. path: below the root, "" for the root. unread: its images that were passed over. */
typedef struct {
    char *path;
    uint64_t mark;
    int depth;
    folder_state state;
    Names names, unread;
} ahead_folder;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char *root, *wanted;
    size_t wanted_length, room, most_names, names;
    int depth, running, unlisted_taken;
    atomic_int stopped, hurried, list_only;
    atomic_size_t passed_over; /* about the bytes of what is unread */
    ahead_folder **folders;    /* each stays where it is */
    size_t count, most, next, cursor;
    int64_t began;   /* in nanoseconds, by the clock of files' times; -1 before */
    ReadFiles files; /* of the thread until `running` is 0 */
} Ahead;

/* ---- folders; the lock is held ---- */

static ahead_folder *ahead_add_folder(Ahead *self, const char *path, int depth, folder_state state)
{
    if (!grow((void **)&self->folders, &self->most, self->count + 1, sizeof *self->folders))
        return NULL;
    ahead_folder *folder = calloc(1, sizeof *folder);
    if (folder == NULL || (folder->path = strdup(path)) == NULL) {
        free(folder);
        return NULL;
    }
    folder->mark = path_mark(path, strlen(path));
    folder->depth = depth;
    folder->state = state;
    self->folders[self->count++] = folder;
    return folder;
}

/* The folder with this path, if it is known. They are taken about in their order. */
static ahead_folder *ahead_folder_at(Ahead *self, const char *path)
{
    const uint64_t mark = path_mark(path, strlen(path));
    for (size_t i = 0; i < self->count; i++) {
        const size_t at = (self->cursor + i) % self->count;
        if (self->folders[at]->mark == mark && strcmp(self->folders[at]->path, path) == 0) {
            self->cursor = at;
            return self->folders[at];
        }
    }
    return NULL;
}

/* ---- files ---- */

/* A folder that is being listed. reads: by the thread, which may read its images. local: as of `ahead_is_local`. */
typedef struct {
    Ahead *ahead;
    const char *path;
    int reads, local;
    Names unread;
} ahead_listing;

static int ahead_may_keep(const Ahead *self)
{
    return !self->list_only && self->files.used < self->files.room;
}

/* Read an open file of `size` bytes; of the thread alone. */
static void ahead_read(Ahead *self, int fd, const char *folder, const char *name, size_t size)
{
    uint8_t *place = file_place(&self->files, folder, name, size);
    if (place != NULL && read(fd, place, size + 1) == (ssize_t)size) /* a byte more shows that it grew */
        keep_file(&self->files, size);
}

static int ahead_open(int folder, const char *name)
{
    return openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW);
}

/* Whether a folder is on a file system on which a read of a regular file ends at the end of the file only. */
static int ahead_is_local(int folder)
{
#ifdef __linux__
    static const long kinds[] = {0xEF53 /* ext4 */, 0x58465342 /* XFS */, 0x9123683E /* Btrfs */,
                                 0x01021994 /* tmpfs */};
    struct statfs system;
    const int known = fstatfs(folder, &system) == 0;
    for (size_t i = 0; known && i < sizeof kinds / sizeof *kinds; i++)
        if ((long)system.f_type == kinds[i])
            return 1;
#else
    (void)folder;
#endif
    return 0;
}

/* The size of an image of a local folder, which is read on the occasion: that many bytes can be read. -1: not known. */
static int64_t ahead_read_local(Ahead *self, int folder, const char *path, const char *name)
{
    if (self->files.room - self->files.used <= LONGEST_PATH + 2 * AHEAD_FILE)
        return -1;
    const int fd = ahead_open(folder, name);
    if (fd < 0)
        return -1;
    uint8_t *place = file_place(&self->files, path, name, AHEAD_FILE);
    const ssize_t size = place == NULL ? -1 : read(fd, place, AHEAD_FILE + 1);
    close(fd);
    if (size > 0 && size <= AHEAD_FILE)
        keep_file(&self->files, (size_t)size);
    return size <= AHEAD_FILE ? size : -1;
}

/* The size of an image, which is read on the occasion. */
static int64_t ahead_read_size(Ahead *self, int folder, const char *path, const char *name)
{
    struct stat status;
    int64_t size = NAME_OTHER;
    const int fd = ahead_open(folder, name);
    if (fd < 0)
        return size_in(folder, name);
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        size = status.st_size;
        if (size > AHEAD_FILE)
            self->files.used = self->files.room;
        else if (size > 0)
            ahead_read(self, fd, path, name, (size_t)size);
    }
    close(fd);
    return size;
}

/* Note an image that is passed over, while there would be room for it. */
static void ahead_pass_over(ahead_listing *listing, const char *name, int64_t size)
{
    Ahead *self = listing->ahead;
    const size_t more = (size_t)size + strlen(name) + sizeof(Name);
    if (size > 0 && size <= AHEAD_FILE && !self->list_only && self->passed_over < self->room) {
        self->passed_over += more;
        (void)add_name(&listing->unread, name, size);
    }
}

static int64_t ahead_size_of(void *context, int folder, const char *name)
{
    ahead_listing *listing = context;
    Ahead *self = listing->ahead;
    if (self->stopped)
        return NAME_OTHER;
    if (listing->reads && !self->hurried && ahead_may_keep(self)) {
        const int64_t size = listing->local ? ahead_read_local(self, folder, listing->path, name) : -1;
        return size < 0 ? ahead_read_size(self, folder, listing->path, name) : size;
    }
    const int64_t size = size_in(folder, name);
    ahead_pass_over(listing, name, size);
    return size;
}

/* ---- listing ---- */

/* The full path of a folder. 0 if it is too long. */
static int ahead_place(const Ahead *self, const char *path, char place[LONGEST_PATH])
{
    const size_t root = strlen(self->root), length = strlen(path);
    if (root + 1 + length >= LONGEST_PATH)
        return 0;
    memcpy(place, self->root, root);
    place[root] = '/';
    memcpy(place + root + 1, path, length + 1);
    return 1;
}

/* A descriptor of a folder, or -1. */
static int ahead_open_folder(const Ahead *self, const char *path)
{
    char place[LONGEST_PATH];
    return ahead_place(self, path, place) ? open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

static int ahead_list(ahead_listing *listing, Names *found)
{
    const Ahead *self = listing->ahead;
    const int fd = ahead_open_folder(self, listing->path);
    if (fd < 0)
        return 0;
    const Extensions wanted = {self->wanted, self->wanted_length};
    listing->local = ahead_is_local(fd);
    const int error = list_names(fd, wanted, ahead_size_of, listing, found);
    close(fd);
    return !error && !self->stopped;
}

/* Add what may be a folder of a listed folder, in order. The lock is held. */
static void ahead_add_below(Ahead *self, const ahead_folder *folder)
{
    const Names *names = &folder->names;
    char path[LONGEST_PATH];
    size_t before = strlen(folder->path);
    memcpy(path, folder->path, before);
    if (before)
        path[before++] = '/';
    for (size_t i = 0; i < names->count; i++) {
        const char *name = names->text + names->names[i].at;
        const size_t length = strlen(name);
        if (names->names[i].size != NAME_OTHER || name[0] == '.' || before + length >= LONGEST_PATH)
            continue;
        memcpy(path + before, name, length + 1);
        if (self->unlisted_taken && ahead_folder_at(self, path) != NULL)
            continue;
        if (ahead_add_folder(self, path, folder->depth + 1, FOLDER_WAITS) == NULL)
            break;
    }
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

/* List a folder that waits. The lock is held, but not meanwhile. */
static void ahead_list_waiting(Ahead *self, ahead_folder *folder, int reads)
{
    ahead_listing listing = {self, folder->path, reads, 0, {0}};
    Names found = {0};
    folder->state = FOLDER_BUSY;
    pthread_mutex_unlock(&self->lock);
    const int listed = ahead_list(&listing, &found);
    pthread_mutex_lock(&self->lock);
    folder->state = listed ? FOLDER_LISTED : FOLDER_GONE;
    folder->names = found;
    folder->unread = listing.unread;
    self->names += found.count;
    if (listed && folder->depth < self->depth)
        ahead_add_below(self, folder);
    pthread_cond_broadcast(&self->changed);
}

/* ---- the thread ---- */

/* Read the images of a folder that were passed over. */
static void ahead_read_unread(Ahead *self, const char *path, const Names *unread)
{
    const int folder = ahead_open_folder(self, path);
    for (size_t i = 0; folder >= 0 && i < unread->count && !self->stopped && ahead_may_keep(self); i++) {
        const char *name = unread->text + unread->names[i].at;
        const int fd = ahead_open(folder, name);
        if (fd < 0)
            continue;
        ahead_read(self, fd, path, name, (size_t)unread->names[i].size);
        close(fd);
    }
    if (folder >= 0)
        close(folder);
}

/* List and read, until nothing is left or `ahead_stop`. For one thread, once. */
static void ahead_run(Ahead *self)
{
    pthread_mutex_lock(&self->lock);
    if (!self->stopped && self->began < 0) {
        self->began = ahead_clock();
        self->running = 1;
        begin_files(&self->files, self->room);
        if (ahead_folder_at(self, "") == NULL)
            ahead_add_folder(self, "", 0, FOLDER_WAITS);
    }
    while (self->running && !self->stopped && self->next < self->count && self->names < self->most_names) {
        ahead_folder *folder = self->folders[self->next++];
        if (folder->state == FOLDER_WAITS)
            ahead_list_waiting(self, folder, 1);
    }
    for (size_t i = 0; self->running && !self->stopped && i < self->count; i++) {
        ahead_folder *folder = self->folders[i];
        Names unread = folder->unread;
        folder->unread = (Names){0};
        pthread_mutex_unlock(&self->lock);
        ahead_read_unread(self, folder->path, &unread);
        free_names(&unread);
        pthread_mutex_lock(&self->lock);
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

/* The names in a folder, once; lists it if it waits, and waits for it if it is being listed. From now on, listing comes
 * first. 0 if it was not listed, and will not be. */
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
        if (folder->state == FOLDER_WAITS && !self->stopped)
            ahead_list_waiting(self, folder, 0);
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

static void ahead_free(Ahead *self)
{
    for (size_t i = 0; i < self->count; i++) {
        free_names(&self->folders[i]->names);
        free_names(&self->folders[i]->unread);
        free(self->folders[i]->path);
        free(self->folders[i]);
    }
    free(self->folders);
    free(self->root);
    free(self->wanted);
    end_files(&self->files);
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->lock);
}

#endif
