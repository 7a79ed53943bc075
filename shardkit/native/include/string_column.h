/* Columns as buffers: n byte strings as their bytes and n + 1 offsets, and n numbers, as formats/columns.py describes
 * them. Buffers need not be aligned. Knows no Python. */
#ifndef SHARDKIT_STRING_COLUMN_H
#define SHARDKIT_STRING_COLUMN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *bytes;
    size_t length;
} String;

/* String i is bytes offsets[i] to offsets[i + 1] of `length` bytes. */
typedef struct {
    const char *bytes;
    const void *offsets; /* int64_t */
    int64_t length, count;
} StringColumn;

static inline int64_t number_at(const void *numbers, int64_t at)
{
    int64_t number;
    memcpy(&number, (const char *)numbers + at * (int64_t)sizeof number, sizeof number);
    return number;
}

/* The column in two buffers. length, offsets_length: their bytes. */
static inline StringColumn string_column(const void *bytes, int64_t length, const void *offsets, int64_t offsets_length)
{
    const int64_t count = offsets_length / (int64_t)sizeof(int64_t) - 1;
    return (StringColumn){bytes, offsets, length, count < 0 ? 0 : count};
}

/* The string of a row. 0 if there is none, or its offsets are outside the bytes. */
static inline int string_at(const StringColumn *column, int64_t row, String *found)
{
    if (row < 0 || row >= column->count)
        return 0;
    const int64_t begin = number_at(column->offsets, row), end = number_at(column->offsets, row + 1);
    if (begin < 0 || end < begin || end > column->length)
        return 0;
    *found = (String){column->bytes + begin, (size_t)(end - begin)};
    return 1;
}

static inline int compare_strings(String left, String right)
{
    const int order = memcmp(left.bytes, right.bytes, left.length < right.length ? left.length : right.length);
    return order ? order : (left.length > right.length) - (left.length < right.length);
}

/* The length of a path's folder, without the slash behind it. */
static inline size_t folder_of(String path)
{
    size_t length = path.length;
    while (length && path.bytes[length - 1] != '/')
        length--;
    return length ? length - 1 : 0;
}

#endif
