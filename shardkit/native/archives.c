/* Reads the members of tar and zip files, and finds the folders and images in a list of names, without Python's cost for
 * each.
 *
 * All give what Python gives (tests compare them): sources/archives/tar.py, sources/archives/zip.py and
 * sources/listing.py. What is not plain is left to them: everything with a message, and names that need a closer look.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/archives/folders.h"
#include "include/archives/tar.h"
#include "include/archives/zip.h"
#include "include/part.h"

/* (at, names, lengths, numbers) as Python objects; `found` is freed. */
static PyObject *found_members(int64_t at, member_columns *found)
{
    PyObject *result = NULL;
    if (at < 0)
        PyErr_NoMemory();
    else
        result = Py_BuildValue("Ly#y#y#", (long long)at, found->count ? found->names : "", (Py_ssize_t)found->used,
                               found->count ? (char *)found->lengths : "",
                               (Py_ssize_t)(found->count * sizeof *found->lengths),
                               found->count ? (char *)found->numbers : "",
                               (Py_ssize_t)(found->count * MEMBER_COLUMNS * sizeof *found->numbers));
    members_free(found);
    return result;
}

static int are_limits(const member_limits *limits)
{
    if (limits->members >= 0 && limits->name_bytes >= 0 && limits->name_bytes <= TAR_PATH && limits->bomb_ratio > 0)
        return 1;
    PyErr_SetString(PyExc_ValueError, "the limits are negative, or allow for longer names than there is room");
    return 0;
}

PyDoc_STRVAR(tar_doc,
             "tar(fd, at, size, members, name_bytes, slashes, bomb_bytes, bomb_ratio)\n--\n\n"
             "The plain members of a tar file of `size` bytes from byte `at` on, at most `members`: (where the\n"
             "next one begins, their clean names without anything between, the length of each (int32), and\n"
             "(size, offset, size, 0, -1) of each (int64)). The GIL is released.");

static PyObject *tar(PyObject *self, PyObject *args)
{
    (void)self;
    long long at, size, limit[5];
    int fd;
    member_columns found = {0};
    if (!PyArg_ParseTuple(args, "iLLLLLLL", &fd, &at, &size, limit, limit + 1, limit + 2, limit + 3, limit + 4))
        return NULL;
    const member_limits limits = {limit[0], limit[1], limit[2], limit[3], limit[4]};
    if (!are_limits(&limits))
        return NULL;
    tar_file *file = PyMem_Malloc(sizeof *file);
    if (file == NULL)
        return PyErr_NoMemory();
    file->fd = fd;
    file->size = size;
    file->first = 0;
    file->held = 0;
    Py_BEGIN_ALLOW_THREADS;
    at = tar_members(file, at, &limits, &found);
    Py_END_ALLOW_THREADS;
    PyMem_Free(file);
    return found_members(at, &found);
}

PyDoc_STRVAR(zip_doc, "zip(directory, at, shift, members, name_bytes, slashes, bomb_bytes, bomb_ratio)\n--\n\n"
                      "The plain members in the central directory of a zip file from byte `at` of it on, as of `tar`:\n"
                      "their numbers are (size, offset + shift, packed size, method, CRC-32).");

static PyObject *zip(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer directory;
    long long at, shift, limit[5];
    member_columns found = {0};
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*LLLLLLL", &directory, &at, &shift, limit, limit + 1, limit + 2, limit + 3,
                          limit + 4))
        return NULL;
    const member_limits limits = {limit[0], limit[1], limit[2], limit[3], limit[4]};
    if (at < 0 || at > directory.len)
        PyErr_SetString(PyExc_ValueError, "the place is outside the directory");
    else if (are_limits(&limits)) {
        Py_BEGIN_ALLOW_THREADS;
        at = zip_members(directory.buf, (size_t)directory.len, (size_t)at, shift, &limits, &found);
        Py_END_ALLOW_THREADS;
        result = found_members(at, &found);
    }
    PyBuffer_Release(&directory);
    return result;
}

static PyObject *outside(void)
{
    PyErr_SetString(PyExc_ValueError, "rows or offsets outside the column");
    return NULL;
}

PyDoc_STRVAR(folders_doc, "folders(blob, offsets)\n--\n\n"
                          "The rows of a column of paths whose folder is not that of the row before (int64 as bytes).");

