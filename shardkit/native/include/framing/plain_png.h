/* The size of a PNG whose chunks before the pixels are plain, for the part that packs: gather.c.
 *
 * Everything else is left to images/header.py and images/png.py, with their checks and messages.
 */
#ifndef SHARDKIT_FRAMING_PLAIN_PNG_H
#define SHARDKIT_FRAMING_PLAIN_PNG_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../crc32.h"

enum { PNG_IHDR = 8, PNG_AFTER_IHDR = 33, PNG_CHUNK = 12 };

static uint32_t png_number(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Whether the checksum of the chunk at `at`, which has `length` bytes of data, is right. ISO 15948, annex D. */
static int png_sound(const uint8_t *at, uint32_t length)
{
    return crc32_of(at + 4, length + 4) == png_number(at + 8 + length);
}

/* Whether a colour type has this bit depth: images/png.DEPTHS. */
static int png_depth(uint8_t depth, uint8_t color)
{
    const int small = depth == 1 || depth == 2 || depth == 4;
    switch (color) {
    case 0: return small || depth == 8 || depth == 16;
    case 3: return small || depth == 8;
    case 2:
    case 4:
    case 6: return depth == 8 || depth == 16;
    default: return 0;
    }
}

/* Whether the pixels come after sound chunks, the first of which is at byte `at`. */
static int png_reaches_pixels(const uint8_t *data, ptrdiff_t length, ptrdiff_t at)
{
    while (length - at >= PNG_CHUNK) {
        const uint8_t *chunk = data + at, *name = chunk + 4;
        const uint32_t size = png_number(chunk);
        if ((uint64_t)size > (uint64_t)(length - at - PNG_CHUNK))
            return 0;
        if (!memcmp(name, "IDAT", 4))
            return 1;
        if (!memcmp(name, "IHDR", 4) || !memcmp(name, "IEND", 4))
            return 0;
        if ((!memcmp(name, "PLTE", 4) || !memcmp(name, "tRNS", 4)) && (size > 768 || !png_sound(chunk, size)))
            return 0;
        at += PNG_CHUNK + (ptrdiff_t)size;
    }
    return 0;
}

/* Width and height of a PNG that ends with its end chunk. 0 for everything that is not plain. */
static int png_size(const uint8_t *data, ptrdiff_t length, uint64_t max_pixels, int64_t *width, int64_t *height)
{
    static const uint8_t head[16] = {0x89, 'P', 'N', 'G', 13, 10, 26, 10, 0, 0, 0, 13, 'I', 'H', 'D', 'R'};
    static const uint8_t tail[12] = {0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xAE, 0x42, 0x60, 0x82};
    if (length < PNG_AFTER_IHDR + 2 * PNG_CHUNK || memcmp(data, head, sizeof head) != 0 ||
        memcmp(data + length - (ptrdiff_t)sizeof tail, tail, sizeof tail) != 0)
        return 0;
    *width = png_number(data + 16);
    *height = png_number(data + 20);
    const uint64_t pixels = (uint64_t)*width * (uint64_t)*height;
    return pixels > 0 && pixels <= max_pixels && png_depth(data[24], data[25]) && !data[26] && !data[27] &&
           data[28] <= 1 && png_sound(data + PNG_IHDR, 13) && png_reaches_pixels(data, length, PNG_AFTER_IHDR);
}

#endif
