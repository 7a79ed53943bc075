/* The codes of inflate (RFC 1951, 3.2): tables to look them up by the bits that come next.
 *
 * `root` bits are looked up in the main table, longer codes in a table of their own that the main table points to. An
 * entry of the main table holds two literals where both codes fit, which in images they often do. Entries are 32 bits,
 * and bits 0 … 7 always say how many bits of input they take:
 *
 *   literal     bit 31; bits 8 … 15 and 16 … 23: one or two bytes; bit 30: there are two
 *   length      bits 8 … 12: bits of the code, which the extra bits follow; bits 16 … 24: the least length
 *   distance    bits 8 … 12 likewise; bits 16 … 30: the least distance
 *   link        bits 15 and 14; bits 8 … 12: bits that the second table is looked up by; bits 16 … 30: where it starts
 *   end, none   bit 15; bit 13: the end of the block, otherwise a code that does not exist
 */
#ifndef SHARDKIT_PNG_CODES_H
#define SHARDKIT_PNG_CODES_H

#include <stdint.h>

enum {
    MOST_BITS = 15,    /* of a code */
    LITERAL_ROOT = 11, /* of the main table; fewer for small data, which does not repay a large one */
    DISTANCE_ROOT = 8,
    LITERAL_ROOM = 4096, /* entries; with these roots 2342 and 402 is the most that codes can take */
    DISTANCE_ROOM = 1024,
};

#define IS_LITERAL 0x80000000u
#define IS_PAIR 0x40000000u
#define IS_SPECIAL 0x8000u
#define IS_LINK 0x4000u
#define IS_END 0x2000u

/* The code after a reversed one of the same length; 0 after the last. */
static inline uint32_t next_reversed(uint32_t code, int length)
{
    uint32_t bit = 1u << (length - 1);
    while (code & bit)
        bit >>= 1;
    return bit ? (code & (bit - 1)) + bit : 0;
}

/* A table from the lengths of the codes. entries: what a symbol stands for, without the bits of its code. single: one
 * code of one bit, or none, is possible. 0 if zlib would refuse the lengths.
 *
 * Codes are kept in the order of their bits in the input, the reverse of RFC 1951's numbers: a longer code begins with
 * the number of the shorter one before it. */
static int fill_table(uint32_t *table, int room, int root, const unsigned char *lengths, int n, const uint32_t *entries,
                      int single)
{
    int count[MOST_BITS + 1] = {0}, offset[MOST_BITS + 2], most = MOST_BITS, used = 1 << root;
    uint16_t sorted[288];
    int32_t left = 1;
    for (int i = 0; i < n; i++)
        count[lengths[i]]++;
    while (most > 0 && count[most] == 0)
        most--;
    for (int length = 1; length <= MOST_BITS; length++) {
        left = left * 2 - count[length];
        if (left < 0)
            return 0; /* more codes than there is room for */
    }
    if (left > 0 && (most > 1 || !single))
        return 0; /* codes are missing */
    if (left > 0)
        for (int i = 0; i < 1 << root; i++)
            table[i] = IS_SPECIAL;
    offset[1] = 0;
    for (int length = 1; length <= MOST_BITS; length++)
        offset[length + 1] = offset[length] + count[length];
    for (int i = 0; i < n; i++)
        if (lengths[i])
            sorted[offset[lengths[i]]++] = (uint16_t)i;

    uint32_t code = 0, link = UINT32_MAX;
    int start = 0, size = 0;
    for (int length = 1, at = 0; length <= most; length++) {
        for (int i = 0; i < count[length]; i++, at++) {
            const uint32_t entry = entries[sorted[at]] + (uint32_t)length;
            if (length <= root) {
                for (uint32_t place = code; place < 1u << root; place += 1u << length)
                    table[place] = entry + ((entry & IS_LITERAL) ? 0 : (uint32_t)length << 8);
            } else {
                if ((code & ((1u << root) - 1)) != link) {
                    int32_t open;
                    link = code & ((1u << root) - 1);
                    start = used;
                    size = length - root;
                    open = (1 << size) - (count[length] - i);
                    while (open > 0 && root + size < most) {
                        size++;
                        open = open * 2 - count[root + size];
                    }
                    used += 1 << size;
                    if (used > room)
                        return 0;
                    table[link] = IS_SPECIAL | IS_LINK | (uint32_t)start << 16 | (uint32_t)size << 8 | (uint32_t)root;
                }
                const uint32_t own = entries[sorted[at]] + (uint32_t)(length - root);
                for (uint32_t place = code >> root; place < 1u << size; place += 1u << (length - root))
                    table[start + place] = own + ((own & IS_LITERAL) ? 0 : (uint32_t)(length - root) << 8);
            }
            code = next_reversed(code, length);
        }
    }
    return 1;
}

static const uint16_t least_length[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                          31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t extra_length[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                         2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t least_distance[30] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                            33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                            1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

/* What the symbols stand for. Written once, by whoever loads the module. */
static uint32_t literal_entries[288], distance_entries[32], length_entries[19];

static void fill_entries(void)
{
    for (uint32_t i = 0; i < 256; i++)
        literal_entries[i] = IS_LITERAL | i << 8;
    literal_entries[256] = IS_SPECIAL | IS_END;
    for (int i = 0; i < 29; i++)
        literal_entries[257 + i] = (uint32_t)least_length[i] << 16 | extra_length[i];
    literal_entries[286] = literal_entries[287] = IS_SPECIAL;
    for (int i = 0; i < 30; i++)
        distance_entries[i] = (uint32_t)least_distance[i] << 16 | (uint32_t)(i < 4 ? 0 : i / 2 - 1);
    distance_entries[30] = distance_entries[31] = IS_SPECIAL;
    for (uint32_t i = 0; i < 19; i++)
        length_entries[i] = i << 16;
}

/* Two literals in one entry, where the second code fits into the bits that the first leaves. */
static void join_literals(uint32_t *table, int root)
{
    for (uint32_t i = 1u << root; i-- > 0;) { /* downwards: the second one is not joined yet */
        const uint32_t first = table[i];
        const int length = (int)(first & 0xFF);
        if (!(first & IS_LITERAL) || length >= root)
            continue;
        const uint32_t second = table[i >> length];
        const int both = length + (int)(second & 0xFF);
        if (second & IS_LITERAL && both <= root)
            table[i] = IS_LITERAL | IS_PAIR | (second & 0xFF00) << 8 | (first & 0xFF00) | (uint32_t)both;
    }
}
#endif
