/* The reader's inner loop for samples that are not decoded: copies of their images, their keys, and their dicts, for
 * some samples at a time. reading/blocks/mapped.py calls it, and has the same in Python.
 *
 * Whatever numbers are passed, nothing outside the given buffers is read or written: ValueError for a span outside its
 * buffer.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <time.h>

#include "include/columns.h"
#include "include/sample_copies.h"
#include "include/part.h"

static int summed; /* whether this processor has the instruction for CRC-32C */

enum {
    FIELD = 2, /* the place of the image among the values of a sample */
    FIELDS = 4
};

typedef struct {
    Column slots, starts, ends;
    Buffers buffers;
} Spans;

static void release_spans(Spans *spans)
{
    release(&spans->slots);
    release(&spans->starts);
    release(&spans->ends);
    release_buffers(&spans->buffers);
}

static int take_spans(Spans *spans, PyObject *buffers, PyObject *slots, PyObject *starts, PyObject *ends,
                      Py_ssize_t begin, Py_ssize_t stop)
{
    if (!take_column(slots, &spans->slots) || !take_column(starts, &spans->starts) ||
        !take_column(ends, &spans->ends) || !take_buffers(buffers, &spans->buffers))
        return 0;
    if (begin < 0 || stop < begin || stop > spans->slots.count || stop > spans->starts.count ||
        stop > spans->ends.count) {
        PyErr_SetString(PyExc_ValueError, "begin and stop are not within the columns");
        return 0;
    }
    return 1;
}

/* The bytes of one sample; NULL if they are not within their buffer. */
static const char *span(const Spans *spans, Py_ssize_t number, Py_ssize_t *length)
{
    const int64_t slot = at(&spans->slots, number), start = at(&spans->starts, number);
    const int64_t end = at(&spans->ends, number);
    if (slot < 0 || slot >= spans->buffers.count)
        return NULL;
    const Py_buffer *view = &spans->buffers.views[slot];
    if (start < 0 || end < start || end > view->len)
        return NULL;
    *length = (Py_ssize_t)(end - start);
    return (const char *)view->buf + start;
}

static void *outside(void)
{
    PyErr_SetString(PyExc_ValueError, "a sample's bytes are not within its buffer");
    return NULL;
}

static PyObject *positions(const uint8_t *marks, Py_ssize_t count)
{
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        PyObject *number = marks[i] ? PyLong_FromSsize_t(i) : NULL;
        if (marks[i] && (number == NULL || PyList_Append(found, number) < 0))
            Py_CLEAR(found);
        Py_XDECREF(number);
    }
    return found;
}

PyDoc_STRVAR(
    join_doc,
    "join(datas, out, sums=None)\n--\n\n"
    "Copies bytes-like objects into `out`, one after the other. Their sizes together must be that of `out`. Returns\n"
    "the positions of those whose CRC-32C differs from that in `sums` (uint32, as many). The GIL is released.");

