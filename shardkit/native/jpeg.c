/* A fused JPEG decoder: from a file's bytes straight into a slot of a batch, decoding only what the slot needs.
 *
 * For each image: which box is taken (the same formulas as crops.py), at which scale libjpeg-turbo may decode it
 * (1/2, 1/4, 1/8, as crops.dct_divisor), which rows and columns the resize looks at; only these are decoded, and
 * nothing after the last of them. Each output row is then the triangle-weighted sum of some decoded rows (vertical
 * pass), and each of its pixels that of some of their pixels (horizontal pass): Pillow's antialiased bilinear
 * `resize(size, box=box)`, in fixed point.
 *
 * What is odd in any way is left to the caller, who has another decoder: every function here says 0 for "done" or a
 * text for "not done, because". The other decoder's word on an image is the last one, so that errors do not depend
 * on whether this module was built. Every warning of libjpeg counts as "not done".
 *
 * Fixed point: a weight is a uint16 with 65535 for one, a sample is 8.8 in a uint16, and a product keeps its high 16
 * bits, which SSE2 and NEON do for 8 samples at once. RGB is handled as four samples (R, G, B and one unused), so
 * that two pixels fill a vector.
 *
 * The part below "Python" is the module; with SHARDKIT_NO_PYTHON the rest can be built alone, for the fuzzer.
 */
#ifndef SHARDKIT_NO_PYTHON
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#endif

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2001000 || \
    LIBJPEG_TURBO_VERSION_NUMBER >= 4000000
/* before 2.1 jpeg_crop_scanline() has faults with progressive images; jpeg_entropy_decoder below is that of 2 and 3 */
#error "libjpeg-turbo 2.1 to 3 is needed"
#endif
#if !defined(__GNUC__)
#error "GCC or clang is needed, for their vector types"
#endif
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#if JPEG_LIB_VERSION >= 70
#define DCT_SIZE(of, min) ((of)->min##DCT_h_scaled_size)
#else
#define DCT_SIZE(of, min) ((of)->min##DCT_scaled_size)
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define TEXT_BYTES JMSG_LENGTH_MAX
#define KEPT_BYTES ((size_t)16 << 20) /* of scratch memory between images: as images.SCRATCH_BYTES */
#define RANDOM_DRAWS 22               /* as crops.RANDOM_DRAWS */

typedef uint16_t v8 __attribute__((vector_size(16)));
typedef uint8_t v8b __attribute__((vector_size(8)));

enum crop { CROP_RESIZE, CROP_CENTER, CROP_RANDOM };

typedef struct {
    int height, width; /* of the slot */
    int channels;      /* 3 or 1 */
    int crop;
    double headroom;
    double max_pixels;
    int max_scans;
} settings;

typedef struct {
    double top, left, height, width;
} box;

/* The taps of one axis: output i is the sum over t < count[i] of weight[i * most + t] * input[first[i] + t]. */
typedef struct {
    int *first, *count;
    uint16_t *weight;
    int most;
} taps;

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
    unsigned interval, restarts_left, next_restart;
    JDIMENSION column, columns, first, last; /* of MCUs; first to last are wanted */
    int value[MAX_COMPS_IN_SCAN];            /* the last DC value */
    const huffman *dc[MAX_COMPS_IN_SCAN], *ac[MAX_COMPS_IN_SCAN];
    int wants_dc[MAX_COMPS_IN_SCAN], wants_ac[MAX_COMPS_IN_SCAN];
} entropy;

typedef struct decoder {
    struct jpeg_decompress_struct jpeg; /* kept from image to image: to create one costs as much as a tiny image */
    void *(*alloc_small)(j_common_ptr jpeg, int pool, size_t bytes); /* libjpeg's */
    JHUFF_TBL huffman_of_file[2 * NUM_HUFF_TBLS];                    /* handed to libjpeg for each image again */
    JQUANT_TBL quantisation_of_file[NUM_QUANT_TBLS];
    int huffman_used, quantisation_used;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf on_error;
    int max_scans;
    char text[TEXT_BYTES];
    unsigned char *memory; /* of the resize */
    size_t bytes;
    entropy scan;
    huffman tables[2][NUM_HUFF_TBLS]; /* DC, AC: kept, since many images share them */
    struct decoder *next;
} decoder;

/* ------------------------------------------------------------------------------------------------ libjpeg's errors */

static void fail(j_common_ptr jpeg)
{
    decoder *self = (decoder *)jpeg->client_data;
    jpeg->err->format_message(jpeg, self->text);
    longjmp(self->on_error, 1);
}

static void on_message(j_common_ptr jpeg, int level)
{
    if (level < 0)
        fail(jpeg); /* a warning: pixels may be lost */
}

static void no_output(j_common_ptr jpeg)
{
    (void)jpeg;
}

/* A few bytes can name a scan over the whole image, so a small file with thousands of scans would run for minutes. */
static void on_progress(j_common_ptr jpeg)
{
    decoder *self = (decoder *)jpeg->client_data;
    if (jpeg->is_decompressor && self->jpeg.input_scan_number > self->max_scans) {
        snprintf(self->text, TEXT_BYTES, "more than %d scans", self->max_scans);
        longjmp(self->on_error, 1);
    }
}

