/* The folders of a list of names, and the images in one of them: what sources/listing.py finds. Knows no Python. */
#ifndef SHARDKIT_ARCHIVES_FOLDERS_H
#define SHARDKIT_ARCHIVES_FOLDERS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../string_column.h"

/* The rows where another folder begins than that of the row before, in `starts`, which has room for all rows. Returns how
 * many; -1 for offsets outside the column. */
static int64_t folder_starts(const StringColumn *names, int64_t *starts)
{
    String folder, before = {NULL, 0};
    int64_t count = 0;
    for (int64_t row = 0; row < names->count; row++) {
        if (!string_at(names, row, &folder))
            return -1;
        folder.length = folder_of(folder);
        if (before.bytes == NULL || compare_strings(folder, before) != 0)
            starts[count++] = row;
        before = folder;
    }
    return count;
}

/* A name in its folder, and its row. */
typedef struct {
    String name;
    int64_t row;
} folder_file;

static int by_folder_file(const void *left, const void *right)
{
    return compare_strings(((const folder_file *)left)->name, ((const folder_file *)right)->name);
}

/* Whether a name has one of the extensions, which are each followed by a NUL. */
static int has_extension(String name, const char *wanted, size_t wanted_length)
{
    size_t stem = name.length;
    while (stem && name.bytes[stem - 1] != '.')
        stem--;
    if (stem <= 1 || name.bytes[0] == '.')
        return 0;
    const char *extension = name.bytes + stem;
    const size_t length = name.length - stem;
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
        if (has_extension(files[at].name, wanted, wanted_length)) {
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
