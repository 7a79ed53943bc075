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

typedef struct {
    const char *text;
    int64_t size;
} listed_name;

static int by_listed_name(const void *left, const void *right)
{
    return strcmp(((const listed_name *)left)->text, ((const listed_name *)right)->text);
}

static int put_listed(PyObject *dict, PyObject *list, const listed_name *each)
{
    PyObject *name = each->size < 0 ? PyUnicode_DecodeFSDefault(each->text)
                                    : PyUnicode_DecodeUTF8(each->text, (Py_ssize_t)strlen(each->text), "strict");
    if (name == NULL)
        return -1;
    int failed;
    if (each->size < 0) {
        failed = PyList_Append(list, name);
    } else {
        PyObject *number = PyLong_FromLongLong(each->size);
        failed = number == NULL ? -1 : PyDict_SetItem(dict, name, number);
        Py_XDECREF(number);
    }
    Py_DECREF(name);
    return failed;
}

/* (name -> bytes of each image, the names of all other entries), in the order of their bytes; None if the name of an
 * image is not UTF-8. */
static PyObject *listed_names(const Names *found)
{
    PyObject *sizes = PyDict_New(), *others = PyList_New(0), *result = NULL;
    listed_name *sorted = PyMem_Malloc((found->count + 1) * sizeof *sorted);
    if (sizes == NULL || others == NULL || sorted == NULL) {
        if (sorted == NULL)
            PyErr_NoMemory();
        goto end;
    }
    for (size_t i = 0; i < found->count; i++)
        sorted[i] = (listed_name){found->text + found->names[i].at, found->names[i].size};
    qsort(sorted, found->count, sizeof *sorted, by_listed_name);
    for (size_t i = 0; i < found->count; i++) {
        if (put_listed(sizes, others, sorted + i) < 0) {
            if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
                PyErr_Clear();
                result = Py_NewRef(Py_None);
            }
            goto end;
        }
    }
    result = PyTuple_Pack(2, sizes, others);
end:
    PyMem_Free(sorted);
    Py_XDECREF(sizes);
    Py_XDECREF(others);
    return result;
}

#endif
