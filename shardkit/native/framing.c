/* Frames the samples that a program writes, without Python's cost per sample: the inner loop of packing/shard_writer.py.
 *
 * A Framer takes plain samples only: a dict of text to bytes (other values are encoded by a callback), whose key, label
 * and image need no message, and which fits its shard. For everything else `add` changes nothing and returns NOT_TAKEN;
 * Python then writes that sample, with all its checks and errors. So nothing here reports what is wrong with a sample,
 * and the bytes are those of formats/ (tests compare them). The bytes go to an Output, whose thread writes them; `drain`
 * hands over the index rows.
 */
#include "include/framing/keep.h"
#include "include/part.h"

static PyObject *keyset_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    const char *secret;
    Py_ssize_t length;
    if (names != NULL && PyDict_Size(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "KeySet takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "y#", &secret, &length))
        return NULL;
    if (length != 16) {
        PyErr_SetString(PyExc_ValueError, "the secret has 16 bytes");
        return NULL;
    }
    KeySet *self = (KeySet *)PyType_GenericAlloc(type, 0);
    if (self != NULL)
        memcpy(self->set.secret, secret, 16);
    return (PyObject *)self;
}

static void keyset_free(KeySet *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    free(self->set.marks);
    PyObject_Free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(keyset_add_doc, "add(key)\n--\n\nAdd a key (bytes). Whether it is new.");

static PyObject *keyset_add(KeySet *self, PyObject *key)
{
    if (!PyBytes_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "the key is not bytes");
        return NULL;
    }
    mark wanted = siphash(self->set.secret, (const uint8_t *)PyBytes_AsString(key), (size_t)PyBytes_Size(key));
    if (has_mark(&self->set, wanted))
        Py_RETURN_FALSE;
    if (!make_room(&self->set))
        return PyErr_NoMemory();
    put_mark(&self->set, wanted);
    Py_RETURN_TRUE;
}

static PyMethodDef KEYSET_METHODS[] = {{"add", (PyCFunction)keyset_add, METH_O, keyset_add_doc}, {NULL, NULL, 0, NULL}};

static PyType_Slot KEYSET_SLOTS[] = {
    {Py_tp_new, keyset_new}, {Py_tp_dealloc, keyset_free}, {Py_tp_methods, KEYSET_METHODS}, {0, NULL}};

static PyType_Spec KEYSET_SPEC = {"shardkit.native.framing.KeySet", sizeof(KeySet), 0, Py_TPFLAGS_DEFAULT,
                                  KEYSET_SLOTS};

static PyTypeObject *keyset_type;

/* ---- the framer ---- */

static void release(job *now)
{
    for (int i = 0; i < now->count; i++) {
        Py_DECREF(now->names[i]);
        Py_DECREF(now->values[i]);
    }
    for (int i = 0; i < now->sample.count; i++)
        Py_XDECREF(now->data[i]);
    Py_XDECREF(now->key);
    Py_XDECREF(now->stored);
    Py_XDECREF(now->classes);
    Py_XDECREF(now->kind);
}

PyDoc_STRVAR(framer_add_doc, "add(sample, path)\n--\n\n"
                             "Frame a sample. path: for the index (bytes), or None. Returns 0; 1 if `drain` is due; 2\n"
                             "if the sample is not plain or does not fit, so that nothing happened.");

static PyObject *framer_add(Framer *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "add takes a sample and a path");
        return NULL;
    }
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "two threads write at once, which a ShardWriter does not allow");
        return NULL;
    }
    if (self->output == NULL || self->labels == UNKNOWN || self->rows == ROWS || !PyDict_CheckExact(args[0]))
        return PyLong_FromLong(NOT_TAKEN);
    job now;
    memset(&now, 0, offsetof(job, data));
    memset(&now.sample, 0, sizeof now.sample);
    now.image = -1;
    now.jpeg = now.progressive = 0;
    now.width = now.height = 0;
    self->busy = 1;
    int went = add_sample(self, &now, args[0], args[1]);
    release(&now);
    self->busy = 0;
    if (went < 0)
        return NULL;
    if (went == 0)
        return PyLong_FromLong(NOT_TAKEN);
    return PyLong_FromLong(self->rows == ROWS ? DUE : TAKEN);
}

PyDoc_STRVAR(
    framer_go_on_doc,
    "go_on(output, position, limit, number, samples_left, labels)\n--\n\n"
    "Go on at byte `position` of a shard of at most `limit` bytes with the sample `number`.\n"
    "output: what was written of it before. samples_left: how many fit the shard, -1 for any. labels: 1 none,\n"
    "2 classes, 3 others.");

