/* A set of keys, of which it holds 128 bits each: SipHash-2-4 with a secret, in open addressing.
 *
 * Source: J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF" (2012), and their reference code for
 * 128 bits.
 */
#ifndef SHARDKIT_FRAMING_KEY_SET_H
#define SHARDKIT_FRAMING_KEY_SET_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef struct {
    uint64_t low, high;
} mark;

/* room: a power of two, or 0. */
typedef struct {
    uint64_t secret[2];
    mark *marks;
    size_t room, used;
} key_set;

static uint64_t rotated(uint64_t word, int bits)
{
    return word << bits | word >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotated(v[1], 13) ^ v[0];
    v[0] = rotated(v[0], 32);
    v[2] += v[3];
    v[3] = rotated(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotated(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotated(v[1], 17) ^ v[2];
    v[2] = rotated(v[2], 32);
}

static uint64_t little_word(const uint8_t *data, size_t bytes)
{
    uint64_t word = 0;
    for (size_t i = 0; i < bytes; i++)
        word |= (uint64_t)data[i] << 8 * i;
    return word;
}

static mark siphash(const uint64_t secret[2], const uint8_t *data, size_t length)
{
    uint64_t v[4] = {secret[0] ^ 0x736f6d6570736575u, secret[1] ^ 0x646f72616e646f6du ^ 0xee,
                     secret[0] ^ 0x6c7967656e657261u, secret[1] ^ 0x7465646279746573u};
    size_t at = 0;
    for (int last = 0; !last; at += 8) {
        last = at + 8 > length;
        uint64_t word = little_word(data + at, last ? length - at : 8);
        if (last)
            word |= (uint64_t)length << 56;
        v[3] ^= word;
        sip_round(v);
        sip_round(v);
        v[0] ^= word;
    }
    mark found;
    for (int half = 0; half < 2; half++) {
        v[half ? 1 : 2] ^= half ? 0xdd : 0xee;
        for (int round = 0; round < 4; round++)
            sip_round(v);
        *(half ? &found.high : &found.low) = v[0] ^ v[1] ^ v[2] ^ v[3];
    }
    if (found.low == 0 && found.high == 0) /* stands for an empty place */
        found.low = 1;
    return found;
}

/* The place of a mark, or the empty one where it belongs. */
static mark *place_of(mark *marks, size_t room, mark wanted)
{
    size_t at = (size_t)wanted.low & (room - 1);
    while ((marks[at].low | marks[at].high) && (marks[at].low != wanted.low || marks[at].high != wanted.high))
        at = (at + 1) & (room - 1);
    return marks + at;
}

static int has_mark(const key_set *self, mark wanted)
{
    if (self->room == 0)
        return 0;
    const mark *found = place_of(self->marks, self->room, wanted);
    return (found->low | found->high) != 0;
}

/* Make room for one more mark. 0: out of memory. */
static int make_room(key_set *self)
{
    if ((self->used + 1) * 4 <= self->room * 3)
        return 1;
    size_t room = self->room ? self->room * 2 : 1024;
    mark *marks = calloc(room, sizeof *marks);
    if (marks == NULL)
        return 0;
    for (size_t i = 0; i < self->room; i++)
        if (self->marks[i].low | self->marks[i].high)
            *place_of(marks, room, self->marks[i]) = self->marks[i];
    free(self->marks);
    self->marks = marks;
    self->room = room;
    return 1;
}

static void put_mark(key_set *self, mark wanted)
{
    *place_of(self->marks, self->room, wanted) = wanted;
    self->used++;
}

#endif
