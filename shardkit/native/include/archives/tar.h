/* The members of a plain tar file, from its headers: what sources/archives/tar.py and formats/tar/headers.py read. Knows no
 * Python.
 *
 * It takes plain members: regular files that lie within the file, whose headers have a correct checksum, and whose names
 * need no cleaning; long names of GNU and the records `path` and `size` of PAX among them. It stops where the first other
 * member begins, with the extended headers before it, and Python reads on there. So nothing here reports an error.
 */
#ifndef SHARDKIT_ARCHIVES_TAR_H
#define SHARDKIT_ARCHIVES_TAR_H

#include <errno.h>
#include <unistd.h>

#include "members.h"

enum { TAR_BLOCK = 512, TAR_ALONG = 1 << 14, TAR_ROOM = 1 << 16, TAR_PATH = 4096 };

/* A window of the file. size: of the file. */
typedef struct {
    int fd;
    int64_t size, first;
    size_t held;
    uint8_t bytes[TAR_ROOM];
} tar_file;

/* `length` bytes from `at` on, at most TAR_ROOM; NULL if there are fewer, or an error. */
static const uint8_t *tar_bytes(tar_file *file, int64_t at, size_t length)
{
    if (at < 0 || at > file->size || length > TAR_ROOM || (int64_t)length > file->size - at)
        return NULL;
    if (at < file->first || (uint64_t)(at - file->first) + length > file->held) {
        const size_t wanted = length > TAR_ALONG ? length : TAR_ALONG; /* small members have several headers in it */
        file->first = at;
        file->held = 0;
        while (file->held < length) {
            const ssize_t more =
                pread(file->fd, file->bytes + file->held, wanted - file->held, (off_t)(at + (int64_t)file->held));
            if (more < 0 && errno == EINTR)
                continue;
            if (more <= 0)
                return NULL;
            file->held += (size_t)more;
        }
    }
    return file->bytes + (at - file->first);
}

static size_t tar_until_nul(const uint8_t *field, size_t length)
{
    const uint8_t *end = memchr(field, 0, length);
    return end == NULL ? length : (size_t)(end - field);
}

/* A number field of octal digits between spaces, up to a NUL; -1 for anything else. */
static int64_t tar_octal(const uint8_t *field, size_t length)
{
    size_t at = 0;
    int64_t number = 0;
    length = tar_until_nul(field, length);
    for (; at < length && field[at] == ' '; at++)
        ;
    for (; at < length && field[at] >= '0' && field[at] <= '7'; at++)
        number = number * 8 + (field[at] - '0');
    for (; at < length && field[at] == ' '; at++)
        ;
    return at == length ? number : -1;
}

static int tar_is_header(const uint8_t *block)
{
    unsigned sum = 8 * ' ';
    for (int at = 0; at < TAR_BLOCK; at++)
        sum += block[at];
    for (int at = 148; at < 156; at++)
        sum -= block[at];
    return tar_octal(block + 148, 8) == (int64_t)sum;
}

