/* Sums a shard in one pass, as fast as it can be read: each byte is read once and summed once, without the GIL. See
 * formats/tar/fast_check.py, which defines the parts.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "include/crc32c.h"
#include "include/part.h"

enum { WINDOW = 1 << 19, SMALL = 1 << 14 }; /* a window stays in the core's cache from the read to the sum */

typedef struct {
    const int64_t *cuts; /* count + 1, ascending */
    Py_ssize_t count;
    uint32_t *sums;
    uint8_t *kept;
    uint32_t whole; /* of all finished parts */
} Parts;

/* The CRC-32C of A + B, from those of A and B and B's length. */
static uint32_t joined(uint32_t first, uint32_t second, int64_t length)
{
    for (int power = 0; length; power++, length >>= 1) {
        if (power == CRC32C_POWERS - 1) { /* longer than any image */
            for (; length; length--)
                first = crc32c_shifted(first, power);
            break;
        }
        if (length & 1)
            first = crc32c_shifted(first, power);
    }
    return first ^ second;
}

/* The number of bytes read from cuts[0] on: fewer than up to the last cut if the file ends before. -1: see errno. */
static int64_t sum_file(int fd, Parts *parts, uint8_t *window)
{
    int64_t at = parts->cuts[0], end = parts->cuts[parts->count];
    uint8_t *kept = parts->kept;
    Py_ssize_t part = 0;
    while (at < end) {
        ssize_t more = pread(fd, window, end - at < WINDOW ? (size_t)(end - at) : WINDOW, (off_t)at);
        if (more < 0 && errno == EINTR)
            continue;
        if (more < 0)
            return -1;
        if (more == 0)
            break;
        for (int64_t done = 0; done < more;) {
            while (parts->cuts[part + 1] <= at + done)
                part++; /* empty parts too */
            int64_t rest = parts->cuts[part + 1] - (at + done);
            int64_t length = rest < more - done ? rest : more - done;
            parts->sums[part] = crc32c(parts->sums[part], window + done, (size_t)length);
            if (part % 2 == 0) {
                memcpy(kept, window + done, (size_t)length);
                kept += length;
            }
            done += length;
            if (length == rest)
                parts->whole = joined(parts->whole, parts->sums[part], parts->cuts[part + 1] - parts->cuts[part]);
        }
        at += more;
    }
    return at - parts->cuts[0];
}

/* Whether the cuts ascend from 0 or more, and the even parts have at most `room` bytes. */
static int good_cuts(const int64_t *cuts, Py_ssize_t count, Py_ssize_t room)
{
    int64_t left = room;
    if (cuts[0] < 0)
        return 0;
    for (Py_ssize_t part = 0; part < count; part++) {
        if (cuts[part + 1] < cuts[part])
            return 0;
        if (part % 2 == 0 && (left -= cuts[part + 1] - cuts[part]) < 0)
            return 0;
    }
    return 1;
}

PyDoc_STRVAR(sum_parts_doc,
             "sum_parts(fd, cuts, sums, kept)\n\n"
             "CRC-32C of each part of a file, into sums (uint32, initially 0); the parts are between the cuts (int64,\n"
             "one more). The bytes of the parts 0, 2, 4 … are appended to kept. Returns the number of bytes read,\n"
             "fewer than from the first cut to the last if the file ends before, and the CRC-32C of all.\n"
             "Raises OSError.");

static PyObject *sum_parts(PyObject *self, PyObject *args)
{
    (void)self;
    int fd;
    Py_buffer cuts, sums, kept;
    if (!PyArg_ParseTuple(args, "iy*w*w*", &fd, &cuts, &sums, &kept))
        return NULL;
    Py_ssize_t count = cuts.len / (Py_ssize_t)sizeof(int64_t) - 1;
    PyObject *result = NULL;
    uint8_t *window = NULL;
    if (count < 0 || sums.len < count * (Py_ssize_t)sizeof(uint32_t) || !good_cuts(cuts.buf, count, kept.len)) {
        PyErr_SetString(PyExc_ValueError, "the cuts do not ascend, or sums or kept is too small");
        goto end;
    }
    window = malloc(WINDOW);
    if (window == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    Parts parts = {cuts.buf, count, sums.buf, kept.buf, 0};
    int64_t length;
    Py_BEGIN_ALLOW_THREADS;
    length = sum_file(fd, &parts, window);
    Py_END_ALLOW_THREADS;
    result = length < 0 ? PyErr_SetFromErrno(PyExc_OSError)
                        : Py_BuildValue("LI", (long long)length, (unsigned int)parts.whole);
end:
    free(window);
    PyBuffer_Release(&cuts);
    PyBuffer_Release(&sums);
    PyBuffer_Release(&kept);
    return result;
}

PyDoc_STRVAR(sum_bytes_doc, "sum_bytes(data, start, end)\n\nThe CRC-32C of the bytes from start to end.");

static PyObject *sum_bytes(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer data;
    Py_ssize_t start, end;
    if (!PyArg_ParseTuple(args, "y*nn", &data, &start, &end))
        return NULL;
    uint32_t crc = 0;
    int good = start >= 0 && start <= end && end <= data.len;
    if (!good) {
        PyErr_SetString(PyExc_ValueError, "start and end are not within the data");
    } else if (end - start < SMALL) { /* releasing the GIL would take longer */
        crc = crc32c(0, (const uint8_t *)data.buf + start, (size_t)(end - start));
    } else {
        Py_BEGIN_ALLOW_THREADS;
        crc = crc32c(0, (const uint8_t *)data.buf + start, (size_t)(end - start));
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&data);
    return good ? PyLong_FromUnsignedLong(crc) : NULL;
}

static PyMethodDef METHODS[] = {{"sum_parts", sum_parts, METH_VARARGS, sum_parts_doc},
                                {"sum_bytes", sum_bytes, METH_VARARGS, sum_bytes_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "sums", PART_SOURCES, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_sums(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    if (module != NULL && PyModule_AddIntConstant(module, "available", crc32c_setup()) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