static PyObject *folders(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer blob, offsets;
    if (!PyArg_ParseTuple(args, "y*y*", &blob, &offsets))
        return NULL;
    const StringColumn names = string_column(blob.buf, blob.len, offsets.buf, offsets.len);
    PyObject *result = NULL;
    int64_t *starts = PyMem_Malloc((size_t)(names.count + 1) * sizeof *starts);
    const int64_t count = starts == NULL ? 0 : folder_starts(&names, starts);
    if (starts == NULL)
        PyErr_NoMemory();
    else if (count < 0)
        outside();
    else
        result = PyBytes_FromStringAndSize((const char *)starts, (Py_ssize_t)((size_t)count * sizeof *starts));
    PyMem_Free(starts);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&blob);
    return result;
}

/* The names of some files, each followed by a slash, as one text; NULL with an exception. */
static PyObject *joined_names(const folder_file *files, size_t count)
{
    size_t room = 1;
    for (size_t at = 0; at < count; at++)
        room += files[at].name.length + 1;
    char *text = PyMem_Malloc(room), *to = text;
    if (text == NULL)
        return PyErr_NoMemory();
    for (size_t at = 0; at < count; at++) {
        memcpy(to, files[at].name.bytes, files[at].name.length);
        to += files[at].name.length;
        *to++ = '/';
    }
    PyObject *names = PyUnicode_DecodeUTF8(text, to - text, "strict");
    PyMem_Free(text);
    return names;
}

static PyObject *rows_of(const folder_file *files, size_t count)
{
    PyObject *rows = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * sizeof files->row));
    char *to = rows == NULL ? NULL : PyBytes_AsString(rows);
    for (size_t at = 0; to != NULL && at < count; at++, to += sizeof files->row)
        memcpy(to, &files[at].row, sizeof files->row);
    return rows;
}

/* The names in a folder of some rows, in `files`; 0 if there is no such row. cut: the bytes of each path before its name. */
static int take_files(const StringColumn *names, const Py_buffer *rows, int64_t cut, folder_file *files)
{
    for (Py_ssize_t at = 0; at < rows->len / (Py_ssize_t)sizeof(int64_t); at++) {
        const int64_t row = number_at(rows->buf, at);
        String name;
        if (!string_at(names, row, &name) || cut < 0 || (size_t)cut > name.length)
            return 0;
        files[at] = (folder_file){{name.bytes + cut, name.length - (size_t)cut}, row};
    }
    return 1;
}

/* (names of images, their rows, the rows of all others); None where the names are not UTF-8 or not distinct. */
static PyObject *found_images(folder_file *files, size_t count, const char *wanted, size_t length)
{
    const int64_t images = sort_images(files, count, wanted, length);
    if (images < 0)
        Py_RETURN_NONE;
    PyObject *names = joined_names(files, (size_t)images);
    if (names == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    if (names == NULL)
        return NULL;
    PyObject *rows = rows_of(files, (size_t)images), *others = rows_of(files + images, count - (size_t)images),
             *result = NULL;
    if (rows != NULL && others != NULL)
        result = PyTuple_Pack(3, names, rows, others);
    Py_DECREF(names);
    Py_XDECREF(rows);
    Py_XDECREF(others);
    return result;
}

PyDoc_STRVAR(images_doc,
             "images(blob, offsets, rows, cut, wanted)\n--\n\n"
             "Of the files of one folder, the rows `rows` (int64) of a column of paths: (the names of those with an\n"
             "extension in `wanted` that are not hidden, sorted, each followed by a slash; their rows; the rows of\n"
             "all others, in any order). cut: the bytes of the paths before the names. wanted: extensions, each\n"
             "followed by a NUL. None if the name of such a file is not UTF-8, or two have the same name.");

static PyObject *images(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer blob, offsets, rows;
    const char *wanted;
    Py_ssize_t length;
    long long cut;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*Ly#", &blob, &offsets, &rows, &cut, &wanted, &length))
        return NULL;
    const StringColumn names = string_column(blob.buf, blob.len, offsets.buf, offsets.len);
    const size_t count = (size_t)rows.len / sizeof(int64_t);
    folder_file *files = PyMem_Malloc((count + 1) * sizeof *files);
    if (files == NULL)
        PyErr_NoMemory();
    else if (length == 0 || wanted[length - 1] != 0)
        PyErr_SetString(PyExc_ValueError, "extensions, each followed by a NUL, are expected");
    else if (!take_files(&names, &rows, cut, files))
        outside();
    else
        result = found_images(files, count, wanted, (size_t)length);
    PyMem_Free(files);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&blob);
    return result;
}

static PyMethodDef METHODS[] = {{"tar", tar, METH_VARARGS, tar_doc},
                                {"zip", zip, METH_VARARGS, zip_doc},
                                {"folders", folders, METH_VARARGS, folders_doc},
                                {"images", images, METH_VARARGS, images_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "archives", PART_SOURCES, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_archives(void)
{
    return PyModule_Create(&MODULE);
}
