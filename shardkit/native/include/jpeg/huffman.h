/* Huffman decoding of the scan of a baseline JPEG, in place of libjpeg's. docs/jpeg-decoder.md explains it.
 *
 * Most of a photograph's time is spent here, and libjpeg's decoder is careful about data that arrives in pieces or is
 * damaged. This one replaces `decode_mcu` in a baseline image with one scan: the whole file is in memory, and damage
 * is left to the other decoder. One look-up gives zeros and value of most coefficients, and what lies outside the
 * columns and rows that are wanted is only stepped over, or left out where the image comes with seek points
 * (jpeg/seek.h). ITU-T T.81, F.2 and figures F.12 to F.16.
 */
#ifndef SHARDKIT_JPEG_HUFFMAN_H
#define SHARDKIT_JPEG_HUFFMAN_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include "seek.h"

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2001000 || \
    LIBJPEG_TURBO_VERSION_NUMBER >= 4000000
/* before 2.1 jpeg_crop_scanline() has faults with progressive images; jpeg_entropy_decoder below is that of 2 and 3 */
#error "libjpeg-turbo 2.1 to 3 is needed"
#endif
#if !defined(__GNUC__)
#error "GCC or clang is needed, for their builtin functions"
#endif

#if JPEG_LIB_VERSION >= 70
#define DCT_SIZE(of, min) ((of)->min##DCT_h_scaled_size)
#else
#define DCT_SIZE(of, min) ((of)->min##DCT_scaled_size)
#endif

#ifndef ALWAYS_INLINE
#define ALWAYS_INLINE inline __attribute__((always_inline))
#endif

/* What jpegint.h says, which is not installed with the library. So since IJG 6 (1995), and in every libjpeg-turbo. */
struct jpeg_entropy_decoder {
    void (*start_pass)(j_decompress_ptr jpeg);
    boolean (*decode_mcu)(j_decompress_ptr jpeg, JBLOCKROW *blocks);
};

#define LOOK_BITS 10 /* 9 to 11 are equally fast on photographs; more than 11 leaves the first-level cache */

/* A Huffman table. What the next LOOK_BITS bits mean; 0 where the code is longer than that:
 *   bits 0-5   length of code and value together       bit 6      the value is within the LOOK_BITS
 *   bits 7-13  how many zeros come before the value    bits 16-31 the value; without bit 6: code's length, value's */
typedef struct {
    uint32_t entry[1 << LOOK_BITS];
    int32_t last[18], offset[17]; /* for longer codes: the last code of a length, and what to add for its symbol */
    uint8_t bits[16], symbols[256]; /* the table of the file: codes of each length, and what they mean */
    int known;
} huffman;

/* Where the entropy decoder is. The next bit is the highest of `bits`; all below `count` of them is undefined. */
typedef struct {
    uint64_t bits;
    int count, padding; /* valid bits, and how many of them are zeros beyond the end of the data */
    const unsigned char *at, *plain, *end; /* next byte; up to where there is no FF; end of the file */
} reader;

typedef struct {
    reader in;
    const unsigned char *begin; /* of the scan */
    unsigned interval, restarts_left, next_restart;
    JDIMENSION column, columns, first, last; /* of MCUs; first to last are wanted */
    uint32_t asked, done; /* the MCU that libjpeg asks for next, and the one that comes next in the scan */
    uint32_t check;       /* the MCU of seek point number `next` */
    size_t next;
    int value[MAX_COMPS_IN_SCAN];            /* the last DC value */
    const huffman *dc[MAX_COMPS_IN_SCAN], *ac[MAX_COMPS_IN_SCAN];
    int wants_dc[MAX_COMPS_IN_SCAN], wants_ac[MAX_COMPS_IN_SCAN];
} entropy;

/* Everything that the replacement keeps between two of libjpeg's calls; the tables, from image to image. */
typedef struct {
    entropy scan;
    huffman tables[2][NUM_HUFF_TBLS]; /* DC, AC: kept, since many images share them */
    seek_points points;               /* of the image; its memory is kept */
} scan_decoder;

