/* Samples as the bytes of a shard, tar or TFRecord, without Python: what formats/tar/samples.py and
 * formats/tfrecord/samples.py write for plain samples.
 *
 * A sample is measured first (0: it is not plain, and Python writes it), and then put into memory of that size. Data
 * that is `apart` is left out there: `cut` says where it belongs. Call crc32c_setup() before.
 */
#ifndef SHARDKIT_FRAMING_FRAMES_H
#define SHARDKIT_FRAMING_FRAMES_H

#include <string.h>

#include "../crc32c.h"

enum { TAR_BLOCK = 512, TAR_NAME = 100, TAR_SIZE_AT = 124, TAR_CHECK_AT = 148, TAR_LABEL = 16, RECORD_HEAD = 12 };

static const int64_t FRAME_LIMIT = 1 << 30; /* Python writes larger samples */

typedef enum { FRAME_BYTES, FRAME_IMAGE, FRAME_LABEL } frame_role;

/* One field. name: as stored, without a dot. at: where its data begins in the sample, -1 for a number. */
typedef struct {
    const char *name;
    size_t name_length;
    const uint8_t *data;
    size_t size;
    frame_role role;
    int apart;
    int64_t at;
    size_t cut;
} frame_part;

/* path, text: of the file and the class, which only TFRecord stores. */
typedef struct {
    const char *key, *path, *text;
    size_t key_length, path_length, text_length;
    int64_t label;
    frame_part *parts;
    int count;
} frame_sample;

/* Copy data to its place, unless it was read there. */
static void copy_data(uint8_t *to, const uint8_t *data, size_t size)
{
    if (size && to != data)
        memcpy(to, data, size);
}

/* ---- tar ---- */

/* Whether readers return the key unchanged and skip nothing: see formats/tar/headers.check_name. */
static int tar_plain_key(const char *key, size_t length)
{
    if (length == 0 || key[length - 1] == '/' || memchr(key, '.', length) || memchr(key, 0, length))
        return 0;
    return !(length >= 2 && key[0] == '_' && key[1] == '_');
}

