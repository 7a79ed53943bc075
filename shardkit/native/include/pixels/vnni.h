/* The passes of precise.h with VNNI, an instruction that adds the products of four bytes and four weights of a byte to a
 * sum, where the processor has it: Intel's servers since 2019 (Ice Lake), AMD's since 2022 (Zen 4).
 *
 * A weight is written with signed digits of base 256: three of them for 22 binary places, two for 14. Each digit has a
 * sum of its own, and these are put together at the end, which gives the very sum of whole weights: the same bits.
 */
#ifndef SHARDKIT_PIXELS_VNNI_H
#define SHARDKIT_PIXELS_VNNI_H

#include "avx2.h"

#define MOST_DIGITS 3
#define QUAD 4 /* taps that an instruction takes at once */

/* Bytes behind the last pixel that are read, with weight zero, or written. */
#define QUAD_ROOM 32

static int quads_of(int taps)
{
    return (taps + QUAD - 1) / QUAD;
}

static int digits_of(int wide)
{
    return wide ? 3 : 2;
}

#ifdef AVX2
#define VNNI __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")))

typedef uint64_t two_weights __attribute__((may_alias));

static inline int has_vnni(void)
{
    return vectors_allowed >= VECTORS_VNNI && has_avx2() && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vnni");
}

/* The digits of `count` weights, lowest first: to[(q * digits + d) * step] has digit d of taps 4 q … 4 q + 3, the first
 * of them in its lowest byte. Whether the digits are enough. */
static VNNI int fill_digits(uint32_t *to, const int32_t *weight, int count, int n_quads, int digits, int step)
{
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                  bias = _mm_set1_epi32(digits == 3 ? 0x808080 : 0x8080); /* 128 of each digit: none is negative */
    __m128i over = _mm_setzero_si128();
    for (int q = 0; q < n_quads; q++, count -= QUAD) {
        const __mmask8 there = (__mmask8)(count >= QUAD ? 15 : count > 0 ? (1 << count) - 1 : 0);
        const __m128i biased = _mm_add_epi32(_mm_maskz_loadu_epi32(there, weight + QUAD * q), bias);
        uint32_t found[QUAD];
        over = _mm_or_si128(over, _mm_srli_epi32(biased, 8 * digits));
        _mm_storeu_si128((__m128i *)found, _mm_shuffle_epi8(_mm_xor_si128(biased, bias), order));
        for (int d = 0; d < digits; d++)
            to[(q * digits + d) * step] = found[d];
    }
    return _mm_testz_si128(over, over);
}

/* The sums of the digits, the lowest first, as values. */
static VNNI ALWAYS_INLINE __m256i value_of_digits(const __m256i *sums, const int digits)
{
    __m256i value = _mm256_add_epi32(_mm256_slli_epi32(sums[digits - 1], 8), sums[digits - 2]);
    if (digits == 3)
        value = _mm256_add_epi32(_mm256_slli_epi32(value, 8), sums[0]);
    return _mm256_srai_epi32(value, digits == 3 ? WIDE_BITS : NARROW_BITS);
}

static VNNI ALWAYS_INLINE __m256i half_of(const int digits)
{
    return _mm256_set1_epi32(1 << ((digits == 3 ? WIDE_BITS : NARROW_BITS) - 1));
}

/* Two outputs: R of the first and the second, G of both, B of both, and the unused sample of both. */
static VNNI ALWAYS_INLINE __m256i two_outputs_vnni(const unsigned char *in, const int *first,
                                                   const two_weights *weights, const int n_quads, const int digits)
{
    const __m256i order = _mm256_setr_epi8(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29, 2, 6, 10, 14, 18,
                                           22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
    const unsigned char *a = in + 4 * (size_t)first[0], *b = in + 4 * (size_t)first[1];
    __m256i sums[MOST_DIGITS] = {half_of(digits), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (int q = 0; q < n_quads; q++, a += 16, b += 16, weights += digits) {
        const __m256i pixels = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)a)),
                                                       _mm_loadu_si128((const __m128i *)b), 1);
        const __m256i bytes = _mm256_permutexvar_epi8(order, pixels);
        for (int d = 0; d < digits; d++)
            sums[d] = _mm256_dpbusd_epi32(sums[d], bytes, _mm256_set1_epi64x((long long)weights[d]));
    }
    return value_of_digits(sums, digits);
}

static VNNI ALWAYS_INLINE void resize_count_vnni(unsigned char *out, const unsigned char *in, const int *first,
                                                 const two_weights *weights, const int n_quads, const int digits, int n)
{
    const __m256i order = _mm256_castsi128_si256(_mm_setr_epi8(0, 2, 16, 18, 1, 3, 17, 19, 4, 6, 20, 22, 5, 7, 21, 23));
    const int each = n_quads * digits;
    for (int x = 0; x < n; x += OUTPUTS_AT_ONCE, weights += 2 * each) {
        const __m256i words = _mm256_packs_epi32(two_outputs_vnni(in, first + x, weights, n_quads, digits),
                                                 two_outputs_vnni(in, first + x + 2, weights + each, n_quads, digits));
        const __m256i bytes = _mm256_permutexvar_epi8(order, _mm256_packus_epi16(words, words));
        _mm_storeu_si128((__m128i *)(out + 4 * (size_t)x), _mm256_castsi256_si128(bytes));
    }
}

