/* Lists a folder of images, looks at the files of a list, and takes paths and their keys out of a column: what a scan and
 * a plan do for each file.
 *
 * All give what Python gives (tests compare them): sources/tree/walk.py and sources/lists/plain_files.py look,
 * sources/columns.py takes, and sources/keys.py makes keys. What is not plain is left to them: entries that are not
 * regular files with a known extension, names that are not UTF-8, and paths whose text or key follows further rules.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/scan/listed.h"

/* The size of an image, without reading it. */
static int64_t tree_size_of(void *context, int folder, const char *name)
{
    (void)context;
    return size_in(folder, name);
}

PyDoc_STRVAR(list_doc,
             "list_folder(fd, wanted)\n\n"
             "(the names of the regular files with an extension in `wanted`, as one text with a slash behind\n"
             "each; their sizes, int64 as bytes; the names of all other entries) of a folder, sorted. wanted:\n"
             "extensions, each followed by a NUL. None if the name of such a file is not UTF-8. Raises\n"
             "OSError.");

static PyObject *list_folder(PyObject *self, PyObject *args)
{
    (void)self;
    int fd, error;
    const char *text;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "iy#", &fd, &text, &length) || !are_extensions(text, length))
        return NULL;
    const Extensions wanted = {text, (size_t)length};
    Names found = {0};
    PyObject *result = NULL;
    Py_BEGIN_ALLOW_THREADS;
    error = list_names(fd, wanted, tree_size_of, NULL, &found);
    Py_END_ALLOW_THREADS;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
    } else {
        result = listed_names(&found);
    }
    free_names(&found);
    return result;
}

PyDoc_STRVAR(take_doc, "take(blob, offsets, rows)\n\n"
                       "The bytes blob[offsets[row]:offsets[row + 1]] of each row, as a list. offsets, rows: int64.\n"
                       "IndexError for a row that there is not; ValueError for offsets outside the blob.");

static PyObject *take(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer blob, offsets, rows;
    if (!PyArg_ParseTuple(args, "y*y*y*", &blob, &offsets, &rows))
        return NULL;
    const int64_t *starts = offsets.buf, *wanted = rows.buf;
    const Py_ssize_t count = rows.len / (Py_ssize_t)sizeof *wanted;
    const int64_t known = offsets.len / (Py_ssize_t)sizeof *starts - 1;
    PyObject *found = PyList_New(count);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        const int64_t row = wanted[i];
        PyObject *item = NULL;
        if (row < 0 || row >= known)
            PyErr_Format(PyExc_IndexError, "row %lld of %lld paths", (long long)row, (long long)known);
        else if (starts[row] < 0 || starts[row + 1] < starts[row] || starts[row + 1] > blob.len)
            PyErr_SetString(PyExc_ValueError, "offsets outside the blob");
        else
            item = PyBytes_FromStringAndSize((const char *)blob.buf + starts[row],
                                             (Py_ssize_t)(starts[row + 1] - starts[row]));
        if (item == NULL || PyList_SetItem(found, i, item) < 0)
            Py_CLEAR(found);
    }
    PyBuffer_Release(&blob);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&rows);
    return found;
}

enum { PATH_ROOM = 4096 };

/* The key of a path; None if further rules apply to it. */
static PyObject *key_of(const char *path, Py_ssize_t length)
{
    char key[PATH_ROOM];
    if (length >= PATH_ROOM || memchr(path, '\\', (size_t)length) != NULL || (length > 1 && memcmp(path, "__", 2) == 0))
        return Py_NewRef(Py_None);
    Py_ssize_t stem = length;
    for (Py_ssize_t at = length - 1; at >= 0 && path[at] != '/'; at--)
        if (path[at] == '.') {
            stem = at;
            break;
        }
    for (Py_ssize_t at = 0; at < stem; at++)
        key[at] = (char)(path[at] == '.' ? '_' : path[at]);
    PyObject *whole = PyUnicode_DecodeUTF8(path, length, "strict"); /* an invalid byte may be in the extension */
    Py_XDECREF(whole);
    PyObject *text = whole == NULL ? NULL : PyUnicode_DecodeUTF8(key, stem, "strict");
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        return Py_NewRef(Py_None);
    }
    return text;
}

PyDoc_STRVAR(keys_doc,
             "keys(paths)\n\nThe key of each path, given as bytes, as a list; None where further rules apply.");

static PyObject *keys(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *paths;
    if (!PyArg_ParseTuple(args, "O!", &PyList_Type, &paths))
        return NULL;
    const Py_ssize_t count = PyList_Size(paths);
    PyObject *found = PyList_New(count);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        char *path;
        Py_ssize_t length;
        PyObject *key = NULL;
        if (PyBytes_AsStringAndSize(PyList_GetItem(paths, i), &path, &length) == 0)
            key = key_of(path, length);
        if (key == NULL || PyList_SetItem(found, i, key) < 0)
            Py_CLEAR(found);
    }
    return found;
}

PyDoc_STRVAR(sizes_doc, "sizes(paths)\n\n"
                        "The size of the file at each path as int64, -1 for what is not a regular file or can't be\n"
                        "looked at. paths: each followed by a NUL. Returns bytes; the GIL is released.");

static PyObject *sizes(PyObject *self, PyObject *args)
{
    (void)self;
    const char *paths;
    Py_ssize_t length, count = 0;
    if (!PyArg_ParseTuple(args, "y#", &paths, &length))
        return NULL;
    if (length && paths[length - 1] != 0) {
        PyErr_SetString(PyExc_ValueError, "paths, each followed by a NUL, are expected");
        return NULL;
    }
    for (Py_ssize_t at = 0; at < length; at++)
        count += paths[at] == 0;
    PyObject *found = PyBytes_FromStringAndSize(NULL, count * (Py_ssize_t)sizeof(int64_t));
    if (found == NULL)
        return NULL;
    char *to = PyBytes_AsString(found);
    Py_BEGIN_ALLOW_THREADS;
    for (const char *path = paths; path < paths + length; path += strlen(path) + 1) {
        struct stat status;
        const int64_t size = stat(path, &status) == 0 && S_ISREG(status.st_mode) ? (int64_t)status.st_size : -1;
        memcpy(to, &size, sizeof size);
        to += sizeof size;
    }
    Py_END_ALLOW_THREADS;
    return found;
}

static PyMethodDef METHODS[] = {{"list_folder", list_folder, METH_VARARGS, list_doc},
                                {"take", take, METH_VARARGS, take_doc},
                                {"keys", keys, METH_VARARGS, keys_doc},
                                {"sizes", sizes, METH_VARARGS, sizes_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "tree", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_tree(void)
{
    return PyModule_Create(&MODULE);
}
