/* The files that a list names: what sources/lists/plain_files.py looks at. Knows no Python. */
#ifndef SHARDKIT_LISTS_PATHS_H
#define SHARDKIT_LISTS_PATHS_H

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "texts.h"

enum { PATH_ROOM = 4096, EXTENSION_ROOM = 32 };

/* Whether a path's last part has a stem, and an extension that is one of those wanted (lower case, each followed by a
 * NUL). Extensions that are not ASCII are left to Python. */
static int has_wanted(String path, const char *wanted, size_t wanted_length)
{
    char extension[EXTENSION_ROOM];
    size_t stem = path.length;
    while (stem && path.bytes[stem - 1] != '.' && path.bytes[stem - 1] != '/')
        stem--;
    const size_t length = path.length - stem;
    if (stem < 2 || path.bytes[stem - 1] != '.' || path.bytes[stem - 2] == '/' || length >= EXTENSION_ROOM)
        return 0;
    for (size_t at = 0; at < length; at++) {
        const char letter = path.bytes[stem + at];
        extension[at] = (char)(letter >= 'A' && letter <= 'Z' ? letter + 32 : letter);
    }
    extension[length] = 0;
    for (size_t at = 0; at < wanted_length; at += strlen(wanted + at) + 1)
        if (strcmp(wanted + at, extension) == 0)
            return 1;
    return 0;
}

/* Whether a path names a file without further rules: no part of it is empty, hidden, `.` or `..`, and it has neither
 * backslash nor NUL. Python looks at all others. */
static int is_plain_path(String path)
{
    char before = '/';
    for (size_t at = 0; at < path.length; at++) {
        const char now = path.bytes[at];
        if (now == 0 || now == '\\' || (before == '/' && (now == '.' || now == '/') && (at || now == '.')))
            return 0;
        before = now;
    }
    return before != '/';
}

/* Paths as they are in the file system, and those for the index: below the root, or without the leading slash. Each has
 * room for all bytes that `paths_room` says, and offsets for all rows. inside: whether all are below the root. */
typedef struct {
    char *real, *names;
    int64_t *real_offsets, *name_offsets;
    int inside, ascii;
} plain_paths;

/* The most bytes that the paths of a column may take with the root before them. */
static int64_t paths_room(const StringColumn *column, size_t root)
{
    return column->length + column->count * (int64_t)root + 1;
}

enum { PATHS_PLAIN = 1, PATHS_ODD = 0 };

/* Take the paths of a column, relative to a root that ends with a slash. Returns PATHS_PLAIN, PATHS_ODD if Python should
 * look at them, or TEXTS_*. */
static int take_paths(const StringColumn *column, String root, const char *wanted, size_t wanted_length,
                      const uint64_t secret[2], plain_paths *found)
{
    key_set known = {{secret[0], secret[1]}, NULL, 0, 0};
    int64_t real = 0, names = 0;
    int result = PATHS_PLAIN;
    found->inside = found->ascii = 1;
    found->real_offsets[0] = found->name_offsets[0] = 0;
    for (int64_t row = 0; result == PATHS_PLAIN && row < column->count; row++) {
        String path;
        if (!string_at(column, row, &path)) {
            result = TEXTS_OUTSIDE;
            break;
        }
        if (path.length > 2 && memcmp(path.bytes, "./", 2) == 0 && path.bytes[2] != '/')
            path = (String){path.bytes + 2, path.length - 2};
        if (!is_plain_path(path) || !has_wanted(path, wanted, wanted_length)) {
            result = PATHS_ODD;
            break;
        }
        const int absolute = path.bytes[0] == '/';
        const int below = absolute && path.length > root.length && memcmp(path.bytes, root.bytes, root.length) == 0;
        const size_t cut = below ? root.length : absolute ? 1 : 0;
        if (!absolute) {
            memcpy(found->real + real, root.bytes, root.length);
            real += (int64_t)root.length;
        }
        memcpy(found->real + real, path.bytes, path.length);
        real += (int64_t)path.length;
        memcpy(found->names + names, path.bytes + cut, path.length - cut);
        const mark name = mark_of_text(secret, (String){found->names + names, path.length - cut});
        names += (int64_t)(path.length - cut);
        found->real_offsets[row + 1] = real;
        found->name_offsets[row + 1] = names;
        found->inside &= below || !absolute;
        for (size_t at = 0; at < path.length; at++)
            found->ascii &= (unsigned char)path.bytes[at] < 128;
        if (has_mark(&known, name))
            result = PATHS_ODD;
        else if (!make_room(&known))
            result = TEXTS_NO_MEMORY;
        else
            put_mark(&known, name);
    }
    free(known.marks);
    return result;
}

/* A folder that stays open while files in it are looked at. */
typedef struct {
    char path[PATH_ROOM];
    size_t length;
    int fd;
} open_folder;

/* The bytes of a regular file, or of what a link leads to; -1 for anything else. Files that follow each other are mostly in
 * one folder. */
static int64_t file_size(open_folder *folder, String path)
{
    struct stat status;
    const size_t length = folder_of(path);
    char name[PATH_ROOM];
    if (path.length >= PATH_ROOM || memchr(path.bytes, 0, path.length) != NULL)
        return -1;
    memcpy(name, path.bytes, path.length);
    name[path.length] = 0;
    if (length == 0 || length != folder->length || memcmp(folder->path, name, length) != 0) {
        if (folder->fd >= 0)
            close(folder->fd);
        folder->fd = -1;
        folder->length = length;
        memcpy(folder->path, name, length);
        return stat(name, &status) == 0 && S_ISREG(status.st_mode) ? (int64_t)status.st_size : -1;
    }
    if (folder->fd < 0) { /* the second file in it */
        folder->path[length] = 0;
        folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    const int found = folder->fd < 0 ? stat(name, &status) : fstatat(folder->fd, name + length + 1, &status, 0);
    return found == 0 && S_ISREG(status.st_mode) ? (int64_t)status.st_size : -1;
}

#endif