/* Tables are in libjpeg's pool that lasts as long as its object, so that new ones for each image would fill memory. */
static void *alloc_small(j_common_ptr jpeg, int pool, size_t bytes)
{
    decoder *self = (decoder *)jpeg->client_data;
    if (pool == JPOOL_PERMANENT && bytes == sizeof(JHUFF_TBL) && self->huffman_used < 2 * NUM_HUFF_TBLS)
        return &self->huffman_of_file[self->huffman_used++];
    if (pool == JPOOL_PERMANENT && bytes == sizeof(JQUANT_TBL) && self->quantisation_used < NUM_QUANT_TBLS)
        return &self->quantisation_of_file[self->quantisation_used++];
    return self->alloc_small(jpeg, pool, bytes);
}

static int create(decoder *self)
{
    if (setjmp(self->on_error))
        return 0; /* no memory, or a libjpeg that is not the one of the headers */
    jpeg_create_decompress(&self->jpeg); /* keeps err and client_data */
    self->jpeg.progress = &self->progress;
    self->alloc_small = self->jpeg.mem->alloc_small;
    self->jpeg.mem->alloc_small = alloc_small;
    return 1;
}

static decoder *decoder_new(void)
{
    decoder *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->jpeg.err = jpeg_std_error(&self->errors);
    self->errors.error_exit = fail;
    self->errors.emit_message = on_message;
    self->errors.output_message = no_output;
    self->jpeg.client_data = self;
    if (!create(self)) {
        jpeg_destroy_decompress(&self->jpeg);
        free(self);
        return NULL;
    }
    self->progress.progress_monitor = on_progress;
    return self;
}

static void decoder_free(decoder *self)
{
    jpeg_destroy_decompress(&self->jpeg);
    free(self->memory);
    free(self);
}

/* libjpeg keeps the tables of the image before. Without them, a file that lacks some is decoded as it is alone. */
static void forget_tables(decoder *self)
{
    self->huffman_used = self->quantisation_used = 0;
    for (int i = 0; i < NUM_QUANT_TBLS; i++)
        self->jpeg.quant_tbl_ptrs[i] = NULL;
    for (int i = 0; i < NUM_HUFF_TBLS; i++)
        self->jpeg.dc_huff_tbl_ptrs[i] = self->jpeg.ac_huff_tbl_ptrs[i] = NULL;
}

/* ------------------------------------------------------------------------------------------- the entropy decoder
 *
 * Most of a photograph's time is spent here, and libjpeg's decoder is exact about what may be suspended or damaged.
 * This one takes the place of `decode_mcu` in a baseline image with one scan: the whole file is in memory, and damage
 * is left to the other decoder. One look-up gives zeros and value of most coefficients, and what lies outside the
 * columns and rows that are wanted is only stepped over. ITU-T T.81, F.2 and figure F.12 to F.16.
 */

static void give_up(decoder *self, const char *text)
{
    snprintf(self->text, TEXT_BYTES, "%s", text);
    longjmp(self->on_error, 1);
}

/* From zigzag order; beyond 63 for runs that a damaged file has too long, as in libjpeg, and for an end of block. */
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
static __attribute__((noinline)) uint32_t long_entry(decoder *self, uint64_t bits, const huffman *table, int is_dc)
{
    for (int length = LOOK_BITS + 1; length <= 16; length++) {
        int32_t code = (int32_t)(bits >> (64 - length));
        if (code <= table->last[length])
            return entry_of(table->symbols[(code + table->offset[length]) & 255], length, 0, is_dc);
    }
    give_up(self, "bad Huffman code");
    return 0;
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

static ALWAYS_INLINE void read_ac(decoder *self, reader *in, const huffman *table, JCOEF *block)
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
                entry = long_entry(self, in->bits, table, 0);
            k += ZEROS(entry);
            block[natural_order[k++]] = (JCOEF)long_value(in, entry);
            break;
        }
    }
}

static ALWAYS_INLINE void skip_ac(decoder *self, reader *in, const huffman *table)
{
    for (unsigned k = 1; k < 64;) {
        fill(in);
        for (int i = 0; i < 2; i++) { /* the first of at most 25 bits, then 31 are there */
            uint32_t entry = LOOK(in, table);
            if (__builtin_expect(entry == 0, 0)) {
                entry = long_entry(self, in->bits, table, 0);
                i = 2;
            }
            drop(in, entry & 63);
            k += ZEROS(entry) + 1;
            if (k >= 64)
                return;
        }
    }
}

static reader restart(decoder *self, entropy *scan, reader in)
{
    in = fill_slowly(in);
    if (in.count - in.padding >= 8 || in.end - in.at < 2 || in.at[0] != 0xFF || in.at[1] != 0xD0 + scan->next_restart)
        give_up(self, "no restart marker where one should be");
    in.at += 2;
    in.plain = next_ff(in.at, in.end);
    in.bits = 0;
    in.count = in.padding = 0;
    scan->next_restart = (scan->next_restart + 1) & 7;
    scan->restarts_left = scan->interval;
    memset(scan->value, 0, sizeof scan->value);
    return in;
}