static PyObject *framer_go_on(Framer *self, PyObject *args)
{
    PyObject *output, *before = (PyObject *)self->output;
    long long position, limit, number, samples_left;
    int labels;
    if (!PyArg_ParseTuple(args, "O!LLLLi", output_type, &output, &position, &limit, &number, &samples_left, &labels))
        return NULL;
    if (self->busy || self->rows) {
        PyErr_SetString(PyExc_RuntimeError, "drain it first");
        return NULL;
    }
    Py_INCREF(output);
    self->output = (Output *)output;
    Py_XDECREF(before);
    self->position = position;
    self->limit = limit;
    self->number = number;
    self->samples_left = samples_left;
    self->labels = labels;
    Py_RETURN_NONE;
}

/* (field, JPEGs) of each field that had some. */
static PyObject *jpegs_of(const Framer *self)
{
    PyObject *found = PyList_New(0);
    for (int i = 0; found != NULL && i < self->field_count; i++) {
        if (self->fields[i].jpegs == 0)
            continue;
        PyObject *pair = Py_BuildValue("OL", self->fields[i].text, (long long)self->fields[i].jpegs);
        if (pair == NULL || PyList_Append(found, pair) < 0)
            Py_CLEAR(found);
        Py_XDECREF(pair);
    }
    return found;
}

static PyObject *columns_of(const Framer *self)
{
    PyObject *found = PyList_New(0);
    for (int i = 0; found != NULL && i < COLUMNS; i++) {
        PyObject *column =
            PyBytes_FromStringAndSize((const char *)self->columns[i], self->rows * (Py_ssize_t)sizeof(int64_t));
        if (column == NULL || PyList_Append(found, column) < 0)
            Py_CLEAR(found);
        Py_XDECREF(column);
    }
    return found;
}

/* (bytes, ends as int64) of a column of text, for a Strings that has `base` bytes already. */
static PyObject *texts_of(text_column *column, int rows, int64_t base)
{
    for (int i = 0; i < rows; i++)
        column->ends[i] += base;
    PyObject *found = Py_BuildValue("y#y#", column->length ? column->bytes : "", (Py_ssize_t)column->length,
                                    column->ends, rows * (Py_ssize_t)sizeof(int64_t));
    for (int i = 0; i < rows; i++)
        column->ends[i] -= base;
    return found;
}

static int new_lists(Framer *self)
{
    PyObject **lists[] = {&self->new_names, &self->types, &self->classes};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        Py_XDECREF(*lists[i]);
        if ((*lists[i] = PyList_New(0)) == NULL)
            return 0;
    }
    return 1;
}

PyDoc_STRVAR(
    framer_drain_doc,
    "drain(key_bytes, path_bytes)\n--\n\n"
    "What was framed since the last call: (samples, their bytes, columns as int64, keys, paths, new names of\n"
    "fields, (field, count) of JPEGs, the types of other images, classes of samples with several, the largest\n"
    "label, JPEGs, progressive ones). keys, paths: (bytes, the end of each as int64), counted from the bytes of\n"
    "those before.");

static PyObject *framer_drain(Framer *self, PyObject *args)
{
    long long key_bytes, path_bytes;
    if (!PyArg_ParseTuple(args, "LL", &key_bytes, &path_bytes))
        return NULL;
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "two threads write at once, which a ShardWriter does not allow");
        return NULL;
    }
    PyObject *columns = columns_of(self), *jpegs = jpegs_of(self), *found = NULL;
    PyObject *keys = texts_of(&self->keys_of_rows, self->rows, key_bytes);
    PyObject *paths = texts_of(&self->paths_of_rows, self->rows, path_bytes);
    if (columns != NULL && jpegs != NULL && keys != NULL && paths != NULL)
        found = Py_BuildValue("iLOOOOOOOLLL", self->rows, (long long)self->pending, columns, keys, paths,
                              self->new_names, jpegs, self->types, self->classes, (long long)self->most,
                              (long long)self->jpegs, (long long)self->progressive);
    PyObject *made[] = {columns, jpegs, keys, paths};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++)
        Py_XDECREF(made[i]);
    if (found == NULL || !new_lists(self)) {
        Py_XDECREF(found);
        return NULL;
    }
    for (int i = 0; i < self->field_count; i++)
        self->fields[i].jpegs = 0;
    self->keys_of_rows.length = self->paths_of_rows.length = 0;
    self->pending = self->jpegs = self->progressive = 0;
    self->rows = 0;
    self->most = -1;
    return found;
}

static void framer_free(Framer *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject *held[] = {self->describe,  self->encode, self->look,    self->store,
                        self->names,     self->places, self->table,   (PyObject *)self->output,
                        self->new_names, self->types,  self->classes, (PyObject *)self->keys};
    for (int i = 0; i < self->field_count; i++)
        Py_DECREF(self->fields[i].text);
    free(self->fields);
    free(self->keys_of_rows.bytes);
    free(self->paths_of_rows.bytes);
    PyObject_Free(self);
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        Py_XDECREF(held[i]);
    Py_DECREF(type);
}

