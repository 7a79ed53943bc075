/* Files that were read before it is known which shard they belong to: in one piece of memory, found by their paths.
 *
 * One thread keeps them; when it has ended, any number of threads find them.
 */
#ifndef SHARDKIT_READ_FILES_H
#define SHARDKIT_READ_FILES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LONGEST_PATH = 4096 }; /* with its NUL */

enum { FILE_UNIT = 8, HUGE_PAGE = 1 << 21 };

#ifndef FIRST_SLOTS /* a power of two, of which half are used */
#define FIRST_SLOTS (1 << 17)
#endif

/* Where a file is. mark: half of the mark of its path. at: of its record, in FILE_UNITs; NO_FILE: none. */
typedef struct {
    uint32_t mark, at;
} file_slot;

static const uint32_t NO_FILE = UINT32_MAX;

/* A file: this, then its path, then its bytes. */
typedef struct {
    uint32_t size, path_length;
} file_record;

typedef struct {
    uint8_t *bytes;
    size_t room, used; /* equal: nothing more is kept */
    file_slot *slots;
    size_t slot_count, count;
    uint64_t mark; /* of the file whose place was asked for last */
} ReadFiles;

/* The mark of a path, never 0: eight bytes at a time, since the packer needs it for each file. */
static uint64_t path_mark(const char *path, size_t length)
{
    const uint64_t odd = 0x9E3779B97F4A7C15u;
    uint64_t mark = (length + 1) * odd, word;
    for (; length >= sizeof word; path += sizeof word, length -= sizeof word) {
        memcpy(&word, path, sizeof word);
        mark = (mark ^ word) * odd;
        mark ^= mark >> 32;
    }
    word = 0;
    memcpy(&word, path, length);
    mark = (mark ^ word) * odd;
    return (mark ^ mark >> 32) | 1u << 31;
}

/* The mark of the file PREFIX/PATH; prefix: "" or a path. 0 for one that is too long to be kept. */
static uint64_t mark_below(const char *prefix, const char *path, size_t length)
{
    char whole[LONGEST_PATH];
    size_t before = strlen(prefix);
    if (before == 0)
        return path_mark(path, length);
    if (before + 1 + length >= LONGEST_PATH)
        return 0;
    memcpy(whole, prefix, before);
    whole[before++] = '/';
    memcpy(whole + before, path, length);
    return path_mark(whole, before + length);
}

static size_t first_slot(const ReadFiles *self, uint64_t mark)
{
    return (mark >> 32) & (self->slot_count - 1);
}

static void put_slot(ReadFiles *self, file_slot slot, uint64_t mark)
{
    size_t at = first_slot(self, mark);
    while (self->slots[at].at != NO_FILE)
        at = (at + 1) & (self->slot_count - 1);
    self->slots[at] = slot;
}

static const char *path_of_record(const ReadFiles *self, uint32_t at, file_record *record)
{
    const uint8_t *from = self->bytes + (size_t)at * FILE_UNIT;
    memcpy(record, from, sizeof *record);
    return (const char *)from + sizeof *record;
}

static int more_slots(ReadFiles *self)
{
    ReadFiles more = *self;
    file_record record;
    more.slot_count = self->slot_count ? 2 * self->slot_count : FIRST_SLOTS;
    more.slots = malloc(more.slot_count * sizeof *more.slots);
    if (more.slots == NULL)
        return 0;
    memset(more.slots, 0xFF, more.slot_count * sizeof *more.slots);
    for (size_t i = 0; i < self->slot_count; i++) {
        if (self->slots[i].at == NO_FILE)
            continue;
        const char *path = path_of_record(self, self->slots[i].at, &record);
        put_slot(&more, self->slots[i], path_mark(path, record.path_length));
    }
    free(self->slots);
    *self = more;
    return 1;
}

