/* Files of a list that are looked at and read ahead, in place of a tree (ahead.h): what sources/lists/early.py begins.
 *
 * Files without a size yet are looked at in turn, and read on the occasion until somebody waits for the sizes. Files with
 * a size are read. So one thread comes twice: for the sizes, and for what it did not read then.
 */
#ifndef SHARDKIT_AHEAD_FILES_H
#define SHARDKIT_AHEAD_FILES_H

#include "ahead.h"

enum { NOT_LOOKED_AT = -2 };

/* Files by their absolute paths, one behind the other: path i is bytes offsets[i] to offsets[i + 1]. */
typedef struct {
    const char *paths;
    const int64_t *offsets;
    size_t count;
} ahead_files;

/* A folder that stays open while files in it are looked at: those that follow each other are mostly in one. */
typedef struct {
    char path[LONGEST_PATH], name[LONGEST_PATH]; /* below the root, and in the folder */
    int fd;
} ahead_place_of;

/* Go to the folder of a file, and take its name. 0 if that can't be. */
static int ahead_go_to(const Ahead *self, ahead_place_of *place, const char *path, size_t length)
{
    size_t before = length;
    while (before && path[before - 1] != '/')
        before--;
    if (before == 0 || length >= LONGEST_PATH)
        return 0;
    memcpy(place->name, path + before, length - before);
    place->name[length - before] = 0;
    if (place->fd >= 0 && strlen(place->path) == before - 1 && memcmp(place->path, path, before - 1) == 0)
        return 1;
    if (place->fd >= 0)
        close(place->fd);
    memcpy(place->path, path, before - 1);
    place->path[before - 1] = 0;
    place->fd = ahead_open_folder(self, place->path);
    return place->fd >= 0;
}

/* The size of a file, or of what a link leads to; NAME_OTHER for what is no file. */
static int64_t ahead_look(Ahead *self, const ahead_place_of *place)
{
    struct stat status;
    if (!self->hurried && ahead_may_keep(self)) {
        const int64_t size = ahead_read_size(self, place->fd, place->path, place->name);
        if (size >= 0)
            return size;
    }
    return fstatat(place->fd, place->name, &status, 0) == 0 && S_ISREG(status.st_mode) ? status.st_size : NAME_OTHER;
}

static void ahead_read_known(Ahead *self, const ahead_place_of *place, int64_t size)
{
    const int fd = size > 0 && size <= AHEAD_FILE ? ahead_open(place->fd, place->name) : -1;
    if (fd < 0)
        return;
    ahead_read(self, fd, place->path, place->name, (size_t)size);
    close(fd);
}

/* Whether the thread may go on, for the first time or again. */
static int ahead_enter(Ahead *self)
{
    pthread_mutex_lock(&self->lock);
    if (!self->stopped && self->began < 0) {
        self->began = ahead_clock();
        begin_files(&self->files, self->room);
    }
    self->running = !self->stopped;
    pthread_mutex_unlock(&self->lock);
    return self->running;
}

static void ahead_leave(Ahead *self)
{
    pthread_mutex_lock(&self->lock);
    self->running = 0;
    pthread_cond_broadcast(&self->changed);
    pthread_mutex_unlock(&self->lock);
}

/* Look at the files from `start` on, or read them, until nothing is left or `ahead_stop`. The root is `/`. Returns where
 * those begin that were not read when the sizes were waited for. */
static size_t ahead_visit(Ahead *self, const ahead_files *files, int64_t *sizes, size_t start)
{
    ahead_place_of place = {.fd = -1};
    size_t unread = start;
    for (size_t i = start; i < files->count && !self->stopped; i++) {
        const char *path = files->paths + files->offsets[i] + 1;
        const int there = ahead_go_to(self, &place, path, (size_t)(files->offsets[i + 1] - files->offsets[i]) - 1);
        if (sizes[i] == NOT_LOOKED_AT) {
            unread += unread == i && !self->hurried;
            sizes[i] = there ? ahead_look(self, &place) : NAME_OTHER;
        } else if (!ahead_may_keep(self)) {
            break;
        } else if (there) {
            ahead_read_known(self, &place, sizes[i]);
        }
    }
    if (place.fd >= 0)
        close(place.fd);
    return unread;
}

#endif
