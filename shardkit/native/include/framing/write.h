/* Writing of what was framed (framing.c). */
#ifndef SHARDKIT_FRAMING_WRITE_H
#define SHARDKIT_FRAMING_WRITE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/uio.h>

#include "../crc32c.h"

enum { MOST_PIECES = 512 }; /* in one call: well under every system's IOV_MAX */

/* Write everything, and ask the kernel to begin with the disk, so that a flush at the end waits less. -1: see errno. */
static int write_whole(int fd, struct iovec *pieces, int count)
{
    while (count > 0) {
        ssize_t done = writev(fd, pieces, count < MOST_PIECES ? count : MOST_PIECES);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        for (; count > 0 && (size_t)done >= pieces->iov_len; pieces++, count--)
            done -= (ssize_t)pieces->iov_len;
        if (count > 0) {
            pieces->iov_base = (uint8_t *)pieces->iov_base + done;
            pieces->iov_len -= (size_t)done;
        }
    }
#ifdef SYNC_FILE_RANGE_WRITE
    (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
#endif
    return 0;
}

PyDoc_STRVAR(write_pieces_doc,
             "write_pieces(fd, pieces, crc)\n--\n\n"
             "Write a list of bytes to a file. Returns the CRC-32C of bytes with this CRC-32C and the\n"
             "pieces after them. The GIL is released once for all of it. Raises OSError.");

static PyObject *write_pieces(PyObject *self, PyObject *args)
{
    (void)self;
    int fd, failed = 0;
    unsigned int crc;
    PyObject *list;
    if (!PyArg_ParseTuple(args, "iO!I", &fd, &PyList_Type, &list, &crc))
        return NULL;
    PyObject *held = PyList_AsTuple(list); /* keeps the pieces alive whatever happens to the list */
    if (held == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_Size(held);
    struct iovec *pieces = count < INT_MAX ? PyMem_Calloc((size_t)count + 1, sizeof *pieces) : NULL;
    if (pieces == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; pieces != NULL && i < count && !failed; i++) {
        PyObject *piece = PyTuple_GetItem(held, i);
        pieces[i].iov_base = PyBytes_AsString(piece); /* TypeError for other types */
        failed = pieces[i].iov_base == NULL;
        pieces[i].iov_len = failed ? 0 : (size_t)PyBytes_Size(piece);
    }
    if (pieces != NULL && !failed) {
        Py_BEGIN_ALLOW_THREADS;
        for (Py_ssize_t i = 0; i < count; i++)
            crc = crc32c(crc, pieces[i].iov_base, pieces[i].iov_len);
        failed = write_whole(fd, pieces, (int)count) < 0;
        Py_END_ALLOW_THREADS;
        if (failed)
            PyErr_SetFromErrno(PyExc_OSError);
    }
    PyMem_Free(pieces);
    Py_DECREF(held);
    return PyErr_Occurred() ? NULL : PyLong_FromUnsignedLong(crc);
}

#endif