/* Both are the includer's: where `jpeg` has its scan_decoder, and how an image is given up (it does not return). */
static inline scan_decoder *scan_decoder_of(j_decompress_ptr jpeg);
static void give_up(j_decompress_ptr jpeg, const char *text) __attribute__((noreturn));

/* From zigzag order; beyond 63 for runs that a damaged file has too long, as in libjpeg, and for an end of block. */
// clang-format off
static const uint8_t natural_order[64 + 64 + 16] = {
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
};
// clang-format on

static inline int extended(uint32_t bits, int size)
{
    return size == 0 || bits >> (size - 1) ? (int)bits : (int)bits - (int)((1u << size) - 1);
}

static uint32_t entry_of(int symbol, int length, uint32_t rest, int is_dc)
{
    int zeros = is_dc ? 0 : symbol >> 4, size = symbol & 15, value, spare = LOOK_BITS - length - size;
    if (!is_dc && size == 0) /* an end of block steps over all of it; 16 zeros are 15 and one that is stored */
        return (uint32_t)((zeros == 15 ? 15 : 64) << 7 | 1 << 6 | length);
    if (spare < 0)
        return (uint32_t)(length << 24 | size << 16 | zeros << 7 | (length + size));
    value = extended(rest >> spare, size);
    return (uint32_t)(value & 0xFFFF) << 16 | (uint32_t)(zeros << 7 | 1 << 6 | (length + size));
}

/* libjpeg has checked the table when it started the scan: no code is longer than its length allows. */
static void fill_table(huffman *table, const JHUFF_TBL *source, int is_dc)
{
    int32_t code = 0;
    int symbol = 0, symbols = 0;
    for (int length = 1; length <= 16; length++)
        symbols += source->bits[length];
    symbols = symbols < 256 ? symbols : 256;
    if (table->known && memcmp(table->bits, source->bits + 1, 16) == 0 &&
        memcmp(table->symbols, source->huffval, (size_t)symbols) == 0)
        return;
    table->known = 1;
    memcpy(table->bits, source->bits + 1, 16);
    memset(table->symbols, 0, sizeof table->symbols);
    memcpy(table->symbols, source->huffval, (size_t)symbols);
    memset(table->entry, 0, sizeof table->entry);
    for (int length = 1; length <= 16; length++, code <<= 1) {
        int n = source->bits[length];
        table->offset[length] = symbol - code;
        for (int i = 0; i < n && symbol < symbols; i++, symbol++, code++) {
            int spare = LOOK_BITS - length;
            for (int32_t rest = 0; spare >= 0 && rest < 1 << spare; rest++) {
                int32_t look = code << spare | rest;
                if (look < 1 << LOOK_BITS)
                    table->entry[look] = entry_of(source->huffval[symbol], length, (uint32_t)rest, is_dc);
            }
        }
        table->last[length] = n ? code - 1 : -1;
    }
}

static const unsigned char *next_ff(const unsigned char *at, const unsigned char *end)
{
    const unsigned char *found = memchr(at, 0xFF, (size_t)(end - at));
    return found ? found : end;
}

/* Bytes with FF among them, or the end. An FF that no 00 follows is a marker: it is never passed. By value, so that the
 * caller's copy can stay in registers. */
static __attribute__((noinline)) reader fill_slowly(reader in)
{
    while (in.count <= 56) {
        uint64_t byte = 0;
        if (in.at < in.end && in.at[0] != 0xFF) {
            byte = *in.at++;
        } else if (in.end - in.at >= 2 && in.at[1] == 0) {
            byte = 0xFF;
            in.at += 2;
            in.plain = next_ff(in.at, in.end);
        } else {
            in.padding += 8;
        }
        in.bits |= byte << (56 - in.count);
        in.count += 8;
    }
    return in;
}

