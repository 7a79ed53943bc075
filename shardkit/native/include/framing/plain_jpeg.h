/* The size of a JPEG whose header is plain, for the parts that pack: gather.c and framing.c.
 *
 * Everything else is left to images/jpeg.py, with its checks and messages.
 */
#ifndef SHARDKIT_FRAMING_PLAIN_JPEG_H
#define SHARDKIT_FRAMING_PLAIN_JPEG_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { PROGRESSIVE = 0xC2 }; /* the marker of a frame */

/* As images/jpeg.check_scans. */
static int few_scans(const uint8_t *at, const uint8_t *end, int max_scans)
{
    int scans = 0;
    while ((at = memchr(at, 0xFF, (size_t)(end - at))) != NULL && ++at < end)
        scans += *at == 0xDA;
    return scans <= max_scans;
}

/* Whether all decoders read the frame at `at`, of which 10 bytes are available: images/jpeg.Frame.is_common. */
static int plain_frame(const uint8_t *data, ptrdiff_t length, ptrdiff_t at, int max_scans)
{
    const int components = data[at + 9];
    if (data[at + 1] == PROGRESSIVE && !few_scans(data + at, data + length, max_scans))
        return 0;
    if (data[at + 1] > PROGRESSIVE || data[at + 4] != 8 || (components != 1 && components != 3))
        return 0;
    if ((data[at + 2] << 8 | data[at + 3]) != 8 + 3 * components || at + 10 + 3 * components > length)
        return 0;
    if (components == 1)
        return 1;
    const uint8_t luma = data[at + 11];
    return (luma == 0x11 || luma == 0x12 || luma == 0x21 || luma == 0x22 || luma == 0x41) && data[at + 14] == 0x11 &&
           data[at + 17] == 0x11;
}

/* The marker of the frame of a JPEG with both its start and end marks, its width and its height. 0 for everything that
 * is not plain. */
static int jpeg_size(const uint8_t *data, ptrdiff_t length, uint64_t max_pixels, int max_scans, int64_t *width,
                     int64_t *height)
{
    if (length < 14 || data[0] != 0xFF || data[1] != 0xD8 || data[length - 2] != 0xFF || data[length - 1] != 0xD9)
        return 0;
    ptrdiff_t at = 2;
    int tables = 0; /* the quantisation table comes before the frame in nearly every file */
    while (at + 10 <= length && data[at] == 0xFF) {
        uint8_t marker = data[at + 1];
        if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC) {
            *height = data[at + 5] << 8 | data[at + 6];
            *width = data[at + 7] << 8 | data[at + 8];
            uint64_t pixels = (uint64_t)*width * (uint64_t)*height;
            return tables && plain_frame(data, length, at, max_scans) && pixels > 0 && pixels <= max_pixels ? marker
                                                                                                            : 0;
        }
        /* of the segments allowed before a frame; not plain: fill bytes, markers without a length or meaning */
        if (marker != 0xC4 && (marker < 0xDB || marker > 0xEF) && marker != 0xFE)
            return 0;
        if (marker == 0xDE || marker == 0xDF)
            return 0;
        tables |= marker == 0xDB;
        ptrdiff_t segment = data[at + 2] << 8 | data[at + 3];
        if (segment < 2)
            return 0;
        at += 2 + segment;
    }
    return 0;
}

#endif
