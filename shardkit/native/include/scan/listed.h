/* The names in a folder as Python objects. Included by tree.c and gather.c. */
#ifndef SHARDKIT_LISTED_H
#define SHARDKIT_LISTED_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "folder_names.h"

/* Whether these are extensions, each followed by a NUL; 0 with an exception. */
static int are_extensions(const char *text, Py_ssize_t length)
{
    if (length > 0 && text[length - 1] == 0)
        return 1;
    PyErr_SetString(PyExc_ValueError, "extensions, each followed by a NUL, are expected");
    return 0;
}

/* The names of images, each followed by a slash, as one text; NULL with an exception. */
static PyObject *listed_images(const Names *found)
{
    char *text = PyMem_Malloc(found->used + 1), *to = text;
    if (text == NULL)
        return PyErr_NoMemory();
    for (size_t i = 0; i < found->count; i++) {
        if (found->names[i].size < 0)
            continue;
        const char *name = found->text + found->names[i].at;
        const size_t length = strlen(name);
        memcpy(to, name, length);
        to += length;
        *to++ = '/';
    }
    PyObject *names = PyUnicode_DecodeUTF8(text, to - text, "strict");
    PyMem_Free(text);
    return names;
}

/* Their sizes, as int64 in bytes, and the names of all else in a list. 0 with an exception. */
static int listed_rest(const Names *found, PyObject **sizes, PyObject **others)
{
    Py_ssize_t images = 0;
    for (size_t i = 0; i < found->count; i++)
        images += found->names[i].size >= 0;
    *sizes = PyBytes_FromStringAndSize(NULL, images * (Py_ssize_t)sizeof(int64_t));
    *others = PyList_New(0);
    if (*sizes == NULL || *others == NULL)
        return 0;
    char *to = PyBytes_AsString(*sizes);
    for (size_t i = 0; i < found->count; i++) {
        if (found->names[i].size >= 0) {
            memcpy(to, &found->names[i].size, sizeof(int64_t));
            to += sizeof(int64_t);
            continue;
        }
        PyObject *name = PyUnicode_DecodeFSDefault(found->text + found->names[i].at);
        const int failed = name == NULL ? -1 : PyList_Append(*others, name);
        Py_XDECREF(name);
        if (failed < 0)
            return 0;
    }
    return 1;
}

/* (names of images, their sizes, the names of all other entries), in their order; None if the name of an image is not
 * UTF-8. */
static PyObject *listed_names(const Names *found)
{
    PyObject *images = listed_images(found), *sizes = NULL, *others = NULL, *result = NULL;
    if (images == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        return Py_NewRef(Py_None);
    }
    if (images != NULL && listed_rest(found, &sizes, &others))
        result = PyTuple_Pack(3, images, sizes, others);
    Py_XDECREF(images);
    Py_XDECREF(sizes);
    Py_XDECREF(others);
    return result;
}

#endif