/* At least 56 bits. The bits below `count` belong to the byte at `at`, which is or'ed in again later. */
static ALWAYS_INLINE void fill(reader *in)
{
    if (__builtin_expect(in->plain - in->at >= 8, 1)) {
        uint64_t next;
        memcpy(&next, in->at, sizeof next);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        next = __builtin_bswap64(next);
#endif
        in->bits |= next >> in->count;
        in->at += (63 - in->count) >> 3;
        in->count |= 56;
    } else {
        *in = fill_slowly(*in);
    }
}

static ALWAYS_INLINE void drop(reader *in, unsigned n)
{
    in->bits <<= n;
    in->count -= (int)n;
}

/* The entry of a code longer than LOOK_BITS, found bit by bit. */
static __attribute__((noinline)) uint32_t long_entry(j_decompress_ptr jpeg, uint64_t bits, const huffman *table,
                                                     int is_dc)
{
    for (int length = LOOK_BITS + 1; length <= 16; length++) {
        int32_t code = (int32_t)(bits >> (64 - length));
        if (code <= table->last[length])
            return entry_of(table->symbols[(code + table->offset[length]) & 255], length, 0, is_dc);
    }
    give_up(jpeg, "bad Huffman code");
}

#define LOOK(in, table) ((table)->entry[(in)->bits >> (64 - LOOK_BITS)])
#define IS_SHORT(entry) ((entry) & 1 << 6)
#define ZEROS(entry) ((entry) >> 7 & 127)

/* The value of an entry that is not short, with its bits taken. Needs 31 bits. */
static ALWAYS_INLINE int long_value(reader *in, uint32_t entry)
{
    unsigned size = entry >> 16 & 15;
    int value;
    if (IS_SHORT(entry)) { /* an end of block or 16 zeros */
        drop(in, entry & 63);
        return 0;
    }
    drop(in, entry >> 24);
    value = size ? extended((uint32_t)(in->bits >> (64 - size)), (int)size) : 0;
    drop(in, size);
    return value;
}

static ALWAYS_INLINE void read_ac(j_decompress_ptr jpeg, reader *in, const huffman *table, JCOEF *block)
{
    for (unsigned k = 1; k < 64;) {
        fill(in);
        for (int i = 0; i < 3; i++) { /* 56 bits: two short ones of LOOK_BITS and one of 31 are sure to be there */
            uint32_t entry = LOOK(in, table);
            if (__builtin_expect(IS_SHORT(entry), 1)) {
                drop(in, entry & 63);
                k += ZEROS(entry);
                block[natural_order[k++]] = (JCOEF)(entry >> 16);
                if (k >= 64)
                    return;
                continue;
            }
            if (entry == 0)
                entry = long_entry(jpeg, in->bits, table, 0);
            k += ZEROS(entry);
            block[natural_order[k++]] = (JCOEF)long_value(in, entry);
            break;
        }
    }
}

static ALWAYS_INLINE void skip_ac(j_decompress_ptr jpeg, reader *in, const huffman *table)
{
    for (unsigned k = 1; k < 64;) {
        fill(in);
        for (int i = 0; i < 2; i++) { /* the first of at most 25 bits, then 31 are there */
            uint32_t entry = LOOK(in, table);
            if (__builtin_expect(entry == 0, 0)) {
                entry = long_entry(jpeg, in->bits, table, 0);
                i = 2;
            }
            drop(in, entry & 63);
            k += ZEROS(entry) + 1;
            if (k >= 64)
                return;
        }
    }
}

static reader restart(j_decompress_ptr jpeg, entropy *scan, reader in)
{
    in = fill_slowly(in);
    if (in.count - in.padding >= 8 || in.end - in.at < 2 || in.at[0] != 0xFF || in.at[1] != 0xD0 + scan->next_restart)
        give_up(jpeg, "no restart marker where one should be");
    in.at += 2;
    in.plain = next_ff(in.at, in.end);
    in.bits = 0;
    in.count = in.padding = 0;
    scan->next_restart = (scan->next_restart + 1) & 7;
    scan->restarts_left = scan->interval;
    memset(scan->value, 0, sizeof scan->value);
    return in;
}

