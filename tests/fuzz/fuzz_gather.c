/* libFuzzer target for the packer's loop (shardkit/native/gather.c) and for what lists and names files
 * (shardkit/native/tree.c). run.sh builds it with the headers and the library of Python, and runs it.
 *
 * An input is lengths of key, field and path, a byte of switches, and their bytes; the rest is the file. What is
 * written must have the CRC-32C that was computed on the way, and hold the file; a tar, in whole blocks.
 */
#define FIRST_SLOTS 2 /* so that they become more */
#include "../../shardkit/native/gather.c"
#define METHODS TREE_METHODS
#define MODULE TREE_MODULE
#include "../../shardkit/native/tree.c"
#include <stdlib.h>

enum { LEAST = 4, ROOM = 1 << 16 };

#define FOLDER "some/folder"

static int root = -1, out = -1;

static void set_up(void)
{
    char folder[] = "/dev/shm/fuzz-gather-XXXXXX"; /* in memory */
    if (!crc32c_setup() || mkdtemp(folder) == NULL)
        abort();
    root = open(folder, O_RDONLY | O_DIRECTORY);
    out = openat(root, "out", O_RDWR | O_CREAT, 0600);
    if (root < 0 || out < 0)
        abort();
    Py_Initialize();
}

static char *copied(const uint8_t **at, const uint8_t *end, size_t length)
{
    char *copy = malloc(length + 1); /* of its own, so that an access outside is seen; with NUL, as Python's */
    if (copy == NULL)
        abort();
    for (size_t i = 0; i < length; i++)
        copy[i] = (char)(*at < end ? *(*at)++ : 'x');
    copy[length] = 0;
    return copy;
}

static void put(File *files, Py_ssize_t count, Py_ssize_t room, Py_ssize_t most, const uint8_t *data, int tfrecord,
                const ReadFiles *ahead)
{
    static const uint8_t pattern[TAR_BLOCK] = {0};
    static uint8_t written[4 * ROOM];
    int64_t records[2 * COLUMNS];
    int error = 0;
    Shard shard = {.fd = out, .root = root, .max_scans = 100, .records = tfrecord, .max_pixels = 1 << 20, .room = room};
    shard.ahead = ahead;
    shard.prefix = FOLDER;
    tar_take_pattern(&shard.pattern, pattern);
    shard.buffer = malloc((size_t)room);
    if (shard.buffer == NULL || ftruncate(out, 0) < 0 || lseek(out, 0, SEEK_SET) < 0)
        abort();
    const Py_ssize_t done = put_samples(&shard, files, count, most, records, &error);
    const ssize_t length = pread(out, written, sizeof written, 0);
    if (error || length != shard.written || (!tfrecord && length % TAR_BLOCK) ||
        crc32c(0, written, (size_t)length) != shard.crc)
        abort();
    for (Py_ssize_t i = 0; i < done; i++) {
        const int64_t *record = records + i * COLUMNS;
        if (record[3] < 1 || record[4] < 1 || memcmp(written + record[2], data, (size_t)files[i].size) != 0)
            abort();
    }
    free(shard.buffer);
}

/* The names in a column whose offsets are any: at most as long as its data, as UTF-8 where they are UTF-8. */
/* Keep the file as if it had been read ahead, between two others; the first has its path in another folder. */
static void keep(ReadFiles *ahead, const uint8_t *data, size_t size, size_t room)
{
    static const char *const folders[] = {"other/folder", FOLDER, FOLDER}, *const names[] = {"file", "file", "files"};
    begin_files(ahead, room);
    for (int i = 0; i < 3; i++) {
        uint8_t *place = file_place(ahead, folders[i], names[i], size);
        if (place == NULL)
            break;
        memset(place, 0, size + 1);
        if (i == 1 && size)
            memcpy(place, data, size);
        keep_file(ahead, size);
    }
}

static void name(const uint8_t *data, size_t size)
{
    enum { COUNT = 3 };
    int64_t offsets[COUNT + 1] = {0, size ? data[0] : 0, size > 1 ? data[size - 1] - 2 : 0, (int64_t)size};
    char *text = malloc(size + 1), *keys = malloc(size + 1), ends[sizeof offsets], places[COUNT * sizeof(int32_t)];
    uint8_t odd[COUNT];
    String found[MOST_EXTENSIONS];
    if (text == NULL || keys == NULL)
        abort();
    memcpy(text, data, size);
    const StringColumn column = {text, offsets, (int64_t)size, COUNT};
    const int64_t rows[] = {2, size ? data[0] % 5 - 1 : 0};
    const Py_ssize_t missing = taken_offsets(&column, rows, 2, ends);
    if (missing < 0) {
        const int64_t room = number_at(ends, 2);
        char *to = malloc((size_t)room + 1);
        if (to == NULL)
            abort();
        take_each(&column, rows, 2, to, room);
        free(to);
    }
    const Py_ssize_t length = put_keys(&column, keys, ends, odd);
    if (length > (Py_ssize_t)size || find_extensions(&column, found, places) > COUNT)
        abort();
    if (length >= 0) {
        PyObject *key = PyUnicode_DecodeUTF8(keys, length, "strict"), *odd_ones = numbers_of(odd, COUNT);
        if (key == NULL || odd_ones == NULL)
            abort();
        Py_DECREF(key);
        Py_DECREF(odd_ones);
    }
    free(keys);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (root < 0)
        set_up();
    name(data, size);
    if (size < LEAST)
        return 0;
    const uint8_t *at = data + LEAST, *end = data + size;
    if (frame_marker(at, end - at) > 0xCF)
        abort();
    File file = {.path = "file", .path_length = 4};
    file.key_length = data[0] % 120;
    file.field_length = data[1] % 16;
    file.name_length = data[2] % 24;
    file.label = data[2];
    file.text = "class";
    file.text_length = 5;
    char *key = copied(&at, end, (size_t)file.key_length), *field = copied(&at, end, (size_t)file.field_length),
         *path = copied(&at, end, (size_t)file.name_length);
    file.key = key;
    file.field = field;
    file.name = path;
    const int fd = openat(root, "file", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, at, (size_t)(end - at)) != end - at)
        abort();
    close(fd);
    file.size = end - at + (data[3] & 3 ? 0 : data[3] % 5 - 2);
    File files[2] = {file, file};
    ReadFiles ahead;
    keep(&ahead, at, (size_t)(end - at), data[3] & 64 ? 1 << 20 : 0);
    if (file.size >= 0)
        put(files, 2, data[3] & 8 ? ROOM : 4096, data[3] & 16 ? 1 : ROOM, at, (data[3] & 32) != 0, &ahead);
    end_files(&ahead);
    free(key);
    free(field);
    free(path);
    return 0;
}