/* 0: an exception is set. */
static int fill_framer(Framer *self, PyObject *args)
{
    const char *pattern;
    Py_ssize_t length;
    PyObject *keys;
    long long most_label;
    if (!PyArg_ParseTuple(args, "y#ppKiLOOOOOOO", &pattern, &length, &self->records, &self->look_first,
                          &self->max_pixels, &self->max_scans, &most_label, &self->describe, &self->encode, &self->look,
                          &self->store, &self->names, &self->places, &keys)) {
        self->describe = self->encode = self->look = self->store = self->names = self->places = NULL;
        return 0;
    }
    PyObject *held[] = {self->describe, self->encode, self->look, self->store, self->names, self->places};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        Py_INCREF(held[i]);
    if (length != TAR_BLOCK || (self->names != Py_None && !PyTuple_Check(self->names)) ||
        (self->places != Py_None && !PyDict_Check(self->places)) ||
        (keys != Py_None && !PyObject_TypeCheck(keys, keyset_type))) {
        PyErr_SetString(PyExc_TypeError, "the pattern is not a block, or names, places or keys have a wrong type");
        return 0;
    }
    if (keys != Py_None) {
        Py_INCREF(keys);
        self->keys = (KeySet *)keys;
    }
    tar_take_pattern(&self->pattern, (const uint8_t *)pattern);
    self->most_label = most_label;
    self->most = -1;
    self->fields = calloc(MOST_NAMES, sizeof *self->fields);
    self->table = PyDict_New();
    if (self->fields == NULL)
        PyErr_NoMemory();
    return self->fields != NULL && self->table != NULL && new_lists(self);
}

static PyObject *framer_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    if (names != NULL && PyDict_Size(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "Framer takes no keyword arguments");
        return NULL;
    }
    Framer *self = (Framer *)PyType_GenericAlloc(type, 0);
    if (self != NULL && !fill_framer(self, args))
        Py_CLEAR(self);
    return (PyObject *)self;
}

PyDoc_STRVAR(
    framer_doc,
    "Framer(pattern, records, look_first, max_pixels, max_scans, most_label, describe, encode, look, store,\n"
    "       names, places, keys)\n--\n\n"
    "Frames samples. pattern: a tar header without name and size. records: whether as TFRecord. look_first:\n"
    "call `look` for plain JPEGs too. most_label: one more than the largest. describe(name) -> (field, role)\n"
    "or None; encode(field, value) -> bytes; look(bytes) -> (kind, width, height, JPEG, progressive);\n"
    "store(label) -> (label, fields, classes). names, places: of the classes. keys: a KeySet, or None to number\n"
    "the samples.");

static PyMethodDef FRAMER_METHODS[] = {{"add", (PyCFunction)(void (*)(void))framer_add, METH_FASTCALL, framer_add_doc},
                                       {"go_on", (PyCFunction)framer_go_on, METH_VARARGS, framer_go_on_doc},
                                       {"drain", (PyCFunction)framer_drain, METH_VARARGS, framer_drain_doc},
                                       {NULL, NULL, 0, NULL}};

static PyType_Slot FRAMER_SLOTS[] = {{Py_tp_doc, (void *)framer_doc},
                                     {Py_tp_new, framer_new},
                                     {Py_tp_dealloc, framer_free},
                                     {Py_tp_methods, FRAMER_METHODS},
                                     {0, NULL}};

static PyType_Spec FRAMER_SPEC = {"shardkit.native.framing.Framer", sizeof(Framer), 0, Py_TPFLAGS_DEFAULT,
                                  FRAMER_SLOTS};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "framing", PART_SOURCES, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_framing(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    PyObject *framer = PyType_FromSpec(&FRAMER_SPEC);
    if (keyset_type == NULL)
        keyset_type = (PyTypeObject *)PyType_FromSpec(&KEYSET_SPEC);
    if (output_type == NULL)
        output_type = (PyTypeObject *)PyType_FromSpec(&OUTPUT_SPEC);
    Py_XINCREF((PyObject *)keyset_type);
    Py_XINCREF((PyObject *)output_type);
    if (module == NULL || framer == NULL || keyset_type == NULL || output_type == NULL ||
        PyModule_AddObjectRef(module, "Framer", framer) < 0 ||
        PyModule_AddObjectRef(module, "KeySet", (PyObject *)keyset_type) < 0 ||
        PyModule_AddObjectRef(module, "Output", (PyObject *)output_type) < 0 ||
        PyModule_AddIntConstant(module, "WAITING_BYTES", (long)MOST_WAITING) < 0 ||
        PyModule_AddIntConstant(module, "available", crc32c_setup()) < 0)
        Py_CLEAR(module);
    Py_XDECREF(framer);
    Py_XDECREF((PyObject *)keyset_type);
    Py_XDECREF((PyObject *)output_type);
    return module;
}
