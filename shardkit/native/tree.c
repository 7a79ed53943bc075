/* Lists a folder of images, and takes paths, their keys and their extensions out of a column: what a scan and a plan do
 * for each file.
 *
 * All give what Python gives (tests compare them): sources/tree/walk.py lists, sources/columns.py takes,
 * sources/keys.py makes keys, and formats/columns.py finds extensions. What is not plain is left to them: entries that
 * are not regular files with a known extension, names that are not UTF-8, and paths whose text or key follows further
 * rules.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/scan/listed.h"
#include "include/string_column.h"
#include "include/part.h"

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

/* Fails with what is wrong with a column. */
static PyObject *outside(void)
{
    PyErr_SetString(PyExc_ValueError, "offsets outside the blob");
    return NULL;
}

PyDoc_STRVAR(take_doc,
             "take(blob, offsets, rows)\n\n"
             "The bytes blob[offsets[row]:offsets[row + 1]] of each row, as (bytes, offsets). All offsets and\n"
             "rows: int64. IndexError for a row that there is not; ValueError for offsets outside the blob.\n"
             "The GIL is released.");

/* The offsets of the strings at some rows, from 0. Returns -1, or the place of the first row whose string is not there. */
static Py_ssize_t taken_offsets(const StringColumn *column, const void *rows, Py_ssize_t count, char *to)
{
    int64_t end = 0;
    memcpy(to, &end, sizeof end);
    for (Py_ssize_t i = 0; i < count; i++) {
        String text;
        if (!string_at(column, number_at(rows, i), &text))
            return i;
        end += (int64_t)text.length;
        memcpy(to + (i + 1) * (Py_ssize_t)sizeof end, &end, sizeof end);
    }
    return -1;
}

/* Put the strings at some rows. room: of `to`, which is enough unless a buffer changes meanwhile. */
static void take_each(const StringColumn *column, const void *rows, Py_ssize_t count, char *to, int64_t room)
{
    for (Py_ssize_t i = 0; i < count; i++) {
        String text;
        if (!string_at(column, number_at(rows, i), &text) || (int64_t)text.length > room)
            return;
        if (text.length)
            memcpy(to, text.bytes, text.length);
        to += text.length;
        room -= (int64_t)text.length;
    }
}

static PyObject *take(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer blob, offsets, rows;
    if (!PyArg_ParseTuple(args, "y*y*y*", &blob, &offsets, &rows))
        return NULL;
    const StringColumn column = string_column(blob.buf, blob.len, offsets.buf, offsets.len);
    const Py_ssize_t count = rows.len / (Py_ssize_t)sizeof(int64_t);
    PyObject *data = NULL, *result = NULL;
    PyObject *ends = PyBytes_FromStringAndSize(NULL, (count + 1) * (Py_ssize_t)sizeof(int64_t));
    Py_ssize_t missing;
    if (ends == NULL)
        goto end;
    char *to = PyBytes_AsString(ends);
    Py_BEGIN_ALLOW_THREADS;
    missing = taken_offsets(&column, rows.buf, count, to);
    Py_END_ALLOW_THREADS;
    if (missing >= 0) {
        const int64_t row = number_at(rows.buf, missing);
        if (row < 0 || row >= column.count)
            PyErr_Format(PyExc_IndexError, "row %lld of %lld paths", (long long)row, (long long)column.count);
        else
            outside();
        goto end;
    }
    const int64_t size = number_at(to, count);
    data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (data == NULL)
        goto end;
    to = PyBytes_AsString(data);
    Py_BEGIN_ALLOW_THREADS;
    take_each(&column, rows.buf, count, to, size);
    Py_END_ALLOW_THREADS;
    result = PyTuple_Pack(2, data, ends);
end:
    Py_XDECREF(data);
    Py_XDECREF(ends);
    PyBuffer_Release(&blob);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&rows);
    return result;
}

enum { PATH_ROOM = 4096 };

