/* Inflate (RFC 1951) in a zlib wrapper (RFC 1950), a buffer at a time, for data that is in memory as a whole.
 *
 * It takes what zlib takes or less: everything that zlib refuses is refused, with "not done" for the caller, who has
 * another decoder. The last 32 KiB of output stay in the buffer, since later bytes are copied from there.
 */
#ifndef SHARDKIT_PNG_INFLATE_H
#define SHARDKIT_PNG_INFLATE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "codes.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum {
    WINDOW = 32768,
    SLACK = 320, /* bytes that one step may write beyond the limit */
};

enum block { BLOCK_NONE, BLOCK_STORED, BLOCK_CODED, BLOCK_ENDED };

typedef struct {
    const unsigned char *in, *in_end;
    uint64_t bits; /* those read and not yet taken, the next one lowest */
    int n_bits;
    int missing; /* bytes read beyond the end, as zeros */
    enum block block;
    int last_block;
    size_t stored; /* bytes left of a stored block */
    int root, pairs;
    uint32_t literal[LITERAL_ROOM], distance[DISTANCE_ROOM];
    unsigned char lengths[320];

    unsigned char *out; /* the buffer; produced bytes up to `have` */
    size_t have;
} inflater;

/* -------------------------------------------------------------------------------------------------------- the bits */

static ALWAYS_INLINE uint64_t load_8(const unsigned char *from)
{
    uint64_t found;
    memcpy(&found, from, sizeof found);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    found = __builtin_bswap64(found);
#endif
    return found;
}

/* 56 to 63 bits, a byte at a time, with zeros beyond the end. */
static void refill(inflater *self)
{
    while (self->n_bits < 56) {
        if (self->in < self->in_end)
            self->bits |= (uint64_t)*self->in++ << self->n_bits;
        else
            self->missing++;
        self->n_bits += 8;
    }
}

static uint32_t take(inflater *self, int n)
{
    const uint32_t found = (uint32_t)(self->bits & ((1u << n) - 1));
    self->bits >>= n;
    self->n_bits -= n;
    return found;
}

/* Whether bits were taken that are not there. */
static int is_cut(const inflater *self)
{
    return self->missing * 8 > self->n_bits;
}

/* ------------------------------------------------------------------------------------------------------ the blocks */

/* The table of a block's own codes. 0, or a reason. */
static const char *read_codes(inflater *self)
{
    static const unsigned char order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    unsigned char first[19] = {0};
    uint32_t *table = self->literal; /* not yet in use */
    refill(self);
    const int n_literal = 257 + (int)take(self, 5), n_distance = 1 + (int)take(self, 5),
              n_first = 4 + (int)take(self, 4), n = n_literal + n_distance;
    if (n_literal > 286 || n_distance > 30)
        return "impossible code counts";
    for (int i = 0; i < n_first; i++) {
        refill(self);
        first[order[i]] = (unsigned char)take(self, 3);
    }
    if (!fill_table(table, LITERAL_ROOM, 7, first, 19, length_entries, 0))
        return "impossible codes of lengths";
    for (int have = 0; have < n;) {
        refill(self);
        const uint32_t entry = table[self->bits & 127], symbol = entry >> 16;
        int repeat = 1, value = (int)symbol;
        if (entry & IS_SPECIAL)
            return "impossible code of a length";
        take(self, (int)(entry & 0xFF));
        if (symbol == 16) {
            if (have == 0)
                return "nothing to repeat";
            value = self->lengths[have - 1];
            repeat = 3 + (int)take(self, 2);
        } else if (symbol > 16) {
            value = 0;
            repeat = symbol == 17 ? 3 + (int)take(self, 3) : 11 + (int)take(self, 7);
        }
        if (have + repeat > n)
            return "too many lengths";
        memset(self->lengths + have, value, (size_t)repeat);
        have += repeat;
    }
    if (is_cut(self))
        return "cut";
    if (self->lengths[256] == 0)
        return "no end of the block";
    if (!fill_table(self->literal, LITERAL_ROOM, self->root, self->lengths, n_literal, literal_entries, 1) ||
        !fill_table(self->distance, DISTANCE_ROOM, DISTANCE_ROOT, self->lengths + n_literal, n_distance,
                    distance_entries, 1))
        return "impossible codes";
    return NULL;
}

