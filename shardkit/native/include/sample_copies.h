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
    SUMMED = 1 << 14 /* bytes to sum and copy in turn */
};

static void load_ahead(const char *data, Py_ssize_t length)
{
    for (Py_ssize_t offset = 0; offset < length && offset < LOADED_AHEAD; offset += LINE)
        PREFETCH(data + offset);
}

/* Copies without loading the target into the cache, which would take as long again: for more than the cache holds. The
 * buffers may overlap, as any caller's may: then what is copied is not defined, but nothing else is touched. */
static void stream(char *to, const char *from, size_t length)
{
#ifdef __SSE2__
    for (; length > 0 && ((uintptr_t)to & 15) != 0; length--)
        *to++ = *from++;
    for (; length >= LINE; length -= LINE, to += LINE, from += LINE) {
        PREFETCH(from + (length >= 17 * LINE ? 16 * LINE : 0));
        for (int i = 0; i < LINE; i += 16)
            _mm_stream_si128((__m128i *)(void *)(to + i), _mm_loadu_si128((const __m128i *)(const void *)(from + i)));
    }
#endif
    if (length > 0)
        memmove(to, from, length);
}

/* Copies a part. Its CRC-32C, computed while it is in the cache, if `with_sum`; else 0. */
static uint32_t copy_part(char *to, const char *from, Py_ssize_t length, int streamed, int with_sum)
{
    uint32_t crc = 0;
    for (Py_ssize_t done = 0; done < length; done += SUMMED) {
        const size_t piece = (size_t)(length - done < SUMMED ? length - done : SUMMED);
        if (with_sum)
            crc = crc32c(crc, (const uint8_t *)from + done, piece);
        if (streamed)
            stream(to + done, from + done, piece);
        else
            memmove(to + done, from + done, piece);
    }
    return crc;
}

/* Copies all parts into `out`, which has room for them. wrong[i]: whether part i has another CRC-32C than sums[i]. */
static void join_parts(const Buffers *parts, const Py_buffer *out, const Py_buffer *sums, uint8_t *wrong)
{
    char *to = out->buf;
    for (Py_ssize_t i = 0; i < parts->count; i++) {
        const Py_buffer *part = &parts->views[i];
        if (i + 1 < parts->count)
            load_ahead(part[1].buf, part[1].len);
        const uint32_t crc = copy_part(to, part->buf, part->len, out->len > STREAMED, sums->obj != NULL);
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
