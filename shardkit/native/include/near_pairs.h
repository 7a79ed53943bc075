/* The search of near.c. Knows no Python. */
#ifndef SHARDKIT_NEAR_PAIRS_H
#define SHARDKIT_NEAR_PAIRS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef ALWAYS_INLINE
#define ALWAYS_INLINE inline __attribute__((always_inline))
#endif

enum { CHUNKS = 4, CHUNK_BITS = 16, BUCKETS = 1 << CHUNK_BITS, FLIPS = 2 };

enum { PAIRS_FOUND, PAIRS_TOO_MANY, PAIRS_NO_MEMORY };

typedef struct {
    const uint64_t *at;
    uint32_t count;
} hash_list;

typedef struct {
    int32_t first, second;
} number_pair;

typedef struct {
    number_pair *at;
    size_t count, room, most;
} pair_list;

/* Hashes in the order of one of their chunks: those of a bucket are next to each other. */
typedef struct {
    uint64_t *hashes;
    int32_t *numbers;
    uint32_t *starts; /* of each bucket, and the end of the last */
} buckets;

static unsigned chunk_of(uint64_t hash, int chunk)
{
    return (unsigned)(hash >> (chunk * CHUNK_BITS)) & (BUCKETS - 1);
}

static int make_buckets(buckets *self, const hash_list *of)
{
    self->hashes = malloc((of->count + 1) * sizeof *self->hashes);
    self->numbers = malloc((of->count + 1) * sizeof *self->numbers);
    self->starts = malloc((BUCKETS + 1) * sizeof *self->starts);
    return self->hashes != NULL && self->numbers != NULL && self->starts != NULL;
}

static void free_buckets(buckets *self)
{
    free(self->hashes);
    free(self->numbers);
    free(self->starts);
}

static void fill_buckets(buckets *self, const hash_list *of, int chunk)
{
    uint32_t sum = 0;
    memset(self->starts, 0, (BUCKETS + 1) * sizeof *self->starts);
    for (uint32_t i = 0; i < of->count; i++)
        self->starts[chunk_of(of->at[i], chunk)]++;
    for (int i = 0; i <= BUCKETS; i++) {
        sum += self->starts[i];
        self->starts[i] = sum;
    }
    for (uint32_t i = of->count; i-- > 0;) {
        const uint32_t at = --self->starts[chunk_of(of->at[i], chunk)];
        self->hashes[at] = of->at[i];
        self->numbers[at] = (int32_t)i;
    }
}

static ALWAYS_INLINE int bits_of(uint64_t value)
{
    return __builtin_popcountll(value);
}

/* Whether an earlier chunk has found the pair already. */
static int is_known(uint64_t difference, int chunk)
{
    for (int c = 0; c < chunk; c++)
        if (bits_of(chunk_of(difference, c)) <= FLIPS)
            return 1;
    return 0;
}

static int add_pair(pair_list *found, int32_t first, int32_t second)
{
    if (found->count == found->most)
        return PAIRS_TOO_MANY;
    if (found->count == found->room) {
        const size_t room = found->room ? 2 * found->room : 1024;
        number_pair *at = realloc(found->at, room * sizeof *at);
        if (at == NULL)
            return PAIRS_NO_MEMORY;
        found->at = at;
        found->room = room;
    }
    found->at[found->count++] = (number_pair){first, second};
    return PAIRS_FOUND;
}

/* All pairs of two buckets whose chunk differs by `flips`. same: both are of one list, each pair is wanted once. */
static ALWAYS_INLINE int search_chunk(const buckets *a, const buckets *b, int chunk, unsigned flips, int same,
                                      int radius, pair_list *found)
{
    for (unsigned value = 0; value < BUCKETS; value++) {
        const unsigned other = value ^ flips;
        if (same && other < value)
            continue;
        for (uint32_t i = a->starts[value]; i < a->starts[value + 1]; i++) {
            const uint64_t hash = a->hashes[i];
            for (uint32_t j = same && flips == 0 ? i + 1 : b->starts[other]; j < b->starts[other + 1]; j++) {
                const uint64_t difference = hash ^ b->hashes[j];
                if (bits_of(difference) > radius || is_known(difference, chunk))
                    continue;
                const int32_t first = a->numbers[i], second = b->numbers[j];
                const int swap = same && second < first;
                const int done = add_pair(found, swap ? second : first, swap ? first : second);
                if (done != PAIRS_FOUND)
                    return done;
            }
        }
    }
    return PAIRS_FOUND;
}

static ALWAYS_INLINE int search_all(const buckets *a, const buckets *b, int chunk, int same, int radius,
                                    pair_list *found)
{
    int done = search_chunk(a, b, chunk, 0, same, radius, found);
    for (int i = 0; i < CHUNK_BITS; i++)
        for (int j = i; j < CHUNK_BITS && done == PAIRS_FOUND; j++)
            done = search_chunk(a, b, chunk, 1u << i | 1u << j, same, radius, found);
    return done;
}

#if defined(__x86_64__)
__attribute__((target("popcnt"))) static int search_popcnt(const buckets *a, const buckets *b, int chunk, int same,
                                                           int radius, pair_list *found)
{
    return search_all(a, b, chunk, same, radius, found);
}
#endif

static int search_any(const buckets *a, const buckets *b, int chunk, int same, int radius, pair_list *found)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("popcnt"))
        return search_popcnt(a, b, chunk, same, radius, found);
#endif
    return search_all(a, b, chunk, same, radius, found);
}

/* second: NULL to compare the first list with itself. */
static int find_pairs(const hash_list *first, const hash_list *second, int radius, pair_list *found)
{
    const int same = second == NULL;
    buckets a = {0}, b = {0};
    int done = make_buckets(&a, first) && (same || make_buckets(&b, second)) ? PAIRS_FOUND : PAIRS_NO_MEMORY;
    for (int chunk = 0; chunk < CHUNKS && done == PAIRS_FOUND; chunk++) {
        fill_buckets(&a, first, chunk);
        if (!same)
            fill_buckets(&b, second, chunk);
        done = search_any(&a, same ? &a : &b, chunk, same, radius, found);
    }
    free_buckets(&a);
    free_buckets(&b);
    return done;
}
#endif
