/* Writes JPEG and PNG files to a shard, tar or TFRecord: the packer's inner loop, without Python's cost per file and without
 * the GIL. For each file: open, read into its place in a buffer, check that it is a whole image, CRC-32C, and what the
 * format puts around it. The buffer is written before it leaves the processor's cache, and the disk begins to write
 * early.
 *
 * `Ahead` lists the tree and reads its first images before (ahead.h); what it has is not read again.
 *
 * It takes only plain files: a JPEG, or a PNG in the field png, whose header can be walked and whose last bytes are its
 * end mark, of the size that the scan saw, whose sample frames.h can measure. At the first other file it stops and
 * returns how far it came; Python then handles that file, with all its errors and messages. So nothing here reports an
 * error of a file, and the bytes are those of formats/tar/samples.py and formats/tfrecord/samples.py (tests compare
 * them).
 *
 * Needs the CRC instruction of x86-64 (SSE4.2) or ARMv8; elsewhere `available` is 0, and Python does everything.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "include/framing/frames.h"
#include "include/framing/plain_jpeg.h"
#include "include/framing/plain_png.h"
#include "include/framing/stored_member.h"
#include "include/framing/file_columns.h"
#include "include/scan/ahead_type.h"
#include "include/part.h"

enum { COLUMNS = 6 };

/* Bytes that are written at a time: few calls, and they are still in the cache. */
enum { FLUSH = 1 << 18 };

/* Bytes after which the disk is told to begin, in whole pages: it is busy sooner, and the sync waits for less. */
enum { BEGIN = 1 << 20, PAGE = 1 << 12 };

/* Bytes of a buffer that are used: sizes below it have no more bits than crc32c_shifted has powers. */
enum { MOST_ROOM = 1 << 30 };

