/* The files that a call of the packer's loop gets, as columns (gather.c). */
#ifndef SHARDKIT_FILE_COLUMNS_H
#define SHARDKIT_FILE_COLUMNS_H

#include "stored_member.h"
#include "../string_column.h"

/* field: as stored, without a dot. name, text: the path and the class as TFRecord stores them. */
typedef struct {
    const char *path, *key, *field, *name, *text;
    Py_ssize_t path_length, key_length, field_length, name_length, text_length, size;
    int64_t label;
    Member member; /* of the archive that is the root */
    int stored; /* whether it is one, and no file below the root */
    uint64_t mark; /* of what may have been read ahead; 0: not computed */
} File;

enum { PATHS, KEYS, NAMES, TEXTS, STRINGS };

/* What a call gets, of all files of a shard: columns of strings, of which those for tar are the first two; numbers; and
 * `fields`, the field at each place that `places` has. */
typedef struct {
    Py_buffer data[STRINGS], offsets[STRINGS], labels, sizes, places;
    StringColumn strings[STRINGS];
    PyObject *fields;
    Py_ssize_t count;
} Columns;

static int take_strings(PyObject *pair, Columns *columns, int which)
{
    if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "y*y*", &columns->data[which], &columns->offsets[which])) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "strings are a tuple of their bytes and offsets");
        return 0;
    }
    const Py_buffer *data = &columns->data[which], *offsets = &columns->offsets[which];
    columns->strings[which] = string_column(data->buf, data->len, offsets->buf, offsets->len);
    return 1;
}

static void release_columns(Columns *columns)
{
    for (int i = 0; i < STRINGS; i++) {
        PyBuffer_Release(&columns->data[i]); /* which does nothing for what was not taken */
        PyBuffer_Release(&columns->offsets[i]);
    }
    PyBuffer_Release(&columns->labels);
    PyBuffer_Release(&columns->sizes);
    PyBuffer_Release(&columns->places);
}

/* The files that all columns have. */
static Py_ssize_t files_in(const Columns *columns, int records)
{
    const Py_ssize_t counts[] = {(Py_ssize_t)columns->strings[PATHS].count,
                                 (Py_ssize_t)columns->strings[KEYS].count,
                                 columns->labels.len / (Py_ssize_t)sizeof(int64_t),
                                 columns->sizes.len / (Py_ssize_t)sizeof(int64_t),
                                 columns->places.len / (Py_ssize_t)sizeof(int32_t),
                                 records ? (Py_ssize_t)columns->strings[NAMES].count : PY_SSIZE_T_MAX};
    Py_ssize_t least = PY_SSIZE_T_MAX;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        least = counts[i] < least ? counts[i] : least;
    return least;
}

typedef struct {
    char *name;
    Py_ssize_t length;
} Field;

/* The fields, which the tuple keeps alive; NULL with an exception. */
static Field *take_fields(PyObject *fields)
{
    const Py_ssize_t count = PyTuple_Size(fields);
    Field *found = PyMem_Calloc((size_t)(count ? count : 1), sizeof *found);
    if (found == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; found != NULL && i < count; i++)
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(fields, i), &found[i].name, &found[i].length) < 0) {
            PyMem_Free(found);
            return NULL;
        }
    return found;
}

/* 0 if a column does not hold what it must. */
static int take_file(const Columns *columns, const Field *fields, Py_ssize_t field_count, Py_ssize_t at, int records,
                     File *file)
{
    int32_t place;
    String path, key, name, text = {"", 0};
    memcpy(&place, (const char *)columns->places.buf + at * (Py_ssize_t)sizeof place, sizeof place);
    const int64_t size = number_at(columns->sizes.buf, at);
    file->label = number_at(columns->labels.buf, at);
    if (place < 0 || place >= field_count || size < 0 || file->label < 0 ||
        !string_at(&columns->strings[PATHS], at, &path) || !string_at(&columns->strings[KEYS], at, &key))
        return 0;
    for (; path.length && *path.bytes == '/'; path.bytes++, path.length--) /* of one below the root "/" */
        ;
    file->path = path.bytes;
    file->path_length = (Py_ssize_t)path.length;
    file->key = key.bytes;
    file->key_length = (Py_ssize_t)key.length;
    file->field = fields[place].name;
    file->field_length = fields[place].length;
    file->size = size < PY_SSIZE_T_MAX ? (Py_ssize_t)size : PY_SSIZE_T_MAX;
    if (!records)
        return 1;
    const StringColumn *texts = &columns->strings[TEXTS];
    if (!string_at(&columns->strings[NAMES], at, &name) ||
        (file->label < texts->count && !string_at(texts, file->label, &text)))
        return 0;
    file->name = name.bytes;
    file->name_length = (Py_ssize_t)name.length;
    file->text = text.bytes;
    file->text_length = (Py_ssize_t)text.length;
    return 1;
}

/* The files start … stop - 1; NULL with an exception. */
static File *take_files(const Columns *columns, const char *members, int records, Py_ssize_t start, Py_ssize_t stop)
{
    File *files = PyMem_Calloc((size_t)(stop > start ? stop - start : 1), sizeof(File));
    Field *fields = take_fields(columns->fields);
    const Py_ssize_t field_count = PyTuple_Size(columns->fields);
    int whole = 1;
    if (files == NULL || fields == NULL) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        whole = -1;
    }
    Py_BEGIN_ALLOW_THREADS;
    for (Py_ssize_t i = start; whole == 1 && i < stop; i++) {
        File *file = files + (i - start);
        whole = take_file(columns, fields, field_count, i, records, file);
        file->stored = members != NULL;
        if (members != NULL) /* of a buffer that need not be aligned */
            memcpy(&file->member, members + i * (Py_ssize_t)sizeof(Member), sizeof(Member));
    }
    Py_END_ALLOW_THREADS;
    PyMem_Free(fields);
    if (whole == 1)
        return files;
    if (whole == 0)
        PyErr_SetString(PyExc_ValueError, "a negative number, or an offset or a place that is not there");
    PyMem_Free(files);
    return NULL;
}

#endif
