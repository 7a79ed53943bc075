/* The members of an archive that are stored as they are: those of a tar, and those of a zip without compression, which
 * are checked by their CRC-32 as in sources/readers.py. Everything else is left to Python.
 *
 * The table of the CRC-32 is for eight bytes at a time. Source: M. E. Kounavis and F. L. Berry, "Novel Table
 * Lookup-Based Algorithms for High-Performance CRC Generation" (2008).
 */
#ifndef SHARDKIT_FRAMING_STORED_MEMBER_H
#define SHARDKIT_FRAMING_STORED_MEMBER_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { ZIP_LOCAL = 30, IN_TAR = -1, IN_ZIP = 0 };

/* offset: of the data in a tar, of the local header in a zip. method: IN_TAR, or that of the zip. */
typedef struct {
    int64_t offset, packed, method, crc;
} Member;

static uint32_t crc32_table[8][256];

static void crc32_setup(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
        crc32_table[0][byte] = crc;
    }
    for (int place = 1; place < 8; place++)
        for (int byte = 0; byte < 256; byte++) {
            const uint32_t before = crc32_table[place - 1][byte];
            crc32_table[place][byte] = before >> 8 ^ crc32_table[0][before & 255];
        }
}

static uint32_t little32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint32_t crc32_of(const uint8_t *data, size_t length)
{
    uint32_t crc = 0xFFFFFFFFu;
    for (; length >= 8; data += 8, length -= 8) {
        const uint32_t low = crc ^ little32(data), high = little32(data + 4);
        crc = crc32_table[7][low & 255] ^ crc32_table[6][low >> 8 & 255] ^ crc32_table[5][low >> 16 & 255] ^
              crc32_table[4][low >> 24] ^ crc32_table[3][high & 255] ^ crc32_table[2][high >> 8 & 255] ^
              crc32_table[1][high >> 16 & 255] ^ crc32_table[0][high >> 24];
    }
    for (; length; data++, length--)
        crc = crc >> 8 ^ crc32_table[0][(crc ^ *data) & 255];
    return ~crc;
}

/* Read that many bytes from byte `at` of a file. 0 if there are fewer, or an error. */
static int read_range(int fd, uint8_t *place, size_t size, int64_t at)
{
    while (size) {
        const ssize_t more = pread(fd, place, size, (off_t)at);
        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0)
            return 0;
        place += more;
        at += more;
        size -= (size_t)more;
    }
    return 1;
}

/* Read a member of `size` bytes. 0 if it is not plainly stored, or not as the archive's directory says. */
static int read_member(int fd, const Member *member, uint8_t *place, int64_t size)
{
    if (member->offset < 0 || size < 0)
        return 0;
    if (member->method == IN_TAR)
        return read_range(fd, place, (size_t)size, member->offset);
    uint8_t header[ZIP_LOCAL];
    if (member->method != IN_ZIP || member->packed != size || !read_range(fd, header, ZIP_LOCAL, member->offset))
        return 0;
    if (memcmp(header, "PK\3\4", 4) != 0)
        return 0;
    const int64_t start = member->offset + ZIP_LOCAL + (header[26] | header[27] << 8) + (header[28] | header[29] << 8);
    return read_range(fd, place, (size_t)size, start) && crc32_of(place, (size_t)size) == member->crc;
}

#endif