/* One MCU into zeroed blocks; blocks is NULL for rows that are skipped. */
static boolean decode_mcu(j_decompress_ptr jpeg, JBLOCKROW *blocks)
{
    decoder *self = (decoder *)jpeg->client_data;
    entropy *scan = &self->scan;
    reader in = scan->in;
    int wanted = blocks != NULL && scan->column >= scan->first && scan->column <= scan->last;
    if (scan->interval && scan->restarts_left == 0)
        in = restart(self, scan, in);
    scan->restarts_left--;
    for (int b = 0; b < jpeg->blocks_in_MCU; b++) {
        int c = jpeg->MCU_membership[b], step;
        const huffman *dc = scan->dc[c], *ac = scan->ac[c];
        uint32_t entry;
        fill(&in);
        entry = LOOK(&in, dc);
        if (__builtin_expect(IS_SHORT(entry), 1)) {
            drop(&in, entry & 63);
            step = (int16_t)(entry >> 16);
        } else {
            if (entry == 0)
                entry = long_entry(self, in.bits, dc, 1);
            step = long_value(&in, entry);
        }
        scan->value[c] = (int)((unsigned)scan->value[c] + (unsigned)step); /* unsigned: damage may make it overflow */
        if (wanted && scan->wants_dc[c])
            (*blocks[b])[0] = (JCOEF)scan->value[c];
        if (wanted && scan->wants_ac[c])
            read_ac(self, &in, ac, *blocks[b]);
        else
            skip_ac(self, &in, ac);
    }
    if (in.count < in.padding)
        give_up(self, "the coded data ends too early");
    scan->column = scan->column + 1 < scan->columns ? scan->column + 1 : 0;
    scan->in = in;
    return TRUE;
}

/* After jpeg_start_decompress and jpeg_crop_scanline. first, columns: those of the output that are wanted. */
static void replace_entropy_decoder(decoder *self, int first, int columns)
{
    j_decompress_ptr jpeg = &self->jpeg;
    entropy *scan = &self->scan;
    int mcu = jpeg->max_h_samp_factor * DCT_SIZE(jpeg, min_);
    if (jpeg->progressive_mode || jpeg->comps_in_scan != jpeg->num_components)
        return; /* several scans: they have been read already */
    if (jpeg->num_components == 1)
        mcu = DCT_SIZE(jpeg, min_);
    memset(scan, 0, sizeof *scan);
    scan->in.at = jpeg->src->next_input_byte;
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
    jpeg->entropy->decode_mcu = decode_mcu;
}

/* ----------------------------------------------------------------------------------------------------- the header */

/* Size from the frame header, so that nothing is spent on what is not taken anyway. 0 or a reason. */
static const char *find_frame(const unsigned char *data, size_t size, int *height, int *width, size_t *end)
{
    size_t at = 2;
    if (size < 4 || data[0] != 0xFF || data[1] != 0xD8)
        return "not a JPEG";
    while (at + 10 <= size) {
        int marker = data[at + 1];
        if (data[at] != 0xFF)
            return "no marker where one should be";
        if (marker == 0xFF) { /* a fill byte */
            at++;
        } else if (marker >= 0xC0 && marker <= 0xC2) { /* baseline, extended, progressive; Huffman coding */
            if (data[at + 4] != 8)
                return "not 8 bits";
            *height = data[at + 5] << 8 | data[at + 6];
            *width = data[at + 7] << 8 | data[at + 8];
            *end = at;
            return *height && *width ? NULL : "no pixels";
        } else if (marker == 0xC4 || (marker >= 0xDB && marker <= 0xFE)) {
            at += 2 + ((size_t)data[at + 2] << 8 | data[at + 3]);
        } else {
            return "another coding";
        }
    }
    return "no frame header";
}

/* Decoding stops before the end of the file is seen, so that a cut file has to be found in another way. */
static int has_end(const unsigned char *data, size_t size, size_t from)
{
    for (size_t at = size - 1; at > from; at--)
        if (data[at] == 0xD9 && data[at - 1] == 0xFF)
            return 1;
    return 0;
}

/* ----------------------------------------------------------------------------------------------------- geometry */

static box center_box(int height, int width, const settings *set)
{
    double by_height = (double)height / set->height, by_width = (double)width / set->width;
    double unit = 224.0 / 256.0 * (by_height < by_width ? by_height : by_width);
    int box_height = (int)rint(unit * set->height), box_width = (int)rint(unit * set->width);
    box_height = box_height > 1 ? box_height : 1;
    box_width = box_width > 1 ? box_width : 1;
    return (box){(height - box_height) / 2, (width - box_width) / 2, box_height, box_width};
}

/* Every operation in the order of crops.random_box, and built without fused multiply-add: the same box, to the bit. */
static box random_box(int height, int width, const double *draws)
{
    const double low = log(3.0 / 4.0), high = log(4.0 / 3.0);
    double area = (double)height * width;
    int box_height = height, box_width = width;
    for (int i = 2; i < RANDOM_DRAWS; i += 2) {
        double box_area = area * (0.08 + (1.0 - 0.08) * draws[i]);
        double ratio = exp(low + (high - low) * draws[i + 1]);
        double w = rint(sqrt(box_area * ratio)), h = rint(sqrt(box_area / ratio));
        if (0 < w && w <= width && 0 < h && h <= height)
            return (box){(int)(draws[0] * (height - h + 1)), (int)(draws[1] * (width - w + 1)), h, w};
    }
    if ((double)width / height < 3.0 / 4.0)
        box_height = (int)rint(width / (3.0 / 4.0));
    else if ((double)width / height > 4.0 / 3.0)
        box_width = (int)rint(height * (4.0 / 3.0));
    return (box){(height - box_height) / 2, (width - box_width) / 2, box_height, box_width};
}

