/* The plain members of an archive, as columns: what sources/archives/members.py collects one by one. Knows no Python. */
#ifndef SHARDKIT_ARCHIVES_MEMBERS_H
#define SHARDKIT_ARCHIVES_MEMBERS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../grow.h"

/* Columns of a member: bytes unpacked, offset, bytes as stored, method of a zip, CRC-32 or -1. */
enum { MEMBER_COLUMNS = 5 };

/* What a member may be: more of them, longer or deeper names, and bombs are left to Python. */
typedef struct {
    int64_t members, name_bytes, slashes, bomb_bytes, bomb_ratio;
} member_limits;

/* names: one behind the other. lengths: theirs. numbers: MEMBER_COLUMNS for each. */
typedef struct {
    char *names;
    int32_t *lengths;
    int64_t *numbers;
    size_t used, count, room[3]; /* of each of them */
} member_columns;

static void members_free(member_columns *columns)
{
    free(columns->names);
    free(columns->lengths);
    free(columns->numbers);
    memset(columns, 0, sizeof *columns);
}

/* Add a member. 0 if there is no memory. */
static int members_add(member_columns *columns, const char *name, size_t length, const int64_t *numbers)
{
    size_t *room = columns->room;
    if (!grow((void **)&columns->names, room, columns->used + length, 1) ||
        !grow((void **)&columns->lengths, room + 1, columns->count + 1, sizeof *columns->lengths) ||
        !grow((void **)&columns->numbers, room + 2, columns->count + 1, MEMBER_COLUMNS * sizeof *columns->numbers))
        return 0;
    memcpy(columns->names + columns->used, name, length);
    columns->used += length;
    columns->lengths[columns->count] = (int32_t)length;
    memcpy(columns->numbers + columns->count * MEMBER_COLUMNS, numbers, MEMBER_COLUMNS * sizeof *numbers);
    columns->count++;
    return 1;
}

/* Where the clean name begins in a name that needs no more than its leading "./" removed; -1 for all other names, which
 * MembersBuilder.clean changes or refuses. */
static int plain_name(const char *name, size_t length, const member_limits *limits)
{
    const size_t begin = length >= 2 && name[0] == '.' && name[1] == '/' ? 2 : 0;
    int64_t slashes = begin ? 1 : 0;
    char before = '/';
    if (length == begin || length > (size_t)limits->name_bytes)
        return -1;
    for (size_t at = begin; at < length; at++) {
        const char now = name[at];
        if (now == ':' || now == 0)
            return -1;
        if ((now == '/' || now == '.') && (before == '/' || before == '.'))
            return -1;
        slashes += now == '/';
        before = now;
    }
    return before == '/' || slashes > limits->slashes ? -1 : (int)begin;
}

static int is_bomb(int64_t size, int64_t packed, const member_limits *limits)
{
    return size > limits->bomb_bytes && size / limits->bomb_ratio >= packed;
}

#endif
