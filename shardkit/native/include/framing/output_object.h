/* The output file of a shard for Python (framing.c): output.h with Python's objects. */
#ifndef SHARDKIT_FRAMING_OUTPUT_OBJECT_H
#define SHARDKIT_FRAMING_OUTPUT_OBJECT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "output.h"

enum { APART = 1 << 15 }; /* data from this size on is not copied into a block */

typedef struct {
    PyObject_HEAD output out;
} Output;

/* Empty the blocks that were written, and let go of what was inserted there. */
static void release_written(output *out, uint64_t written)
{
    for (; out->released < written; out->released++) {
        block *done = out->blocks + out->released % BLOCKS;
        while (done->count)
            Py_DECREF((PyObject *)done->insertions[--done->count].owner);
        done->length = done->size = 0;
    }
}

/* Wait as output_has_room does, for any time. 1: done. 0: writing failed before. -1: an exception, such as Ctrl-C. */
static int await_room(output *out, int all)
{
    int room = 0;
    output_check_process(out);
    while (!room) {
        Py_BEGIN_ALLOW_THREADS;
        room = output_has_room(out, all);
        Py_END_ALLOW_THREADS;
        if (!room && PyErr_CheckSignals() < 0)
            return -1;
    }
    return output_failed(out) == 0;
}

/* Make the block to fill empty. Returns as await_room. */
static int output_ready(output *out)
{
    while (!out->ready) { /* another thread may have filled it meanwhile */
        const int went = await_room(out, 0);
        if (went != 1)
            return went;
        pthread_mutex_lock(&out->lock);
        const uint64_t written = out->written;
        pthread_mutex_unlock(&out->lock);
        release_written(out, written);
        out->ready = out->given - written < BLOCKS;
    }
    return 1;
}

/* Room for `size` more bytes and `insertions` in a block. NULL: no memory. */
static uint8_t *block_room(block *to, size_t size, size_t insertions)
{
    if (!grow((void **)&to->bytes, &to->room, to->length + size > BLOCK_BYTES ? to->length + size : BLOCK_BYTES, 1) ||
        !grow((void **)&to->insertions, &to->insertion_room, to->count + insertions, sizeof(insertion)))
        return NULL;
    return to->bytes + to->length;
}

/* Insert the bytes of a bytes object before byte `at`. There must be room. */
static void insert_bytes(block *to, size_t at, PyObject *owner)
{
    const size_t size = (size_t)PyBytes_Size(owner);
    Py_INCREF(owner);
    to->insertions[to->count++] = (insertion){at, (const uint8_t *)PyBytes_AsString(owner), size, owner};
}

/* Put a piece into a block. Returns as await_room. */
static int put_piece(output *out, PyObject *piece)
{
    const int went = output_ready(out);
    if (went != 1)
        return went;
    block *to = output_filling(out);
    const size_t size = (size_t)PyBytes_Size(piece);
    uint8_t *at = block_room(to, size < APART ? size : 0, 1);
    if (at == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (size >= APART) {
        insert_bytes(to, to->length, piece);
    } else {
        memcpy(at, PyBytes_AsString(piece), size);
        to->length += size;
    }
    to->size += size;
    if (to->size >= BLOCK_BYTES)
        output_give(out, 0);
    return 1;
}

static PyObject *raise_failed(output *out)
{
    errno = output_failed(out);
    return PyErr_SetFromErrno(PyExc_OSError);
}

PyDoc_STRVAR(output_write_doc, "write(pieces)\n--\n\n"
                               "Write a tuple of bytes. OSError, here or later, if the file can't be written.");

static PyObject *output_write(Output *self, PyObject *pieces)
{
    if (!PyTuple_Check(pieces)) {
        PyErr_SetString(PyExc_TypeError, "the pieces are not a tuple");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_Size(pieces); i++) {
        PyObject *piece = PyTuple_GetItem(pieces, i);
        if (!PyBytes_Check(piece)) {
            PyErr_SetString(PyExc_TypeError, "a piece is not bytes");
            return NULL;
        }
        const int went = put_piece(&self->out, piece);
        if (went < 0)
            return NULL;
        if (went == 0)
            return raise_failed(&self->out);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(output_end_doc, "end()\n--\n\n"
                             "Wait until everything is written. Returns (bytes, CRC-32C). OSError if that failed.");

static PyObject *output_end(Output *self, PyObject *nothing)
{
    (void)nothing;
    output *out = &self->out;
    int went = output_ready(out);
    if (went == 1) {
        Py_BEGIN_ALLOW_THREADS;
        output_give(out, 1);
        Py_END_ALLOW_THREADS;
        went = await_room(out, 1);
    }
    if (went == 1) {
        Py_BEGIN_ALLOW_THREADS;
        output_join(out);
        Py_END_ALLOW_THREADS;
    }
    if (went < 0)
        return NULL;
    if (went == 0)
        return raise_failed(out);
    release_written(out, out->given);
    return Py_BuildValue("LI", (long long)out->length, (unsigned int)out->crc);
}

PyDoc_STRVAR(output_abort_doc, "abort()\n--\n\nWrite nothing more; the file may be closed then.");

static PyObject *output_abort(Output *self, PyObject *nothing)
{
    (void)nothing;
    Py_BEGIN_ALLOW_THREADS;
    output_stop(&self->out);
    Py_END_ALLOW_THREADS;
    Py_RETURN_NONE;
}

static PyObject *output_new(PyTypeObject *type, PyObject *args, PyObject *names)
{
    int fd;
    if (names != NULL && PyDict_Size(names) > 0) {
        PyErr_SetString(PyExc_TypeError, "Output takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "i", &fd))
        return NULL;
    Output *self = (Output *)PyType_GenericAlloc(type, 0);
    if (self != NULL)
        output_start(&self->out, fd);
    return (PyObject *)self;
}

static void output_dealloc(Output *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_BEGIN_ALLOW_THREADS;
    output_stop(&self->out);
    Py_END_ALLOW_THREADS;
    release_written(&self->out, self->out.given + 1); /* and the one being filled */
    output_free(&self->out);
    PyObject_Free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(output_doc, "Output(fd)\n--\n\n"
                         "A file that a thread writes. The descriptor must stay open until `end` or `abort` returns.");

static PyMethodDef OUTPUT_METHODS[] = {{"write", (PyCFunction)output_write, METH_O, output_write_doc},
                                       {"end", (PyCFunction)output_end, METH_NOARGS, output_end_doc},
                                       {"abort", (PyCFunction)output_abort, METH_NOARGS, output_abort_doc},
                                       {NULL, NULL, 0, NULL}};

static PyType_Slot OUTPUT_SLOTS[] = {{Py_tp_doc, (void *)output_doc},
                                     {Py_tp_new, output_new},
                                     {Py_tp_dealloc, output_dealloc},
                                     {Py_tp_methods, OUTPUT_METHODS},
                                     {0, NULL}};

static PyType_Spec OUTPUT_SPEC = {"shardkit.native.framing.Output", sizeof(Output), 0, Py_TPFLAGS_DEFAULT,
                                  OUTPUT_SLOTS};

static PyTypeObject *output_type;

#endif