static box choose_box(int height, int width, const settings *set, const double *draws)
{
    if (set->crop == CROP_CENTER)
        return center_box(height, width, set);
    if (set->crop == CROP_RANDOM)
        return random_box(height, width, draws);
    return (box){0, 0, height, width};
}

static int dct_divisor(const box *part, const settings *set)
{
    double by_height = part->height / set->height, by_width = part->width / set->width;
    double shrink = (by_height < by_width ? by_height : by_width) / set->headroom;
    return shrink >= 8 ? 8 : shrink >= 4 ? 4 : shrink >= 2 ? 2 : 1;
}

/* --------------------------------------------------------------------------------------------------- the resize */

/* How many input pixels one output pixel has at most: those in a span of twice the filter's half-width. */
static int most_taps(double length, int out)
{
    double shrink = length / out;
    return (int)ceil(2 * (shrink > 1 ? shrink : 1)) + 1;
}

/* The triangle filter over the span start … start + length of `in` pixels, as Pillow's: half as wide as the shrink
 * factor each way, cut at the image's edges. reverse: the outputs in reverse order, which is a flip. */
static void fill_taps(taps *axis, int in, double start, double length, int out, int reverse)
{
    double shrink = length / out, wide = shrink > 1 ? shrink : 1;
    for (int i = 0; i < out; i++) {
        double center = start + (i + 0.5) * shrink, sum = 0, scale;
        int first = (int)(center - wide + 0.5), end = (int)(center + wide + 0.5), place = reverse ? out - 1 - i : i;
        uint16_t *weight = axis->weight + (size_t)place * axis->most;
        int left = 65535, largest = 0;
        first = first < 0 ? 0 : first > in - 1 ? in - 1 : first;
        end = end > in ? in : end <= first ? first + 1 : end;
        end = end - first > axis->most ? first + axis->most : end;
        for (int t = 0; t < end - first; t++) {
            double w = 1 - fabs(first + t + 0.5 - center) / wide;
            sum += w > 0 ? w : 0;
        }
        scale = sum > 0 ? 65535 / sum : 0;
        for (int t = 0; t < end - first; t++) {
            double w = 1 - fabs(first + t + 0.5 - center) / wide;
            weight[t] = (uint16_t)(w > 0 ? w * scale : 0);
            left -= weight[t];
            largest = weight[t] > weight[largest] ? t : largest;
        }
        weight[largest] = (uint16_t)(weight[largest] + left); /* they add up to 65535 */
        memset(weight + (end - first), 0, (size_t)(axis->most - (end - first)) * sizeof *weight);
        axis->first[place] = first;
        axis->count[place] = end - first;
    }
}

static inline v8 high_product(v8 a, v8 b)
{
#if defined(__SSE2__)
    return (v8)_mm_mulhi_epu16((__m128i)a, (__m128i)b);
#else
    typedef uint32_t v8w __attribute__((vector_size(32)));
    return __builtin_convertvector((__builtin_convertvector(a, v8w) * __builtin_convertvector(b, v8w)) >> 16, v8);
#endif
}

/* 8 bytes as the high bytes of 8 samples. */
static inline v8 widened(const unsigned char *bytes)
{
#if defined(__SSE2__)
    return (v8)_mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)bytes));
#else
    v8b in;
    memcpy(&in, bytes, sizeof in);
    return __builtin_convertvector(in, v8) << 8;
#endif
}

/* What truncated products lose on average, and the half for rounding. Below 256, so that 255.0 can't overflow. */
static inline uint16_t rounding(int count)
{
    return (uint16_t)(128 + (count < 120 ? count : 120));
}

static inline v8 all(uint16_t value)
{
    return (v8){value, value, value, value, value, value, value, value};
}

/* Inlined for each small `count`, so that the compiler unrolls the loop over it and keeps the weights in registers. */
static ALWAYS_INLINE void sum_count_rows(
    uint16_t *sum, const unsigned char *const *rows, const uint16_t *weight, const int count, int n)
{
    for (int i = 0; i < n; i += 8) {
        v8 total = all((uint16_t)(count / 2));
        for (int t = 0; t < count; t++)
            total += high_product(widened(rows[t] + i), all(weight[t]));
        memcpy(sum + i, &total, sizeof total);
    }
}

/* sum (n samples of 8.8) = the weighted rows. All rows, and sum, have room for 8 more than n. */
static void sum_rows(uint16_t *sum, const unsigned char *const *rows, const uint16_t *weight, int count, int n)
{
    switch (count) {
    case 1: sum_count_rows(sum, rows, weight, 1, n); break;
    case 2: sum_count_rows(sum, rows, weight, 2, n); break;
    case 3: sum_count_rows(sum, rows, weight, 3, n); break;
    case 4: sum_count_rows(sum, rows, weight, 4, n); break;
    default: sum_count_rows(sum, rows, weight, count, n);
    }
}

