/* The filters of PNG (ISO 15948, 9), undone: a row becomes pixels again.
 *
 * Pixels of 3 bytes and more are handled as a vector of 16-bit lanes, which takes whole words: all rows have room for
 * 8 bytes more than they are long, and what is there is undefined.
 */
#ifndef SHARDKIT_PNG_FILTERS_H
#define SHARDKIT_PNG_FILTERS_H

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { FILTER_NONE, FILTER_SUB, FILTER_UP, FILTER_AVERAGE, FILTER_PAETH };

#define ROW_SLACK 16

/* The one of left, up and up-left that is nearest to left + up - up-left; the formulation is Fabian Giesen's. */
static inline int nearest_of(int left, int up, int corner)
{
    const int mark = 3 * corner - (left + up), low = left < up ? left : up, high = left < up ? up : left,
              inner = high <= mark ? low : corner;
    return mark <= low ? high : inner;
}

static inline __attribute__((always_inline)) void undo(unsigned char *restrict out, const unsigned char *restrict in,
                                                       const unsigned char *restrict prior, size_t n, const size_t step,
                                                       const int filter)
{
    for (size_t i = 0; i < n; i++) {
        const int left = i < step ? 0 : out[i - step], corner = i < step ? 0 : prior[i - step], up = prior[i];
        const int guess = filter == FILTER_SUB       ? left
                          : filter == FILTER_AVERAGE ? (left + up) / 2
                                                     : nearest_of(left, up, corner);
        out[i] = (unsigned char)(in[i] + guess);
    }
}

#if defined(__SSE2__)
static inline
    __attribute__((always_inline)) void undo_pixels(unsigned char *restrict out, const unsigned char *restrict in,
                                                    const unsigned char *restrict prior, size_t n, const size_t step,
                                                    const int filter)
{
    const __m128i zero = _mm_setzero_si128(), ones = _mm_set1_epi8(1);
    __m128i left = zero, corner = zero;
    for (size_t i = 0; i < n; i += step) {
        __m128i raw = _mm_loadl_epi64((const __m128i *)(in + i));
        if (filter == FILTER_SUB) {
            left = _mm_add_epi8(raw, left);
        } else if (filter == FILTER_AVERAGE) {
            const __m128i up = _mm_loadl_epi64((const __m128i *)(prior + i));
            const __m128i odd = _mm_and_si128(_mm_xor_si128(left, up), ones); /* the instruction rounds up */
            left = _mm_add_epi8(raw, _mm_sub_epi8(_mm_avg_epu8(left, up), odd));
        } else {
            const __m128i up = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(prior + i)), zero);
            const __m128i thrice = _mm_add_epi16(corner, _mm_add_epi16(corner, corner));
            const __m128i mark = _mm_sub_epi16(_mm_sub_epi16(thrice, up), left);
            const __m128i low = _mm_min_epi16(left, up), high = _mm_max_epi16(left, up);
            const __m128i above = _mm_cmpgt_epi16(high, mark), beyond = _mm_cmpgt_epi16(mark, low);
            __m128i guess = _mm_or_si128(_mm_and_si128(above, corner), _mm_andnot_si128(above, low));
            guess = _mm_or_si128(_mm_and_si128(beyond, guess), _mm_andnot_si128(beyond, high));
            left = _mm_add_epi8(_mm_unpacklo_epi8(raw, zero), guess);
            corner = up;
            _mm_storel_epi64((__m128i *)(out + i), _mm_packus_epi16(left, left));
            continue;
        }
        _mm_storel_epi64((__m128i *)(out + i), left);
    }
}
#else
#define undo_pixels undo
#endif

/* Inlined for each size of a pixel. */
#define UNDO(filter) \
    switch (step) { \
    case 1: undo(out, in, prior, n, 1, filter); break; \
    case 2: undo(out, in, prior, n, 2, filter); break; \
    case 3: undo_pixels(out, in, prior, n, 3, filter); break; \
    case 4: undo_pixels(out, in, prior, n, 4, filter); break; \
    case 6: undo_pixels(out, in, prior, n, 6, filter); break; \
    default: undo_pixels(out, in, prior, n, 8, filter); \
    }

/* The first n bytes of a row. in: its bytes, after the one that is its filter. prior: the row before it, or zeros.
 * step: bytes of a pixel, at least 1. 0 if there is no such filter. */
static int undo_filter(int filter, unsigned char *restrict out, const unsigned char *restrict in,
                       const unsigned char *restrict prior, size_t n, int step)
{
    switch (filter) {
    case FILTER_NONE: memcpy(out, in, n); return 1;
    case FILTER_SUB: UNDO(FILTER_SUB); return 1;
    case FILTER_UP:
        for (size_t i = 0; i < n; i++)
            out[i] = (unsigned char)(in[i] + prior[i]);
        return 1;
    case FILTER_AVERAGE: UNDO(FILTER_AVERAGE); return 1;
    case FILTER_PAETH: UNDO(FILTER_PAETH); return 1;
    default: return 0;
    }
}
#endif
