/* Rewrites a JPEG without loss, as libjpeg's own `jpegtran` does: its quantised coefficients are read, and written again
 * as one sequential scan with Huffman tables of its own, with restart markers if asked for.
 *
 * rewrite(data, restart_rows, max_pixels, max_scans, max_bytes) -> bytes
 *
 * restart_rows: rows of MCUs between two restart markers, 0 for none. max_bytes: of libjpeg's memory, which holds all
 * coefficients (two bytes for each). All other segments (EXIF, ICC …) are copied, save the two that libjpeg writes.
 * ValueError with libjpeg's text for what it can't read, and for damage: lost data would be written as if it were good.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "include/part.h"

#define TEXT_BYTES (JMSG_LENGTH_MAX + 64)

typedef struct {
    struct jpeg_error_mgr errors; /* the first member: `jpeg->err` points here */
    struct jpeg_progress_mgr progress;
    struct jpeg_decompress_struct in;
    struct jpeg_compress_struct out;
    jmp_buf on_error;
    double max_pixels;
    long max_bytes;
    int max_scans, restart_rows;
    unsigned char *written; /* by malloc: libjpeg's destination in memory */
    unsigned long size;
    char text[TEXT_BYTES];
} job;

static void on_error(j_common_ptr jpeg)
{
    job *self = (job *)jpeg->err;
    jpeg->err->format_message(jpeg, self->text);
    longjmp(self->on_error, 1);
}

/* The warnings that mean lost data are errors here; others, such as extraneous bytes, are not (images.is_damage). */
static void on_message(j_common_ptr jpeg, int level)
{
    if (level >= 0)
        return;
    switch (jpeg->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC: on_error(jpeg);
    }
}

/* A few bytes can name a scan over the whole image, so a small file with thousands of scans would run for minutes. */
static void on_progress(j_common_ptr jpeg)
{
    job *self = (job *)jpeg->err;
    if (jpeg->is_decompressor && self->in.input_scan_number > self->max_scans) {
        snprintf(self->text, TEXT_BYTES, "more than %d scans: a decompression bomb", self->max_scans);
        longjmp(self->on_error, 1);
    }
}

static void copy_segments(job *self)
{
    for (jpeg_saved_marker_ptr at = self->in.marker_list; at != NULL; at = at->next) {
        if (self->out.write_JFIF_header && at->marker == JPEG_APP0 && at->data_length >= 5 &&
            memcmp(at->data, "JFIF", 5) == 0)
            continue; /* with the density, libjpeg has written it */
        if (self->out.write_Adobe_marker && at->marker == JPEG_APP0 + 14 && at->data_length >= 5 &&
            memcmp(at->data, "Adobe", 5) == 0)
            continue;
        jpeg_write_marker(&self->out, at->marker, at->data, at->data_length);
    }
}

/* 0 for done; 1 for an error, with its text. Its locals are not used after a longjmp. */
static int rewrite_jpeg(job *self, const unsigned char *data, unsigned long length)
{
    self->in.err = self->out.err = jpeg_std_error(&self->errors);
    self->errors.error_exit = on_error;
    self->errors.emit_message = on_message;
    self->progress.progress_monitor = on_progress;
    if (setjmp(self->on_error))
        return 1;
    jpeg_create_decompress(&self->in);
    jpeg_create_compress(&self->out);
    self->in.progress = &self->progress;
    self->in.mem->max_memory_to_use = self->out.mem->max_memory_to_use = self->max_bytes;

    jpeg_mem_src(&self->in, (unsigned char *)data, length);
    for (int marker = 0; marker < 16; marker++)
        jpeg_save_markers(&self->in, JPEG_APP0 + marker, 0xFFFF);
    jpeg_save_markers(&self->in, JPEG_COM, 0xFFFF);
    jpeg_read_header(&self->in, TRUE);
    if ((double)self->in.image_width * self->in.image_height > self->max_pixels) {
        snprintf(self->text, TEXT_BYTES, "%u x %u pixels: a decompression bomb", self->in.image_width,
                 self->in.image_height);
        return 1;
    }
    if (self->in.data_precision != 8) {
        snprintf(self->text, TEXT_BYTES, "%d bits in place of 8", self->in.data_precision);
        return 1;
    }
    jvirt_barray_ptr *coefficients = jpeg_read_coefficients(&self->in);
    jpeg_copy_critical_parameters(&self->in, &self->out);
    self->out.optimize_coding = TRUE;
    self->out.restart_in_rows = self->restart_rows;
    jpeg_mem_dest(&self->out, &self->written, &self->size);
    jpeg_write_coefficients(&self->out, coefficients);
    copy_segments(self);
    jpeg_finish_compress(&self->out);
    jpeg_finish_decompress(&self->in);
    return 0;
}

static PyObject *rewrite(PyObject *module, PyObject *args)
{
    (void)module;
    Py_buffer data;
    PyObject *result = NULL;
    job *self = calloc(1, sizeof *self); /* zeroed: destroying what was never created does nothing */
    if (self == NULL)
        return PyErr_NoMemory();
    if (!PyArg_ParseTuple(args, "y*idil", &data, &self->restart_rows, &self->max_pixels, &self->max_scans,
                          &self->max_bytes)) {
        free(self);
        return NULL;
    }
    int failed;
    Py_BEGIN_ALLOW_THREADS;
    failed = rewrite_jpeg(self, data.buf, (unsigned long)data.len);
    /* `written` is set at the end only, and what it points to before may be freed: bring it up to date */
    if (failed && self->written != NULL)
        self->out.dest->term_destination(&self->out);
    jpeg_destroy_compress(&self->out);
    jpeg_destroy_decompress(&self->in);
    Py_END_ALLOW_THREADS;
    if (failed)
        PyErr_SetString(PyExc_ValueError, self->text);
    else
        result = PyBytes_FromStringAndSize((const char *)self->written, (Py_ssize_t)self->size);
    free(self->written);
    free(self);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef METHODS[] = {
    {"rewrite", rewrite, METH_VARARGS, "The JPEG as one sequential scan, its coefficients unchanged. See the C file."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT, "jpegtran", PART_SOURCES, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_jpegtran(void)
{
    return PyModule_Create(&MODULE);
}