/* Four samples: the weighted pixels. */
static ALWAYS_INLINE uint32_t sum_pixel(const uint16_t *in, const v8 *pairs, const int count)
{
    const uint16_t r = rounding(count);
    uint32_t pixel;
    v8 sum = {r, r, r, r, 0, 0, 0, 0};
    for (int p = 0; p < count; p++) {
        v8 two;
        memcpy(&two, in + 8 * p, sizeof two);
        sum += high_product(two, pairs[p]);
    }
#if defined(__SSE2__)
    __m128i both = _mm_srli_epi16(_mm_add_epi16((__m128i)sum, _mm_srli_si128((__m128i)sum, 8)), 8);
    pixel = (uint32_t)_mm_cvtsi128_si32(_mm_packus_epi16(both, both));
#else
    uint8_t bytes[4];
    for (int c = 0; c < 4; c++)
        bytes[c] = (uint8_t)((uint16_t)(sum[c] + sum[c + 4]) >> 8);
    memcpy(&pixel, bytes, sizeof pixel);
#endif
    return pixel;
}

static ALWAYS_INLINE void sum_count_pixels(
    unsigned char *out, const uint16_t *sums, const int *first, const v8 *pairs, const int count, int n)
{
    uint32_t pixel;
    for (int x = 0; x < n - 1; x++, out += 3, pairs += count) {
        pixel = sum_pixel(sums + 4 * (size_t)first[x], pairs, count);
        memcpy(out, &pixel, 4); /* the fourth byte is overwritten by the next pixel */
    }
    pixel = sum_pixel(sums + 4 * (size_t)first[n - 1], pairs, count);
    memcpy(out, &pixel, 3);
}

/* A row of pixels from a row of sums of 4 samples each. pairs: for each output its weights by two, each 4 times. */
static void sum_pixels_rgb(
    unsigned char *out, const uint16_t *sums, const int *first, const v8 *pairs, int count, int n)
{
    switch (count) {
    case 1: sum_count_pixels(out, sums, first, pairs, 1, n); break;
    case 2: sum_count_pixels(out, sums, first, pairs, 2, n); break;
    case 3: sum_count_pixels(out, sums, first, pairs, 3, n); break;
    default: sum_count_pixels(out, sums, first, pairs, count, n);
    }
}

static void sum_pixels_gray(unsigned char *out, const uint16_t *sums, const taps *axis, int n)
{
    for (int x = 0; x < n; x++) {
        const uint16_t *in = sums + axis->first[x], *weight = axis->weight + (size_t)x * axis->most;
        uint32_t sum = 0;
        for (int t = 0; t < axis->count[x]; t++)
            sum += (uint32_t)in[t] * weight[t] >> 8;
        out[x] = (unsigned char)((sum + (128 << 8)) >> 16);
    }
}

/* --------------------------------------------------------------------------------------------------- one image */

/* A piece of memory that starts at *at, 64-byte aligned; *at moves behind it. */
static void *piece(size_t *at, unsigned char *memory, size_t bytes)
{
    unsigned char *found = memory + *at;
    *at += (bytes + 63) / 64 * 64;
    return found;
}

static void reverse_row(unsigned char *row, int pixels, int channels)
{
    for (int a = 0, b = pixels - 1; a < b; a++, b--)
        for (int c = 0; c < channels; c++) {
            unsigned char kept = row[a * channels + c];
            row[a * channels + c] = row[b * channels + c];
            row[b * channels + c] = kept;
        }
}

/* The whole image has the slot's size: the rows are decoded where they belong. */
static void read_whole(decoder *self, const settings *set, int flip, unsigned char *out)
{
    j_decompress_ptr jpeg = &self->jpeg;
    size_t row = (size_t)set->width * set->channels;
    JSAMPROW rows[16];
    replace_entropy_decoder(self, 0, set->width);
    while (jpeg->output_scanline < jpeg->output_height) {
        JDIMENSION begin = jpeg->output_scanline, n = jpeg->output_height - begin;
        n = n < 16 ? n : 16;
        for (JDIMENSION i = 0; i < n; i++)
            rows[i] = out + (begin + i) * row;
        jpeg_read_scanlines(jpeg, rows, n);
    }
    if (flip)
        for (int y = 0; y < set->height; y++)
            reverse_row(out + y * row, set->width, set->channels);
}

/* Chroma as fine as luma or half as fine, each way. What else there is, is too rare to be trusted with cuts. */
static int is_common(j_decompress_ptr jpeg)
{
    if (jpeg->max_h_samp_factor > 2 || jpeg->max_v_samp_factor > 2)
        return 0;
    for (int c = 1; c < jpeg->num_components; c++)
        if (jpeg->comp_info[c].h_samp_factor > jpeg->comp_info[0].h_samp_factor ||
            jpeg->comp_info[c].v_samp_factor > jpeg->comp_info[0].v_samp_factor)
            return 0;
    return 1;
}

/* Decodes from column *left on, at least `width` columns, if the image allows that; *left becomes what libjpeg makes
 * of it (a multiple of its MCU). Columns within two of a cut may differ from those of the whole image, since colour is
 * interpolated across; and libjpeg-turbo (1.5 to 3.1) chooses another interpolation for very narrow images, for which
 * it has no memory. */
static void cut_columns(j_decompress_ptr jpeg, int *left, int right)
{
    const int margin = 2, least = 64;
    JDIMENSION offset, width;
    int begin = *left - margin, end = right + margin, all = (int)jpeg->output_width;
    *left = 0;
    if (!is_common(jpeg))
        return;
    begin = begin < 0 ? 0 : begin;
    end = end > all ? all : end;
    if (end - begin < least) {
        begin = begin < all - least ? begin : all - least;
        begin = begin < 0 ? 0 : begin;
        end = begin + least < all ? begin + least : all;
    }
    if (begin == 0 && end == all)
        return;
    offset = (JDIMENSION)begin;
    width = (JDIMENSION)(end - begin);
    jpeg_crop_scanline(jpeg, &offset, &width);
    *left = (int)offset;
}

