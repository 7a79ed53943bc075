/* One sample of a Framer (framing.c): from a dict to the bytes of the shard and an index row.
 *
 * Its steps return 1 to go on, 0 if the sample is not plain (an ordinary exception is cleared: Python raises it again),
 * and -1 with an exception. Callbacks run before anything is kept.
 */
#ifndef SHARDKIT_FRAMING_SAMPLE_H
#define SHARDKIT_FRAMING_SAMPLE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdlib.h>

#include "frames.h"
#include "key_set.h"
#include "output_object.h"
#include "plain_jpeg.h"

enum { TAKEN, DUE, NOT_TAKEN };
enum { IGNORED, PLAIN, IMAGE, LABEL, KEY };            /* what a name in a sample is */
enum { UNKNOWN, NO_LABELS, CLASSES, OTHER_LABELS };    /* what labels the samples have */
enum { MOST_KEY = 8000 };                              /* as sample.MAX_KEY_BYTES */
enum { MOST_PARTS = 32, MOST_NAMES = 1000, COLUMNS = 8, ROWS = 1000 };

typedef struct {
    PyObject_HEAD key_set set;
} KeySet;

/* A name in samples, and how often it was a JPEG's since the last drain. */
typedef struct {
    PyObject *text;
    const char *name;
    size_t length;
    int role, seen;
    int64_t jpegs;
} field;

/* A column of text for the index: that of row i ends at byte ends[i]. */
typedef struct {
    char *bytes;
    size_t length, room;
    int64_t ends[ROWS];
} text_column;

typedef struct {
    PyObject_HEAD tar_pattern pattern;
    int records, look_first, busy; /* records: TFRecord, not tar */
    unsigned long long max_pixels;
    int max_scans;
    int64_t most_label; /* one more than the largest label */
    PyObject *describe, *encode, *look, *store; /* callbacks */
    PyObject *names, *places;                   /* label -> class (bytes), class -> label; None without classes */
    KeySet *keys;                               /* NULL: the samples are numbered */
    PyObject *table;                            /* name -> its place in `fields` */
    field *fields;
    int field_count;
    /* where it goes on */
    Output *output;
    int labels;
    int64_t position, limit, number, samples_left;
    /* since the last drain */
    int64_t pending, most, jpegs, progressive;
    int64_t columns[COLUMNS][ROWS];
    text_column keys_of_rows, paths_of_rows;
    int rows;
    PyObject *new_names, *types, *classes;
} Framer;

/* One sample while it is being added: what it owns is released at the end. */
typedef struct {
    PyObject *names[MOST_PARTS], *values[MOST_PARTS]; /* of the dict */
    int count;
    PyObject *key, *label, *stored, *classes, *kind;
    PyObject *data[MOST_PARTS]; /* of the parts */
    field *of[MOST_PARTS];
    frame_part parts[MOST_PARTS];
    frame_sample sample;
    int image, jpeg, progressive;
    int64_t width, height;
    char digits[20], number[24];
} job;

/* 1: go on. 0: not plain, perhaps with an ordinary exception, which Python will raise again. -1: an exception. */
static int not_plain(void)
{
    if (PyErr_Occurred() == NULL)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
        return -1;
    PyErr_Clear();
    return 0;
}

static field *add_field(Framer *self, PyObject *name)
{
    if (self->field_count == MOST_NAMES)
        return NULL;
    PyObject *found = PyObject_CallFunctionObjArgs(self->describe, name, NULL);
    if (found == NULL || !PyTuple_Check(found) || PyTuple_Size(found) != 2) {
        Py_XDECREF(found);
        return NULL;
    }
    PyObject *text = PyTuple_GetItem(found, 0), *place = PyLong_FromLong(self->field_count);
    Py_ssize_t length = 0;
    const char *utf8 = PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &length) : NULL;
    long role = PyLong_AsLong(PyTuple_GetItem(found, 1));
    field *made = NULL;
    if (utf8 != NULL && place != NULL && role >= IGNORED && role <= KEY &&
        PyDict_SetItem(self->table, name, place) == 0) {
        made = self->fields + self->field_count++;
        *made = (field){text, utf8, (size_t)length, (int)role, 0, 0};
        Py_INCREF(text);
    }
    Py_XDECREF(place);
    Py_DECREF(found);
    return made;
}

/* NULL: not plain, or an exception. */
static field *field_named(Framer *self, PyObject *name)
{
    PyObject *place = PyDict_GetItemWithError(self->table, name);
    if (place != NULL)
        return self->fields + PyLong_AsLong(place);
    return PyErr_Occurred() ? NULL : add_field(self, name);
}

/* The names and values of the dict, before any callback can change it. */
static int take_items(job *now, PyObject *sample)
{
    PyObject *name, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(sample, &at, &name, &value)) {
        if (now->count == MOST_PARTS || !PyUnicode_CheckExact(name))
            return 0;
        Py_INCREF(name);
        Py_INCREF(value);
        now->names[now->count] = name;
        now->values[now->count++] = value;
    }
    return 1;
}

