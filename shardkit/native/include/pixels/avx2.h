/* The inner loops of the resize with AVX2, where the processor has it: the bits of those in pixels/resize.h and
 * pixels/precise.h, from vectors twice as long.
 *
 * The functions of best.h choose. All buffers have room for 16 samples more than they hold, since whole vectors are read
 * and written.
 */
#ifndef SHARDKIT_PIXELS_AVX2_H
#define SHARDKIT_PIXELS_AVX2_H

#include "resize.h"
#include "precise.h"

enum { VECTORS_SHORT, VECTORS_AVX2, VECTORS_VNNI };
static int vectors_allowed = VECTORS_VNNI; /* less only in the tests that compare them */

#if defined(__x86_64__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))

static inline int has_avx2(void)
{
    return vectors_allowed >= VECTORS_AVX2 && __builtin_cpu_supports("avx2");
}

static AVX2 inline __m256i load_32(const void *from)
{
    return _mm256_loadu_si256((const __m256i *)from);
}

/* 16 bytes as samples of 8.8. */
static AVX2 inline __m256i widened_16(const unsigned char *bytes)
{
    return _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)bytes)), 8);
}

/* As sum_rows. */
static AVX2 void sum_rows_avx2(uint16_t *sum, const unsigned char *const *rows, const uint16_t *weight, int count,
                               int n)
{
    const __m256i start = _mm256_set1_epi16((short)(count / 2));
    if (count == 2 || count == 3) { /* the usual numbers, with their weights in registers */
        const unsigned char *a = rows[0], *b = rows[1], *c = rows[count - 1];
        const __m256i wa = _mm256_set1_epi16((short)weight[0]), wb = _mm256_set1_epi16((short)weight[1]),
                      wc = _mm256_set1_epi16((short)(count == 3 ? weight[2] : 0));
        for (int i = 0; i < n; i += 16) {
            __m256i total = _mm256_add_epi16(start, _mm256_mulhi_epu16(widened_16(a + i), wa));
            total = _mm256_add_epi16(total, _mm256_mulhi_epu16(widened_16(b + i), wb));
            if (count == 3)
                total = _mm256_add_epi16(total, _mm256_mulhi_epu16(widened_16(c + i), wc));
            _mm256_storeu_si256((__m256i *)(sum + i), total);
        }
        return;
    }
    for (int i = 0; i < n; i += 16) {
        __m256i total = start;
        for (int t = 0; t < count; t++) {
            const __m256i w = _mm256_set1_epi16((short)weight[t]);
            total = _mm256_add_epi16(total, _mm256_mulhi_epu16(widened_16(rows[t] + i), w));
        }
        _mm256_storeu_si256((__m256i *)(sum + i), total);
    }
}

/* The products of an output's taps, added up but for four lots of four samples. pairs: of weights, as for sum_pixel. */
static AVX2 ALWAYS_INLINE __m256i four_lots(const uint16_t *in, const v8 *pairs, const int count)
{
    __m256i sum = _mm256_setzero_si256();
    int p = 0;
    for (; p + 2 <= count; p += 2)
        sum = _mm256_add_epi16(sum, _mm256_mulhi_epu16(load_32(in + 8 * p), load_32(pairs + p)));
    if (p < count) {
        const __m128i last = _mm_mulhi_epu16(_mm_loadu_si128((const __m128i *)(in + 8 * p)),
                                             _mm_loadu_si128((const __m128i *)(pairs + p)));
        sum = _mm256_add_epi16(sum, _mm256_inserti128_si256(_mm256_setzero_si256(), last, 0));
    }
    return sum;
}

/* Two outputs as one vector: the lots of the first in its low half, those of the second in its high half. */
static AVX2 ALWAYS_INLINE __m256i halves(__m256i a, __m256i b)
{
    return _mm256_add_epi16(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

/* Four pixels as 12 bytes, and 4 bytes of no meaning after them. */
static AVX2 ALWAYS_INLINE __m128i four_pixels(const uint16_t *sums, const int *first, const v8 *pairs, const int count,
                                              __m256i round)
{
    const __m256i a = four_lots(sums + 4 * (size_t)first[0], pairs, count),
                  b = four_lots(sums + 4 * (size_t)first[1], pairs + count, count),
                  c = four_lots(sums + 4 * (size_t)first[2], pairs + 2 * count, count),
                  d = four_lots(sums + 4 * (size_t)first[3], pairs + 3 * count, count);
    const __m256i ab = halves(a, b), cd = halves(c, d);
    __m256i all = _mm256_add_epi16(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)); /* a c, b d */
    all = _mm256_srli_epi16(_mm256_add_epi16(all, round), 8);
    const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    return _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 1, 2, 8, 9, 10, 4, 5, 6, 12, 13, 14, -1, -1, -1, -1));
}

