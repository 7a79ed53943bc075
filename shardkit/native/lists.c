/* Looks at the files that a list names, and numbers and sorts its texts, without a Python object for each.
 *
 * All give what Python gives (tests compare them): sources/lists/plain_files.py, sources/lists/coded.py and
 * sources/lists/rows.py. What is not plain is left to them. Columns are those of sources/columns.py: bytes, and int64
 * offsets. A secret of 16 random bytes keeps texts from being made so that all meet in one place of a table.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/lists/paths.h"
#include "include/part.h"

typedef struct {
    Py_buffer bytes, offsets;
    StringColumn texts;
} given_column;

static int take_column(given_column *column)
{
    const Py_buffer *offsets = &column->offsets;
    column->texts = string_column(column->bytes.buf, column->bytes.len, offsets->buf, offsets->len);
    if (offsets->len >= (Py_ssize_t)sizeof(int64_t))
        return 1;
    PyErr_SetString(PyExc_ValueError, "a column has at least one offset");
    return 0;
}

static void release_column(given_column *column)
{
    PyBuffer_Release(&column->bytes);
    PyBuffer_Release(&column->offsets);
}

static int take_secret(const char *bytes, Py_ssize_t length, uint64_t secret[2])
{
    if (length != 16) {
        PyErr_SetString(PyExc_ValueError, "the secret has 16 bytes");
        return 0;
    }
    memcpy(secret, bytes, 16);
    return 1;
}

/* None for what is left to Python, or an exception for what is not right. */
static PyObject *nothing(int64_t why)
{
    if (why == TEXTS_NO_MEMORY)
        return PyErr_NoMemory();
    if (why == TEXTS_OUTSIDE) {
        PyErr_SetString(PyExc_ValueError, "offsets outside the column");
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(numbers_doc, "numbers(texts, offsets, secret, stop)\n--\n\n"
                          "Numbers the distinct texts of a column as they come: (the number of each row, int32; the\n"
                          "first row of each number, int64). stop: a byte; only what is before it counts; -1 for the\n"
                          "whole texts. None if there are more than 65,536. The GIL is released.");

static PyObject *numbers(PyObject *self, PyObject *args)
{
    (void)self;
    given_column column;
    const char *bytes;
    Py_ssize_t length;
    int stop;
    uint64_t secret[2];
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y#i", &column.bytes, &column.offsets, &bytes, &length, &stop))
        return NULL;
    int64_t *firsts = PyMem_Malloc(CODES_MOST * sizeof *firsts), count;
    if (firsts == NULL) {
        PyErr_NoMemory();
    } else if (take_column(&column) && take_secret(bytes, length, secret)) {
        PyObject *codes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)column.texts.count * (Py_ssize_t)sizeof(int32_t));
        int32_t *to = codes == NULL ? NULL : (int32_t *)PyBytes_AsString(codes);
        if (to != NULL) {
            Py_BEGIN_ALLOW_THREADS;
            count = number_texts(&column.texts, secret, stop, to, firsts);
            Py_END_ALLOW_THREADS;
            result = count < 0 ? nothing(count)
                               : Py_BuildValue("Oy#", codes, (char *)firsts, (Py_ssize_t)count * sizeof *firsts);
        }
        Py_XDECREF(codes);
    }
    PyMem_Free(firsts);
    release_column(&column);
    return result;
}

static void free_paths(plain_paths *paths)
{
    PyMem_Free(paths->real);
    PyMem_Free(paths->names);
    PyMem_Free(paths->real_offsets);
    PyMem_Free(paths->name_offsets);
}

static int make_paths(plain_paths *paths, const StringColumn *texts, size_t root)
{
    const size_t room = (size_t)paths_room(texts, root), offsets = ((size_t)texts->count + 1) * sizeof(int64_t);
    paths->real = PyMem_Malloc(room);
    paths->names = PyMem_Malloc(room);
    paths->real_offsets = PyMem_Malloc(offsets);
    paths->name_offsets = PyMem_Malloc(offsets);
    if (paths->real != NULL && paths->names != NULL && paths->real_offsets != NULL && paths->name_offsets != NULL)
        return 1;
    PyErr_NoMemory();
    return 0;
}

/* Whether all names are UTF-8; -1 with an exception. */
static int are_utf8(const plain_paths *paths, int64_t count)
{
    for (int64_t row = 0; !paths->ascii && row < count; row++) {
        const int64_t begin = paths->name_offsets[row];
        PyObject *name = PyUnicode_DecodeUTF8(paths->names + begin, paths->name_offsets[row + 1] - begin, "strict");
        if (name == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
                return -1;
            PyErr_Clear();
            return 0;
        }
        Py_DECREF(name);
    }
    return 1;
}

static PyObject *found_paths(const plain_paths *paths, int64_t count)
{
    const Py_ssize_t offsets = (Py_ssize_t)(count + 1) * (Py_ssize_t)sizeof(int64_t);
    return Py_BuildValue("y#y#y#y#O", paths->real, (Py_ssize_t)paths->real_offsets[count], (char *)paths->real_offsets,
                         offsets, paths->names, (Py_ssize_t)paths->name_offsets[count], (char *)paths->name_offsets,
                         offsets, paths->inside ? Py_True : Py_False);
}

PyDoc_STRVAR(paths_doc,
             "paths(texts, offsets, root, wanted, secret)\n--\n\n"
             "The files that a column names, relative to `root`, which ends with a slash: (their absolute paths and\n"
             "offsets, their paths for the index and offsets, whether all are below the root); None if one of\n"
             "them follows further rules, or two meet. wanted: extensions in lower case, each followed by a NUL.");