static int add_part(job *now, field *of, PyObject *data)
{
    int at = now->sample.count;
    for (int i = 0; i < at; i++)
        if (now->of[i]->length == of->length && memcmp(now->of[i]->name, of->name, of->length) == 0)
            return 0; /* two of one name */
    if (at == MOST_PARTS)
        return 0;
    frame_role role = of->role == LABEL ? FRAME_LABEL : FRAME_BYTES;
    if (of->role == IMAGE && now->image < 0) {
        role = FRAME_IMAGE;
        now->image = at;
    }
    now->of[at] = of;
    now->parts[at] = (frame_part){of->name, of->length, NULL, 0, role, 0, -1, 0};
    Py_XINCREF(data);
    now->data[at] = data;
    now->sample.count++;
    return 1;
}

/* Sort the items into parts, key and label. */
static int sort_items(Framer *self, job *now)
{
    for (int i = 0; i < now->count; i++) {
        field *of = field_named(self, now->names[i]);
        if (of == NULL)
            return not_plain();
        if (of->role == IGNORED)
            continue;
        if (of->role == KEY) {
            Py_INCREF(now->values[i]);
            now->key = now->values[i];
        } else if (of->role == LABEL) {
            now->label = now->values[i]; /* lives in values */
            if (now->label != Py_None && !add_part(now, of, NULL))
                return 0;
        } else if (!add_part(now, of, now->values[i])) {
            return 0;
        }
    }
    return 1;
}

/* "%09lld", without a NUL; returns how many characters. */
static size_t numbered_key(int64_t number, char *to)
{
    char digits[20];
    const size_t length = decimal(number, digits), zeros = length < 9 ? 9 - length : 0;
    memset(to, '0', zeros);
    memcpy(to + zeros, digits, length);
    return zeros + length;
}

/* The key as UTF-8; that it is new is found last. */
static int take_key(Framer *self, job *now)
{
    if (self->keys == NULL) {
        if (now->key != NULL && now->key != Py_None)
            return 0;
        Py_CLEAR(now->key);
        now->sample.key = now->number;
        now->sample.key_length = numbered_key(self->number, now->number);
        return 1;
    }
    if (now->key == NULL || !PyUnicode_CheckExact(now->key))
        return 0;
    Py_ssize_t length;
    now->sample.key = PyUnicode_AsUTF8AndSize(now->key, &length);
    if (now->sample.key == NULL)
        return not_plain();
    now->sample.key_length = (size_t)length;
    if (length > MOST_KEY || memchr(now->sample.key, '\\', (size_t)length) != NULL)
        return 0;
    if (!self->records && !tar_plain_key(now->sample.key, (size_t)length))
        return 0;
    return 1;
}

/* The fields that stand for a label that is not one class: those that `store` returned. */
static int take_stored(Framer *self, job *now)
{
    int at = 0;
    while (at < now->sample.count && now->parts[at].role != FRAME_LABEL)
        at++;
    if (!PyList_Check(now->stored) || PyList_Size(now->stored) != 1 || at == now->sample.count)
        return 0;
    PyObject *pair = PyList_GetItem(now->stored, 0);
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2 || !PyUnicode_CheckExact(PyTuple_GetItem(pair, 0)) ||
        !PyBytes_CheckExact(PyTuple_GetItem(pair, 1)))
        return 0;
    field *of = field_named(self, PyTuple_GetItem(pair, 0));
    if (of == NULL)
        return not_plain();
    for (int i = 0; i < now->sample.count; i++)
        if (now->of[i]->length == of->length && memcmp(now->of[i]->name, of->name, of->length) == 0)
            return 0;
    now->of[at] = of;
    now->parts[at] = (frame_part){of->name, of->length, NULL, 0, FRAME_BYTES, 0, -1, 0};
    now->data[at] = PyTuple_GetItem(pair, 1);
    Py_INCREF(now->data[at]);
    return 1;
}

static int store_label(Framer *self, job *now)
{
    PyObject *found = PyObject_CallFunctionObjArgs(self->store, now->label, NULL);
    if (found == NULL)
        return not_plain();
    int went = 0;
    if (PyTuple_Check(found) && PyTuple_Size(found) == 3) {
        now->sample.label = PyLong_AsLongLong(PyTuple_GetItem(found, 0));
        now->stored = PyTuple_GetItem(found, 1);
        now->classes = PyTuple_GetItem(found, 2);
        Py_INCREF(now->stored);
        Py_INCREF(now->classes);
        went = PyErr_Occurred() ? not_plain() : 1;
    }
    Py_DECREF(found);
    if (went == 1 && now->sample.label < 0)
        went = take_stored(self, now);
    return went;
}