static AVX2 ALWAYS_INLINE int sum_count_pixels_avx2(unsigned char *out, const uint16_t *sums, const int *first,
                                                    const v8 *pairs, const int count, int n)
{
    const __m256i round = _mm256_set1_epi16((short)rounding(count));
    int x = 0;
    for (; x + 6 <= n; x += 4) /* the four bytes too many are overwritten by the next pixels */
        _mm_storeu_si128((__m128i *)(out + 3 * (size_t)x),
                         four_pixels(sums, first + x, pairs + (size_t)x * count, count, round));
    return x;
}

/* As sum_pixels_rgb, for the first of n pixels. How many these are. */
static AVX2 int sum_pixels_avx2(unsigned char *out, const uint16_t *sums, const int *first, const v8 *pairs, int count,
                                int n)
{
    switch (count) {
    case 1: return sum_count_pixels_avx2(out, sums, first, pairs, 1, n);
    case 2: return sum_count_pixels_avx2(out, sums, first, pairs, 2, n);
    case 3: return sum_count_pixels_avx2(out, sums, first, pairs, 3, n);
    default: return sum_count_pixels_avx2(out, sums, first, pairs, count, n);
    }
}

/* --------------------------------------------------------------------------------------------- pixels/precise.h */

/* As rounded. */
static AVX2 ALWAYS_INLINE __m256i rounded_8(__m256i high, __m256i low, const int wide)
{
    const int bits = wide ? WIDE_BITS : NARROW_BITS;
    const __m256i sum = wide ? _mm256_add_epi32(_mm256_slli_epi32(high, PART_BITS), low) : high;
    return _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(1 << (bits - 1))), bits);
}

/* 16 sums as bytes: those of a, then those of b. */
static AVX2 ALWAYS_INLINE __m128i clipped_16(__m256i a, __m256i b)
{
    const __m256i words = _mm256_packs_epi32(a, b), bytes = _mm256_packus_epi16(words, words);
    return _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
}

/* Four pixels of two outputs each. */
static AVX2 ALWAYS_INLINE __m256i four_of_both(const unsigned char *a, const unsigned char *b)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)a)),
                                   _mm_loadu_si128((const __m128i *)b), 1);
}

/* The products of two pixels with weights of both outputs, added to the sums. */
static AVX2 ALWAYS_INLINE void add_products(__m256i *high, __m256i *low, __m256i two, __m256i by_high, __m256i by_low,
                                            const int wide)
{
    *high = _mm256_add_epi32(*high, _mm256_madd_epi16(two, by_high));
    if (wide)
        *low = _mm256_add_epi32(*low, _mm256_madd_epi16(two, by_low));
}

/* Two outputs, the first in the low half. eights: by fill_eights. */
static AVX2 ALWAYS_INLINE __m256i two_outputs(const unsigned char *in, const int *first, const v8s *eights,
                                              const int n_pairs, const int wide)
{
    const __m256i first_two = _mm256_broadcastsi128_si256(
                      _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1)),
                  last_two = _mm256_broadcastsi128_si256(
                      _mm_setr_epi8(8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1));
    const unsigned char *a = in + 4 * (size_t)first[0], *b = in + 4 * (size_t)first[1];
    __m256i high = _mm256_setzero_si256(), low = high;
    for (int p = 0; p < n_pairs; p += 4, a += 32, b += 32, eights += 2 * (1 + wide)) {
        const __m256i h = load_32(eights), l = wide ? load_32(eights + 2) : h;
        __m256i four = four_of_both(a, b);
        add_products(&high, &low, _mm256_shuffle_epi8(four, first_two), _mm256_shuffle_epi32(h, 0x00),
                     _mm256_shuffle_epi32(l, 0x00), wide);
        if (p + 1 < n_pairs)
            add_products(&high, &low, _mm256_shuffle_epi8(four, last_two), _mm256_shuffle_epi32(h, 0x55),
                         _mm256_shuffle_epi32(l, 0x55), wide);
        if (p + 2 >= n_pairs)
            break;
        four = four_of_both(a + 16, b + 16);
        add_products(&high, &low, _mm256_shuffle_epi8(four, first_two), _mm256_shuffle_epi32(h, 0xAA),
                     _mm256_shuffle_epi32(l, 0xAA), wide);
        if (p + 3 < n_pairs)
            add_products(&high, &low, _mm256_shuffle_epi8(four, last_two), _mm256_shuffle_epi32(h, 0xFF),
                         _mm256_shuffle_epi32(l, 0xFF), wide);
    }
    return rounded_8(high, low, wide);
}

static AVX2 ALWAYS_INLINE void resize_count_pixels_avx2(unsigned char *out, const unsigned char *in, const int *first,
                                                        const v8s *eights, const int n_pairs, const int wide, int n)
{
    const int each = (n_pairs + 3) / 4 * 2 * (1 + wide);
    for (int x = 0; x < n; x += OUTPUTS_AT_ONCE, eights += 2 * each) {
        const __m256i a = two_outputs(in, first + x, eights, n_pairs, wide),
                      b = two_outputs(in, first + x + 2, eights + each, n_pairs, wide);
        _mm_storeu_si128((__m128i *)(out + 4 * (size_t)x), clipped_16(a, b));
    }
}

