/* The module: a run of PNGs straight into the slots of a batch, without the interpreter's lock.
 *
 *   png.c           this file: the module
 *   batch.h         the batch, for decoders of every format
 *   png_decoder.h   one image: its colours, and what has to be decoded
 *   png_chunks.h    its header, palette and so on
 *   png_rows.h      its rows, with png_inflate.h and png_codes.h (zlib data to bytes) and png_filters.h
 *   jpeg_view.h     a box of the image into a slot, row by row; with jpeg_resize.h, jpeg_precise.h and jpeg_finish.h,
 *                   which know nothing of formats
 *
 * It needs no library. The parts are headers with static functions, so that all is one unit for the compiler.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "png_decoder.h"
#include "jpeg_finish.h"
#include "batch.h"

static PyMethodDef methods[] = {
    {"decode_batch", py_decode_batch, METH_VARARGS, decode_batch_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "png",      .m_doc = "A fused PNG decoder; see images/fused.py.",
    .m_size = -1,          .m_methods = methods, .m_free = free_module,
};

PyMODINIT_FUNC PyInit_png(void)
{
    fill_entries();
    fill_crc_table();
    return PyModule_Create(&definition);
}