static PyObject *paths(PyObject *self, PyObject *args)
{
    (void)self;
    given_column column;
    const char *root, *wanted, *bytes;
    Py_ssize_t root_length, wanted_length, length;
    uint64_t secret[2];
    plain_paths found = {0};
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y#y#y#", &column.bytes, &column.offsets, &root, &root_length, &wanted,
                          &wanted_length, &bytes, &length))
        return NULL;
    if (wanted_length == 0 || wanted[wanted_length - 1] != 0) {
        PyErr_SetString(PyExc_ValueError, "extensions, each followed by a NUL, are expected");
    } else if (take_column(&column) && take_secret(bytes, length, secret) &&
               make_paths(&found, &column.texts, (size_t)root_length)) {
        int done, utf8 = 0;
        Py_BEGIN_ALLOW_THREADS;
        done = take_paths(&column.texts, (String){root, (size_t)root_length}, wanted, (size_t)wanted_length, secret,
                          &found);
        Py_END_ALLOW_THREADS;
        if (done == PATHS_PLAIN)
            utf8 = are_utf8(&found, column.texts.count);
        if (utf8 > 0)
            result = found_paths(&found, column.texts.count);
        else if (utf8 == 0)
            result = nothing(done);
    }
    free_paths(&found);
    release_column(&column);
    return result;
}

PyDoc_STRVAR(sizes_doc, "sizes(paths, offsets, start, stop)\n--\n\n"
                        "The size of the files at the paths from `start` up to `stop` as int64, -1 for what is not a\n"
                        "regular file or can't be looked at. Returns bytes; the GIL is released.");

static PyObject *sizes(PyObject *self, PyObject *args)
{
    (void)self;
    given_column column;
    Py_ssize_t start, stop;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*nn", &column.bytes, &column.offsets, &start, &stop))
        return NULL;
    if (take_column(&column)) {
        if (start < 0 || stop < start || stop > column.texts.count)
            nothing(TEXTS_OUTSIDE);
        else
            result = PyBytes_FromStringAndSize(NULL, (stop - start) * (Py_ssize_t)sizeof(int64_t));
    }
    char *to = result == NULL ? NULL : PyBytes_AsString(result);
    if (to != NULL) {
        open_folder folder = {.length = 0, .fd = -1};
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t row = start; row < stop; row++, to += sizeof(int64_t)) {
            String path;
            const int64_t size = string_at(&column.texts, row, &path) ? file_size(&folder, path) : -1;
            memcpy(to, &size, sizeof size);
        }
        if (folder.fd >= 0)
            close(folder.fd);
        Py_END_ALLOW_THREADS;
    }
    release_column(&column);
    return result;
}

PyDoc_STRVAR(order_doc,
             "order(labels, paths, offsets)\n--\n\n"
             "The rows in the order of a scan: by label (int32), folder and name; int64 as bytes. The GIL is\n"
             "released.");

/* The files of a column, with labels. 0 for offsets outside the column. */
static int take_files(const StringColumn *texts, const int32_t *labels, ordered_file *files)
{
    for (int64_t row = 0; row < texts->count; row++) {
        String path;
        if (!string_at(texts, row, &path))
            return 0;
        files[row] = (ordered_file){path, folder_of(path), labels[row], row};
    }
    return 1;
}

static PyObject *order(PyObject *self, PyObject *args)
{
    (void)self;
    given_column column;
    Py_buffer labels;
    PyObject *result = NULL;
    ordered_file *files = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*", &labels, &column.bytes, &column.offsets))
        return NULL;
    if (take_column(&column)) {
        const int64_t count = column.texts.count;
        files = PyMem_Malloc(((size_t)count + 1) * sizeof *files);
        if (files == NULL)
            PyErr_NoMemory();
        else if (labels.len / (Py_ssize_t)sizeof(int32_t) < count || !take_files(&column.texts, labels.buf, files))
            nothing(TEXTS_OUTSIDE);
        else
            result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)count * (Py_ssize_t)sizeof(int64_t));
        char *to = result == NULL ? NULL : PyBytes_AsString(result);
        if (to != NULL) {
            Py_BEGIN_ALLOW_THREADS;
            sort_files(files, (size_t)count);
            for (int64_t at = 0; at < count; at++)
                memcpy(to + at * (Py_ssize_t)sizeof files->row, &files[at].row, sizeof files->row);
            Py_END_ALLOW_THREADS;
        }
    }
    PyMem_Free(files);
    PyBuffer_Release(&labels);
    release_column(&column);
    return result;
}

PyDoc_STRVAR(distinct_doc, "are_distinct(texts, offsets, secret)\n--\n\nWhether no text occurs twice.");

static PyObject *distinct(PyObject *self, PyObject *args)
{
    (void)self;
    given_column column;
    const char *bytes;
    Py_ssize_t length;
    uint64_t secret[2];
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y#", &column.bytes, &column.offsets, &bytes, &length))
        return NULL;
    if (take_column(&column) && take_secret(bytes, length, secret)) {
        int found;
        Py_BEGIN_ALLOW_THREADS;
        found = are_distinct(&column.texts, secret);
        Py_END_ALLOW_THREADS;
        result = found < 0 ? nothing(found) : PyBool_FromLong(found);
    }
    release_column(&column);
    return result;
}

static PyMethodDef METHODS[] = {{"numbers", numbers, METH_VARARGS, numbers_doc},
                                {"paths", paths, METH_VARARGS, paths_doc},
                                {"sizes", sizes, METH_VARARGS, sizes_doc},
                                {"order", order, METH_VARARGS, order_doc},
                                {"are_distinct", distinct, METH_VARARGS, distinct_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "lists", PART_SOURCES, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_lists(void)
{
    return PyModule_Create(&MODULE);
}