/* As resize_row for colours, for n pixels and up to three more. weights: of two outputs side by side, by fill_digits. */
static VNNI void resize_row_vnni(unsigned char *out, const unsigned char *in, const int *first, const uint32_t *weights,
                                 int n_quads, int digits, int n)
{
    const two_weights *by_two = (const two_weights *)(const void *)weights;
    if (digits == 2)
        switch (n_quads) {
        case 2: resize_count_vnni(out, in, first, by_two, 2, 2, n); break;
        case 3: resize_count_vnni(out, in, first, by_two, 3, 2, n); break;
        default: resize_count_vnni(out, in, first, by_two, n_quads, 2, n);
        }
    else
        switch (n_quads) {
        case 1: resize_count_vnni(out, in, first, by_two, 1, 3, n); break;
        case 2: resize_count_vnni(out, in, first, by_two, 2, 3, n); break;
        case 3: resize_count_vnni(out, in, first, by_two, 3, 3, n); break;
        default: resize_count_vnni(out, in, first, by_two, n_quads, 3, n);
        }
}

/* 32 samples of an output row. */
static VNNI ALWAYS_INLINE __m256i sum_32(const unsigned char *const *rows, size_t at, const uint32_t *weights,
                                         const int n_quads, const int digits)
{
    const __m256i zero = _mm256_setzero_si256(), half = half_of(digits);
    __m256i sums[4][MOST_DIGITS] = {{half, zero, zero}, {half, zero, zero}, {half, zero, zero}, {half, zero, zero}};
    for (int q = 0; q < n_quads; q++, rows += QUAD, weights += digits) {
        const __m256i a = load_32(rows[0] + at), b = load_32(rows[1] + at), c = load_32(rows[2] + at),
                      d = load_32(rows[3] + at);
        const __m256i ab_low = _mm256_unpacklo_epi8(a, b), ab_high = _mm256_unpackhi_epi8(a, b),
                      cd_low = _mm256_unpacklo_epi8(c, d), cd_high = _mm256_unpackhi_epi8(c, d);
        const __m256i bytes[4] = {_mm256_unpacklo_epi16(ab_low, cd_low), _mm256_unpackhi_epi16(ab_low, cd_low),
                                  _mm256_unpacklo_epi16(ab_high, cd_high), _mm256_unpackhi_epi16(ab_high, cd_high)};
        for (int k = 0; k < digits; k++) {
            const __m256i weight = _mm256_set1_epi32((int)weights[k]);
            for (int i = 0; i < 4; i++)
                sums[i][k] = _mm256_dpbusd_epi32(sums[i][k], bytes[i], weight);
        }
    }
    return _mm256_packus_epi16(_mm256_packs_epi32(value_of_digits(sums[0], digits), value_of_digits(sums[1], digits)),
                               _mm256_packs_epi32(value_of_digits(sums[2], digits), value_of_digits(sums[3], digits)));
}

/* As sum_precise_samples. */
static VNNI void sum_samples_vnni(unsigned char *out, const unsigned char *const *rows, const uint32_t *weights,
                                  int n_quads, int digits, int n)
{
    for (int i = 0; i < n; i += 32)
        _mm256_storeu_si256((__m256i *)(out + i), digits == 3 ? sum_32(rows, (size_t)i, weights, n_quads, 3)
                                                              : sum_32(rows, (size_t)i, weights, n_quads, 2));
}

/* samples: 4 or 1 of a pixel; 4 become three bytes. */
static VNNI ALWAYS_INLINE void sum_count_vnni(unsigned char *out, const unsigned char *const *rows,
                                              const uint32_t *weights, const int n_quads, const int samples,
                                              const int digits, int n)
{
    const __m256i pack = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18, 20, 21, 22, 24, 25, 26,
                                          28, 29, 30, 3, 7, 11, 15, 19, 23, 27, 31);
    const int step = 32 / samples, bytes = samples == 4 ? 3 : 1;
    for (int x = 0; x < n; x += step, out += step * bytes) {
        __m256i found = sum_32(rows, (size_t)x * samples, weights, n_quads, digits);
        if (samples == 4)
            found = _mm256_permutexvar_epi8(pack, found);
        if ((n - x) * bytes >= 32) {
            _mm256_storeu_si256((__m256i *)out, found); /* what is too much is overwritten by the next pixels */
        } else {
            unsigned char rest[32];
            const int left = n - x < step ? n - x : step;
            _mm256_storeu_si256((__m256i *)rest, found);
            memcpy(out, rest, (size_t)left * bytes);
        }
    }
}

/* As sum_precise_rows. */
static VNNI void sum_precise_vnni(unsigned char *out, const unsigned char *const *rows, const uint32_t *weights,
                                  int n_quads, int samples, int digits, int n)
{
    if (samples == 1 && digits == 3)
        sum_count_vnni(out, rows, weights, n_quads, 1, 3, n);
    else if (samples == 1)
        sum_count_vnni(out, rows, weights, n_quads, 1, 2, n);
    else if (digits == 3)
        sum_count_vnni(out, rows, weights, n_quads, 4, 3, n);
    else
        sum_count_vnni(out, rows, weights, n_quads, 4, 2, n);
}
#endif
#endif
