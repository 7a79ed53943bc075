/* The module: the warp of an image without the interpreter's lock. augment_warp.h has the warp. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "include/augment_warp.h"
#include "include/part.h"

/* 1 for uint8, 0 for float32, -1 with an exception for anything else. */
static int kind_of(const Py_buffer *view, const char *name)
{
    if (view->ndim == 3 && view->format != NULL) {
        if (strcmp(view->format, "B") == 0)
            return 1;
        if (strcmp(view->format, "f") == 0)
            return 0;
    }
    PyErr_Format(PyExc_ValueError, "%s is not an array of three axes of uint8 or float32", name);
    return -1;
}

PyDoc_STRVAR(
    warp_doc,
    "warp(image, out, matrix, fill, cval, order, exact, flip_rows, flip_columns, scale)\n--\n\n"
    "The image (height, width, channels) warped into out, of the same shape; both uint8 or float32, contiguous,\n"
    "and not the same memory. The pixel (y, x) of out is scale times what lies at (m0 y + m1 x + m2, m3 y + m4 x\n"
    "+ m5) of the image; the flips are of the result. fill: 0 nearest, 1 constant, 2 reflect, 3 wrap. order: 0\n"
    "nearest neighbour, 1 bilinear. exact: SciPy's bits, which takes longer. Values for uint8 are rounded and\n"
    "clipped. The GIL is released.");

static PyObject *py_warp(PyObject *module, PyObject *args)
{
    Py_buffer image = {0}, out = {0};
    PyObject *image_object, *out_object, *result = NULL;
    job self;
    int of_bytes, bytes;
    double *m = self.matrix;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO(dddddd)idipppf", &image_object, &out_object, m, m + 1, m + 2, m + 3, m + 4, m + 5,
                          &self.fill, &self.cval, &self.order, &self.exact, &self.flip_rows, &self.flip_columns,
                          &self.scale))
        return NULL;
    if (PyObject_GetBuffer(image_object, &image, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0)
        return NULL;
    if (PyObject_GetBuffer(out_object, &out, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE) < 0)
        goto end;
    if ((of_bytes = kind_of(&image, "image")) < 0 || (bytes = kind_of(&out, "out")) < 0)
        goto end;
    if (memcmp(image.shape, out.shape, 3 * sizeof *image.shape) != 0 || self.fill < FILL_NEAREST ||
        self.fill > FILL_WRAP || self.order < 0 || self.order > 1) {
        PyErr_SetString(PyExc_ValueError, "out does not have the image's shape, or fill or order is not known");
        goto end;
    }
    self.height = image.shape[0];
    self.width = image.shape[1];
    self.channels = image.shape[2];
    Py_BEGIN_ALLOW_THREADS
    warp_image(image.buf, of_bytes, out.buf, bytes, &self);
    Py_END_ALLOW_THREADS
    result = Py_NewRef(Py_None);
end:
    if (out.obj != NULL)
        PyBuffer_Release(&out);
    PyBuffer_Release(&image);
    return result;
}

static PyMethodDef methods[] = {{"warp", py_warp, METH_VARARGS, warp_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "augment", .m_doc = PART_SOURCES, .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC PyInit_augment(void)
{
    return PyModule_Create(&definition);
}