/* The part of the image, resized into the slot. 0, or a reason. */
static const char *read_part(decoder *self, const settings *set, box part, int divisor, int flip, unsigned char *out)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const int samples = set->channels == 3 ? 4 : 1, in_height = (int)jpeg->output_height,
              in_width = (int)jpeg->output_width;
    taps down, across;
    int top, left, right, cut, have, columns, n_pairs;
    down.most = most_taps(part.height / divisor, set->height);
    across.most = most_taps(part.width / divisor, set->width);
    down.most = down.most < in_height ? down.most : in_height;
    across.most = across.most < in_width ? across.most : in_width;
    n_pairs = (across.most + 1) / 2;

    /* All memory at once. Of the decoded rows only as many are kept as one output row needs. */
    size_t at = 0, row_bytes = ((size_t)in_width * samples + 32 + 63) / 64 * 64, total;
    size_t pair_bytes = samples == 4 ? (size_t)set->width * n_pairs * sizeof(v8) : 0;
    total = 10 * 64 + ((size_t)set->height + set->width) * 2 * sizeof(int) +
            ((size_t)set->height * down.most + (size_t)set->width * across.most) * sizeof(uint16_t) + pair_bytes +
            row_bytes * ((size_t)down.most + 2) + (size_t)down.most * sizeof(void *);
    if (total > self->bytes) {
        free(self->memory);
        self->bytes = 0;
        if (posix_memalign((void **)&self->memory, 64, total)) {
            self->memory = NULL;
            return "no memory";
        }
        self->bytes = total;
        memset(self->memory, 0, total);
    }
    unsigned char *memory = self->memory;
    down.first = piece(&at, memory, (size_t)set->height * sizeof(int));
    down.count = piece(&at, memory, (size_t)set->height * sizeof(int));
    down.weight = piece(&at, memory, (size_t)set->height * down.most * sizeof(uint16_t));
    across.first = piece(&at, memory, (size_t)set->width * sizeof(int));
    across.count = piece(&at, memory, (size_t)set->width * sizeof(int));
    across.weight = piece(&at, memory, (size_t)set->width * across.most * sizeof(uint16_t));
    v8 *pairs = piece(&at, memory, pair_bytes);
    const unsigned char **window = piece(&at, memory, (size_t)down.most * sizeof(void *));
    uint16_t *sums = piece(&at, memory, 2 * row_bytes);
    /* Not aligned: into aligned rows libjpeg-turbo writes past the cache (movntdq), and reading them back is slow. */
    unsigned char *rows = (unsigned char *)piece(&at, memory, row_bytes * down.most) + 8;

    fill_taps(&down, in_height, part.top / divisor, part.height / divisor, set->height, 0);
    fill_taps(&across, in_width, part.left / divisor, part.width / divisor, set->width, flip);
    top = down.first[0];
    left = across.first[flip ? set->width - 1 : 0];
    right = flip ? across.first[0] + across.count[0] : across.first[set->width - 1] + across.count[set->width - 1];

    cut = left;
    cut_columns(jpeg, &cut, right);
    replace_entropy_decoder(self, cut, (int)jpeg->output_width);
    if (top > 0 && is_common(jpeg))
        jpeg_skip_scanlines(jpeg, (JDIMENSION)top); /* once, from the first row on: later skips have faults */
    columns = right - left;
    for (int x = 0; x < set->width; x++) {
        across.first[x] -= left;
        for (int p = 0; p < n_pairs && samples == 4; p++) {
            const uint16_t *w = across.weight + (size_t)x * across.most + 2 * p;
            uint16_t a = w[0], b = 2 * p + 1 < across.most ? w[1] : 0;
            pairs[x * n_pairs + p] = (v8){a, a, a, a, b, b, b, b};
        }
    }

    have = (int)jpeg->output_scanline;
    for (int y = 0; y < set->height; y++) {
        int end = down.first[y] + down.count[y];
        while (have < end) {
            JSAMPROW row = rows + row_bytes * (size_t)(have % down.most);
            if (jpeg_read_scanlines(jpeg, &row, 1) != 1)
                return "fewer rows than promised";
            have++;
        }
        for (int t = 0; t < down.count[y]; t++)
            window[t] = rows + row_bytes * (size_t)((down.first[y] + t) % down.most) + (size_t)(left - cut) * samples;
        sum_rows(sums, window, down.weight + (size_t)y * down.most, down.count[y], columns * samples);
        if (samples == 4)
            sum_pixels_rgb(out, sums, across.first, pairs, n_pairs, set->width);
        else
            sum_pixels_gray(out, sums, &across, set->width);
        out += (size_t)set->width * set->channels;
    }
    return NULL;
}

/* Whether libjpeg would guess at coefficients that a progressive file does not have (block smoothing). */
static int is_incomplete(j_decompress_ptr jpeg)
{
    for (int c = 0; jpeg->coef_bits != NULL && c < jpeg->num_components; c++)
        for (int k = 0; k < 10; k++)
            if (jpeg->coef_bits[c][k] != 0)
                return 1;
    return 0;
}

