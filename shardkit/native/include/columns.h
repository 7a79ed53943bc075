/* Columns of numbers and lists of buffers, as Python hands them over. Included by samples.c and lookup.c. */
#ifndef SHARDKIT_COLUMNS_H
#define SHARDKIT_COLUMNS_H

#include <stdint.h>
#include <string.h>

/* A column of numbers: any contiguous buffer, read as int64 in native byte order. */
typedef struct {
    Py_buffer view;
    Py_ssize_t count;
} Column;

static int take_column(PyObject *object, Column *column)
{
    if (PyObject_GetBuffer(object, &column->view, PyBUF_SIMPLE) < 0)
        return 0;
    column->count = column->view.len / (Py_ssize_t)sizeof(int64_t);
    return 1;
}

static void release(Column *column)
{
    if (column->view.obj != NULL)
        PyBuffer_Release(&column->view);
}

static inline int64_t at(const Column *column, Py_ssize_t number)
{
    int64_t value;
    memcpy(&value, (const char *)column->view.buf + number * (Py_ssize_t)sizeof value, sizeof value);
    return value;
}

/* Views of all buffers of a sequence. The tuple keeps them alive. */
typedef struct {
    PyObject *items;
    Py_buffer *views;
    Py_ssize_t count;
} Buffers;

static void release_buffers(Buffers *buffers)
{
    for (Py_ssize_t i = 0; i < buffers->count; i++)
        PyBuffer_Release(&buffers->views[i]);
    PyMem_Free(buffers->views);
    Py_XDECREF(buffers->items);
}

static int take_buffers(PyObject *sequence, Buffers *buffers)
{
    buffers->items = PySequence_Tuple(sequence);
    if (buffers->items == NULL)
        return 0;
    const Py_ssize_t count = PyTuple_Size(buffers->items);
    buffers->views = PyMem_Calloc((size_t)count + 1, sizeof *buffers->views);
    if (buffers->views == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    for (; buffers->count < count; buffers->count++) {
        PyObject *item = PyTuple_GetItem(buffers->items, buffers->count);
        if (item == NULL || PyObject_GetBuffer(item, &buffers->views[buffers->count], PyBUF_SIMPLE) < 0)
            return 0;
    }
    return 1;
}

#endif