static int take_label(Framer *self, job *now)
{
    now->sample.label = -1;
    if (now->label == NULL || now->label == Py_None)
        return self->labels == NO_LABELS;
    if (self->labels == OTHER_LABELS)
        return store_label(self, now);
    if (self->labels != CLASSES)
        return 0;
    PyObject *number = now->label;
    if (PyUnicode_CheckExact(number) && self->places != Py_None) {
        number = PyDict_GetItemWithError(self->places, number);
        if (number == NULL)
            return not_plain();
    }
    if (!PyLong_CheckExact(number))
        return store_label(self, now);
    int overflow;
    now->sample.label = PyLong_AsLongLongAndOverflow(number, &overflow);
    return !overflow && now->sample.label >= 0 && now->sample.label < self->most_label;
}

/* The name of the class, for formats that store it. */
static int take_text(Framer *self, job *now)
{
    int64_t label = now->sample.label;
    if (!self->records || label < 0)
        return 1;
    if (self->names == Py_None) {
        now->sample.text = now->digits;
        now->sample.text_length = decimal(label, now->digits);
        return 1;
    }
    PyObject *name = label < PyTuple_Size(self->names) ? PyTuple_GetItem(self->names, (Py_ssize_t)label) : NULL;
    if (name == NULL || !PyBytes_Check(name))
        return 0;
    now->sample.text = PyBytes_AsString(name);
    now->sample.text_length = (size_t)PyBytes_Size(name);
    return 1;
}

/* The path for the index: the one given (bytes), or the key with the image's field. It is put behind those of the rows,
 * whose length counts it once the sample is kept. */
static int take_path(Framer *self, job *now, PyObject *path)
{
    const field *image = now->image < 0 ? NULL : now->of[now->image];
    const char *given = path == Py_None ? now->sample.key : NULL;
    size_t length = now->sample.key_length;
    if (given == NULL) {
        if (!PyBytes_Check(path) || memchr(PyBytes_AsString(path), '\\', (size_t)PyBytes_Size(path)) != NULL)
            return 0;
        PyObject *text = PyUnicode_DecodeUTF8(PyBytes_AsString(path), PyBytes_Size(path), "strict");
        if (text == NULL)
            return not_plain();
        Py_DECREF(text);
        given = PyBytes_AsString(path);
        length = (size_t)PyBytes_Size(path);
        image = NULL;
    }
    text_column *rows = &self->paths_of_rows;
    now->sample.path_length = length + (image == NULL ? 0 : 1 + image->length);
    if (!grow((void **)&rows->bytes, &rows->room, rows->length + now->sample.path_length + 1, 1)) {
        PyErr_NoMemory();
        return -1;
    }
    char *to = rows->bytes + rows->length;
    now->sample.path = to;
    memcpy(to, given, length);
    if (image != NULL) {
        to[length] = '.';
        memcpy(to + length + 1, image->name, image->length);
    }
    return 1;
}

/* The bytes of each part. */
static int take_data(Framer *self, job *now)
{
    for (int i = 0; i < now->sample.count; i++) {
        PyObject *data = now->data[i];
        if (data == NULL) /* a class number */
            continue;
        if (!PyBytes_CheckExact(data)) {
            data = PyUnicode_CheckExact(data)
                       ? PyUnicode_AsUTF8String(data)
                       : PyObject_CallFunctionObjArgs(self->encode, now->of[i]->text, data, NULL);
            if (data == NULL)
                return not_plain();
            Py_DECREF(now->data[i]);
            now->data[i] = data;
            if (!PyBytes_CheckExact(data))
                return 0;
        }
        now->parts[i].data = (const uint8_t *)PyBytes_AsString(data);
        now->parts[i].size = (size_t)PyBytes_Size(data);
        now->parts[i].apart = now->parts[i].size >= APART;
    }
    return 1;
}

/* The size of the image, whether it is a JPEG, and its kind unless it is one whose header is plain. */
static int take_image(Framer *self, job *now)
{
    if (now->image < 0)
        return 1;
    const frame_part *part = now->parts + now->image;
    const int marker = self->look_first ? 0
                                        : jpeg_size(part->data, (ptrdiff_t)part->size, self->max_pixels,
                                                    self->max_scans, &now->width, &now->height);
    if (marker) {
        now->jpeg = 1;
        now->progressive = marker == PROGRESSIVE;
        return 1;
    }
    PyObject *found = PyObject_CallFunctionObjArgs(self->look, now->data[now->image], NULL);
    if (found == NULL)
        return not_plain();
    if (PyTuple_Check(found) && PyTuple_Size(found) == 5 && PyUnicode_Check(PyTuple_GetItem(found, 0))) {
        now->width = PyLong_AsLongLong(PyTuple_GetItem(found, 1));
        now->height = PyLong_AsLongLong(PyTuple_GetItem(found, 2));
        now->jpeg = PyTuple_GetItem(found, 3) == Py_True;
        now->progressive = PyTuple_GetItem(found, 4) == Py_True;
        now->kind = PyUnicode_FromFormat("%U %U", PyTuple_GetItem(found, 0), now->of[now->image]->text);
    }
    Py_DECREF(found);
    return PyErr_Occurred() || now->kind == NULL ? not_plain() : 1;
}

#endif
