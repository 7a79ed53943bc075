/* libFuzzer target for the parts of the packer in C that need no Python: the framing of samples
 * (frames.h in shardkit/native/include/framing), the set of keys (key_set.h), the check for plain JPEGs (plain_jpeg.h)
 * and the members of archives (stored_member.h). run.sh builds and runs it.
 *
 * An input is a byte of switches, the number of fields, lengths of key, path, text, and of each field its name's length,
 * its role and size; then the bytes of all of them. What is measured must be what is put, in memory of exactly that size.
 */
#define _GNU_SOURCE /* for memfd_create */
#include <sys/mman.h>

#include "../../shardkit/native/include/framing/frames.h"
#include "../../shardkit/native/include/framing/key_set.h"
#include "../../shardkit/native/include/framing/plain_jpeg.h"
#include "../../shardkit/native/include/framing/stored_member.h"

enum { MOST = 8, HEAD = 6, EACH = 4 };

typedef struct {
    const uint8_t *at, *end;
} input;

static void *taken(input *from, size_t length)
{
    uint8_t *copy = malloc(length ? length : 1); /* of its own, so that an access outside is seen */
    if (copy == NULL)
        abort();
    for (size_t i = 0; i < length; i++)
        copy[i] = from->at < from->end ? *from->at++ : 'x';
    return copy;
}

static void put(frame_sample *sample, int records, const tar_pattern *pattern)
{
    int64_t size = records ? record_measured(sample) : tar_measured(sample);
    size_t apart = 0;
    if (size == 0)
        return;
    for (int i = 0; i < sample->count; i++)
        apart += sample->parts[i].apart ? sample->parts[i].size : 0;
    uint8_t *out = malloc((size_t)size - apart);
    if (out == NULL)
        abort();
    size_t length = records ? record_put(out, sample) : tar_put(out, pattern, sample);
    if (length + apart != (size_t)size)
        abort();
    for (int i = 0; i < sample->count; i++) {
        const frame_part *part = sample->parts + i;
        if (part->role != FRAME_LABEL && !part->apart && part->size &&
            memcmp(out + part->cut, part->data, part->size) != 0)
            abort();
    }
    free(out);
}

static void look(const uint8_t *data, size_t size)
{
    int64_t width = 0, height = 0;
    if (jpeg_size(data, (ptrdiff_t)size, 1 << 20, 500, &width, &height) && (width < 1 || height < 1))
        abort();
}

/* The input as an archive: a member at the byte that its end names, of the size that it names. */
static void read_archive(const uint8_t *data, size_t size)
{
    static int fd = -1;
    if (fd < 0 && (fd = memfd_create("archive", 0)) < 0)
        abort();
    if (size < 4 || ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        return;
    const uint8_t *end = data + size - 4;
    const int64_t wanted = end[1];
    Member member = {(int64_t)(end[0] % (size + 2)) - 1, wanted + (end[2] == 0), end[3] & 1 ? IN_TAR : end[3] >> 7, 0};
    uint8_t *place = malloc(wanted ? (size_t)wanted : 1);
    if (place == NULL)
        abort();
    if (end[3] & 2)
        member.crc = crc32_of(data, size < 4 + (size_t)wanted ? 0 : (size_t)wanted);
    if (read_member(fd, &member, place, wanted) && member.method == IN_TAR && wanted &&
        memcmp(place, data + member.offset, (size_t)wanted) != 0)
        abort();
    free(place);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int ready;
    static key_set keys;
    if (!ready && !crc32c_setup())
        abort();
    if (!ready)
        crc32_setup();
    ready = 1;
    look(data, size);
    read_archive(data, size);
    if (size < HEAD + MOST * EACH)
        return 0;
    input from = {data + HEAD + MOST * EACH, data + size};
    uint8_t block[TAR_BLOCK] = {0};
    tar_pattern pattern;
    tar_take_pattern(&pattern, block);
    frame_part parts[MOST];
    frame_sample sample = {.parts = parts, .count = data[1] % (MOST + 1)};
    sample.key_length = data[2];
    sample.path_length = (size_t)data[3] * 3;
    sample.text_length = data[4];
    sample.label = data[5] % 3 ? data[5] : (int64_t)data[5] << 35;
    char *key = taken(&from, sample.key_length), *path = taken(&from, sample.path_length),
         *text = taken(&from, sample.text_length);
    sample.key = key;
    sample.path = path;
    sample.text = text;
    void *names[MOST], *values[MOST];
    for (int i = 0; i < sample.count; i++) {
        const uint8_t *of = data + HEAD + i * EACH;
        frame_role role = of[1] % 3;
        size_t bytes = role == FRAME_LABEL ? 0 : (size_t)of[2] << (of[3] % 8);
        names[i] = taken(&from, of[0] % 120);
        values[i] = taken(&from, bytes);
        parts[i] =
            (frame_part){names[i], of[0] % 120, values[i], bytes, role, role != FRAME_LABEL && of[3] >> 7, -1, 0};
    }
    put(&sample, data[0] & 1, &pattern);
    mark wanted = siphash(keys.secret, (const uint8_t *)sample.key, sample.key_length);
    if (!has_mark(&keys, wanted)) {
        if (!make_room(&keys))
            abort();
        put_mark(&keys, wanted);
    }
    if (!has_mark(&keys, wanted))
        abort();
    if (keys.used > 5000) {
        free(keys.marks);
        keys = (key_set){0};
    }
    for (int i = 0; i < sample.count; i++) {
        free(names[i]);
        free(values[i]);
    }
    free(key);
    free(path);
    free(text);
    return 0;
}
