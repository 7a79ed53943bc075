/* Copies of samples' bytes at the speed of memory, with their CRC-32C (samples.c). */
#ifndef SHARDKIT_SAMPLE_COPIES_H
#define SHARDKIT_SAMPLE_COPIES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "columns.h"
#include "crc32c.h"

#if defined(__GNUC__) || defined(__clang__)
#define PREFETCH(at) __builtin_prefetch(at)
#else
#define PREFETCH(at) ((void)(at))
#endif

enum {
    LINE = 64,           /* bytes of the processor's cache that are loaded together */
    LOADED_AHEAD = 4096, /* bytes of the next image to load while this one is copied; the processor goes on by itself */
    STREAMED = 1 << 20, /* bytes of which most do not stay in a processor's own cache */
    RUN_POWER = 11,
    RUN = 1 << RUN_POWER /* bytes of each of the three runs that are summed at the same time, as in crc32c.h */
};

static void load_ahead(const char *data, Py_ssize_t length)
{
    for (Py_ssize_t offset = 0; offset < length && offset < LOADED_AHEAD; offset += LINE)
        PREFETCH(data + offset);
}

/* A line to an aligned place; streamed: without loading the target into the cache, which would take as long again. */
static inline void copy_line(char *to, const char *from, int streamed)
{
#ifdef __SSE2__
    for (int i = 0; i < LINE; i += 16) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
        if (streamed)
            _mm_stream_si128((__m128i *)(void *)(to + i), bytes);
        else
            _mm_store_si128((__m128i *)(void *)(to + i), bytes);
    }
#else
    (void)streamed;
    memmove(to, from, LINE);
#endif
}

/* The bytes before the next line of `to`. */
static size_t before_line(const char *to, size_t length)
{
    const size_t bytes = (LINE - (uintptr_t)to % LINE) % LINE;
    return bytes < length ? bytes : length;
}

/* Copies without loading the target into the cache: for more than the cache holds. The buffers may overlap, as any
 * caller's may: then what is copied is not defined, but nothing else is touched. */
static void stream(char *to, const char *from, size_t length)
{
    const size_t first = before_line(to, length);
    memmove(to, from, first);
    for (to += first, from += first, length -= first; length >= LINE; length -= LINE, to += LINE, from += LINE) {
        PREFETCH(from + (length >= 17 * LINE ? 16 * LINE : 0));
        copy_line(to, from, 1);
    }
    memmove(to, from, length);
}

#ifdef CRC32C_TARGET
/* Copies whole runs, three at a time, and sums them on the way: what is read next is loaded while this is written. Moves
 * the pointers behind them. crc: of what came before. `to` is at the beginning of a line. */
CRC32C_TARGET static uint32_t copy_runs(uint32_t crc, char **to_at, const char **from_at, size_t *length, int streamed)
{
    char *to = *to_at;
    const char *from = *from_at;
    crc = ~crc;
    for (; *length >= 3 * RUN; to += 3 * RUN, from += 3 * RUN, *length -= 3 * RUN) {
        const char *next = *length >= 6 * RUN ? from + 3 * RUN : from;
        uint32_t second = 0, third = 0;
        for (int i = 0; i < RUN; i += LINE, next += 3 * LINE) {
            for (int k = 0; k < 3; k++)
                PREFETCH(next + k * LINE);
            for (int k = i; k < i + LINE; k += 8) {
                uint64_t words[3];
                memcpy(words, from + k, 8);
                memcpy(words + 1, from + RUN + k, 8);
                memcpy(words + 2, from + 2 * RUN + k, 8);
                crc = CRC32C_WORD(crc, words[0]);
                second = CRC32C_WORD(second, words[1]);
                third = CRC32C_WORD(third, words[2]);
            }
            for (int k = 0; k < 3; k++)
                copy_line(to + k * RUN + i, from + k * RUN + i, streamed);
        }
        crc = crc32c_shifted(crc, RUN_POWER) ^ second;
        crc = crc32c_shifted(crc, RUN_POWER) ^ third;
    }
    *to_at = to;
    *from_at = from;
    return ~crc;
}
#endif

/* Copies bytes. Their CRC-32C, which goes on after crc. */
static uint32_t copy_and_sum(uint32_t crc, char *to, const char *from, size_t length, int streamed)
{
    crc = crc32c(crc, (const uint8_t *)from, length);
    if (streamed)
        stream(to, from, length);
    else
        memmove(to, from, length);
    return crc;
}

/* Copies a part. Its CRC-32C if `with_sum`; else 0. */
static uint32_t copy_part(char *to, const char *from, size_t length, int streamed, int with_sum)
{
    uint32_t crc = 0;
    if (!with_sum) {
        if (streamed)
            stream(to, from, length);
        else
            memmove(to, from, length);
        return 0;
    }
#ifdef CRC32C_TARGET
    const size_t first = before_line(to, length);
    if (length - first >= 3 * RUN) {
        crc = copy_and_sum(0, to, from, first, 0);
        to += first, from += first, length -= first;
        crc = copy_runs(crc, &to, &from, &length, streamed);
    }
#endif
    return copy_and_sum(crc, to, from, length, streamed);
}

/* Copies all parts into `out`, which has room for them. wrong[i]: whether part i has another CRC-32C than sums[i]. */
static void join_parts(const Buffers *parts, const Py_buffer *out, const Py_buffer *sums, uint8_t *wrong)
{
    char *to = out->buf;
    for (Py_ssize_t i = 0; i < parts->count; i++) {
        const Py_buffer *part = &parts->views[i];
        if (i + 1 < parts->count)
            load_ahead(part[1].buf, part[1].len);
        const uint32_t crc = copy_part(to, part->buf, (size_t)part->len, out->len > STREAMED, sums->obj != NULL);
        if (sums->obj != NULL) {
            uint32_t sum;
            memcpy(&sum, (const char *)sums->buf + i * (Py_ssize_t)sizeof sum, sizeof sum);
            wrong[i] = crc != sum;
        }
        to += part->len;
    }
#ifdef __SSE2__
    _mm_sfence();
#endif
}

#endif
