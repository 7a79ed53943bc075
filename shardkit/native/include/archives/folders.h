/* The folders of a list of names, and the images in one of them: what sources/listing.py finds. Knows no Python. */
#ifndef SHARDKIT_ARCHIVES_FOLDERS_H
#define SHARDKIT_ARCHIVES_FOLDERS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Names one behind the other: name i is bytes offsets[i] to offsets[i + 1] of `length` bytes. */
typedef struct {
    const char *bytes;
    const int64_t *offsets;
    int64_t length, count;
} name_column;

/* The name of a row, and its length; NULL if there is none. */
static const char *name_at(const name_column *names, int64_t row, int64_t *length)
{
    if (row < 0 || row >= names->count)
        return NULL;
    const int64_t begin = names->offsets[row], end = names->offsets[row + 1];
    if (begin < 0 || end < begin || end > names->length)
        return NULL;
    *length = end - begin;
    return names->bytes + begin;
}

/* The length of a name's folder, without the slash behind it. */
static size_t folder_length(const char *name, size_t length)
{
    while (length && name[length - 1] != '/')
        length--;
    return length ? length - 1 : 0;
}

/* The rows where another folder begins than that of the row before, in `starts`, which has room for all rows. Returns how
 * many; -1 for offsets outside the column. */
static int64_t folder_starts(const name_column *names, int64_t *starts)
{
    const char *before = NULL;
    int64_t count = 0, length;
    size_t held = 0;
    for (int64_t row = 0; row < names->count; row++) {
        const char *name = name_at(names, row, &length);
        if (name == NULL)
            return -1;
        const size_t folder = folder_length(name, (size_t)length);
        if (before == NULL || folder != held || memcmp(name, before, folder) != 0)
            starts[count++] = row;
        before = name;
        held = folder;
    }
    return count;
}

/* A name in its folder, and its row. */
typedef struct {
    const char *name;
    size_t length;
    int64_t row;
} folder_file;

static int by_folder_file(const void *left, const void *right)
{
    const folder_file *a = left, *b = right;
    const int order = memcmp(a->name, b->name, a->length < b->length ? a->length : b->length);
    return order ? order : (a->length > b->length) - (a->length < b->length);
}

/* Whether a name has one of the extensions, which are each followed by a NUL. */
static int has_extension(const folder_file *file, const char *wanted, size_t wanted_length)
{
    size_t stem = file->length;
    while (stem && file->name[stem - 1] != '.')
        stem--;
    if (stem <= 1 || file->name[0] == '.')
        return 0;
    const char *extension = file->name + stem;
    const size_t length = file->length - stem;
    for (size_t at = 0; at < wanted_length;) {
        const size_t one = strlen(wanted + at);
        if (one == length && memcmp(wanted + at, extension, length) == 0)
            return 1;
        at += one + 1;
    }
    return 0;
}

/* Sort some files of a folder, images first. Returns how many images there are; -1 if two files have one name. */
static int64_t sort_images(folder_file *files, size_t count, const char *wanted, size_t wanted_length)
{
    size_t images = 0;
    for (size_t at = 0; at < count; at++)
        if (has_extension(files + at, wanted, wanted_length)) {
            const folder_file image = files[at];
            files[at] = files[images];
            files[images++] = image;
        }
    int sorted = 1;
    for (size_t at = 1; at < images && sorted; at++)
        sorted = by_folder_file(files + at - 1, files + at) < 0;
    if (!sorted)
        qsort(files, images, sizeof *files, by_folder_file);
    for (size_t at = 1; at < images; at++)
        if (by_folder_file(files + at - 1, files + at) == 0)
            return -1;
    return (int64_t)images;
}

#endif