/* Whether libjpeg, by its own account after all decisions, will write what the slot and the scratch memory have room
 * for. A lossless frame, which libjpeg-turbo 3 reads, has no scales: it would be written whole. */
static int fits(j_decompress_ptr jpeg, int height, int width, int divisor, int channels)
{
    const int samples = channels == 1 ? 1 : jpeg->out_color_space == JCS_RGB ? 3 : 4;
    return (int)jpeg->output_height == (height + divisor - 1) / divisor &&
           (int)jpeg->output_width == (width + divisor - 1) / divisor && jpeg->out_color_components == samples &&
           jpeg->output_components == samples && jpeg->data_precision == 8;
}

/* One image into out (height, width, channels). draws: what random_box and flip take, or NULL. 0, or why not. */
static const char *decode(
    decoder *self, const unsigned char *data, size_t size, const settings *set, const double *draws, int flip,
    unsigned char *out)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const char *reason;
    int height = 0, width = 0, divisor, whole;
    size_t frame = 0;
    box part;
    if ((reason = find_frame(data, size, &height, &width, &frame)) != NULL)
        return reason;
    if ((double)height * width > set->max_pixels)
        return "too many pixels";
    if (!has_end(data, size, frame))
        return "no end-of-image marker";
    part = choose_box(height, width, set, draws);
    whole = set->crop == CROP_RESIZE && height == set->height && width == set->width;
    divisor = whole ? 1 : dct_divisor(&part, set);

    self->max_scans = set->max_scans;
    forget_tables(self);
    if (setjmp(self->on_error)) {
        jpeg_abort_decompress(jpeg);
        return self->text;
    }
    jpeg_mem_src(jpeg, data, (unsigned long)size);
    jpeg_read_header(jpeg, TRUE);
    reason = NULL;
    if ((int)jpeg->image_height != height || (int)jpeg->image_width != width || jpeg->arith_code)
        reason = "two frame headers";
    else if (jpeg->jpeg_color_space != JCS_GRAYSCALE && jpeg->jpeg_color_space != JCS_YCbCr &&
             jpeg->jpeg_color_space != JCS_RGB)
        reason = "another colour space";
    if (reason == NULL) {
        jpeg->out_color_space = set->channels == 1 ? JCS_GRAYSCALE : whole ? JCS_RGB : JCS_EXT_RGBX;
        jpeg->scale_num = 1;
        jpeg->scale_denom = (unsigned)divisor;
        /* coefficients of a progressive image take 6 bytes for a pixel at most; the rest is small */
        jpeg->mem->max_memory_to_use = (long)(8 * set->max_pixels + (64 << 20));
        jpeg_start_decompress(jpeg);
        if (!fits(jpeg, height, width, divisor, set->channels))
            reason = "another size than its header says";
        else if (is_incomplete(jpeg))
            reason = "incomplete progressive image";
        else if (whole)
            read_whole(self, set, flip, out);
        else
            reason = read_part(self, set, part, divisor, flip, out);
    }
    jpeg_abort_decompress(jpeg);
    if (self->bytes > KEPT_BYTES) {
        free(self->memory);
        self->memory = NULL;
        self->bytes = 0;
    }
    return reason;
}

/* ------------------------------------------------------------------------------------------------------- Python */
#ifndef SHARDKIT_NO_PYTHON

static decoder *idle = NULL; /* decoders that no thread is using; only touched with the GIL */

static decoder *take_decoder(void)
{
    decoder *self = idle;
    if (self == NULL)
        return decoder_new();
    idle = self->next;
    return self;
}

static void give_back(decoder *self)
{
    self->next = idle;
    idle = self;
}

typedef struct {
    Py_buffer view;
    const char *reason;
    char text[TEXT_BYTES];
} job;

static void run(decoder *self, job *jobs, Py_ssize_t n, const settings *set, int flips, const double *draws,
                Py_ssize_t columns, unsigned char *out)
{
    size_t slot = (size_t)set->height * set->width * set->channels;
    for (Py_ssize_t i = 0; i < n; i++) {
        const double *row = draws ? draws + i * columns : NULL;
        if (jobs[i].view.obj == NULL)
            continue;
        jobs[i].reason = decode(self, jobs[i].view.buf, (size_t)jobs[i].view.len, set, row ? row + 1 : NULL,
                                flips && row && row[0] < 0.5, out + slot * i);
        if (jobs[i].reason != NULL) {
            snprintf(jobs[i].text, TEXT_BYTES, "%s", jobs[i].reason);
            jobs[i].reason = jobs[i].text;
        }
    }
}

static PyObject *failures_of(const job *jobs, Py_ssize_t n)
{
    PyObject *found = PyList_New(0);
    for (Py_ssize_t i = 0; found != NULL && i < n; i++) {
        PyObject *item;
        if (jobs[i].reason == NULL)
            continue;
        item = PyUnicode_DecodeLatin1(jobs[i].reason, (Py_ssize_t)strlen(jobs[i].reason), NULL);
        item = Py_BuildValue("(nN)", i, item);
        if (item == NULL || PyList_Append(found, item) < 0)
            Py_CLEAR(found);
        Py_XDECREF(item);
    }
    return found;
}

