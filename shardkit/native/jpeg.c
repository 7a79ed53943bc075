/* The module: a run of JPEGs straight into the slots of a batch, without the interpreter's lock.
 *
 *   jpeg.c            this file: the module
 *   pixels/batch.h    the batch, for decoders of every format
 *   jpeg/decoder.h    one image: header, what has to be decoded, libjpeg-turbo around it
 *   jpeg/huffman.h    the entropy-coded data to coefficients, in libjpeg's place
 *   jpeg/seek.h       places where that may enter the data, and their bytes in an index
 *   jpeg/points.h     finds them
 *   jpeg/quality.h    a perceptual hash and the like of one image, for an index
 *   jpeg/skip.h       steps over a scan whose DC values alone are wanted
 *   pixels/quality.h  the hash and the like of a small gray picture
 *   pixels/view.h     a box of the image into a slot, row by row; several of them take their rows from one decode
 *   pixels/resize.h   boxes, and the resize with weights that are not negative
 *   pixels/precise.h  the resize with signed weights, and Pillow's to the bit
 *   pixels/best.h     the inner loops of both with longer vectors: pixels/avx2.h, pixels/vnni.h
 *   pixels/finish.h   the slot's values: padding, number type, layout
 *
 * The parts are headers with static functions, so that all is one unit for the compiler. docs/jpeg-decoder.md has the
 * whole story, with the private parts of libjpeg that this relies on.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/jpeg/decoder.h"
#include "include/pixels/finish.h"
#include "include/jpeg/points.h"
#include "include/jpeg/quality.h"
#include "include/pixels/batch.h"
#include "include/part.h"

PyDoc_STRVAR(
    seek_points_doc,
    "seek_points(data, crc, room, max_pixels, max_scans)\n--\n\n"
    "The seek points of a JPEG whose CRC-32C is crc, in at most `room` bytes; b\"\" if it has none. The GIL is\n"
    "released.");

static PyObject *py_seek_points(PyObject *module, PyObject *args)
{
    Py_buffer data;
    unsigned crc;
    Py_ssize_t room;
    settings set = {0};
    PyObject *result = NULL;
    decoder *self;
    unsigned char *out;
    size_t bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*Indi", &data, &crc, &room, &set.max_pixels, &set.max_scans))
        return NULL;
    room = room < 0 ? 0 : room < SEEK_BYTES ? room : SEEK_BYTES;
    self = take_decoder();
    out = PyMem_Malloc((size_t)room + 1);
    if (self == NULL || out == NULL) {
        PyErr_NoMemory();
    } else {
        Py_BEGIN_ALLOW_THREADS
        bytes = find_points(self, data.buf, (size_t)data.len, crc, &set, out, (size_t)room);
        Py_END_ALLOW_THREADS
        result = PyBytes_FromStringAndSize((const char *)out, (Py_ssize_t)bytes);
    }
    if (self != NULL)
        give_back(self);
    PyMem_Free(out);
    PyBuffer_Release(&data);
    return result;
}

PyDoc_STRVAR(
    quality_doc,
    "quality(data, orientation, max_pixels, max_scans, grid)\n--\n\n"
    "(hash, brightness, sharpness, entropy) of a JPEG whose EXIF orientation is given; with `grid`, the cells of\n"
    "its grid instead, native uint16. Or a text that says why not. The GIL is released.");

static PyObject *py_quality(PyObject *module, PyObject *args)
{
    Py_buffer data;
    int orientation, grid;
    settings set = {0};
    quality found;
    uint16_t cells[GRID * GRID];
    const char *reason;
    PyObject *result = NULL;
    decoder *self;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*idip", &data, &orientation, &set.max_pixels, &set.max_scans, &grid))
        return NULL;
    if ((self = take_decoder()) == NULL) {
        PyErr_NoMemory();
    } else {
        Py_BEGIN_ALLOW_THREADS
        reason = find_quality(self, data.buf, (size_t)data.len, orientation, 0, &set, &found, cells);
        Py_END_ALLOW_THREADS
        if (reason != NULL)
            result = PyUnicode_FromString(reason);
        else if (grid)
            result = PyBytes_FromStringAndSize((const char *)cells, sizeof cells);
        else
            result = Py_BuildValue("Kddd", (unsigned long long)found.hash, (double)found.brightness,
                                   (double)found.sharpness, (double)found.entropy);
        give_back(self);
    }
    PyBuffer_Release(&data);
    return result;
}

PyDoc_STRVAR(random_box_doc, "random_box(height, width, random, draws)\n--\n\n"
                             "(top, left, height, width), as crops.random_box: for the test that compares them.");

static PyObject *py_random_box(PyObject *module, PyObject *args)
{
    Py_buffer draws;
    settings set;
    int height, width;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "ii(dddddd)y*", &height, &width, &set.scale[0], &set.scale[1], &set.ratio[0],
                          &set.ratio[1], &set.log_ratio[0], &set.log_ratio[1], &draws))
        return NULL;
    if (draws.len == RANDOM_DRAWS * (Py_ssize_t)sizeof(double) && height > 0 && width > 0) {
        box part = random_box(height, width, &set, draws.buf);
        result = Py_BuildValue("(iiii)", (int)part.top, (int)part.left, (int)part.height, (int)part.width);
    } else {
        PyErr_SetString(PyExc_ValueError, "a size and 22 numbers are needed");
    }
    PyBuffer_Release(&draws);
    return result;
}

static PyMethodDef methods[] = {
    {"decode_batch", py_decode_batch, METH_VARARGS, decode_batch_doc},
    {"seek_points", py_seek_points, METH_VARARGS, seek_points_doc},
    {"quality", py_quality, METH_VARARGS, quality_doc},
    {"random_box", py_random_box, METH_VARARGS, random_box_doc},
    {"allow_vectors", py_allow_vectors, METH_O, allow_vectors_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "jpeg",     .m_doc = PART_SOURCES,
    .m_size = -1,          .m_methods = methods, .m_free = free_module,
};

#define TEXT_OF(x) #x
#define VERSION_TEXT(x) TEXT_OF(x)

PyMODINIT_FUNC PyInit_jpeg(void)
{
    PyObject *module;
    decoder *self = decoder_new(); /* fails where another libjpeg is loaded under the same names */
    if (self == NULL) {
        PyErr_SetString(PyExc_ImportError, "libjpeg is not the libjpeg-turbo that this was built with");
        return NULL;
    }
    module = PyModule_Create(&definition);
    if (module == NULL ||
        PyModule_AddStringConstant(module, "libjpeg_turbo", VERSION_TEXT(LIBJPEG_TURBO_VERSION)) < 0) {
        decoder_free(self);
        Py_XDECREF(module);
        return NULL;
    }
    give_back(self);
    return module;
}
