/* The names in a folder, and which of them are images'. Included by tree.c and gather.c. */
#ifndef SHARDKIT_FOLDER_NAMES_H
#define SHARDKIT_FOLDER_NAMES_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../grow.h"

enum { NAME_OTHER = -1, NAME_NO_FOLDER = -2 };

/* A name in `Names.text`, and the size of its file; negative for an entry that is left to Python. */
typedef struct {
    size_t at;
    int64_t size;
} Name;

typedef struct {
    char *text;
    Name *names;
    size_t used, room, count, most;
} Names;

static void free_names(Names *names)
{
    free(names->text);
    free(names->names);
    memset(names, 0, sizeof *names);
}

/* Add a name. Returns 0 if there is no memory. */
static int add_name(Names *found, const char *name, int64_t size)
{
    const size_t length = strlen(name) + 1;
    if (!grow((void **)&found->text, &found->room, found->used + length, 1) ||
        !grow((void **)&found->names, &found->most, found->count + 1, sizeof *found->names))
        return 0;
    memcpy(found->text + found->used, name, length);
    found->names[found->count++] = (Name){found->used, size};
    found->used += length;
    return 1;
}

/* Extensions, each between two NULs in a text whose length counts the last one. */
typedef struct {
    const char *text;
    size_t length;
} Extensions;

/* Whether the name is not hidden and has one of the extensions. */
static int is_wanted(const char *name, Extensions wanted)
{
    const char *dot = strrchr(name, '.'), *end = wanted.text + wanted.length;
    if (dot == NULL || dot == name || name[0] == '.' || dot[1] == 0)
        return 0;
    const size_t length = strlen(dot + 1) + 1;
    for (const char *at = wanted.text; at < end; at += strlen(at) + 1)
        if ((size_t)(end - at) >= length && memcmp(at, dot + 1, length) == 0)
            return 1;
    return 0;
}

/* The bytes of a regular file; NAME_OTHER for anything else. */
static int64_t size_in(int folder, const char *name)
{
    struct stat status;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(status.st_mode))
        return NAME_OTHER;
    return status.st_size;
}

/* A name with its first eight bytes as a number, by which nearly all are told apart. */
typedef struct {
    uint64_t first;
    const char *text;
    Name name;
} sorted_name;

static int by_bytes(const void *left, const void *right)
{
    const sorted_name *one = left, *other = right;
    if (one->first != other->first)
        return one->first < other->first ? -1 : 1;
    return strcmp(one->text, other->text);
}

/* Sort the names by their bytes. Returns 0 if there is no memory. */
static int sort_names(Names *found)
{
    sorted_name *sorted = malloc((found->count + 1) * sizeof *sorted);
    if (sorted == NULL)
        return 0;
    for (size_t i = 0; i < found->count; i++) {
        const char *text = found->text + found->names[i].at;
        uint64_t first = 0;
        for (int at = 0, more = 1; at < 8; at++) {
            more = more && text[at] != 0;
            first = first << 8 | (more ? (uint8_t)text[at] : 0);
        }
        sorted[i] = (sorted_name){first, text, found->names[i]};
    }
    qsort(sorted, found->count, sizeof *sorted, by_bytes);
    for (size_t i = 0; i < found->count; i++)
        found->names[i] = sorted[i].name;
    free(sorted);
    return 1;
}

/* Finds the size of a file in a folder; NAME_OTHER to leave it to Python. */
typedef int64_t (*size_finder)(void *context, int folder, const char *name);

/* List the folder of a descriptor, with the sizes of images, in the order of their bytes. Returns 0, or the number of an
 * error. */
static int list_names(int fd, Extensions wanted, size_finder size_of, void *context, Names *found)
{
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (own < 0)
        return errno;
    DIR *folder = fdopendir(own);
    if (folder == NULL) {
        const int error = errno;
        close(own);
        return error;
    }
    int error = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL) {
            error = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int64_t size = NAME_OTHER;
#ifdef DT_REG
        if (entry->d_type == DT_REG)
            size = NAME_NO_FOLDER;
        if (entry->d_type == DT_REG && is_wanted(entry->d_name, wanted))
#else
        if (is_wanted(entry->d_name, wanted))
#endif
            size = size_of(context, own, entry->d_name);
        if (!add_name(found, entry->d_name, size)) {
            error = ENOMEM;
            break;
        }
    }
    closedir(folder);
    return error || sort_names(found) ? error : ENOMEM;
}

#endif
