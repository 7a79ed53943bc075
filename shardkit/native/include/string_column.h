/* Columns as buffers: n byte strings as their bytes and n + 1 offsets, and n numbers, as formats/columns.py describes
 * them. Buffers need not be aligned. Included by tree.c and gather.c. */
#ifndef SHARDKIT_STRING_COLUMN_H
#define SHARDKIT_STRING_COLUMN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const char *data, *offsets;
    int64_t length; /* of data */
    Py_ssize_t count;
} StringColumn;

static inline int64_t number_at(const void *numbers, Py_ssize_t at)
{
    int64_t number;
    memcpy(&number, (const char *)numbers + at * (Py_ssize_t)sizeof number, sizeof number);
    return number;
}

static inline StringColumn string_column(const Py_buffer *data, const Py_buffer *offsets)
{
    const Py_ssize_t count = offsets->len / (Py_ssize_t)sizeof(int64_t) - 1;
    return (StringColumn){data->buf, offsets->buf, data->len, count < 0 ? 0 : count};
}

/* String `at`, which must be 0 … count - 1. 0 if its offsets are outside the data. */
static inline int string_at(const StringColumn *column, Py_ssize_t at, const char **text, Py_ssize_t *length)
{
    const int64_t start = number_at(column->offsets, at), end = number_at(column->offsets, at + 1);
    if (start < 0 || end < start || end > column->length)
        return 0;
    *text = column->data + start;
    *length = (Py_ssize_t)(end - start);
    return 1;
}

#endif