/* The position of the next bit, from the scan's first byte on. An FF and the 00 after it are one byte of the data. */
static uint32_t bit_position(const entropy *scan)
{
    const unsigned char *at = scan->in.at;
    const int valid = scan->in.count - scan->in.padding;
    for (int i = 0; i < valid; i += 8)
        at -= at[-1] == 0 && at - scan->begin >= 2 && at[-2] == 0xFF ? 2 : 1;
    return (uint32_t)((at - scan->begin) * 8 + (-valid & 7));
}

/* Goes on at a point, which is within the scan. */
static void enter(entropy *scan, const seek_point *point, uint32_t mcu)
{
    reader in = {.at = scan->begin + point->bit / 8, .end = scan->in.end};
    in.plain = next_ff(in.at, in.end);
    if (point->bit & 7) {
        in = fill_slowly(in);
        drop(&in, point->bit & 7);
    }
    scan->in = in;
    scan->done = mcu;
    for (int c = 0; c < SEEK_COMPONENTS; c++)
        scan->value[c] = point->value[c];
    if (scan->interval && mcu) { /* the marker before an MCU is read along with it */
        scan->restarts_left = scan->interval - 1 - (mcu - 1) % scan->interval;
        scan->next_restart = (mcu - 1) / scan->interval & 7;
    }
}

/* Seek point number `next` is the one to be checked when decoding comes to it. */
static void expect_point(scan_decoder *self, size_t next)
{
    self->scan.next = next;
    self->scan.check = next < self->points.count ? mcu_of_point(&self->points, next, self->scan.columns) : UINT32_MAX;
}

/* Decoding came to a seek point: what it says has to be true, or the points are not of this scan. */
static __attribute__((noinline)) void check_point(j_decompress_ptr jpeg, scan_decoder *self)
{
    const entropy *scan = &self->scan;
    const seek_point *point = &self->points.at[scan->next];
    int same = bit_position(scan) == point->bit;
    for (int c = 0; c < jpeg->comps_in_scan; c++)
        same &= (int16_t)scan->value[c] == point->value[c];
    if (!same)
        give_up(jpeg, "the seek points do not fit the image");
    expect_point(self, scan->next + 1);
}

/* The DC value of the next block of a component. */
static ALWAYS_INLINE int next_dc(j_decompress_ptr jpeg, entropy *scan, reader *in, int c)
{
    const huffman *dc = scan->dc[c];
    uint32_t entry;
    int step;
    fill(in);
    entry = LOOK(in, dc);
    if (__builtin_expect(IS_SHORT(entry), 1)) {
        drop(in, entry & 63);
        step = (int16_t)(entry >> 16);
    } else {
        if (entry == 0)
            entry = long_entry(jpeg, in->bits, dc, 1);
        step = long_value(in, entry);
    }
    scan->value[c] = (int)((unsigned)scan->value[c] + (unsigned)step); /* unsigned: damage may make it overflow */
    return scan->value[c];
}

/* The next MCU, into zeroed blocks; NULL: only stepped over. */
static ALWAYS_INLINE void read_mcu(j_decompress_ptr jpeg, scan_decoder *self, JBLOCKROW *blocks)
{
    entropy *scan = &self->scan;
    if (scan->done == scan->check)
        check_point(jpeg, self);
    reader in = scan->in;
    if (scan->interval && scan->restarts_left == 0)
        in = restart(jpeg, scan, in);
    scan->restarts_left--;
    for (int b = 0; b < jpeg->blocks_in_MCU; b++) {
        int c = jpeg->MCU_membership[b], value = next_dc(jpeg, scan, &in, c);
        const huffman *ac = scan->ac[c];
        if (blocks && scan->wants_dc[c])
            (*blocks[b])[0] = (JCOEF)value;
        if (blocks && scan->wants_ac[c])
            read_ac(jpeg, &in, ac, *blocks[b]);
        else
            skip_ac(jpeg, &in, ac);
    }
    if (in.count < in.padding)
        give_up(jpeg, "the coded data ends too early");
    scan->in = in;
    scan->done++;
}

