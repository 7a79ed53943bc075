/* The CRC-32C of bytes, and which of many buffers have a wrong one. See checksums.py.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/crc32c.h"
#include "include/part.h"

enum { SMALL = 1 << 14 }; /* for less, releasing the GIL takes longer than the sum */

PyDoc_STRVAR(crc32c_doc, "crc32c(data, before=0)\n--\n\n"
                         "The CRC-32C of bytes that continue with `data` after a beginning whose CRC-32C is `before`.");

static PyObject *py_crc32c(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer data;
    unsigned int before = 0;
    if (!PyArg_ParseTuple(args, "y*|I", &data, &before))
        return NULL;
    uint32_t crc = before;
    if (data.len < SMALL) {
        crc = crc32c(crc, data.buf, (size_t)data.len);
    } else {
        Py_BEGIN_ALLOW_THREADS;
        crc = crc32c(crc, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(crc);
}

static PyObject *indices(const uint8_t *wrong, Py_ssize_t count)
{
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < count; i++) {
        if (!wrong[i])
            continue;
        PyObject *number = PyLong_FromSsize_t(i);
        if (number == NULL || PyList_Append(found, number) < 0)
            Py_CLEAR(found);
        Py_XDECREF(number);
    }
    return found;
}

PyDoc_STRVAR(
    differing_doc,
    "differing(datas, sums)\n--\n\n"
    "The positions of those in `datas`, a sequence of bytes-like objects, whose CRC-32C differs from that in `sums`\n"
    "(uint32, as many). None is skipped. The GIL is released.");

static PyObject *py_differing(PyObject *self, PyObject *args)
{
    (void)self;
    PyObject *datas, *items = NULL, *found = NULL;
    Py_buffer sums, *views = NULL;
    uint8_t *wrong = NULL;
    Py_ssize_t count = 0, held = 0;
    if (!PyArg_ParseTuple(args, "Oy*", &datas, &sums))
        return NULL;
    if ((items = PySequence_Tuple(datas)) == NULL)
        goto end;
    count = PyTuple_Size(items);
    if (sums.len != count * (Py_ssize_t)sizeof(uint32_t)) {
        PyErr_SetString(PyExc_ValueError, "the numbers of sums and datas differ");
        goto end;
    }
    views = PyMem_Calloc((size_t)count + 1, sizeof *views);
    wrong = PyMem_Calloc((size_t)count + 1, 1);
    if (views == NULL || wrong == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    for (; held < count; held++) {
        PyObject *data = PyTuple_GetItem(items, held);
        if (data != Py_None && PyObject_GetBuffer(data, &views[held], PyBUF_SIMPLE) < 0)
            goto end;
    }
    Py_BEGIN_ALLOW_THREADS;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t sum;
        if (views[i].obj == NULL)
            continue;
        memcpy(&sum, (const uint8_t *)sums.buf + i * (Py_ssize_t)sizeof sum, sizeof sum);
        wrong[i] = crc32c(0, views[i].buf, (size_t)views[i].len) != sum;
    }
    Py_END_ALLOW_THREADS;
    found = indices(wrong, count);
end:
    for (Py_ssize_t i = 0; i < held; i++)
        if (views[i].obj != NULL)
            PyBuffer_Release(&views[i]);
    PyMem_Free(views);
    PyMem_Free(wrong);
    Py_XDECREF(items);
    PyBuffer_Release(&sums);
    return found;
}

static PyMethodDef METHODS[] = {{"crc32c", py_crc32c, METH_VARARGS, crc32c_doc},
                                {"differing", py_differing, METH_VARARGS, differing_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "checksums", PART_SOURCES, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_checksums(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    if (module != NULL && PyModule_AddIntConstant(module, "available", crc32c_setup()) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
