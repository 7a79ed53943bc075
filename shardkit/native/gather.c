/* Reads small JPEG files straight into a tar shard's buffer: the packer's inner loop, without Python's cost per
 * file. For each file: open, read into its place, check that it is a whole JPEG, CRC-32C, two ustar headers.
 *
 * It takes only plain files: a JPEG whose header can be walked and whose last two bytes are its end mark, of the size
 * that the scan saw, with a name that fits ustar's 100 bytes. At the first other file it stops and returns how far it
 * came; Python then handles that file, with all its errors and messages. So nothing here reports an error of a file,
 * and the bytes are those of formats/tar/samples.py (a test compares the two).
 *
 * Needs the CRC instruction of x86-64 (SSE4.2) or ARMv8; elsewhere `available` is 0, and Python does everything.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "crc32c.h"
#include "plain_jpeg.h"

enum { BLOCK = 512, NAME = 100, SIZE_AT = 124, CHECK_AT = 148, PATH_LIMIT = 4096, COLUMNS = 6 };

typedef struct {
    const char *path, *key, *field, *label;
    Py_ssize_t path_length, key_length, field_length, label_length, size;
} File;

/* Whether readers return the key unchanged and skip nothing: see formats/tar/headers.check_name. */
static int plain_key(const char *key, Py_ssize_t length)
{
    if (length == 0 || key[length - 1] == '/' || memchr(key, '.', (size_t)length) || memchr(key, 0, (size_t)length))
        return 0;
    return !(length >= 2 && key[0] == '_' && key[1] == '_');
}

static void write_header(uint8_t *block, const uint8_t *pattern, const File *file, const char *field,
                         Py_ssize_t field_length, Py_ssize_t size)
{
    memcpy(block, pattern, BLOCK);
    memcpy(block, file->key, (size_t)file->key_length);
    memcpy(block + file->key_length, field, (size_t)field_length);
    for (int digit = 10; digit >= 0; digit--, size >>= 3)
        block[SIZE_AT + digit] = (uint8_t)('0' + (size & 7));
    unsigned sum = 0;
    for (int at = 0; at < BLOCK; at++)
        sum += block[at];
    for (int at = CHECK_AT; at < CHECK_AT + 8; at++)
        sum -= block[at];
    sum += 8 * ' ';
    for (int digit = 5; digit >= 0; digit--, sum >>= 3)
        block[CHECK_AT + digit] = (uint8_t)('0' + (sum & 7));
    block[CHECK_AT + 6] = 0;
    block[CHECK_AT + 7] = ' ';
}

/* Read the whole file into `place`, which has room for one byte more than expected. 0 if its size is different. */
static int read_whole(const char *path, uint8_t *place, Py_ssize_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return 0;
    Py_ssize_t length = 0;
    while (length <= size) {
        ssize_t more = read(fd, place + length, (size_t)(size + 1 - length));
        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0) {
            if (more < 0)
                length = -1;
            break;
        }
        length += more;
        if (length == size && more < (1 << 20)) {
            /* Most files end here. One more byte shows growth; regular files return all they have in one call, so a
             * short read is already their end. */
            break;
        }
    }
    close(fd);
    return length == size;
}

