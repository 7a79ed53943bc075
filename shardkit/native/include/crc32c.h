/* CRC-32C (Castagnoli's polynomial, reflected) with the processor's instruction.
 *
 * The instruction takes eight bytes and has a latency of three cycles, but can be issued in every cycle. So three
 * streams run in parallel, and their sums are joined with tables of what a run of zeros does to a CRC. Source: M.
 * Adler, crc32c.c (2013), from the idea of V. Gopal et al., "Fast CRC Computation for iSCSI Polynomial Using CRC32
 * Instruction" (Intel, 2011).
 *
 * Include it in one C file of an extension, call crc32c_setup() once, and use crc32c() only if that returned 1.
 */
#ifndef SHARDKIT_CRC32C_H
#define SHARDKIT_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <nmmintrin.h>
#define CRC32C_TARGET __attribute__((target("sse4.2")))
#define CRC32C_WORD(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#define CRC32C_BYTE(crc, byte) _mm_crc32_u8((crc), (byte))
static int crc32c_supported(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") != 0;
}
#elif defined(__aarch64__) && defined(__GNUC__) && (defined(__linux__) || defined(__ARM_FEATURE_CRC32))
#ifdef __ARM_FEATURE_CRC32
static int crc32c_supported(void)
{
    return 1;
}
#else
#include <sys/auxv.h>
static int crc32c_supported(void)
{
    return (getauxval(AT_HWCAP) >> 7 & 1) != 0;
} /* HWCAP_CRC32 */
#endif
#ifdef __clang__ /* whose arm_acle.h declares them only where the whole file may use them */
#define CRC32C_TARGET __attribute__((target("crc")))
#define CRC32C_WORD(crc, word) __builtin_arm_crc32cd((crc), (word))
#define CRC32C_BYTE(crc, byte) __builtin_arm_crc32cb((crc), (byte))
#else
#pragma GCC push_options
#pragma GCC target("+crc")
#include <arm_acle.h>
#define CRC32C_POP
#define CRC32C_TARGET __attribute__((target("+crc")))
#define CRC32C_WORD(crc, word) __crc32cd((crc), (word))
#define CRC32C_BYTE(crc, byte) __crc32cb((crc), (byte))
#endif
#endif

#ifdef CRC32C_TARGET

enum { CRC32C_LONG = 13, CRC32C_SHORT = 8, CRC32C_POWERS = 32 }; /* a stream has 2^13 or 2^8 bytes */

/* What 2^power zero bytes do to a CRC: a table for each of its four bytes. */
typedef uint32_t crc32c_shift[4][256];
static crc32c_shift crc32c_zeros[CRC32C_POWERS];

static uint32_t crc32c_shifted(uint32_t crc, int power)
{
    const uint32_t (*table)[256] = (const uint32_t (*)[256])crc32c_zeros[power];
    return table[0][crc & 255] ^ table[1][crc >> 8 & 255] ^ table[2][crc >> 16 & 255] ^ table[3][crc >> 24];
}

/* Returns 1 if crc32c() can be called from now on. Makes the tables: the first from the polynomial, each further one
 * by applying the previous one twice. */
static int crc32c_setup(void)
{
    if (!crc32c_supported())
        return 0;
    for (int power = 0; power < CRC32C_POWERS; power++)
        for (int place = 0; place < 4; place++)
            for (int value = 0; value < 256; value++) {
                uint32_t crc = (uint32_t)value << 8 * place;
                if (power)
                    crc = crc32c_shifted(crc32c_shifted(crc, power - 1), power - 1);
                else
                    for (int step = 0; step < 8; step++)
                        crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
                crc32c_zeros[power][place][value] = crc;
            }
    return 1;
}

/* Three streams of 2^power bytes each, while there are that many bytes. */
CRC32C_TARGET static uint32_t crc32c_threes(uint32_t crc, const uint8_t **data, size_t *length, int power)
{
    const uint8_t *at = *data;
    const size_t run = (size_t)1 << power;
    for (; *length >= 3 * run; at += 3 * run, *length -= 3 * run) {
        uint32_t second = 0, third = 0;
        for (size_t i = 0; i < run; i += 8) {
            uint64_t words[3];
            memcpy(words, at + i, 8);
            memcpy(words + 1, at + run + i, 8);
            memcpy(words + 2, at + 2 * run + i, 8);
            crc = CRC32C_WORD(crc, words[0]);
            second = CRC32C_WORD(second, words[1]);
            third = CRC32C_WORD(third, words[2]);
        }
        crc = crc32c_shifted(crc, power) ^ second;
        crc = crc32c_shifted(crc, power) ^ third;
    }
    *data = at;
    return crc;
}

/* The CRC-32C of bytes that continue with `data` after a beginning with the CRC-32C `before` (0: no bytes). */
CRC32C_TARGET static uint32_t crc32c(uint32_t before, const uint8_t *data, size_t length)
{
    uint32_t crc = before ^ 0xFFFFFFFFu;
    crc = crc32c_threes(crc, &data, &length, CRC32C_LONG);
    crc = crc32c_threes(crc, &data, &length, CRC32C_SHORT);
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        crc = CRC32C_WORD(crc, word);
    }
    for (; length; data++, length--)
        crc = CRC32C_BYTE(crc, *data);
    return crc ^ 0xFFFFFFFFu;
}

#ifdef CRC32C_POP
#pragma GCC pop_options
#endif

#else /* no such instruction: crc32c() must not be called */
static int crc32c_setup(void)
{
    return 0;
}
static uint32_t crc32c(uint32_t before, const uint8_t *data, size_t length)
{
    (void)data;
    (void)length;
    return before;
}
static uint32_t crc32c_shifted(uint32_t crc, int power)
{
    (void)power;
    return crc;
}
#endif
#endif
