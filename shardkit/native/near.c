/* Pairs of 64-bit hashes that differ in few bits (images/quality/near.py): without the interpreter's lock.
 *
 * Multi-index hashing (Norouzi, Punjani and Fleet 2012): a hash is four chunks of 16 bits. Two hashes that differ in up to
 * 11 bits differ in at most 2 in some chunk, so that only hashes whose chunk is equal, or equal but for one or two bits,
 * are compared as a whole: of random ones, one in 120. Of those that differ in more bits some are not found.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/near_pairs.h"
#include "include/part.h"

PyDoc_STRVAR(pairs_doc,
             "pairs(first, second, radius, most)\n--\n\n"
             "Pairs of hashes (native uint64) that differ in at most `radius` bits: their numbers, each pair two\n"
             "native int32. second: None to compare `first` with itself, each pair once. None for more than\n"
             "`most` pairs. The GIL is released.");

static PyObject *py_pairs(PyObject *module, PyObject *args)
{
    Py_buffer first, second = {0};
    PyObject *other, *result = NULL;
    int radius, done;
    Py_ssize_t most;
    pair_list found = {0};
    (void)module;
    if (!PyArg_ParseTuple(args, "y*Oin", &first, &other, &radius, &most))
        return NULL;
    if (other != Py_None && PyObject_GetBuffer(other, &second, PyBUF_SIMPLE) < 0) {
        PyBuffer_Release(&first);
        return NULL;
    }
    found.most = most < 0 ? 0 : (size_t)most;
    if (first.len / 8 > INT32_MAX || second.len / 8 > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "too many hashes");
    } else {
        const hash_list a = {first.buf, (uint32_t)(first.len / 8)}, b = {second.buf, (uint32_t)(second.len / 8)};
        Py_BEGIN_ALLOW_THREADS
        done = find_pairs(&a, other == Py_None ? NULL : &b, radius, &found);
        Py_END_ALLOW_THREADS
        if (done == PAIRS_FOUND) {
            result = PyBytes_FromStringAndSize((const char *)found.at, (Py_ssize_t)(found.count * sizeof *found.at));
        } else if (done == PAIRS_TOO_MANY) {
            Py_INCREF(Py_None);
            result = Py_None;
        } else {
            PyErr_NoMemory();
        }
    }
    free(found.at);
    if (other != Py_None)
        PyBuffer_Release(&second);
    PyBuffer_Release(&first);
    return result;
}

static PyMethodDef methods[] = {
    {"pairs", py_pairs, METH_VARARGS, pairs_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "near", .m_doc = PART_SOURCES, .m_size = 0, .m_methods = methods,
};

PyMODINIT_FUNC PyInit_near(void)
{
    return PyModule_Create(&definition);
}