static int64_t tar_padded(int64_t size)
{
    return (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
}

/* The name and size of the member whose headers are read. size: -1 if no extended header has one. */
typedef struct {
    char name[TAR_PATH];
    size_t length;
    int64_t size;
} tar_member;

static int tar_take_name(tar_member *member, const void *name, size_t length)
{
    if (length > TAR_PATH)
        return 0;
    memcpy(member->name, name, length);
    member->length = length;
    return 1;
}

/* Take a record of PAX; 0 if Python should look at it. */
static int tar_take_record(tar_member *member, const char *keyword, size_t length, const char *value, size_t size)
{
    if (length >= 11 && memcmp(keyword, "GNU.sparse.", 11) == 0)
        return 0;
    if (length == 4 && memcmp(keyword, "path", 4) == 0) {
        if (memchr(value, 0, size) != NULL)
            return 0;
        while (size && value[size - 1] == '/')
            size--;
        return tar_take_name(member, value, size);
    }
    if (length == 4 && memcmp(keyword, "size", 4) == 0) {
        int64_t number = size ? 0 : -1; /* an empty value deletes the record */
        if (size > 15)
            return 0;
        for (size_t at = 0; at < size; at++) {
            if (value[at] < '0' || value[at] > '9')
                return 0;
            number = number * 10 + (value[at] - '0');
        }
        member->size = number;
    }
    return 1;
}

/* Take the records of a PAX header: "LENGTH KEYWORD=VALUE\n" each. 0 if Python should look at them. */
static int tar_take_records(tar_member *member, const uint8_t *payload, size_t size)
{
    size_t at = 0;
    while (at < size && payload[at] != 0) {
        size_t length = 0, digits = 0;
        for (; digits < 7 && at + digits < size && payload[at + digits] >= '0' && payload[at + digits] <= '9'; digits++)
            length = 10 * length + (size_t)(payload[at + digits] - '0');
        if (digits == 0 || at + digits >= size || payload[at + digits] != ' ')
            return 0;
        if (length > size - at || length < digits + 2 || payload[at + length - 1] != '\n')
            return 0;
        const char *keyword = (const char *)payload + at + digits + 1;
        const size_t rest = length - digits - 2;
        const char *equals = memchr(keyword, '=', rest);
        if (equals == NULL)
            return 0;
        const size_t named = (size_t)(equals - keyword);
        if (!tar_take_record(member, keyword, named, equals + 1, rest - named - 1))
            return 0;
        at += length;
    }
    return 1;
}

/* Take the payload of an extended header of this kind and size. 0 if Python should look at it. */
static int tar_take_extension(tar_member *member, tar_file *file, uint8_t kind, int64_t at, int64_t size)
{
    if (size > TAR_ROOM - TAR_BLOCK)
        return 0;
    const uint8_t *payload = tar_bytes(file, at, (size_t)tar_padded(size));
    if (payload == NULL)
        return 0;
    if (kind == 'L')
        return tar_take_name(member, payload, tar_until_nul(payload, (size_t)size));
    return kind == 'K' || tar_take_records(member, payload, (size_t)size);
}

/* The name in a header, with the prefix of ustar. */
static void tar_name(tar_member *member, const uint8_t *block)
{
    size_t length = 0;
    if (memcmp(block + 257, "ustar", 5) == 0 && memcmp(block + 257, "ustar  ", 7) != 0 && block[345]) {
        length = tar_until_nul(block + 345, 155);
        memcpy(member->name, block + 345, length);
        member->name[length++] = '/';
    }
    const size_t last = tar_until_nul(block, 100);
    memcpy(member->name + length, block, last);
    member->length = length + last;
}

/* Read the headers of the member at `at`. Returns where its data begins; -1 if it is not plain. */
static int64_t tar_read_headers(tar_file *file, int64_t at, tar_member *member)
{
    member->length = 0;
    member->size = -1;
    for (;;) {
        const uint8_t *block = tar_bytes(file, at, TAR_BLOCK);
        if (block == NULL || !tar_is_header(block))
            return -1;
        const int64_t size = tar_octal(block + 124, 12);
        const uint8_t kind = block[156];
        at += TAR_BLOCK;
        if (size < 0)
            return -1;
        if (kind == 'x' || kind == 'X' || kind == 'L' || kind == 'K') {
            if (!tar_take_extension(member, file, kind, at, size))
                return -1;
            at += tar_padded(size);
            continue;
        }
        const size_t named = tar_until_nul(block, 100);
        if ((kind != '0' && kind != '7' && kind != 0) || (kind == 0 && named && block[named - 1] == '/'))
            return -1;
        if (member->length == 0)
            tar_name(member, block);
        if (member->size < 0)
            member->size = size;
        return at;
    }
}

/* Add the plain members from `at` on, at most `limits->members`. Returns where the next one begins; -1: no memory. */
static int64_t tar_members(tar_file *file, int64_t at, const member_limits *limits, member_columns *found)
{
    tar_member member;
    while ((int64_t)found->count < limits->members) {
        const int64_t data = tar_read_headers(file, at, &member);
        if (data < 0 || member.size > file->size - data || tar_padded(member.size) > file->size - data)
            break;
        const int begin = plain_name(member.name, member.length, limits);
        if (begin < 0 || is_bomb(member.size, member.size, limits))
            break;
        const int64_t numbers[MEMBER_COLUMNS] = {member.size, data, member.size, 0, -1};
        if (!members_add(found, member.name + begin, member.length - (size_t)begin, numbers))
            return -1;
        at = data + tar_padded(member.size);
    }
    return at;
}

#endif
