/* CRC-32 (that of PNG and zip; polynomial 0x04C11DB7, reflected).
 *
 * With carry-less multiplication, four streams of 16 bytes are folded over 64 bytes at a time; the remainder, which is
 * congruent to all that was folded, and the rest go through tables for eight bytes at a time. Sources: V. Gopal et al.,
 * "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction" (Intel, 2009), with its constants; M. E.
 * Kounavis and F. L. Berry, "Novel Table Lookup-Based Algorithms for High-Performance CRC Generation" (2008).
 *
 * Include it in one C file of an extension, and call crc32_setup() once before anything else.
 */
#ifndef SHARDKIT_CRC32_H
#define SHARDKIT_CRC32_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint32_t crc32_table[8][256];

static uint32_t crc32_little(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The sum, not yet inverted, of the bytes before and these. */
static uint32_t crc32_by_table(uint32_t crc, const uint8_t *data, size_t length)
{
    for (; length >= 8; data += 8, length -= 8) {
        const uint32_t low = crc ^ crc32_little(data), high = crc32_little(data + 4);
        crc = crc32_table[7][low & 255] ^ crc32_table[6][low >> 8 & 255] ^ crc32_table[5][low >> 16 & 255] ^
              crc32_table[4][low >> 24] ^ crc32_table[3][high & 255] ^ crc32_table[2][high >> 8 & 255] ^
              crc32_table[1][high >> 16 & 255] ^ crc32_table[0][high >> 24];
    }
    for (; length; data++, length--)
        crc = crc >> 8 ^ crc32_table[0][(crc ^ *data) & 255];
    return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)

#include <emmintrin.h>
#include <wmmintrin.h>

enum { CRC32_FOLDED = 64 };

static int crc32_folds; /* whether the processor has the instruction */

__attribute__((target("pclmul"))) static __m128i crc32_fold(__m128i sum, __m128i over, __m128i next)
{
    const __m128i low = _mm_clmulepi64_si128(sum, over, 0x00), high = _mm_clmulepi64_si128(sum, over, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

/* As crc32_by_table, for at least CRC32_FOLDED bytes. */
__attribute__((target("pclmul"))) static uint32_t crc32_by_folding(uint32_t crc, const uint8_t *data, size_t length)
{
    const __m128i over64 = _mm_set_epi64x(0x01C6E41596, 0x0154442BD4);
    const __m128i over16 = _mm_set_epi64x(0x00CCAA009E, 0x01751997D0);
    __m128i sum[4];
    for (int i = 0; i < 4; i++)
        sum[i] = _mm_loadu_si128((const __m128i *)(data + 16 * i));
    sum[0] = _mm_xor_si128(sum[0], _mm_cvtsi32_si128((int)crc));
    for (data += 64, length -= 64; length >= 64; data += 64, length -= 64)
        for (int i = 0; i < 4; i++)
            sum[i] = crc32_fold(sum[i], over64, _mm_loadu_si128((const __m128i *)(data + 16 * i)));
    for (int i = 1; i < 4; i++)
        sum[0] = crc32_fold(sum[0], over16, sum[i]);
    for (; length >= 16; data += 16, length -= 16)
        sum[0] = crc32_fold(sum[0], over16, _mm_loadu_si128((const __m128i *)data));
    uint8_t remainder[16];
    _mm_storeu_si128((__m128i *)remainder, sum[0]);
    return crc32_by_table(crc32_by_table(0, remainder, sizeof remainder), data, length);
}

static uint32_t crc32_of(const uint8_t *data, size_t length)
{
    const int folds = crc32_folds && length >= CRC32_FOLDED;
    return ~(folds ? crc32_by_folding(0xFFFFFFFFu, data, length) : crc32_by_table(0xFFFFFFFFu, data, length));
}

#else

static uint32_t crc32_of(const uint8_t *data, size_t length)
{
    return ~crc32_by_table(0xFFFFFFFFu, data, length);
}

#endif

static void crc32_setup(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xEDB88320u : crc >> 1;
        crc32_table[0][byte] = crc;
    }
    for (int place = 1; place < 8; place++)
        for (int byte = 0; byte < 256; byte++) {
            const uint32_t before = crc32_table[place - 1][byte];
            crc32_table[place][byte] = before >> 8 ^ crc32_table[0][before & 255];
        }
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    crc32_folds = __builtin_cpu_supports("pclmul") != 0;
#endif
}

#endif