static PyObject *join(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *datas, *sum_item = Py_None, *result = NULL;
    Py_buffer out, sums = {0};
    Buffers parts = {0};
    uint8_t *wrong = NULL;
    if (!PyArg_ParseTuple(args, "Ow*|O", &datas, &out, &sum_item))
        return NULL;
    if (!take_buffers(datas, &parts) || (sum_item != Py_None && PyObject_GetBuffer(sum_item, &sums, PyBUF_SIMPLE) < 0))
        goto end;
    Py_ssize_t left = out.len;
    for (Py_ssize_t i = 0; i < parts.count && left >= 0; i++)
        left = parts.views[i].len <= left ? left - parts.views[i].len : -1;
    if (left != 0 || (sums.obj != NULL && (!summed || sums.len != parts.count * (Py_ssize_t)sizeof(uint32_t)))) {
        PyErr_SetString(PyExc_ValueError, "the sizes differ, or this processor has no instruction for CRC-32C");
        goto end;
    }
    wrong = PyMem_Calloc((size_t)parts.count + 1, 1);
    if (wrong == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS;
    join_parts(&parts, &out, &sums, wrong);
    Py_END_ALLOW_THREADS;
    result = positions(wrong, parts.count);
end:
    PyMem_Free(wrong);
    if (sums.obj != NULL)
        PyBuffer_Release(&sums);
    release_buffers(&parts);
    PyBuffer_Release(&out);
    return result;
}

/* The text of one row of an Arrow array of strings: its int32 offsets, and the bytes of all texts. */
static PyObject *text(const Py_buffer *offsets, const Py_buffer *bytes, int64_t row)
{
    int32_t span[2];
    if (row < 0 || row >= offsets->len / (Py_ssize_t)sizeof *span - 1)
        return outside();
    memcpy(span, (const char *)offsets->buf + row * (Py_ssize_t)sizeof *span, sizeof span);
    if (span[0] < 0 || span[1] < span[0] || span[1] > bytes->len)
        return outside();
    return PyUnicode_DecodeUTF8((const char *)bytes->buf + span[0], span[1] - span[0], NULL);
}

PyDoc_STRVAR(
    texts_doc,
    "texts(offsets, bytes, slots, rows, begin, stop)\n--\n\n"
    "The texts of rows[i] of column slots[i] for i = begin … stop - 1, as a list of str. A column is an Arrow array of\n"
    "strings: its offsets (int32) and its bytes.");

static PyObject *texts(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *offset_items, *byte_items, *slot_items, *row_items, *list = NULL;
    Py_ssize_t begin, stop;
    Buffers offsets = {0}, bytes = {0};
    Column slots = {0}, rows = {0};
    if (!PyArg_ParseTuple(args, "OOOOnn", &offset_items, &byte_items, &slot_items, &row_items, &begin, &stop))
        return NULL;
    if (!take_buffers(offset_items, &offsets) || !take_buffers(byte_items, &bytes) ||
        !take_column(slot_items, &slots) || !take_column(row_items, &rows))
        goto end;
    if (begin < 0 || stop < begin || stop > slots.count || stop > rows.count) {
        PyErr_SetString(PyExc_ValueError, "begin and stop are not within the columns");
        goto end;
    }
    list = PyList_New(stop - begin);
    for (Py_ssize_t i = begin; list != NULL && i < stop; i++) {
        const int64_t slot = at(&slots, i);
        const int known = slot >= 0 && slot < offsets.count && slot < bytes.count;
        PyObject *found = known ? text(&offsets.views[slot], &bytes.views[slot], at(&rows, i)) : outside();
        if (found == NULL || PyList_SetItem(list, i - begin, found) < 0)
            Py_CLEAR(list);
    }
end:
    release(&rows);
    release(&slots);
    release_buffers(&bytes);
    release_buffers(&offsets);
    return list;
}

/* Samples of a block, one dict at a time. */
typedef struct {
    PyObject_HEAD Spans spans;
    Buffers offsets, texts;
    Column rows, labels;
    PyObject *urls, *fields, *look;
    PyObject *names[FIELDS]; /* of the pattern */
    PyObject *pattern; /* a dict with all names: its copies are filled without hashing or growing */
    Py_ssize_t next, count;
    double due; /* when to look again */
} Samples;

static void samples_dealloc(PyObject *object)
{
    Samples *self = (Samples *)object;
    PyTypeObject *type = Py_TYPE(object);
    release_spans(&self->spans);
    release_buffers(&self->offsets);
    release_buffers(&self->texts);
    release(&self->rows);
    release(&self->labels);
    Py_XDECREF(self->urls);
    Py_XDECREF(self->fields);
    Py_XDECREF(self->look);
    Py_XDECREF(self->pattern);
    for (int i = 0; i < FIELDS; i++)
        Py_XDECREF(self->names[i]);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

PyDoc_STRVAR(
    samples_doc,
    "Samples(buffers, slots, starts, ends, offsets, texts, rows, labels, urls, fields, look)\n--\n\n"
    "An iterator over samples: {\"__key__\": text, \"__url__\": urls[slot], fields[i]: the bytes starts[i] …\n"
    "ends[i] of buffers[slot], \"cls\": labels[i]}, with slot = slots[i]. The text is number rows[i] of the Arrow\n"
    "array of strings with offsets[slot] (int32) and texts[slot]. urls and fields are lists. `look()` is called\n"
    "before each run of 16 samples; its errors are raised.");

static PyObject *samples_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *buffers, *slots, *starts, *ends, *offsets, *texts, *rows, *labels, *urls, *fields, *look;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "Samples takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OOOOOOOOO!O!O", &buffers, &slots, &starts, &ends, &offsets, &texts, &rows, &labels,
                          &PyList_Type, &urls, &PyList_Type, &fields, &look))
        return NULL;
    Samples *self = (Samples *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    static const char *const NAMES[FIELDS] = {"__key__", "__url__", NULL, "cls"};
    for (int i = 0; i < FIELDS; i++)
        if (NAMES[i] != NULL && (self->names[i] = PyUnicode_InternFromString(NAMES[i])) == NULL)
            goto failed;
    self->urls = Py_NewRef(urls);
    self->fields = Py_NewRef(fields);
    self->look = Py_NewRef(look);
    self->count = PyList_Size(fields);
    if (!take_spans(&self->spans, buffers, slots, starts, ends, 0, self->count) ||
        !take_buffers(offsets, &self->offsets) || !take_buffers(texts, &self->texts) ||
        !take_column(rows, &self->rows) || !take_column(labels, &self->labels))
        goto failed;
    if (self->rows.count < self->count || self->labels.count < self->count) {
        PyErr_SetString(PyExc_ValueError, "a column is shorter than the fields");
        goto failed;
    }
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

/* Makes `field` the name of the image in the pattern. Only exact text will do: comparing it runs no code of others. */
static int use_field(Samples *self, PyObject *field)
{
    if (field == self->names[FIELD])
        return 1;
    if (!PyUnicode_CheckExact(field)) {
        PyErr_SetString(PyExc_TypeError, "the name of a field is not text");
        return 0;
    }
    PyObject *pattern = PyDict_New();
    PyObject *const names[FIELDS] = {self->names[0], self->names[1], field, self->names[3]};
    for (int i = 0; pattern != NULL && i < FIELDS; i++)
        if (PyDict_SetItem(pattern, names[i], Py_None) < 0)
            Py_CLEAR(pattern);
    if (pattern == NULL)
        return 0;
    Py_XDECREF(self->pattern);
    Py_XDECREF(self->names[FIELD]);
    self->pattern = pattern;
    self->names[FIELD] = Py_NewRef(field);
    return 1;
}

/* The values of sample `i`, new references. */
static int make_values(const Samples *self, Py_ssize_t i, PyObject *values[FIELDS])
{
    Py_ssize_t length = 0;
    const int64_t slot = at(&self->spans.slots, i);
    const char *data = span(&self->spans, i, &length);
    Py_ssize_t next_length = 0;
    const char *next = i + 1 < self->count ? span(&self->spans, i + 1, &next_length) : NULL;
    if (next != NULL)
        load_ahead(next, next_length);
    if (data == NULL || slot < 0 || slot >= self->offsets.count || slot >= self->texts.count ||
        slot >= PyList_Size(self->urls)) {
        outside();
        return 0;
    }
    values[0] = text(&self->offsets.views[slot], &self->texts.views[slot], at(&self->rows, i));
    values[1] = Py_XNewRef(PyList_GetItem(self->urls, (Py_ssize_t)slot));
    values[FIELD] = PyBytes_FromStringAndSize(data, length);
    values[3] = PyLong_FromLongLong(at(&self->labels, i));
    return values[0] != NULL && values[1] != NULL && values[FIELD] != NULL && values[3] != NULL;
}

/* The clock of time.monotonic(), in seconds. */
static double monotonic(void)
{
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Whether the buffers may be read: calls `look` if its last answer is due. */
static int look(Samples *self)
{
    if (monotonic() < self->due)
        return 1;
    PyObject *due = PyObject_CallNoArgs(self->look);
    self->due = due == NULL ? 0 : PyFloat_AsDouble(due);
    Py_XDECREF(due);
    return !PyErr_Occurred();
}

/* Sample `i`, whose image has the name `field`: that of the pattern. */
static PyObject *make_sample(const Samples *self, Py_ssize_t i, PyObject *field)
{
    PyObject *const names[FIELDS] = {self->names[0], self->names[1], field, self->names[3]};
    PyObject *values[FIELDS] = {NULL, NULL, NULL, NULL}, *sample = NULL, *pattern = Py_NewRef(self->pattern);
    if (make_values(self, i, values))
        sample = PyDict_Copy(pattern);
    for (int k = 0; sample != NULL && k < FIELDS; k++)
        if (PyDict_SetItem(sample, names[k], values[k]) < 0)
            Py_CLEAR(sample);
    for (int k = 0; k < FIELDS; k++)
        Py_XDECREF(values[k]);
    Py_DECREF(pattern);
    return sample;
}

static PyObject *samples_next(PyObject *object)
{
    Samples *self = (Samples *)object;
    if (self->next < self->count && !look(self)) /* the caller may have waited for any time since the last sample */
        return NULL;
    const Py_ssize_t i = self->next;
    if (i >= self->count)
        return NULL;
    /* Held, as the pattern is below: an allocation may collect cycles, and so run code that changes the list or calls
     * this function. */
    PyObject *field = Py_XNewRef(PyList_GetItem(self->fields, i)); /* an error if the list became shorter */
    PyObject *sample = field != NULL && use_field(self, field) ? make_sample(self, i, field) : NULL;
    Py_XDECREF(field);
    self->next = i + (sample != NULL);
    return sample;
}

static PyType_Slot SAMPLES_SLOTS[] = {{Py_tp_doc, (void *)samples_doc}, {Py_tp_new, samples_new},
                                      {Py_tp_dealloc, samples_dealloc}, {Py_tp_iter, PyObject_SelfIter},
                                      {Py_tp_iternext, samples_next},   {0, NULL}};

static PyType_Spec SAMPLES_SPEC = {"shardkit.native.samples.Samples", sizeof(Samples), 0, Py_TPFLAGS_DEFAULT,
                                   SAMPLES_SLOTS};

static PyMethodDef METHODS[] = {
    {"join", join, METH_VARARGS, join_doc}, {"texts", texts, METH_VARARGS, texts_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "samples", PART_SOURCES, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_samples(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    PyObject *type = module == NULL ? NULL : PyType_FromSpec(&SAMPLES_SPEC);
    summed = crc32c_setup();
    if (type == NULL || PyModule_AddObjectRef(module, "Samples", type) < 0 ||
        PyModule_AddIntConstant(module, "summed", summed) < 0)
        Py_CLEAR(module);
    Py_XDECREF(type);
    return module;
}
