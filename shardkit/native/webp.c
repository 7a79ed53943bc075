/* The module: a run of WebPs straight into the slots of a batch, without the interpreter's lock.
 *
 *   webp.c            this file: the module
 *   pixels/batch.h    the batch, for decoders of every format
 *   webp_decoder.h    one image: its chunks, and libwebp around what has to be decoded
 *   pixels/view.h     a box of the image into a slot, row by row; with resize.h, precise.h and finish.h beside it, which
 *                     know nothing of formats
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/webp_decoder.h"
#include "include/pixels/finish.h"
#include "include/pixels/batch.h"
#include "include/part.h"

static PyMethodDef methods[] = {
    {"decode_batch", py_decode_batch, METH_VARARGS, decode_batch_doc},
    {"allow_vectors", py_allow_vectors, METH_O, allow_vectors_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "webp",     .m_doc = PART_SOURCES,
    .m_size = -1,          .m_methods = methods, .m_free = free_module,
};

PyMODINIT_FUNC PyInit_webp(void)
{
    const int version = WebPGetDecoderVersion();
    char text[16];
    PyObject *module = PyModule_Create(&definition);
    PyOS_snprintf(text, sizeof text, "%d.%d.%d", version >> 16 & 0xFF, version >> 8 & 0xFF, version & 0xFF);
    if (module != NULL && PyModule_AddStringConstant(module, "libwebp", text) < 0)
        Py_CLEAR(module);
    return module;
}