/* Read the whole file into `place`, which has room for one byte more than expected. 0 if its size is different. */
static int read_whole(int root, const char *path, size_t path_length, uint8_t *place, Py_ssize_t size)
{
    char name[LONGEST_PATH]; /* with a NUL */
    if (path_length >= sizeof name)
        return 0;
    memcpy(name, path, path_length);
    name[path_length] = 0;
    int fd = openat(root, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
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
    int fd, root, max_scans, records; /* records: TFRecord, not tar */
    tar_pattern pattern;
    uint64_t max_pixels;
    uint8_t *buffer;
    Py_ssize_t room, used, written, at, begun, jpegs, progressive;
    uint32_t crc;
    const ReadFiles *ahead; /* NULL, or what was read before, below `prefix` */
    const char *prefix;
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
    const Py_ssize_t end = (shard->at + shard->written) & -PAGE;
    if (end - shard->begun >= BEGIN) { /* a hint: what fails here fails again when the file is synced */
        (void)sync_file_range(shard->fd, shard->begun, end - shard->begun, SYNC_FILE_RANGE_WRITE);
        shard->begun = end;
    }
#endif
    return 0;
}

static uint64_t mark_of(const Shard *shard, File *file)
{
    if (file->mark == 0)
        file->mark = mark_below(shard->prefix, file->path, (size_t)file->path_length);
    return file->mark;
}

/* Bring what was read of the files behind this one to the cache: they are anywhere. */
static void fetch_ahead(const Shard *shard, File *file, Py_ssize_t left)
{
    if (shard->ahead == NULL)
        return;
    if (left > 8)
        fetch_slot(shard->ahead, mark_of(shard, file + 8));
    if (left > 4)
        fetch_record(shard->ahead, mark_of(shard, file + 4));
}

/* Read a file to `place`. 0 if it is not as the scan saw it. */
static int read_file(const Shard *shard, File *file, uint8_t *place)
{
    if (file->stored)
        return read_member(shard->root, &file->member, place, file->size);
    if (memchr(file->path, 0, (size_t)file->path_length) || file->path_length == 0)
        return 0;
    const uint8_t *held = NULL;
    if (shard->ahead != NULL)
        held = find_file(shard->ahead, mark_of(shard, file), shard->prefix, file->path, (size_t)file->path_length,
                         file->size);
    if (held == NULL)
        return read_whole(shard->root, file->path, (size_t)file->path_length, place, file->size);
    memcpy(place, held, (size_t)file->size);
    return 1;
}

/* Width and height of the image of a file. The marker of its frame if it is a JPEG, 1 if it is a PNG; 0 for everything
 * that is not plain. */
static int image_size(const Shard *shard, const File *file, const uint8_t *data, int64_t *width, int64_t *height)
{
    if (file->field_length == 3 && !memcmp(file->field, "png", 3)) /* Python counts it as one */
        return png_size(data, file->size, shard->max_pixels, width, height);
    return jpeg_size(data, file->size, shard->max_pixels, shard->max_scans, width, height);
}

/* Put one file's sample into the buffer. Returns 0 if the file is not plain. */
static int put_sample(Shard *shard, File *file, int64_t *record)
{
    frame_part parts[] = {{file->field, (size_t)file->field_length, NULL, (size_t)file->size, FRAME_IMAGE, 0, -1, 0},
                          {"cls", 3, NULL, 0, FRAME_LABEL, 0, -1, 0}};
    frame_sample sample = {file->key,
                           file->name,
                           file->text,
                           (size_t)file->key_length,
                           (size_t)file->name_length,
                           (size_t)file->text_length,
                           file->label,
                           parts,
                           2};
    if (file->field_length == 0) /* Python knows what it is */
        return 0;
    const int64_t length = shard->records ? record_measured(&sample) : tar_measured(&sample);
    if (length == 0 || length >= shard->room - shard->used)
        return 0;
    const int64_t at = shard->records ? record_image_at(&sample, length) : TAR_BLOCK;
    uint8_t *place = shard->buffer + shard->used, *data = place + at;
    int64_t width, height;
    const int frame = read_file(shard, file, data) ? image_size(shard, file, data, &width, &height) : 0;
    if (frame == 0)
        return 0;
    shard->jpegs += frame != 1;
    shard->progressive += frame == PROGRESSIVE;

    parts[0].data = data;
    if (shard->records)
        record_put(place, &sample);
    else
        tar_put(place, &shard->pattern, &sample);
    const uint32_t crc = crc32c(0, data, (size_t)file->size);
    shard->crc = joined(crc32c(shard->crc, place, (size_t)at), crc, file->size);
    shard->crc = crc32c(shard->crc, data + file->size, (size_t)(length - at - file->size));
    record[0] = shard->at + shard->written + shard->used;
    record[1] = length;
    record[2] = record[0] + at;
    record[3] = width;
    record[4] = height;
    record[5] = crc;
    shard->used += length;
    return 1;
}

/* Bytes that a sample may need, with one more that read_whole reads. */
static Py_ssize_t most_needed(const File *file, Py_ssize_t room)
{
    if (file->size > room || file->key_length > room || file->name_length > room || file->text_length > room)
        return room + 1;
    return file->size + file->key_length + file->name_length + file->text_length + file->field_length + 4 * TAR_BLOCK;
}

/* Write the samples of files up to the first that does not fit `room` bytes or is not plain, or until `most` bytes are
 * written. Returns how many; `error` is the number of an error of the output. */
static Py_ssize_t put_samples(Shard *shard, File *files, Py_ssize_t count, Py_ssize_t most, int64_t *records,
                              int *error)
{
    Py_ssize_t done = 0;
    for (; done < count && shard->written + shard->used < most; done++) {
        File *file = files + done;
        fetch_ahead(shard, file, count - done);
        const Py_ssize_t need = most_needed(file, shard->room);
        if (shard->used >= FLUSH || shard->used + need > shard->room)
            if ((*error = flush(shard)) != 0)
                return done;
        if (need > shard->room || !put_sample(shard, file, records + done * COLUMNS))
            break;
    }
    *error = flush(shard);
    return done;
}

/* The records by column, as bytes; NULL with an exception. */
static PyObject *by_column(const int64_t *records, Py_ssize_t count)
{
    PyObject *found = PyBytes_FromStringAndSize(NULL, count * COLUMNS * (Py_ssize_t)sizeof *records);
    char *to = found == NULL ? NULL : PyBytes_AsString(found);
    for (Py_ssize_t column = 0; to != NULL && column < COLUMNS; column++)
        for (Py_ssize_t i = 0; i < count; i++, to += sizeof *records)
            memcpy(to, records + i * COLUMNS + column, sizeof *records);
    return found;
}

PyDoc_STRVAR(
    write_doc,
    "write(fd, at, crc, root, pattern, paths, keys, places, fields, labels, sizes, start, stop, most, max_pixels,\n"
    "      max_scans, room, members=None, names=None, texts=None, ahead=None, prefix=b"
    ")\n\n"
    "Writes samples of the files start … stop - 1 to fd, up to the first that does not fit `room` bytes or is\n"
    "not plain, or until `most` bytes are written. at, crc: the bytes written before, and their CRC-32C.\n"
    "root: a descriptor of the folder that the paths are relative to. pattern: a header block without name\n"
    "and size. paths, keys: (bytes, offsets), as in formats/columns.py. places, fields: the image field of\n"
    "each file as an int32 place in a tuple of bytes, which are empty for what is no image. labels, sizes:\n"
    "int64.\n"
    "members: None, or where the files are in an archive, of which root is a descriptor then: int64 offset,\n"
    "packed size, method (-1: of a tar) and CRC-32 for each. names, texts: the paths to store, and the class\n"
    "of each label, for TFRecord in place of tar. ahead: an Ahead, which ends; files PREFIX/PATH that it has\n"
    "read are not read again.\n"
    "Returns (files, bytes, CRC-32C of all bytes, JPEGs, progressive ones, columns): int64 offset, size, the\n"
    "image's offset, width, height, crc32c, each for all files. Raises OSError if fd can't be written.");

static PyObject *write_samples(PyObject *self, PyObject *args)
{
    (void)self;
    const char *pattern;
    Py_ssize_t pattern_length, start, stop, most;
    unsigned long long max_pixels;
    unsigned int crc;
    PyObject *pairs[STRINGS] = {NULL, NULL, Py_None, Py_None}, *ahead = Py_None;
    const char *members = NULL;
    Py_ssize_t members_length = 0;
    Columns columns = {0};
    Shard shard = {.prefix = ""};
    if (!PyArg_ParseTuple(args, "inIiy#OOy*O!y*y*nnnKin|z#OOOy", &shard.fd, &shard.at, &crc, &shard.root, &pattern,
                          &pattern_length, &pairs[PATHS], &pairs[KEYS], &columns.places, &PyTuple_Type, &columns.fields,
                          &columns.labels, &columns.sizes, &start, &stop, &most, &max_pixels, &shard.max_scans,
                          &shard.room, &members, &members_length, &pairs[NAMES], &pairs[TEXTS], &ahead, &shard.prefix))
        return NULL;
    PyObject *result = NULL, *filled = NULL;
    File *files = NULL;
    int64_t *records = NULL;
    Py_ssize_t done;
    int error = 0;
    shard.records = pairs[NAMES] != Py_None;
    for (int i = 0; i < (shard.records ? STRINGS : NAMES); i++)
        if (!take_strings(pairs[i], &columns, i))
            goto end;
    if (ahead != Py_None && !PyObject_TypeCheck(ahead, ahead_type)) {
        PyErr_SetString(PyExc_TypeError, "ahead is not an Ahead");
        goto end;
    }
    if (pattern_length != TAR_BLOCK || start < 0 || stop < start || stop > files_in(&columns, shard.records)) {
        PyErr_SetString(PyExc_ValueError, "the pattern is not a block, or start and stop are not within the columns");
        goto end;
    }
    if (members != NULL && members_length / (Py_ssize_t)sizeof(Member) < stop) {
        PyErr_SetString(PyExc_ValueError, "there are fewer members than files");
        goto end;
    }
    files = take_files(&columns, members, shard.records, start, stop);
    if (files == NULL)
        goto end;
    shard.room = shard.room < 1 ? 1 : shard.room < MOST_ROOM ? shard.room : MOST_ROOM;
    shard.buffer = malloc((size_t)shard.room);
    records = PyMem_Malloc((size_t)(stop - start + 1) * COLUMNS * sizeof *records);
    if (records == NULL || shard.buffer == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    tar_take_pattern(&shard.pattern, (const uint8_t *)pattern);
    shard.max_pixels = max_pixels;
    shard.begun = shard.at;
    shard.crc = crc;
    Py_BEGIN_ALLOW_THREADS;
    if (ahead != Py_None) {
        ahead_end(&((AheadObject *)ahead)->ahead);
        shard.ahead = &((AheadObject *)ahead)->ahead.files;
    }
    done = put_samples(&shard, files, stop - start, most, records, &error);
    Py_END_ALLOW_THREADS;
    if (error) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        goto end;
    }
    filled = by_column(records, done);
    result = Py_BuildValue("nnInnN", done, shard.written, shard.crc, shard.jpegs, shard.progressive,
                           filled); /* NULL for filled: the error stays */
end:
    PyMem_Free(records);
    PyMem_Free(files);
    release_columns(&columns);
    free(shard.buffer);
    return result;
}

/* The marker of the frame of a JPEG; 0 if the data is no JPEG, -1 if its segments are left to images/jpeg.py. */
static int frame_marker(const uint8_t *data, int64_t length)
{
    int64_t at = 2;
    if (length < 2 || data[0] != 0xFF || data[1] != 0xD8)
        return 0;
    while (at + 10 <= length && data[at] == 0xFF) {
        const uint8_t marker = data[at + 1];
        if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC)
            return marker;
        if (marker != 0xC4 && marker != 0xDB && marker != 0xDD && marker != 0xFE && (marker < 0xE0 || marker > 0xEF))
            return -1;
        const int64_t segment = data[at + 2] << 8 | data[at + 3];
        if (segment < 2)
            return -1;
        at += 2 + segment;
    }
    return -1;
}

