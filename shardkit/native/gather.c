/* Writes JPEG files to a tar shard: the packer's inner loop, without Python's cost per file and without the GIL. For
 * each file: open, read into its place in a buffer, check that it is a whole JPEG, CRC-32C, two ustar headers. The
 * buffer is written before it leaves the processor's cache, and the disk begins to write early.
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
#include "stored_member.h"

enum { BLOCK = 512, NAME = 100, SIZE_AT = 124, CHECK_AT = 148, COLUMNS = 5 };

/* Bytes that are written at a time: few calls, and they are still in the cache. */
enum { FLUSH = 1 << 18 };

/* Bytes after which the disk is told to begin. */
enum { BEGIN = 1 << 22 };

/* Bytes of a buffer that are used: sizes below it have no more bits than crc32c_shifted has powers. */
enum { MOST_ROOM = 1 << 30 };

typedef struct {
    const char *path, *key, *field, *label;
    Py_ssize_t path_length, key_length, field_length, label_length, size;
    const Member *member; /* of the archive that is the root; NULL for a file below it */
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
static int read_whole(int root, const char *path, uint8_t *place, Py_ssize_t size)
{
    int fd = openat(root, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
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

/* The CRC-32C of bytes with the CRC-32C `before` that are followed by `length` bytes with the CRC-32C `crc`. */
static uint32_t joined(uint32_t before, uint32_t crc, Py_ssize_t length)
{
    for (int power = 0; length; power++, length >>= 1)
        if (length & 1)
            before = crc32c_shifted(before, power);
    return before ^ crc;
}

/* A shard that is being written. at: the bytes before those of this call. begun: up to where the disk has begun. */
typedef struct {
    int fd, root, max_scans;
    const uint8_t *pattern;
    uint64_t max_pixels;
    uint8_t *buffer;
    Py_ssize_t room, used, written, at, begun;
    uint32_t crc;
} Shard;

/* Write what is in the buffer. Returns 0, or the number of an error. */
static int flush(Shard *shard)
{
    for (Py_ssize_t done = 0; done < shard->used;) {
        ssize_t more = write(shard->fd, shard->buffer + done, (size_t)(shard->used - done));
        if (more < 0 && errno != EINTR)
            return errno;
        done += more > 0 ? more : 0;
    }
    shard->written += shard->used;
    shard->used = 0;
#ifdef SYNC_FILE_RANGE_WRITE
    const Py_ssize_t end = shard->at + shard->written;
    if (end - shard->begun >= BEGIN) { /* a hint: what fails here fails again when the file is synced */
        (void)sync_file_range(shard->fd, shard->begun, end - shard->begun, SYNC_FILE_RANGE_WRITE);
        shard->begun = end;
    }
#endif
    return 0;
}

/* Read a file to `place`. 0 if it is not as the scan saw it. */
static int read_file(const Shard *shard, const File *file, uint8_t *place)
{
    if (file->member != NULL)
        return read_member(shard->root, file->member, place, file->size);
    if (memchr(file->path, 0, (size_t)file->path_length) || file->path_length == 0 || file->path[0] == '/')
        return 0;
    return read_whole(shard->root, file->path, place, file->size);
}

/* Put one file's sample into the buffer. Returns 0 if the file is not plain. */
static int put_sample(Shard *shard, const File *file, int64_t *record)
{
    static const char LABEL_FIELD[] = ".cls";
    if (file->key_length + file->field_length > NAME || file->key_length + 4 > NAME)
        return 0;
    if (!plain_key(file->key, file->key_length))
        return 0;
    uint8_t *sample = shard->buffer + shard->used, *data = sample + BLOCK;
    if (!read_file(shard, file, data))
        return 0;
    int64_t width, height;
    if (!jpeg_size(data, file->size, shard->max_pixels, shard->max_scans, &width, &height))
        return 0;

    uint8_t *image_end = data + padded(file->size);
    memset(data + file->size, 0, (size_t)(image_end - data - file->size));
    write_header(sample, shard->pattern, file, file->field, file->field_length, file->size);
    write_header(image_end, shard->pattern, file, LABEL_FIELD, 4, file->label_length);
    memset(image_end + BLOCK, 0, BLOCK);
    memcpy(image_end + BLOCK, file->label, (size_t)file->label_length);
    const Py_ssize_t length = image_end + 2 * BLOCK - sample;
    const uint32_t crc = crc32c(0, data, (size_t)file->size);
    shard->crc = joined(crc32c(shard->crc, sample, BLOCK), crc, file->size);
    shard->crc = crc32c(shard->crc, data + file->size, (size_t)(length - BLOCK - file->size));
    record[0] = shard->at + shard->written + shard->used;
    record[1] = length;
    record[2] = width;
    record[3] = height;
    record[4] = crc;
    shard->used += length;
    return 1;
}

/* Write the samples of files up to the first that does not fit the buffer or is not plain, or until `most` bytes are
 * written. Returns how many; `error` is the number of an error of the output. */
static Py_ssize_t put_samples(Shard *shard, const File *files, Py_ssize_t count, Py_ssize_t most, int64_t *records,
                              int *error)
{
    Py_ssize_t done = 0;
    for (; done < count && shard->written + shard->used < most; done++) {
        const File *file = files + done;
        const Py_ssize_t need = file->size > shard->room ? shard->room + 1 : padded(file->size) + 4 * BLOCK;
        if (shard->used >= FLUSH || shard->used + need > shard->room)
            if ((*error = flush(shard)) != 0)
                return done;
        if (need > shard->room || !put_sample(shard, file, records + done * COLUMNS))
            break;
    }
    *error = flush(shard);
    return done;
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

static File *take_files(PyObject *lists[5], const Member *members, Py_ssize_t start, Py_ssize_t count)
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
        file->member = members == NULL ? NULL : members + start + i;
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

PyDoc_STRVAR(write_doc,
             "write(fd, at, crc, root, pattern, paths, keys, fields, labels, sizes, start, stop, most, max_pixels,\n"
             "      max_scans, buffer, members=None)\n\n"
             "Writes samples of the files start … stop - 1 to fd, up to the first that does not fit the buffer or is\n"
             "not plain, or until `most` bytes are written. at, crc: the bytes written before, and their CRC-32C.\n"
             "root: a descriptor of the folder that the paths are relative to. pattern: a header block without name\n"
             "and size. fields: with the dot. All lists hold bytes, sizes int. members: None, or where the files are\n"
             "in an archive, of which root is a descriptor then: int64 offset, packed size, method (-1: of a tar) and\n"
             "CRC-32 for each.\n"
             "Returns (files, bytes, CRC-32C of all bytes, records): int64 offset, size, width, height, crc32c for\n"
             "each file. Raises OSError if fd can't be written.");

static PyObject *write_samples(PyObject *self, PyObject *args)
{
    (void)self;
    const char *pattern;
    Py_ssize_t pattern_length, start, stop, most;
    unsigned long long max_pixels;
    unsigned int crc;
    PyObject *lists[5];
    const char *members = NULL;
    Py_ssize_t members_length = 0;
    Py_buffer buffer;
    Shard shard = {0};
    if (!PyArg_ParseTuple(args, "inIiy#O!O!O!O!O!nnnKiw*|z#", &shard.fd, &shard.at, &crc, &shard.root, &pattern,
                          &pattern_length, &PyList_Type, &lists[0], &PyList_Type, &lists[1], &PyList_Type, &lists[2],
                          &PyList_Type, &lists[3], &PyList_Type, &lists[4], &start, &stop, &most, &max_pixels,
                          &shard.max_scans, &buffer, &members, &members_length))
        return NULL;
    PyObject *result = NULL, *filled = NULL;
    File *files = NULL;
    int64_t *records = NULL;
    Py_ssize_t shortest = PY_SSIZE_T_MAX, done;
    int error = 0;
    for (int i = 0; i < 5; i++)
        if (PyList_Size(lists[i]) < shortest)
            shortest = PyList_Size(lists[i]);
    if (pattern_length != BLOCK || start < 0 || stop < start || stop > shortest) {
        PyErr_SetString(PyExc_ValueError, "the pattern is not a block, or start and stop are not within the lists");
        goto end;
    }
    if (members != NULL && members_length / (Py_ssize_t)sizeof(Member) < stop) {
        PyErr_SetString(PyExc_ValueError, "there are fewer members than files");
        goto end;
    }
    files = take_files(lists, (const Member *)(const void *)members, start, stop - start);
    if (files == NULL)
        goto end;
    records = PyMem_Malloc((size_t)(stop - start + 1) * COLUMNS * sizeof *records);
    if (records == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    shard.pattern = (const uint8_t *)pattern;
    shard.max_pixels = max_pixels;
    shard.buffer = buffer.buf;
    shard.room = buffer.len < MOST_ROOM ? buffer.len : MOST_ROOM;
    shard.begun = shard.at;
    shard.crc = crc;
    Py_BEGIN_ALLOW_THREADS;
    done = put_samples(&shard, files, stop - start, most, records, &error);
    Py_END_ALLOW_THREADS;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        goto end;
    }
    filled = PyBytes_FromStringAndSize((const char *)records, done * COLUMNS * (Py_ssize_t)sizeof *records);
    result = Py_BuildValue("nnIN", done, shard.written, shard.crc, filled); /* NULL for filled: the error stays */
end:
    PyMem_Free(records);
    PyMem_Free(files);
    PyBuffer_Release(&buffer);
    return result;
}

static PyMethodDef METHODS[] = {{"write", write_samples, METH_VARARGS, write_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "gather", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_gather(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    if (module == NULL)
        return NULL;
    crc32_setup();
    if (PyModule_AddIntConstant(module, "available", crc32c_setup()) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
