/* The members of a zip file, from its central directory: what sources/archives/zip.py reads. Knows no Python.
 *
 * It takes plain members: files that are stored or deflated, in names of ASCII, or of another code that need not be
 * guessed, which need no cleaning. It stops where the first other entry begins, and Python reads on there.
 */
#ifndef SHARDKIT_ARCHIVES_ZIP_H
#define SHARDKIT_ARCHIVES_ZIP_H

#include "members.h"

enum {
    ZIP_ENTRY = 46,
    ZIP_UNIX = 3,
    ZIP_ENCRYPTED = 1,
    ZIP_UTF8 = 0x800,
    ZIP_DEFLATED = 8,
    ZIP_UNICODE_PATH = 0x7075,
    ZIP_FILE = 0100000, /* S_IFREG and S_IFMT of Unix, wherever this runs */
    ZIP_TYPE = 0170000
};

static uint32_t zip_little16(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static uint32_t zip_little32(const uint8_t *at)
{
    return zip_little16(at) | zip_little16(at + 2) << 16;
}

static int zip_has_unicode_path(const uint8_t *extra, size_t length)
{
    for (size_t at = 0; at + 4 <= length; at += 4 + zip_little16(extra + at + 2))
        if (zip_little16(extra + at) == ZIP_UNICODE_PATH)
            return 1;
    return 0;
}

/* Whether a name is UTF-8, or bytes that stay as they are. */
static int zip_is_read_as_it_is(const uint8_t *entry, size_t name, size_t extra)
{
    const uint8_t *text = entry + ZIP_ENTRY;
    int ascii = 1;
    for (size_t at = 0; at < name; at++) {
        if (text[at] == '\\')
            return 0;
        ascii &= text[at] < 128;
    }
    if (ascii)
        return 1;
    const int marked = (zip_little16(entry + 8) & ZIP_UTF8) != 0 || entry[5] == ZIP_UNIX;
    return marked && !zip_has_unicode_path(text + name, extra);
}

/* Whether an entry is a file that can be read, by what its numbers say. */
static int zip_is_file(const uint8_t *entry)
{
    const uint32_t method = zip_little16(entry + 10), packed = zip_little32(entry + 20),
                   size = zip_little32(entry + 24), offset = zip_little32(entry + 42);
    const uint32_t type = entry[5] == ZIP_UNIX ? zip_little16(entry + 40) & ZIP_TYPE : 0;
    if (packed == UINT32_MAX || size == UINT32_MAX || offset == UINT32_MAX) /* of zip64 */
        return 0;
    if ((zip_little16(entry + 8) & ZIP_ENCRYPTED) || (type != 0 && type != ZIP_FILE))
        return 0;
    return method == ZIP_DEFLATED || (method == 0 && packed == size);
}

/* Add the plain members from byte `at` of the directory on, at most `limits->members`. shift: what to add to offsets.
 * Returns where the next one begins; -1: no memory. */
static int64_t zip_members(const uint8_t *directory, size_t length, size_t at, int64_t shift,
                           const member_limits *limits, member_columns *found)
{
    while ((int64_t)found->count < limits->members && length - at >= ZIP_ENTRY) {
        const uint8_t *entry = directory + at;
        const size_t name = zip_little16(entry + 28), extra = zip_little16(entry + 30),
                     whole = ZIP_ENTRY + name + extra + zip_little16(entry + 32);
        if (memcmp(entry, "PK\1\2", 4) != 0 || whole > length - at)
            break;
        if (!zip_is_file(entry) || !zip_is_read_as_it_is(entry, name, extra))
            break;
        const int begin = plain_name((const char *)entry + ZIP_ENTRY, name, limits);
        const int64_t size = zip_little32(entry + 24), packed = zip_little32(entry + 20);
        if (begin < 0 || is_bomb(size, packed, limits))
            break;
        const int64_t numbers[MEMBER_COLUMNS] = {size, (int64_t)zip_little32(entry + 42) + shift, packed,
                                                 zip_little16(entry + 10), zip_little32(entry + 16)};
        if (!members_add(found, (const char *)entry + ZIP_ENTRY + begin, name - (size_t)begin, numbers))
            return -1;
        at += whole;
    }
    return (int64_t)at;
}

#endif