/* Prepare for about `room` bytes, which take memory only as they are used. Without memory, nothing is kept. */
static void begin_files(ReadFiles *self, size_t room)
{
    void *bytes = NULL;
    memset(self, 0, sizeof *self);
    room = room / FILE_UNIT < NO_FILE ? room / FILE_UNIT * FILE_UNIT : 0;
    if (room == 0 || posix_memalign(&bytes, HUGE_PAGE, room) != 0)
        return;
#ifdef MADV_HUGEPAGE /* a tenth of the time to read small files, and to find them at random */
    (void)madvise(bytes, room, MADV_HUGEPAGE);
#endif
    self->bytes = bytes;
    self->room = room;
}

/* Bring to the cache the slot of a mark, or what a slot of it leads to. */
static void fetch_slot(const ReadFiles *self, uint64_t mark)
{
    if (self->slot_count)
        __builtin_prefetch(self->slots + first_slot(self, mark));
}

static void fetch_record(const ReadFiles *self, uint64_t mark)
{
    const uint32_t at = self->slot_count ? self->slots[first_slot(self, mark)].at : NO_FILE;
    for (size_t line = 0; at != NO_FILE && line < 4; line++)
        __builtin_prefetch(self->bytes + (size_t)at * FILE_UNIT + 64 * line);
}

/* The place for the bytes of the file FOLDER/NAME, `most` and one more; NULL if there is none. */
static uint8_t *file_place(ReadFiles *self, const char *folder, const char *name, size_t most)
{
    const size_t before = strlen(folder), length = strlen(name), whole = before + (before > 0) + length;
    const file_record record = {0, (uint32_t)whole};
    const size_t left = self->room - self->used, around = sizeof record + whole + 1;
    if (around > left || most > left - around) {
        self->used = self->room;
        return NULL;
    }
    uint8_t *to = self->bytes + self->used;
    memcpy(to, &record, sizeof record);
    to += sizeof record;
    memcpy(to, folder, before);
    if (before)
        to[before] = '/';
    memcpy(to + whole - length, name, length);
    self->mark = path_mark((const char *)to, whole);
    fetch_slot(self, self->mark); /* comes while the file is read */
    return to + whole;
}

/* Keep the file whose place was asked for last, with the `size` bytes there. */
static void keep_file(ReadFiles *self, size_t size)
{
    file_record record;
    uint8_t *from = self->bytes + self->used;
    if (2 * (self->count + 1) > self->slot_count && !more_slots(self))
        return;
    memcpy(&record, from, sizeof record);
    record.size = (uint32_t)size;
    memcpy(from, &record, sizeof record);
    put_slot(self, (file_slot){(uint32_t)self->mark, (uint32_t)(self->used / FILE_UNIT)}, self->mark);
    const size_t whole = sizeof record + record.path_length + record.size;
    self->used += (whole + FILE_UNIT - 1) / FILE_UNIT * FILE_UNIT;
    self->count++;
}

/* The bytes of the file PREFIX/PATH, which has this mark, if it was kept with this size. */
static const uint8_t *find_file(const ReadFiles *self, uint64_t mark, const char *prefix, const char *path,
                                size_t length, int64_t size)
{
    const size_t before = strlen(prefix), whole = before + (before > 0) + length;
    if (self->slot_count == 0)
        return NULL;
    for (size_t at = first_slot(self, mark); self->slots[at].at != NO_FILE; at = (at + 1) & (self->slot_count - 1)) {
        if (self->slots[at].mark != (uint32_t)mark)
            continue;
        file_record record;
        const char *found = path_of_record(self, self->slots[at].at, &record);
        if (record.path_length == whole && memcmp(found, prefix, before) == 0 &&
            (before == 0 || found[before] == '/') && memcmp(found + whole - length, path, length) == 0)
            return record.size == size ? (const uint8_t *)found + whole : NULL;
    }
    return NULL;
}

static void end_files(ReadFiles *self)
{
    free(self->bytes);
    free(self->slots);
}

#endif