static Py_ssize_t padded(Py_ssize_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

/* Write one file's sample to `sample`. Returns its bytes, or 0 if the file is not plain. */
static Py_ssize_t put_sample(const File *file, const char *prefix, Py_ssize_t prefix_length, const uint8_t *pattern,
                             uint64_t max_pixels, int max_scans, uint8_t *sample, int64_t *record)
{
    static const char LABEL_FIELD[] = ".cls";
    char path[PATH_LIMIT];
    if (prefix_length + file->path_length + 1 > PATH_LIMIT || memchr(file->path, 0, (size_t)file->path_length))
        return 0;
    if (file->key_length + file->field_length > NAME || file->key_length + 4 > NAME)
        return 0;
    if (!plain_key(file->key, file->key_length))
        return 0;
    memcpy(path, prefix, (size_t)prefix_length);
    memcpy(path + prefix_length, file->path, (size_t)file->path_length);
    path[prefix_length + file->path_length] = 0;

    uint8_t *data = sample + BLOCK;
    if (!read_whole(path, data, file->size))
        return 0;
    int64_t width, height;
    if (!jpeg_size(data, file->size, max_pixels, max_scans, &width, &height))
        return 0;

    Py_ssize_t image_end = BLOCK + padded(file->size);
    memset(data + file->size, 0, (size_t)(image_end - BLOCK - file->size));
    write_header(sample, pattern, file, file->field, file->field_length, file->size);
    write_header(sample + image_end, pattern, file, LABEL_FIELD, 4, file->label_length);
    memset(sample + image_end + BLOCK, 0, BLOCK);
    memcpy(sample + image_end + BLOCK, file->label, (size_t)file->label_length);
    record[1] = image_end + 2 * BLOCK;
    record[2] = width;
    record[3] = height;
    record[4] = crc32c(0, data, (size_t)file->size);
    return record[1];
}

static int take_bytes(PyObject *list, Py_ssize_t at, const char **text, Py_ssize_t *length)
{
    PyObject *item = PyList_GetItem(list, at);
    if (!PyBytes_Check(item)) {
        PyErr_SetString(PyExc_TypeError, "a list of bytes is expected");
        return 0;
    }
    *text = PyBytes_AsString(item);
    *length = PyBytes_Size(item);
    return 1;
}

static File *take_files(PyObject *lists[5], Py_ssize_t start, Py_ssize_t count)
{
    File *files = PyMem_Malloc((size_t)(count ? count : 1) * sizeof(File));
    if (files == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        File *file = files + i;
        int good = take_bytes(lists[0], start + i, &file->path, &file->path_length) &&
                   take_bytes(lists[1], start + i, &file->key, &file->key_length) &&
                   take_bytes(lists[2], start + i, &file->field, &file->field_length) &&
                   take_bytes(lists[3], start + i, &file->label, &file->label_length);
        file->size = good ? PyLong_AsSsize_t(PyList_GetItem(lists[4], start + i)) : -1;
        if (good && file->size == -1 && PyErr_Occurred())
            good = 0;
        if (good && (file->size < 0 || file->label_length > BLOCK)) {
            PyErr_SetString(PyExc_ValueError, "a negative size, or a label of more than 512 bytes");
            good = 0;
        }
        if (!good) {
            PyMem_Free(files);
            return NULL;
        }
    }
    return files;
}

PyDoc_STRVAR(
    gather_doc,
    "gather(pattern, prefix, paths, keys, fields, labels, sizes, start, stop, max_pixels, max_scans,\n"
    "       buffer)\n\n"
    "Writes samples of the files start … stop - 1 to the buffer, up to the first that does not fit or is not plain.\n"
    "pattern: a header block without name and size. fields: with the dot. All lists hold bytes, sizes int.\n"
    "Returns (files done, bytes used, records): int64 offset, size, width, height, crc32c, 0 for each file.");

static PyObject *gather(PyObject *self, PyObject *args)
{
    (void)self;
    const char *pattern, *prefix;
    Py_ssize_t pattern_length, prefix_length, start, stop;
    unsigned long long max_pixels;
    int max_scans;
    PyObject *lists[5];
    Py_buffer buffer;
    if (!PyArg_ParseTuple(args, "y#y#O!O!O!O!O!nnKiw*", &pattern, &pattern_length, &prefix, &prefix_length,
                          &PyList_Type, &lists[0], &PyList_Type, &lists[1], &PyList_Type, &lists[2], &PyList_Type,
                          &lists[3], &PyList_Type, &lists[4], &start, &stop, &max_pixels, &max_scans, &buffer))
        return NULL;
    PyObject *result = NULL, *filled = NULL;
    File *files = NULL;
    int64_t *records = NULL;
    Py_ssize_t shortest = PY_SSIZE_T_MAX;
    for (int i = 0; i < 5; i++)
        if (PyList_Size(lists[i]) < shortest)
            shortest = PyList_Size(lists[i]);
    if (pattern_length != BLOCK || start < 0 || stop < start || stop > shortest) {
        PyErr_SetString(PyExc_ValueError, "the pattern is not a block, or start and stop are not within the lists");
        goto end;
    }
    files = take_files(lists, start, stop - start);
    if (files == NULL)
        goto end;
    records = PyMem_Malloc((size_t)(stop - start + 1) * COLUMNS * sizeof *records);
    if (records == NULL) {
        PyErr_NoMemory();
        goto end;
    }

    int64_t *record = records;
    uint8_t *base = buffer.buf;
    Py_ssize_t used = 0, done = 0;
    Py_BEGIN_ALLOW_THREADS;
    for (; done < stop - start; done++, record += COLUMNS) {
        const File *file = files + done;
        if (file->size > buffer.len || used + padded(file->size) + 4 * BLOCK > buffer.len)
            break;
        record[0] = used;
        record[5] = 0;
        Py_ssize_t size = put_sample(file, prefix, prefix_length, (const uint8_t *)pattern, max_pixels, max_scans,
                                     base + used, record);
        if (size == 0)
            break;
        used += size;
    }
    Py_END_ALLOW_THREADS;
    filled = PyBytes_FromStringAndSize((const char *)records, done * COLUMNS * (Py_ssize_t)sizeof *records);
    result = Py_BuildValue("nnN", done, used, filled); /* NULL for filled: the error stays */
end:
    PyMem_Free(records);
    PyMem_Free(files);
    PyBuffer_Release(&buffer);
    return result;
}

static PyMethodDef METHODS[] = {{"gather", gather, METH_VARARGS, gather_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "gather", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_gather(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    if (module == NULL)
        return NULL;
    if (PyModule_AddIntConstant(module, "available", crc32c_setup()) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