/* The bytes of the UTF-8 character at the beginning of a text; 0 if there is none. */
static Py_ssize_t utf8_character(const uint8_t *text, Py_ssize_t length)
{
    const uint8_t first = text[0];
    if (first < 0x80)
        return 1;
    const Py_ssize_t count = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (count == 0 || count > length)
        return 0;
    for (Py_ssize_t i = 1; i < count; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    const uint8_t second = text[1]; /* neither longer than it must be, nor a surrogate, nor above U+10FFFF */
    if ((first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F) || (first == 0xF0 && second < 0x90) ||
        (first == 0xF4 && second > 0x8F))
        return 0;
    return count;
}

static int is_utf8(const char *text, Py_ssize_t length)
{
    for (Py_ssize_t at = 0; at < length;) {
        const Py_ssize_t count = utf8_character((const uint8_t *)text + at, length - at);
        if (count == 0)
            return 0;
        at += count;
    }
    return 1;
}

/* Where the last part of a path has its last dot; its length if there is none. */
static Py_ssize_t dot_of(const char *path, Py_ssize_t length)
{
    for (Py_ssize_t at = length - 1; at >= 0 && path[at] != '/'; at--)
        if (path[at] == '.')
            return at;
    return length;
}

/* Put the key of a path, which is not longer, at `key`. Returns its length; -1 if further rules apply to it. */
static Py_ssize_t put_key(const char *path, Py_ssize_t length, char *key)
{
    if (length >= PATH_ROOM || memchr(path, '\\', (size_t)length) != NULL ||
        (length > 1 && memcmp(path, "__", 2) == 0) || !is_utf8(path, length))
        return -1;
    const Py_ssize_t stem = dot_of(path, length);
    for (Py_ssize_t at = 0; at < stem; at++)
        key[at] = (char)(path[at] == '.' ? '_' : path[at]);
    return stem;
}

PyDoc_STRVAR(keys_doc, "keys(paths, offsets)\n\n"
                       "The key of each path, as (bytes, offsets, numbers of the paths to which further rules apply).\n"
                       "All offsets: int64; numbers: a list. Such paths have no bytes. ValueError for offsets outside\n"
                       "the paths.");

/* Numbers of paths as a list; NULL with an exception. odd: one byte for each path. */
static PyObject *numbers_of(const uint8_t *odd, Py_ssize_t count)
{
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        PyObject *number = odd[i] ? PyLong_FromSsize_t(i) : NULL;
        if (odd[i] && (number == NULL || PyList_Append(found, number) < 0))
            Py_CLEAR(found);
        Py_XDECREF(number);
    }
    return found;
}

/* Put the keys of all paths. Returns their length; -1 if offsets are outside the paths. */
static Py_ssize_t put_keys(const StringColumn *paths, char *keys, char *offsets, uint8_t *odd)
{
    int64_t end = 0;
    memcpy(offsets, &end, sizeof end);
    for (Py_ssize_t i = 0; i < paths->count; i++) {
        String path;
        if (!string_at(paths, i, &path) || end + (int64_t)path.length > paths->length)
            return -1;
        const Py_ssize_t size = path.length ? put_key(path.bytes, (Py_ssize_t)path.length, keys + end) : 0;
        odd[i] = size < 0;
        end += size < 0 ? 0 : size;
        memcpy(offsets + (i + 1) * (Py_ssize_t)sizeof end, &end, sizeof end);
    }
    return (Py_ssize_t)end;
}