/* As resize_row, for n pixels and up to three more. */
static AVX2 void resize_row_avx2(unsigned char *out, const unsigned char *in, const int *first, const v8s *eights,
                                 int count, int wide, int n)
{
    if (wide)
        switch (count) {
        case 2: resize_count_pixels_avx2(out, in, first, eights, 2, 1, n); break;
        case 3: resize_count_pixels_avx2(out, in, first, eights, 3, 1, n); break;
        case 4: resize_count_pixels_avx2(out, in, first, eights, 4, 1, n); break;
        case 5: resize_count_pixels_avx2(out, in, first, eights, 5, 1, n); break;
        default: resize_count_pixels_avx2(out, in, first, eights, count, 1, n);
        }
    else
        switch (count) {
        case 3: resize_count_pixels_avx2(out, in, first, eights, 3, 0, n); break;
        case 4: resize_count_pixels_avx2(out, in, first, eights, 4, 0, n); break;
        case 5: resize_count_pixels_avx2(out, in, first, eights, 5, 0, n); break;
        default: resize_count_pixels_avx2(out, in, first, eights, count, 0, n);
        }
}

/* 16 samples of an output row. */
static AVX2 ALWAYS_INLINE __m128i sum_16(const unsigned char *const *rows, size_t at, const v8s *pairs,
                                         const int n_pairs, const int wide)
{
    __m256i high_a = _mm256_setzero_si256(), high_b = high_a, low_a = high_a, low_b = high_a;
    for (int p = 0; p < n_pairs; p++) {
        const __m128i a = _mm_loadu_si128((const __m128i *)(rows[2 * p] + at)),
                      b = _mm_loadu_si128((const __m128i *)(rows[2 * p + 1] + at));
        const __m256i first = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)),
                      second = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b)),
                      by_high = _mm256_broadcastsi128_si256((__m128i)pairs[p * (1 + wide)]);
        high_a = _mm256_add_epi32(high_a, _mm256_madd_epi16(first, by_high));
        high_b = _mm256_add_epi32(high_b, _mm256_madd_epi16(second, by_high));
        if (wide) {
            const __m256i by_low = _mm256_broadcastsi128_si256((__m128i)pairs[2 * p + 1]);
            low_a = _mm256_add_epi32(low_a, _mm256_madd_epi16(first, by_low));
            low_b = _mm256_add_epi32(low_b, _mm256_madd_epi16(second, by_low));
        }
    }
    return clipped_16(rounded_8(high_a, low_a, wide), rounded_8(high_b, low_b, wide));
}

/* As sum_precise_samples. */
static AVX2 void sum_samples_avx2(unsigned char *out, const unsigned char *const *rows, const v8s *pairs, int n_pairs,
                                  int wide, int n)
{
    for (int i = 0; i < n; i += 16)
        _mm_storeu_si128((__m128i *)(out + i), wide ? sum_16(rows, (size_t)i, pairs, n_pairs, 1)
                                                    : sum_16(rows, (size_t)i, pairs, n_pairs, 0));
}

/* samples: 4 or 1 of a pixel; 4 become three bytes. */
static AVX2 ALWAYS_INLINE void sum_count_avx2(unsigned char *out, const unsigned char *const *rows, const v8s *pairs,
                                              const int n_pairs, const int samples, const int wide, int n)
{
    const __m128i pack = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const int step = 16 / samples, bytes = samples == 4 ? 3 : 1;
    for (int x = 0; x < n; x += step, out += step * bytes) {
        __m128i found = sum_16(rows, (size_t)x * samples, pairs, n_pairs, wide);
        if (samples == 4)
            found = _mm_shuffle_epi8(found, pack);
        if ((n - x) * bytes >= 16) {
            _mm_storeu_si128((__m128i *)out, found); /* what is too much is overwritten by the next pixels */
        } else {
            unsigned char rest[16];
            const int left = n - x < step ? n - x : step;
            _mm_storeu_si128((__m128i *)rest, found);
            memcpy(out, rest, (size_t)left * bytes);
        }
    }
}

/* As sum_precise_rows. */
static AVX2 void sum_precise_avx2(unsigned char *out, const unsigned char *const *rows, const v8s *pairs, int n_pairs,
                                  int samples, int wide, int n)
{
    if (samples == 1 && wide)
        sum_count_avx2(out, rows, pairs, n_pairs, 1, 1, n);
    else if (samples == 1)
        sum_count_avx2(out, rows, pairs, n_pairs, 1, 0, n);
    else if (wide && n_pairs == 4)
        sum_count_avx2(out, rows, pairs, 4, 4, 1, n);
    else if (wide)
        sum_count_avx2(out, rows, pairs, n_pairs, 4, 1, n);
    else
        sum_count_avx2(out, rows, pairs, n_pairs, 4, 0, n);
}
#endif
#endif