static const char *fixed_codes(inflater *self)
{
    for (int i = 0; i < 288; i++)
        self->lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    fill_table(self->literal, LITERAL_ROOM, self->root, self->lengths, 288, literal_entries, 0);
    memset(self->lengths, 5, 32);
    fill_table(self->distance, DISTANCE_ROOM, DISTANCE_ROOT, self->lengths, 32, distance_entries, 0);
    return NULL;
}

static const char *begin_block(inflater *self)
{
    const char *reason;
    if (self->last_block) {
        self->block = BLOCK_ENDED;
        return NULL;
    }
    refill(self);
    self->last_block = (int)take(self, 1);
    switch (take(self, 2)) {
    case 0:
        take(self, self->n_bits & 7);
        refill(self);
        self->stored = take(self, 16);
        if ((take(self, 16) ^ 0xFFFF) != self->stored || is_cut(self))
            return "impossible stored block";
        self->block = BLOCK_STORED;
        return NULL;
    case 1: reason = fixed_codes(self); break;
    case 2: reason = read_codes(self); break;
    default: return "impossible block";
    }
    if (reason == NULL && self->pairs)
        join_literals(self->literal, self->root);
    self->block = BLOCK_CODED;
    return reason;
}

static const char *copy_stored(inflater *self, size_t limit)
{
    size_t n = limit > self->have ? limit - self->have : 0;
    n = n < self->stored ? n : self->stored;
    self->stored -= n;
    for (; n && self->n_bits >= 8 && !is_cut(self); n--) /* the bytes that are already read */
        self->out[self->have++] = (unsigned char)take(self, 8);
    if (is_cut(self) || n > (size_t)(self->in_end - self->in))
        return "cut";
    if (n) {
        memcpy(self->out + self->have, self->in, n);
        self->in += n;
        self->have += n;
    }
    if (self->stored == 0)
        self->block = BLOCK_NONE;
    return NULL;
}

static ALWAYS_INLINE void copy_match(unsigned char *to, const unsigned char *from, size_t distance, int length)
{
    unsigned char *const end = to + length;
    if (distance >= 8) {
        do {
            memcpy(to, from, 8);
            to += 8;
            from += 8;
        } while (to < end);
    } else if (distance == 1) {
        memset(to, *from, (size_t)length);
    } else {
        do { /* of the eight bytes only the first `distance` are right; the next copy follows them */
            uint64_t eight;
            memcpy(&eight, from, 8);
            memcpy(to, &eight, 8);
            to += distance;
            from += distance;
        } while (to < end);
    }
}

/* Symbols of a coded block, up to its end, the limit, or (fast) a few bytes before the input's end. fast: eight bytes
 * of input are read at once. */