static PyObject *keys(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer data, offsets;
    if (!PyArg_ParseTuple(args, "y*y*", &data, &offsets))
        return NULL;
    const StringColumn paths = string_column(data.buf, data.len, offsets.buf, offsets.len);
    char *found = PyMem_Malloc((size_t)paths.length + 1);
    uint8_t *odd = PyMem_Malloc((size_t)paths.count + 1);
    PyObject *ends = PyBytes_FromStringAndSize(NULL, (paths.count + 1) * (Py_ssize_t)sizeof(int64_t));
    PyObject *numbers = NULL, *result = NULL;
    Py_ssize_t length;
    if (found == NULL || odd == NULL || ends == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    char *to = PyBytes_AsString(ends);
    Py_BEGIN_ALLOW_THREADS;
    length = put_keys(&paths, found, to, odd);
    Py_END_ALLOW_THREADS;
    if (length < 0) {
        outside();
        goto end;
    }
    numbers = numbers_of(odd, paths.count);
    if (numbers != NULL)
        result = Py_BuildValue("y#OO", found, length, ends, numbers);
end:
    Py_XDECREF(numbers);
    Py_XDECREF(ends);
    PyMem_Free(odd);
    PyMem_Free(found);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&data);
    return result;
}

enum { MOST_EXTENSIONS = 64 };

PyDoc_STRVAR(
    extensions_doc,
    "extensions(paths, offsets)\n\n"
    "What is behind the last dot of each path, the whole path if it has none, as (int32 places as bytes, list\n"
    "of the extensions); None if there are many. offsets: int64. ValueError for offsets outside the paths.");

/* The place of each path's extension among those that were found. Returns how many there are; MOST_EXTENSIONS + 1 for
 * too many, -1 if offsets are outside the paths. */
static int find_extensions(const StringColumn *paths, String *found, char *places)
{
    int32_t count = 0, place = 0;
    for (Py_ssize_t i = 0; i < paths->count; i++) {
        String mine;
        if (!string_at(paths, i, &mine))
            return -1;
        size_t dot = mine.length;
        while (dot > 0 && mine.bytes[dot - 1] != '.')
            dot--;
        mine = (String){mine.bytes + dot, mine.length - dot};
        if (count == 0 || compare_strings(found[place], mine) != 0)
            for (place = 0; place < count && compare_strings(found[place], mine) != 0; place++)
                ;
        if (place == count) {
            if (count == MOST_EXTENSIONS)
                return MOST_EXTENSIONS + 1;
            found[count++] = mine;
        }
        memcpy(places + i * (Py_ssize_t)sizeof place, &place, sizeof place);
    }
    return count;
}

static PyObject *extensions(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer data, offsets;
    if (!PyArg_ParseTuple(args, "y*y*", &data, &offsets))
        return NULL;
    const StringColumn paths = string_column(data.buf, data.len, offsets.buf, offsets.len);
    String found[MOST_EXTENSIONS];
    PyObject *places = PyBytes_FromStringAndSize(NULL, paths.count * (Py_ssize_t)sizeof(int32_t));
    PyObject *names = NULL, *result = NULL;
    int count;
    if (places == NULL)
        goto end;
    char *to = PyBytes_AsString(places);
    Py_BEGIN_ALLOW_THREADS;
    count = find_extensions(&paths, found, to);
    Py_END_ALLOW_THREADS;
    if (count < 0) {
        outside();
        goto end;
    }
    if (count > MOST_EXTENSIONS) {
        result = Py_NewRef(Py_None);
        goto end;
    }
    names = PyList_New(count);
    for (int i = 0; names != NULL && i < count; i++) {
        PyObject *name = PyBytes_FromStringAndSize(found[i].bytes, (Py_ssize_t)found[i].length);
        if (name == NULL || PyList_SetItem(names, i, name) < 0)
            Py_CLEAR(names);
    }
    if (names != NULL)
        result = PyTuple_Pack(2, places, names);
end:
    Py_XDECREF(names);
    Py_XDECREF(places);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef METHODS[] = {{"list_folder", list_folder, METH_VARARGS, list_doc},
                                {"take", take, METH_VARARGS, take_doc},
                                {"keys", keys, METH_VARARGS, keys_doc},
                                {"extensions", extensions, METH_VARARGS, extensions_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "tree", PART_SOURCES, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_tree(void)
{
    return PyModule_Create(&MODULE);
}