PyDoc_STRVAR(decode_batch_doc,
"decode_batch(datas, out, size, crop, flip, draws, headroom, max_pixels, max_scans)\n--\n\n"
"Each image of a sequence of bytes-like objects into its slot of out, uint8 (n, height, width, channels).\n\n"
"size: (height, width, channels). crop: 0 resize, 1 center, 2 random. draws: None or float64 (n, columns):\n"
"the first for the flip (below 1/2 means flipped), the others for the random crop. None as data is left out.\n"
"Returns [(index, reason)] of those that were not decoded; what their slots hold is undefined. The GIL is released.");

static PyObject *py_decode_batch(PyObject *module, PyObject *args)
{
    PyObject *datas, *draws_object, *fast = NULL, *result = NULL;
    Py_buffer out = {0}, draws = {0};
    settings set;
    int flip, needed;
    Py_ssize_t n = 0, columns = 0;
    job *jobs = NULL;
    decoder *self = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "Ow*(iii)ipOddi", &datas, &out, &set.height, &set.width, &set.channels, &set.crop,
                          &flip, &draws_object, &set.headroom, &set.max_pixels, &set.max_scans))
        return NULL;
    if ((fast = PySequence_Fast(datas, "datas is not a sequence")) == NULL)
        goto end;
    n = PySequence_Fast_GET_SIZE(fast);
    if (draws_object != Py_None && PyObject_GetBuffer(draws_object, &draws, PyBUF_C_CONTIGUOUS) < 0)
        goto end;
    needed = set.crop == CROP_RANDOM ? 1 + RANDOM_DRAWS : flip ? 1 : 0;
    columns = draws.obj && n ? draws.len / (Py_ssize_t)sizeof(double) / n : 0;
    if (set.height < 1 || set.width < 1 || set.height > 65535 || set.width > 65535 ||
        (set.channels != 1 && set.channels != 3) || columns < (n ? needed : 0) ||
        (draws.obj && draws.len != n * columns * (Py_ssize_t)sizeof(double)) ||
        out.len / set.height / set.width / set.channels != n ||
        out.len % ((Py_ssize_t)set.height * set.width * set.channels)) {
        PyErr_SetString(PyExc_ValueError, "out or draws do not fit the images");
        goto end;
    }
    jobs = PyMem_Calloc((size_t)(n ? n : 1), sizeof *jobs);
    self = take_decoder();
    if (jobs == NULL || self == NULL) {
        PyErr_NoMemory();
        goto end;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(fast, i);
        if (item == Py_None)
            jobs[i].reason = "left out";
        else if (PyObject_GetBuffer(item, &jobs[i].view, PyBUF_SIMPLE) < 0)
            goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    run(self, jobs, n, &set, flip, draws.buf, columns, out.buf);
    Py_END_ALLOW_THREADS
    result = failures_of(jobs, n);
end:
    if (self != NULL)
        give_back(self);
    for (Py_ssize_t i = 0; jobs != NULL && i < n; i++)
        if (jobs[i].view.obj != NULL)
            PyBuffer_Release(&jobs[i].view);
    PyMem_Free(jobs);
    if (draws.obj != NULL)
        PyBuffer_Release(&draws);
    Py_XDECREF(fast);
    PyBuffer_Release(&out);
    return result;
}

PyDoc_STRVAR(random_box_doc, "random_box(height, width, draws)\n--\n\n"
"(top, left, height, width), as crops.random_box: for the test that compares them.");

static PyObject *py_random_box(PyObject *module, PyObject *args)
{
    Py_buffer draws;
    int height, width;
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "iiy*", &height, &width, &draws))
        return NULL;
    if (draws.len == RANDOM_DRAWS * (Py_ssize_t)sizeof(double) && height > 0 && width > 0) {
        box part = random_box(height, width, draws.buf);
        result = Py_BuildValue("(iiii)", (int)part.top, (int)part.left, (int)part.height, (int)part.width);
    } else {
        PyErr_SetString(PyExc_ValueError, "a size and 22 numbers are needed");
    }
    PyBuffer_Release(&draws);
    return result;
}

static void free_module(void *module)
{
    (void)module;
    while (idle != NULL) {
        decoder *self = idle;
        idle = self->next;
        decoder_free(self);
    }
}

static PyMethodDef methods[] = {
    {"decode_batch", py_decode_batch, METH_VARARGS, decode_batch_doc},
    {"random_box", py_random_box, METH_VARARGS, random_box_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "jpeg", .m_doc = "A fused JPEG decoder; see fused.py.", .m_size = -1,
    .m_methods = methods, .m_free = free_module,
};

#define TEXT_OF(x) #x
#define VERSION_TEXT(x) TEXT_OF(x)

PyMODINIT_FUNC PyInit_jpeg(void)
{
    PyObject *module;
    decoder *self = decoder_new(); /* fails where another libjpeg is loaded under the same names */
    if (self == NULL) {
        PyErr_SetString(PyExc_ImportError, "libjpeg is not the libjpeg-turbo that this was built with");
        return NULL;
    }
    module = PyModule_Create(&definition);
    if (module == NULL ||
        PyModule_AddStringConstant(module, "libjpeg_turbo", VERSION_TEXT(LIBJPEG_TURBO_VERSION)) < 0) {
        decoder_free(self);
        Py_XDECREF(module);
        return NULL;
    }
    give_back(self);
    return module;
}
#endif