static size_t tar_padded(size_t size)
{
    return (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
}

/* The decimal digits of a number from 0, without a NUL; returns how many. */
static size_t decimal(int64_t number, char *digits)
{
    char reversed[20];
    size_t count = 0;
    do
        reversed[count++] = (char)('0' + number % 10);
    while (number /= 10);
    for (size_t i = 0; i < count; i++)
        digits[i] = reversed[count - 1 - i];
    return count;
}

static int64_t tar_measured(const frame_sample *sample)
{
    char digits[20];
    int64_t total = 0;
    if (sample->count == 0 || !tar_plain_key(sample->key, sample->key_length))
        return 0;
    for (int i = 0; i < sample->count; i++) {
        const frame_part *part = sample->parts + i;
        size_t size = part->role == FRAME_LABEL ? decimal(sample->label, digits) : part->size;
        if (sample->key_length + 1 + part->name_length > TAR_NAME || size > (size_t)FRAME_LIMIT)
            return 0;
        total += TAR_BLOCK + (int64_t)tar_padded(size);
        if (total > FRAME_LIMIT)
            return 0;
    }
    return total;
}

/* The sum of some bytes. */
static unsigned weight(const void *data, size_t length)
{
    unsigned sum = 0;
    for (size_t at = 0; at < length; at++)
        sum += ((const uint8_t *)data)[at];
    return sum;
}

/* A header without name and size: those of a tar's members differ in these and the checksum only. */
typedef struct {
    uint8_t block[TAR_BLOCK];
    unsigned weight; /* of what does not differ, with the checksum as spaces */
} tar_pattern;

static void tar_take_pattern(tar_pattern *pattern, const uint8_t *block)
{
    memcpy(pattern->block, block, TAR_BLOCK);
    memset(pattern->block, 0, TAR_NAME);
    pattern->weight = weight(pattern->block, TAR_BLOCK) - weight(pattern->block + TAR_SIZE_AT, 11) -
                      weight(pattern->block + TAR_CHECK_AT, 8) + 8 * ' ';
}

/* The header of the member KEY.FIELD. key_weight: the sum of the key's bytes. */
static void tar_header(uint8_t *block, const tar_pattern *pattern, const frame_sample *sample, unsigned key_weight,
                       const frame_part *part, size_t size)
{
    memcpy(block, pattern->block, TAR_BLOCK);
    memcpy(block, sample->key, sample->key_length);
    block[sample->key_length] = '.';
    memcpy(block + sample->key_length + 1, part->name, part->name_length);
    unsigned sum = pattern->weight + key_weight + '.' + weight(part->name, part->name_length) + 11 * '0';
    for (int digit = 10; digit >= 0; digit--, size >>= 3) {
        block[TAR_SIZE_AT + digit] = (uint8_t)('0' + (size & 7));
        sum += size & 7;
    }
    for (int digit = 5; digit >= 0; digit--, sum >>= 3)
        block[TAR_CHECK_AT + digit] = (uint8_t)('0' + (sum & 7));
    block[TAR_CHECK_AT + 6] = 0;
    block[TAR_CHECK_AT + 7] = ' ';
}

/* Put a measured sample at `out`; returns the bytes put there. */
static size_t tar_put(uint8_t *out, const tar_pattern *pattern, frame_sample *sample)
{
    const unsigned key_weight = weight(sample->key, sample->key_length);
    uint8_t *to = out;
    size_t apart = 0;
    char digits[20];
    for (int i = 0; i < sample->count; i++) {
        frame_part *part = sample->parts + i;
        int label = part->role == FRAME_LABEL;
        size_t size = label ? decimal(sample->label, digits) : part->size;
        tar_header(to, pattern, sample, key_weight, part, size);
        to += TAR_BLOCK;
        part->cut = (size_t)(to - out);
        part->at = (int64_t)(part->cut + apart);
        if (part->apart) {
            apart += size;
        } else {
            copy_data(to, label ? (const uint8_t *)digits : part->data, size);
            to += size;
        }
        size_t padding = tar_padded(size) - size;
        memset(to, 0, padding);
        to += padding;
    }
    return (size_t)(to - out);
}

/* ---- TFRecord: the layout is in formats/tfrecord/samples.py and example.py ---- */

static size_t varint_size(uint64_t number)
{
    size_t size = 1;
    for (; number >= 0x80; number >>= 7)
        size++;
    return size;
}

static uint8_t *put_varint(uint8_t *to, uint64_t number)
{
    for (; number >= 0x80; number >>= 7)
        *to++ = (uint8_t)(number | 0x80);
    *to++ = (uint8_t)number;
    return to;
}

/* The bytes of a field with a length: its tag, its length, its bytes. */
static size_t message_size(size_t size)
{
    return 1 + varint_size(size) + size;
}

static size_t entry_size(size_t name, size_t items)
{
    return message_size(message_size(name) + message_size(message_size(items)));
}

static uint8_t *put_message(uint8_t *to, uint8_t tag, size_t size)
{
    *to++ = tag;
    return put_varint(to, size);
}

/* What precedes the items of an entry. kind: the tag of its list. */
static uint8_t *put_entry(uint8_t *to, const char *prefix, const char *name, size_t name_length, uint8_t kind,
                          size_t items)
{
    size_t before = strlen(prefix), feature = message_size(items);
    to = put_message(to, 0x0A, message_size(before + name_length) + message_size(feature));
    to = put_message(to, 0x0A, before + name_length);
    memcpy(to, prefix, before);
    to += before;
    if (name_length)
        memcpy(to, name, name_length);
    to = put_message(to + name_length, 0x12, feature);
    return put_message(to, kind, items);
}

static uint8_t *put_bytes(uint8_t *to, const char *name, const char *data, size_t size)
{
    to = put_entry(to, name, NULL, 0, 0x0A, message_size(size));
    to = put_message(to, 0x0A, size);
    if (size)
        memcpy(to, data, size);
    return to + size;
}

static const char RECORD_KEY[] = "image/key", RECORD_PATH[] = "image/filename", RECORD_IMAGE[] = "image/encoded",
                  RECORD_FORMAT[] = "image/format", RECORD_LABEL[] = "image/class/label",
                  RECORD_TEXT[] = "image/class/text", RECORD_OTHER[] = "field/";

/* The image's format as it is stored: jpeg for the field jpg. */
static const char *format_name(const frame_part *part, size_t *length)
{
    int jpg = part->name_length == 3 && memcmp(part->name, "jpg", 3) == 0;
    *length = jpg ? 4 : part->name_length;
    return jpg ? "jpeg" : part->name;
}

static size_t record_part_size(const frame_sample *sample, const frame_part *part)
{
    size_t format;
    switch (part->role) {
    case FRAME_IMAGE:
        format_name(part, &format);
        return entry_size(strlen(RECORD_IMAGE), message_size(part->size)) +
               entry_size(strlen(RECORD_FORMAT), message_size(format));
    case FRAME_LABEL:
        return entry_size(strlen(RECORD_LABEL), message_size(varint_size((uint64_t)sample->label))) +
               entry_size(strlen(RECORD_TEXT), message_size(sample->text_length));
    default: return entry_size(strlen(RECORD_OTHER) + part->name_length, message_size(part->size));
    }
}

static size_t record_features(const frame_sample *sample)
{
    size_t total = entry_size(strlen(RECORD_KEY), message_size(sample->key_length)) +
                   entry_size(strlen(RECORD_PATH), message_size(sample->path_length));
    for (int i = 0; i < sample->count && total <= (size_t)FRAME_LIMIT; i++)
        total += record_part_size(sample, sample->parts + i);
    return total;
}

/* Where the data of the image begins in a measured sample whose first part it is, of `size` bytes in all. */
static inline int64_t record_image_at(const frame_sample *sample, int64_t size)
{
    const frame_part *image = sample->parts;
    size_t format, behind = 4;
    format_name(image, &format);
    behind += entry_size(strlen(RECORD_FORMAT), message_size(format));
    for (int i = 1; i < sample->count; i++)
        behind += record_part_size(sample, sample->parts + i);
    return size - (int64_t)(image->size + behind);
}

static int64_t record_measured(const frame_sample *sample)
{
    if (sample->count == 0 || sample->key_length == 0)
        return 0;
    if (sample->key_length > (size_t)FRAME_LIMIT || sample->path_length > (size_t)FRAME_LIMIT)
        return 0;
    for (int i = 0; i < sample->count; i++)
        if (sample->parts[i].size > (size_t)FRAME_LIMIT)
            return 0;
    int64_t total = RECORD_HEAD + (int64_t)message_size(record_features(sample)) + 4;
    return total > FRAME_LIMIT ? 0 : total;
}

static uint8_t *put_little(uint8_t *to, uint64_t number, int bytes)
{
    for (int i = 0; i < bytes; i++, number >>= 8)
        *to++ = (uint8_t)number;
    return to;
}

static uint8_t *put_masked(uint8_t *to, uint32_t crc)
{
    return put_little(to, (uint32_t)((crc >> 15 | crc << 17) + 0xA282EAD8u), 4);
}

/* The state while a record is put: what was summed, and how much was left out. */
typedef struct {
    uint8_t *out, *summed;
    size_t apart;
    uint32_t crc;
} record_place;

static uint8_t *put_record_data(uint8_t *to, frame_part *part, record_place *place)
{
    part->cut = (size_t)(to - place->out);
    part->at = (int64_t)(part->cut + place->apart);
    if (part->apart) {
        place->crc = crc32c(place->crc, place->summed, (size_t)(to - place->summed));
        place->crc = crc32c(place->crc, part->data, part->size);
        place->summed = to;
        place->apart += part->size;
        return to;
    }
    copy_data(to, part->data, part->size);
    return to + part->size;
}

static uint8_t *put_record_part(uint8_t *to, const frame_sample *sample, frame_part *part, record_place *place)
{
    size_t length;
    const char *format;
    switch (part->role) {
    case FRAME_IMAGE:
        to = put_entry(to, RECORD_IMAGE, NULL, 0, 0x0A, message_size(part->size));
        to = put_record_data(put_message(to, 0x0A, part->size), part, place);
        format = format_name(part, &length);
        return put_bytes(to, RECORD_FORMAT, format, length);
    case FRAME_LABEL:
        part->at = -1;
        length = varint_size((uint64_t)sample->label);
        to = put_entry(to, RECORD_LABEL, NULL, 0, 0x1A, message_size(length));
        to = put_varint(put_message(to, 0x0A, length), (uint64_t)sample->label);
        return put_bytes(to, RECORD_TEXT, sample->text, sample->text_length);
    default:
        to = put_entry(to, RECORD_OTHER, part->name, part->name_length, 0x0A, message_size(part->size));
        return put_record_data(put_message(to, 0x0A, part->size), part, place);
    }
}

/* Put a measured sample at `out`; returns the bytes put there. */
static size_t record_put(uint8_t *out, frame_sample *sample)
{
    size_t features = record_features(sample);
    uint8_t *to = put_little(out, message_size(features), 8);
    to = put_masked(to, crc32c(0, out, 8));
    record_place place = {out, to, 0, 0};
    to = put_message(to, 0x0A, features);
    to = put_bytes(to, RECORD_KEY, sample->key, sample->key_length);
    to = put_bytes(to, RECORD_PATH, sample->path, sample->path_length);
    for (int i = 0; i < sample->count; i++)
        to = put_record_part(to, sample, sample->parts + i, &place);
    uint32_t crc = crc32c(place.crc, place.summed, (size_t)(to - place.summed));
    return (size_t)(put_masked(to, crc) - out);
}

#endif
