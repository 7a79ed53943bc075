/* Columns of texts, their numbers, and their order. Knows no Python. */
#ifndef SHARDKIT_LISTS_TEXTS_H
#define SHARDKIT_LISTS_TEXTS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../framing/key_set.h"
#include "../string_column.h"

static mark mark_of_text(const uint64_t secret[2], String wanted)
{
    return siphash(secret, (const uint8_t *)wanted.bytes, wanted.length);
}

enum { CODES_MOST = 1 << 16, CODES_ROOM = 1 << 17 };

enum { TEXTS_OUTSIDE = -1, TEXTS_NO_MEMORY = -2, TEXTS_MANY = -3 };

/* Number the distinct texts of a column in the order in which they come; of each text only what is before the byte `stop`,
 * or all of it for a negative one. codes: the number of each row. firsts: the first row of each number, with room for
 * CODES_MOST. Returns how many there are, or TEXTS_*. */
static int64_t number_texts(const StringColumn *column, const uint64_t secret[2], int stop, int32_t *codes,
                            int64_t *firsts)
{
    int64_t count = 0;
    mark *marks = calloc(CODES_ROOM, sizeof *marks);
    int32_t *numbers = malloc(CODES_ROOM * sizeof *numbers);
    if (marks == NULL || numbers == NULL)
        count = TEXTS_NO_MEMORY;
    for (int64_t row = 0; count >= 0 && row < column->count; row++) {
        String wanted;
        if (!string_at(column, row, &wanted)) {
            count = TEXTS_OUTSIDE;
            break;
        }
        const char *end = stop < 0 ? NULL : memchr(wanted.bytes, stop, wanted.length);
        if (end != NULL)
            wanted.length = (size_t)(end - wanted.bytes);
        const mark known = mark_of_text(secret, wanted);
        mark *place = place_of(marks, CODES_ROOM, known);
        if ((place->low | place->high) == 0) {
            if (count == CODES_MOST) {
                count = TEXTS_MANY;
                break;
            }
            *place = known;
            numbers[place - marks] = (int32_t)count;
            firsts[count++] = row;
        }
        codes[row] = numbers[place - marks];
    }
    free(marks);
    free(numbers);
    return count;
}

/* Whether all texts of a column are distinct: 1 or 0, or TEXTS_*. */
static int are_distinct(const StringColumn *column, const uint64_t secret[2])
{
    key_set known = {{secret[0], secret[1]}, NULL, 0, 0};
    int result = 1;
    for (int64_t row = 0; result == 1 && row < column->count; row++) {
        String wanted;
        if (!string_at(column, row, &wanted)) {
            result = TEXTS_OUTSIDE;
            break;
        }
        const mark one = mark_of_text(secret, wanted);
        if (has_mark(&known, one))
            result = 0;
        else if (!make_room(&known))
            result = TEXTS_NO_MEMORY;
        else
            put_mark(&known, one);
    }
    free(known.marks);
    return result;
}

/* A file in the order of a scan: by label, folder and name. */
typedef struct {
    String path;
    size_t folder;
    int32_t label;
    int64_t row;
} ordered_file;

static int compare_files(const void *left, const void *right)
{
    const ordered_file *a = left, *b = right;
    if (a->label != b->label)
        return a->label < b->label ? -1 : 1;
    const int folder = compare_strings((String){a->path.bytes, a->folder}, (String){b->path.bytes, b->folder});
    if (folder)
        return folder;
    const int name = compare_strings((String){a->path.bytes + a->folder, a->path.length - a->folder},
                                     (String){b->path.bytes + b->folder, b->path.length - b->folder});
    return name ? name : (a->row > b->row) - (a->row < b->row);
}

/* Sort files that may already be in order. */
static void sort_files(ordered_file *files, size_t count)
{
    for (size_t at = 1; at < count; at++)
        if (compare_files(files + at - 1, files + at) > 0) {
            qsort(files, count, sizeof *files, compare_files);
            return;
        }
}

#endif
