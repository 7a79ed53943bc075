/* Seek points: places in a JPEG's scan at which the Huffman decoder may enter, and their form in an index.
 *
 * A point is the position of a bit and the DC values before it. Points are at the same columns of every `step`-th row
 * of MCUs; `find_point` says which of them comes before an MCU. docs/jpeg-decoder.md explains what they are for,
 * docs/format/v1.md ("Seek points") gives the bytes: the CRC-32C of the image, the columns, then Golomb-Rice codes of
 * the differences to the row above (Golomb 1966; Rice and Plaunt 1971).
 *
 * Knows nothing of libjpeg. What is read is not trusted: every position is checked against the scan's length.
 */
#ifndef SHARDKIT_JPEG_SEEK_H
#define SHARDKIT_JPEG_SEEK_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEEK_HEAD = 4,          /* bytes of the CRC */
    SEEK_COLUMNS = 16,      /* the most points of a row */
    SEEK_COMPONENTS = 3,    /* of a scan: images of four colours are not decoded here */
    SEEK_BYTES = 1 << 16,   /* the most bytes for an image */
    SEEK_MCUS = 1 << 22,    /* images with more have no points */
    SEEK_RICE = 24,         /* so many ones: 32 plain bits follow */
    SEEK_MOST_RICE = 27,
    SEEK_STREAMS = 1 + SEEK_COMPONENTS,
};

/* bit: from the first byte of the scan on, stuffed bytes included. value: the DC value of each component before it. */
typedef struct {
    uint32_t bit;
    int16_t value[SEEK_COMPONENTS];
} seek_point;

/* count: how many points `at` holds. Row r of MCUs has points if step divides r; then point k of it is at column[k]. */
typedef struct {
    uint32_t step, columns, rows, column[SEEK_COLUMNS];
    size_t count, room;
    seek_point *at;
} seek_points;

static inline int seek_reserve(seek_points *points, size_t count)
{
    if (count > points->room) {
        free(points->at);
        points->at = malloc(count * sizeof *points->at);
        points->room = points->at ? count : 0;
    }
    points->count = points->at || !count ? count : 0;
    return points->count == count;
}

static inline uint32_t mcu_of_point(const seek_points *points, size_t i, uint32_t mcus)
{
    return (uint32_t)(i / points->columns) * points->step * mcus + points->column[i % points->columns];
}

/* The number of the last point at or before an MCU; `count` if there is none. mcus: of a row. */
static inline size_t find_point(const seek_points *points, uint32_t mcu, uint32_t mcus)
{
    if (points->count == 0)
        return 0;
    const uint32_t row = mcu / mcus / points->step, at = mcu - row * points->step * mcus;
    uint32_t k = points->columns;
    while (k > 0 && points->column[k - 1] > at)
        k--;
    return row == 0 && k == 0 ? points->count : (size_t)row * points->columns + k - 1;
}

/* ------------------------------------------------------------------------------------------------------ the bytes */

typedef struct {
    unsigned char *at, *end; /* the highest bit of a byte comes first */
    unsigned bit;            /* of *at, which is next */
    int full;
} seek_writer;

typedef struct {
    const unsigned char *at, *end;
    uint64_t bits; /* the next at the top; zeros beyond the end */
    int count, over;
} seek_reader;

static inline void put_bits(seek_writer *out, uint32_t value, unsigned n)
{
    while (n-- > 0) {
        if (out->at == out->end) {
            out->full = 1;
            return;
        }
        if (out->bit == 0)
            *out->at = 0;
        *out->at |= (unsigned char)((value >> n & 1) << (7 - out->bit));
        if (++out->bit == 8) {
            out->bit = 0;
            out->at++;
        }
    }
}

static inline void more_bits(seek_reader *in)
{
    while (in->count <= 56) {
        if (in->at < in->end)
            in->bits |= (uint64_t)*in->at++ << (56 - in->count);
        else
            in->over += 8;
        in->count += 8;
    }
}

/* n up to 32. */
static inline uint32_t take_bits(seek_reader *in, unsigned n)
{
    uint32_t value;
    if (n == 0)
        return 0;
    more_bits(in);
    value = (uint32_t)(in->bits >> (64 - n));
    in->bits <<= n;
    in->count -= (int)n;
    return value;
}

static inline uint32_t zigzag(int32_t value)
{
    return (uint32_t)value << 1 ^ (value < 0 ? UINT32_MAX : 0);
}

static inline int32_t unzigzag(uint32_t value)
{
    return (int32_t)(value >> 1 ^ (value & 1 ? UINT32_MAX : 0));
}

static inline void put_rice(seek_writer *out, uint32_t value, unsigned k)
{
    uint32_t high = value >> k;
    if (high >= SEEK_RICE) {
        put_bits(out, (1u << SEEK_RICE) - 1, SEEK_RICE);
        put_bits(out, value, 32);
        return;
    }
    put_bits(out, (1u << (high + 1)) - 2, high + 1);
    put_bits(out, value & ((1u << k) - 1), k);
}

static inline uint32_t take_rice(seek_reader *in, unsigned k)
{
    uint32_t high;
    more_bits(in);
    high = ~in->bits ? (uint32_t)__builtin_clzll(~in->bits) : 64;
    if (high >= SEEK_RICE) {
        take_bits(in, SEEK_RICE);
        return take_bits(in, 32);
    }
    take_bits(in, high + 1);
    return high << k | take_bits(in, k);
}

/* LEB128 */
static inline void put_number(seek_writer *out, uint32_t value)
{
    for (; value >= 128; value >>= 7)
        put_bits(out, (value & 127) | 128, 8);
    put_bits(out, value, 8);
}