/* Steps over MCUs, or enters at the last seek point before the one that is wanted. */
static __attribute__((noinline)) void go_to(j_decompress_ptr jpeg, scan_decoder *self, uint32_t mcu)
{
    const size_t i = find_point(&self->points, mcu, self->scan.columns);
    if (i < self->points.count && mcu_of_point(&self->points, i, self->scan.columns) > self->scan.done) {
        enter(&self->scan, &self->points.at[i], mcu_of_point(&self->points, i, self->scan.columns));
        expect_point(self, i + 1);
    }
    while (self->scan.done < mcu)
        read_mcu(jpeg, self, NULL);
}

/* libjpeg asks for one MCU after another, into zeroed blocks; blocks is NULL for rows that are skipped. */
static boolean decode_mcu(j_decompress_ptr jpeg, JBLOCKROW *blocks)
{
    scan_decoder *self = scan_decoder_of(jpeg);
    entropy *scan = &self->scan;
    if (blocks != NULL && scan->column >= scan->first && scan->column <= scan->last) {
        if (scan->done < scan->asked)
            go_to(jpeg, self, scan->asked);
        read_mcu(jpeg, self, blocks);
    }
    scan->asked++;
    scan->column = scan->column + 1 < scan->columns ? scan->column + 1 : 0;
    return TRUE;
}

/* After jpeg_start_decompress and jpeg_crop_scanline. first, columns: those of the output that are wanted. points: of
 * the image as bytes, or NULL. */
static void replace_entropy_decoder(j_decompress_ptr jpeg, int first, int columns, const unsigned char *points,
                                    size_t points_bytes)
{
    scan_decoder *self = scan_decoder_of(jpeg);
    entropy *scan = &self->scan;
    int mcu = jpeg->max_h_samp_factor * DCT_SIZE(jpeg, min_);
    if (jpeg->progressive_mode || jpeg->comps_in_scan != jpeg->num_components)
        return; /* several scans: they have been read already */
    if (jpeg->num_components == 1)
        mcu = DCT_SIZE(jpeg, min_);
    memset(scan, 0, sizeof *scan);
    scan->begin = scan->in.at = jpeg->src->next_input_byte;
    scan->in.end = scan->in.at + jpeg->src->bytes_in_buffer;
    scan->in.plain = next_ff(scan->in.at, scan->in.end);
    scan->interval = scan->restarts_left = jpeg->restart_interval;
    scan->columns = jpeg->MCUs_per_row;
    scan->first = (JDIMENSION)(first / mcu);
    scan->last = (JDIMENSION)((first + columns - 1) / mcu);
    for (int c = 0; c < jpeg->comps_in_scan; c++) {
        const jpeg_component_info *info = jpeg->cur_comp_info[c];
        huffman *dc = &self->tables[0][info->dc_tbl_no], *ac = &self->tables[1][info->ac_tbl_no];
        fill_table(dc, jpeg->dc_huff_tbl_ptrs[info->dc_tbl_no], 1);
        fill_table(ac, jpeg->ac_huff_tbl_ptrs[info->ac_tbl_no], 0);
        scan->dc[c] = dc;
        scan->ac[c] = ac;
        scan->wants_dc[c] = info->component_needed;
        scan->wants_ac[c] = info->component_needed && DCT_SIZE(info, ) > 1;
    }
    self->points.count = 0;
    if (points != NULL && (uint64_t)jpeg->MCUs_per_row * jpeg->MCU_rows_in_scan <= SEEK_MCUS)
        read_points(&self->points, points, points_bytes, jpeg->comps_in_scan, scan->columns, jpeg->MCU_rows_in_scan,
                    (uint64_t)(scan->in.end - scan->begin));
    expect_point(self, 0);
    jpeg->entropy->decode_mcu = decode_mcu;
}
#endif
