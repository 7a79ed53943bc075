/* Lists a folder of images, looks at the files of a list, and takes paths and their keys out of a column: what a scan and
 * a plan do for each file.
 *
 * All give what Python gives (tests compare them): sources/tree/walk.py and sources/lists/plain_files.py look,
 * sources/columns.py takes, and sources/keys.py makes keys. What is not plain is left to them: entries that are not regular files with a known
 * extension, names that are not UTF-8, and paths whose text or key follows further rules.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A name in `Names.text`, and the size of its file; -1 for an entry that is left to Python. */
typedef struct {
    size_t at;
    int64_t size;
} Name;

typedef struct {
    char *text;
    Name *names;
    size_t used, room, count, most;
} Names;

/* Add a name. Returns 0 if there is no memory. */
static int add_name(Names *found, const char *name, int64_t size)
{
    const size_t length = strlen(name) + 1;
    if (found->used + length > found->room) {
        const size_t room = 2 * (found->room + length);
        char *text = realloc(found->text, room);
        if (text == NULL)
            return 0;
        found->text = text;
        found->room = room;
    }
    if (found->count == found->most) {
        const size_t most = 2 * found->most + 64;
        Name *names = realloc(found->names, most * sizeof *names);
        if (names == NULL)
            return 0;
        found->names = names;
        found->most = most;
    }
    memcpy(found->text + found->used, name, length);
    found->names[found->count++] = (Name){found->used, size};
    found->used += length;
    return 1;
}

/* Whether the name is not hidden and has one of the extensions, each between two NULs in `wanted`. */
static int is_wanted(const char *name, const char *wanted, const char *end)
{
    const char *dot = strrchr(name, '.');
    if (dot == NULL || dot == name || name[0] == '.' || dot[1] == 0)
        return 0;
    const size_t length = strlen(dot + 1) + 1;
    for (const char *at = wanted; at < end; at += strlen(at) + 1)
        if ((size_t)(end - at) >= length && memcmp(at, dot + 1, length) == 0)
            return 1;
    return 0;
}

/* The bytes of an entry that is a regular file with a known extension; -1 for any other. */
static int64_t plain_size(int folder, const struct dirent *entry, const char *wanted, const char *end)
{
    struct stat status;
    if (!is_wanted(entry->d_name, wanted, end))
        return -1;
#ifdef DT_REG
    if (entry->d_type != DT_REG)
        return -1;
#endif
    if (fstatat(folder, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(status.st_mode))
        return -1;
    return status.st_size;
}

/* List the folder. Returns 0, or the number of an error. */
static int list_names(int fd, const char *wanted, Py_ssize_t length, Names *found)
{
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (own < 0)
        return errno;
    DIR *folder = fdopendir(own);
    if (folder == NULL) {
        const int error = errno;
        close(own);
        return error;
    }
    int error = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL) {
            error = errno;
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!add_name(found, entry->d_name, plain_size(own, entry, wanted, wanted + length))) {
            error = ENOMEM;
            break;
        }
    }
    closedir(folder);
    return error;
}

static int put_text(PyObject *dict, PyObject *list, const char *text, int64_t size)
{
    PyObject *name =
        size < 0 ? PyUnicode_DecodeFSDefault(text) : PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "strict");
    if (name == NULL)
        return -1;
    int failed;
    if (size < 0) {
        failed = PyList_Append(list, name);
    } else {
        PyObject *number = PyLong_FromLongLong(size);
        failed = number == NULL ? -1 : PyDict_SetItem(dict, name, number);
        Py_XDECREF(number);
    }
    Py_DECREF(name);
    return failed;
}

PyDoc_STRVAR(list_doc, "list_folder(fd, wanted)\n\n"
                       "(name -> bytes of each regular file with an extension in `wanted`, the names of all other\n"
                       "entries) of a folder. wanted: extensions, each followed by a NUL. None if the name of such a\n"
                       "file is not UTF-8. Raises OSError.");

static PyObject *list_folder(PyObject *self, PyObject *args)
{
    (void)self;
    int fd, error;
    const char *wanted;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "iy#", &fd, &wanted, &length))
        return NULL;
    if (length == 0 || wanted[length - 1] != 0) {
        PyErr_SetString(PyExc_ValueError, "extensions, each followed by a NUL, are expected");
        return NULL;
    }
    Names found = {0};
    PyObject *sizes = NULL, *others = NULL, *result = NULL;
    Py_BEGIN_ALLOW_THREADS;
    error = list_names(fd, wanted, length, &found);
    Py_END_ALLOW_THREADS;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        goto end;
    }
    sizes = PyDict_New();
    others = PyList_New(0);
    if (sizes == NULL || others == NULL)
        goto end;
    for (size_t i = 0; i < found.count; i++) {
        if (put_text(sizes, others, found.text + found.names[i].at, found.names[i].size) < 0) {
            if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
                PyErr_Clear();
                result = Py_NewRef(Py_None);
            }
            goto end;
        }
    }
    result = PyTuple_Pack(2, sizes, others);
end:
    free(found.text);
    free(found.names);
    Py_XDECREF(sizes);
    Py_XDECREF(others);
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