static inline uint32_t take_number(seek_reader *in)
{
    uint32_t value = 0, byte = 128;
    for (unsigned shift = 0; shift < 28 && byte & 128; shift += 7) {
        byte = take_bits(in, 8);
        value |= (byte & 127) << shift;
    }
    return byte & 128 ? UINT32_MAX : value;
}

/* --------------------------------------------------------------------------------------------------- the differences */

/* What the numbers of point i (all rows in turn) are compared with. Bits: the length since the point before, against
 * that in the row above. DC values: those of the row above. In the first row: nothing, and the point before. */
static inline uint32_t expected_bit(const seek_point *at, size_t i, size_t columns)
{
    uint32_t before = i ? at[i - 1].bit : 0;
    if (i < columns)
        return before;
    return before + at[i - columns].bit - (i > columns ? at[i - columns - 1].bit : 0);
}

static inline int expected_value(const seek_point *at, size_t i, size_t columns, int c)
{
    return i >= columns ? at[i - columns].value[c] : i ? at[i - 1].value[c] : 0;
}

/* The difference of point i in a stream: 0 the bit, then the components. */
static inline uint32_t difference(const seek_point *at, size_t i, size_t columns, int stream)
{
    if (stream == 0)
        return zigzag((int32_t)(at[i].bit - expected_bit(at, i, columns)));
    return zigzag(at[i].value[stream - 1] - expected_value(at, i, columns, stream - 1));
}

static inline uint64_t rice_bits(const seek_points *points, int stream, unsigned k)
{
    uint64_t bits = 0;
    for (size_t i = 0; i < points->count; i++) {
        uint32_t high = difference(points->at, i, points->columns, stream) >> k;
        bits += high >= SEEK_RICE ? SEEK_RICE + 32 : high + 1 + k;
    }
    return bits;
}

/* A good Rice parameter: one of those next to the logarithm of the mean. */
static inline unsigned choose_rice(const seek_points *points, int stream)
{
    uint64_t sum = 0, least = UINT64_MAX;
    unsigned middle = 0, best = 0;
    for (size_t i = 0; i < points->count; i++)
        sum += difference(points->at, i, points->columns, stream);
    while (middle < SEEK_MOST_RICE - 1 && sum >> (middle + 1) >= points->count)
        middle++;
    for (unsigned k = middle ? middle - 1 : 0; k <= middle + 1; k++) {
        uint64_t bits = rice_bits(points, stream, k);
        if (bits < least) {
            least = bits;
            best = k;
        }
    }
    return best;
}

/* The points as bytes; their number, 0 if there is no room for them. */
static inline size_t write_points(const seek_points *points, int components, uint32_t crc, unsigned char *out,
                                  size_t room)
{
    seek_writer to = {.at = out, .end = out + room};
    unsigned k[SEEK_STREAMS];
    for (int i = 0; i < SEEK_HEAD; i++)
        put_bits(&to, crc >> 8 * i & 255, 8);
    put_number(&to, points->step);
    put_number(&to, points->columns);
    for (uint32_t i = 0; i < points->columns; i++)
        put_number(&to, points->column[i] - (i ? points->column[i - 1] : 0));
    for (int s = 0; s <= components; s++)
        put_bits(&to, k[s] = choose_rice(points, s), 8);
    for (size_t i = 0; i < points->count && !to.full; i++)
        for (int s = 0; s <= components; s++)
            put_rice(&to, difference(points->at, i, points->columns, s), k[s]);
    return to.full ? 0 : (size_t)(to.at - out) + (to.bit > 0);
}

/* Reads points for a scan of rows of `mcus` MCUs, `bytes` long. 0 if they can't be of it; then there are none. */
static inline int read_points(seek_points *points, const unsigned char *data, size_t size, int components,
                              uint32_t mcus, uint32_t rows, uint64_t bytes)
{
    seek_reader in = {.at = data + SEEK_HEAD, .end = data + size};
    unsigned k[SEEK_STREAMS];
    points->count = 0;
    if (size < SEEK_HEAD || size > SEEK_BYTES || components > SEEK_COMPONENTS || bytes >= UINT32_MAX / 8 || mcus == 0)
        return 0;
    points->step = take_number(&in);
    points->columns = take_number(&in);
    if (points->step == 0 || points->step > rows || points->columns == 0 || points->columns > SEEK_COLUMNS)
        return 0;
    for (uint32_t i = 0, column = 0; i < points->columns; i++) {
        uint32_t more = take_number(&in);
        if (more >= mcus || (i && more == 0) || (column += more) >= mcus)
            return 0;
        points->column[i] = column;
    }
    points->rows = (rows - 1) / points->step + 1;
    for (int s = 0; s <= components; s++)
        if ((k[s] = take_bits(&in, 8)) > SEEK_MOST_RICE)
            return 0;
    if ((uint64_t)points->rows * points->columns * (components + 1) > (uint64_t)size * 8) /* a bit each, at least */
        return 0;
    if (!seek_reserve(points, (size_t)points->rows * points->columns))
        return 0;
    for (size_t i = 0; i < points->count; i++) {
        seek_point *at = points->at + i;
        at->bit = expected_bit(points->at, i, points->columns) + (uint32_t)unzigzag(take_rice(&in, k[0]));
        for (int c = 0; c < components; c++)
            at->value[c] = (int16_t)(expected_value(points->at, i, points->columns, c) +
                                     (int)(int16_t)unzigzag(take_rice(&in, k[c + 1])));
        if (at->bit >= bytes * 8 || (i && at->bit <= at[-1].bit)) {
            points->count = 0;
            return 0;
        }
    }
    if (in.count < in.over) /* more bits than there are */
        points->count = 0;
    return points->count > 0;
}
#endif