PyDoc_STRVAR(
    progressive_doc,
    "progressive(data, starts, sizes)\n--\n\n"
    "(JPEGs, progressive ones, numbers of the images whose header is left to Python) of the images that begin at these\n"
    "bytes of data, -1 for none. starts, sizes: int64. The GIL is released.");

static PyObject *count_progressive(PyObject *self, PyObject *args)
{
    (void)self;
    Py_buffer data, starts, sizes;
    if (!PyArg_ParseTuple(args, "y*y*y*", &data, &starts, &sizes))
        return NULL;
    const Py_ssize_t count = starts.len / (Py_ssize_t)sizeof(int64_t);
    Py_ssize_t jpegs = 0, progressive = 0;
    uint8_t *odd = sizes.len < starts.len ? NULL : PyMem_Calloc((size_t)count + 1, 1);
    PyObject *left = NULL, *result = NULL;
    if (odd == NULL) {
        PyErr_SetString(PyExc_ValueError, "starts and sizes do not fit each other, or there is no memory");
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS;
    for (Py_ssize_t i = 0; i < count; i++) {
        int64_t start, size;
        memcpy(&start, (const char *)starts.buf + i * (Py_ssize_t)sizeof start, sizeof start);
        memcpy(&size, (const char *)sizes.buf + i * (Py_ssize_t)sizeof size, sizeof size);
        if (start < 0 || start > data.len || size < 0 || size > data.len - start)
            continue;
        const int marker = frame_marker((const uint8_t *)data.buf + start, size);
        odd[i] = marker < 0;
        jpegs += marker > 0;
        progressive += marker == PROGRESSIVE;
    }
    Py_END_ALLOW_THREADS;
    left = PyList_New(0);
    for (Py_ssize_t i = 0; left != NULL && i < count; i++) {
        PyObject *number = odd[i] ? PyLong_FromSsize_t(i) : NULL;
        if (odd[i] && (number == NULL || PyList_Append(left, number) < 0))
            Py_CLEAR(left);
        Py_XDECREF(number);
    }
    result = left == NULL ? NULL : Py_BuildValue("nnN", jpegs, progressive, left);
end:
    PyMem_Free(odd);
    PyBuffer_Release(&sizes);
    PyBuffer_Release(&starts);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef METHODS[] = {{"write", write_samples, METH_VARARGS, write_doc},
                                {"progressive", count_progressive, METH_VARARGS, progressive_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "gather", PART_SOURCES, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_gather(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    if (module == NULL)
        return NULL;
    crc32_setup();
    ahead_type = (PyTypeObject *)PyType_FromSpec(&AHEAD_SPEC);
    if (ahead_type == NULL || PyModule_AddObjectRef(module, "Ahead", (PyObject *)ahead_type) < 0 ||
        PyModule_AddIntConstant(module, "available", crc32c_setup()) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
