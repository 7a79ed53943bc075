/* The module: a run of PNGs straight into the slots of a batch, without the interpreter's lock.
 *
 *   png.c             this file: the module
 *   pixels/batch.h    the batch, for decoders of every format
 *   png/decoder.h     one image: its colours, and what has to be decoded
 *   png/chunks.h      its header, palette and so on
 *   png/rows.h        its rows, with png/inflate.h and png/codes.h (zlib data to bytes) and png/filters.h
 *   pixels/view.h     a box of the image into a slot, row by row; with resize.h, precise.h and finish.h beside it, which
 *                     know nothing of formats
 *
 * It needs no library. The parts are headers with static functions, so that all is one unit for the compiler.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/png/decoder.h"
#include "include/pixels/finish.h"
#include "include/pixels/batch.h"
#include "include/part.h"

static PyMethodDef methods[] = {
    {"decode_batch", py_decode_batch, METH_VARARGS, decode_batch_doc},
    {"allow_vectors", py_allow_vectors, METH_O, allow_vectors_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "png",      .m_doc = PART_SOURCES,
    .m_size = -1,          .m_methods = methods, .m_free = free_module,
};

PyMODINIT_FUNC PyInit_png(void)
{
    fill_entries();
    crc32_setup();
    return PyModule_Create(&definition);
}
