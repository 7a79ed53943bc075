/* The members of an archive that are stored as they are: those of a tar, and those of a zip without compression, which
 * are checked by their CRC-32 as in sources/readers.py. Everything else is left to Python.
 */
#ifndef SHARDKIT_FRAMING_STORED_MEMBER_H
#define SHARDKIT_FRAMING_STORED_MEMBER_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "../crc32.h"

enum { ZIP_LOCAL = 30, IN_TAR = -1, IN_ZIP = 0 };

/* offset: of the data in a tar, of the local header in a zip. method: IN_TAR, or that of the zip. */
typedef struct {
    int64_t offset, packed, method, crc;
} Member;

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