static ALWAYS_INLINE const char *decode_symbols(inflater *self, size_t limit, const int fast)
{
    const uint32_t *const literal = self->literal, *const distances = self->distance;
    const uint64_t mask = (1u << self->root) - 1;
    const unsigned char *in = self->in, *const in_fast = fast ? self->in_end - 24 : NULL;
    unsigned char *out = self->out + self->have, *const out_end = self->out + limit;
    uint64_t bits = self->bits;
    unsigned n_bits = (unsigned)self->n_bits;
    const char *reason = NULL;

#define REFILL() \
    do { \
        if (fast) { \
            bits |= load_8(in) << n_bits; \
            in += (63 - n_bits) >> 3; \
            n_bits |= 56; \
        } else { \
            self->bits = bits, self->n_bits = (int)n_bits, self->in = in; \
            refill(self); \
            bits = self->bits, n_bits = (unsigned)self->n_bits, in = self->in; \
        } \
    } while (0)
#define TAKE(n) (bits >>= (n) & 63, n_bits -= (n) & 63)
#define PUT_LITERALS(entry) \
    do { \
        TAKE(entry); \
        out[0] = (unsigned char)(entry >> 8); \
        out[1] = (unsigned char)(entry >> 16); \
        out += 1 + (entry >> 30 & 1); \
    } while (0)

    while (out < out_end && (!fast || in <= in_fast)) {
        REFILL();
        if (!fast && self->missing * 8 > (int)n_bits) {
            reason = "cut";
            break;
        }
        uint32_t entry = literal[bits & mask];
        if (entry & IS_LITERAL) { /* four times 11 bits at most */
            PUT_LITERALS(entry);
            entry = literal[bits & mask];
            if (entry & IS_LITERAL) {
                PUT_LITERALS(entry);
                entry = literal[bits & mask];
                if (entry & IS_LITERAL) {
                    PUT_LITERALS(entry);
                    entry = literal[bits & mask];
                    if (entry & IS_LITERAL) {
                        PUT_LITERALS(entry);
                        continue;
                    }
                }
            }
            REFILL();
        }
        if (entry & IS_SPECIAL) {
            if (entry & IS_LINK) {
                TAKE(entry & 0xFF);
                entry = literal[(entry >> 16) + (bits & ((1u << (entry >> 8 & 0x1F)) - 1))];
                if (entry & IS_LITERAL) {
                    TAKE(entry & 0xFF);
                    *out++ = (unsigned char)(entry >> 8);
                    continue;
                }
            }
            if (entry & IS_END) {
                TAKE(entry & 0xFF);
                self->block = BLOCK_NONE;
                break;
            }
            if (entry & IS_SPECIAL) {
                reason = "impossible code";
                break;
            }
        }
        uint64_t before = bits & ((1u << (entry & 0x1F)) - 1);
        const int length = (int)(entry >> 16) + (int)(before >> (entry >> 8 & 0x1F));
        TAKE(entry & 0xFF);
        entry = distances[bits & ((1u << DISTANCE_ROOT) - 1)];
        if (entry & IS_LINK && entry & IS_SPECIAL) {
            TAKE(entry & 0xFF);
            entry = distances[(entry >> 16 & 0x7FFF) + (bits & ((1u << (entry >> 8 & 0x1F)) - 1))];
        }
        if (entry & IS_SPECIAL) {
            reason = "impossible distance";
            break;
        }
        before = bits & ((1u << (entry & 0x1F)) - 1);
        const size_t distance = (entry >> 16) + (size_t)(before >> (entry >> 8 & 0x1F));
        TAKE(entry & 0xFF);
        if (distance > (size_t)(out - self->out)) {
            reason = "distance beyond the start";
            break;
        }
        copy_match(out, out - distance, distance, length);
        out += length;
    }
#undef REFILL
#undef TAKE
#undef PUT_LITERALS
    self->in = in;
    self->n_bits = (int)n_bits;
    self->bits = bits & (((uint64_t)1 << n_bits) - 1);
    self->have = (size_t)(out - self->out);
    return reason;
}

static const char *decode_fast(inflater *self, size_t limit)
{
    return decode_symbols(self, limit, 1);
}

static const char *decode_slowly(inflater *self, size_t limit)
{
    return decode_symbols(self, limit, 0);
}

/* ------------------------------------------------------------------------------------------------------------ all */

/* Begins with zlib data. total: bytes that are expected, which tells what tables are worth their time. 0, or a
 * reason. */
static const char *inflate_begin(inflater *self, const unsigned char *data, size_t size, size_t total)
{
    if (size < 2 || (data[0] & 15) != 8 || data[0] >> 4 > 7 || (data[0] << 8 | data[1]) % 31 || data[1] & 0x20)
        return "no zlib data";
    self->in = data + 2;
    self->in_end = data + size;
    self->bits = 0;
    self->n_bits = self->missing = self->last_block = 0;
    self->block = BLOCK_NONE;
    self->stored = self->have = 0;
    self->pairs = total > 16384;
    self->root = self->pairs ? LITERAL_ROOT : 9;
    return NULL;
}

/* More bytes at the end of `out`, until there are `limit` of them (or up to SLACK more) or the data ends. 0, or a
 * reason. */
static const char *inflate_to(inflater *self, size_t limit)
{
    const char *reason = NULL;
    while (reason == NULL && self->have < limit && self->block != BLOCK_ENDED) {
        if (self->block == BLOCK_NONE)
            reason = begin_block(self);
        else if (self->block == BLOCK_STORED)
            reason = copy_stored(self, limit);
        else if (self->in_end - self->in > 24)
            reason = decode_fast(self, limit);
        else
            reason = decode_slowly(self, limit);
    }
    return reason == NULL && is_cut(self) ? "cut" : reason;
}

/* Whether the data has ended, and this checksum follows. */
static int inflate_ends_with(inflater *self, uint32_t sum)
{
    uint32_t found = 0;
    if (self->block != BLOCK_ENDED)
        return 0;
    take(self, self->n_bits & 7);
    for (int i = 0; i < 4; i++) {
        refill(self);
        found = found << 8 | take(self, 8);
    }
    return found == sum && !is_cut(self);
}
#endif
