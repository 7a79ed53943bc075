/* The chunks of a PNG: what the pixels are like, and where they are.
 *
 *   89 "PNG" 0D 0A 1A 0A, then chunks `length(4, big-endian) name(4) … CRC(4)`; the first is IHDR: width (4), height
 *   (4), depth, colour type, compression, filters, interlace; the pixels are zlib data in one or more IDAT, each row
 *   after a byte that names its filter                                                      ISO 15948, 5, 9 and 11
 *
 * Checksums are looked at where images/png.py does: in all chunks that the pixels need, but IDAT.
 */
#ifndef SHARDKIT_PNG_CHUNKS_H
#define SHARDKIT_PNG_CHUNKS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../crc32.h"

enum color { GRAY = 0, RGB = 2, PALETTE = 3, GRAY_ALPHA = 4, RGB_ALPHA = 6 };

typedef struct {
    int height, width, depth, color, interlaced;
    int bits, step;      /* of a pixel; its bytes, at least 1 */
    size_t coded, parts; /* bytes in all IDAT, and how many there are */
    size_t first;        /* where the first of them is */
    const unsigned char *palette;
    int palette_size;
} header;

static uint32_t big_endian(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Whether the checksum of a chunk with n bytes of content is right. */
static int has_its_crc(const unsigned char *chunk, size_t n)
{
    return crc32_of(chunk + 4, n + 4) == big_endian(chunk + 8 + n);
}

static const char *read_header(header *head, const unsigned char *data, size_t size)
{
    static const unsigned char bands[7] = {1, 0, 3, 1, 2, 0, 4}, depths[7] = {31, 0, 24, 15, 24, 0, 24};
    memset(head, 0, sizeof *head);
    if (size < 45 || memcmp(data, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16) != 0)
        return "no PNG";
    const uint32_t width = big_endian(data + 16), height = big_endian(data + 20);
    head->depth = data[24];
    head->color = data[25];
    head->interlaced = data[28];
    if (!has_its_crc(data + 8, 13) || width == 0 || height == 0 || width > INT32_MAX || height > INT32_MAX)
        return "impossible header";
    if (head->color > 6 || head->depth > 16 || (head->depth & (head->depth - 1)) || head->depth == 0 ||
        !(depths[head->color] & head->depth) || data[26] || data[27] || head->interlaced > 1)
        return "impossible header";
    head->width = (int)width;
    head->height = (int)height;
    head->bits = head->depth * bands[head->color];
    head->step = head->bits < 8 ? 1 : head->bits / 8;
    return NULL;
}

/* A chunk that is not IDAT or the end. */
static const char *read_chunk(header *head, const unsigned char *chunk, size_t n, int *has_alpha)
{
    static const int alpha_bytes[7] = {2, -1, 6, 256, -1, -1, -1};
    if (memcmp(chunk + 4, "PLTE", 4) == 0) {
        if (head->palette || head->parts || *has_alpha || n == 0 || n > 768 || n % 3 || !has_its_crc(chunk, n) ||
            (head->color & RGB) == 0)
            return "odd palette";
        head->palette = chunk + 8;
        head->palette_size = (int)n / 3;
    } else if (memcmp(chunk + 4, "tRNS", 4) == 0) {
        const int most = alpha_bytes[head->color];
        if (*has_alpha || head->parts || !has_its_crc(chunk, n) || most < 0 || n > (size_t)most ||
            (head->color != PALETTE && n != (size_t)most))
            return "odd transparency";
        *has_alpha = 1;
    } else if (chunk[4] < 'a' || chunk[4] > 'z') {
        return "unknown critical chunk";
    }
    return NULL;
}

/* All chunks, up to the end. */
static const char *read_chunks(header *head, const unsigned char *data, size_t size)
{
    int has_alpha = 0;
    for (size_t at = 33; at + 12 <= size;) {
        const unsigned char *chunk = data + at;
        const size_t n = big_endian(chunk);
        const char *reason = NULL;
        if (n > size - at - 12)
            return "cut";
        if (memcmp(chunk + 4, "IEND", 4) == 0)
            return head->parts == 0 ? "no pixels" : head->color == PALETTE && !head->palette ? "no palette" : NULL;
        if (memcmp(chunk + 4, "IDAT", 4) == 0) {
            head->first = head->parts++ ? head->first : at;
            head->coded += n;
        } else if ((reason = read_chunk(head, chunk, n, &has_alpha)) != NULL) {
            return reason;
        }
        at += n + 12;
    }
    return "cut";
}
#endif
