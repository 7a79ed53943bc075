/* One JPEG: from a file's bytes straight into a slot of a batch, decoding only what the slot needs.
 *
 * For each image: which box is taken (the same formulas as crops.py), at which scale libjpeg-turbo may decode it
 * (1/2, 1/4, 1/8, as crops.dct_divisor), which rows and columns the resize looks at; only these are decoded, and
 * nothing after the last of them. jpeg_huffman.h decodes the coefficients, libjpeg-turbo makes pixels of them, and
 * jpeg_resize.h puts them into the slot.
 *
 * Anything unusual is left to the caller, who has another decoder: every function here returns NULL for "done" or a
 * text for "not done, because". The other decoder has the last word on an image, so that errors do not depend on
 * whether this module was built. Every warning of libjpeg counts as "not done".
 *
 * Knows no Python: jpeg.c is the module, and tests/fuzz/fuzz_jpeg.c includes this file alone.
 */
#ifndef SHARDKIT_JPEG_DECODER_H
#define SHARDKIT_JPEG_DECODER_H

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "jpeg_huffman.h"
#include "jpeg_resize.h"
#include "jpeg_precise.h"

#define TEXT_BYTES JMSG_LENGTH_MAX
#define KEPT_BYTES ((size_t)16 << 20) /* of scratch memory between images: as images.SCRATCH_BYTES */

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
    unsigned char *pixels; /* of an image that is changed after the resize; see jpeg_finish.h */
    size_t pixel_bytes;
    scan_decoder scan;
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

static void give_up(j_decompress_ptr jpeg, const char *text)
{
    decoder *self = (decoder *)jpeg->client_data;
    snprintf(self->text, TEXT_BYTES, "%s", text);
    longjmp(self->on_error, 1);
}

static inline scan_decoder *scan_decoder_of(j_decompress_ptr jpeg)
{
    return &((decoder *)jpeg->client_data)->scan;
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
    free(self->pixels);
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
    const size_t row = (size_t)set->width * set->channels;
    const int upside_down = flip & FLIP_VERTICAL;
    JSAMPROW rows[16];
    replace_entropy_decoder(jpeg, 0, set->width);
    while (jpeg->output_scanline < jpeg->output_height) {
        JDIMENSION begin = jpeg->output_scanline, n = jpeg->output_height - begin;
        n = n < 16 ? n : 16;
        for (JDIMENSION i = 0; i < n; i++)
            rows[i] = out + (upside_down ? set->height - 1 - (begin + i) : begin + i) * row;
        jpeg_read_scanlines(jpeg, rows, n);
    }
    if (flip & FLIP_HORIZONTAL)
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

/* All scratch memory of an image at once; NULL if there is none. */
static unsigned char *scratch(decoder *self, size_t total)
{
    if (total > self->bytes) {
        free(self->memory);
        self->bytes = 0;
        if (posix_memalign((void **)&self->memory, 64, total)) {
            self->memory = NULL;
            return NULL;
        }
        self->bytes = total;
        memset(self->memory, 0, total);
    }
    return self->memory;
}

/* Cuts the columns and skips the rows outside of what is needed. The column that the rows then begin with. */
static int cut_image(j_decompress_ptr jpeg, int top, int left, int right)
{
    int cut = left;
    cut_columns(jpeg, &cut, right);
    replace_entropy_decoder(jpeg, cut, (int)jpeg->output_width);
    if (top > 0 && is_common(jpeg))
        jpeg_skip_scanlines(jpeg, (JDIMENSION)top); /* once, from the first row on: later skips have faults */
    return cut;
}

/* The part of the image, resized into the slot. 0, or a reason. */
static const char *read_part(decoder *self, const settings *set, box part, int divisor, int flip, unsigned char *out)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const int samples = set->channels == 3 ? 4 : 1, in_height = (int)jpeg->output_height,
              in_width = (int)jpeg->output_width, mirrored = flip & FLIP_HORIZONTAL;
    const size_t out_row = (size_t)set->width * set->channels;
    taps down, across;
    int left, right, cut, have, columns, n_pairs;
    down.most = most_taps(set->filter, part.height / divisor, set->height);
    across.most = most_taps(set->filter, part.width / divisor, set->width);
    down.most = down.most < in_height ? down.most : in_height;
    across.most = across.most < in_width ? across.most : in_width;
    n_pairs = (across.most + 1) / 2;

    /* Of the decoded rows only as many are kept as one output row needs. */
    size_t at = 0, row_bytes = ((size_t)in_width * samples + 32 + 63) / 64 * 64, total;
    size_t pair_bytes = samples == 4 ? (size_t)set->width * n_pairs * sizeof(v8) : 0;
    total = 10 * 64 + ((size_t)set->height + set->width) * 2 * sizeof(int) +
            ((size_t)set->height * down.most + (size_t)set->width * across.most) * sizeof(uint16_t) + pair_bytes +
            row_bytes * ((size_t)down.most + 2) + (size_t)down.most * sizeof(void *);
    unsigned char *memory = scratch(self, total);
    if (memory == NULL)
        return "no memory";
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

    fill_taps(&down, set->filter, in_height, part.top / divisor, part.height / divisor, set->height, 0);
    fill_taps(&across, set->filter, in_width, part.left / divisor, part.width / divisor, set->width, mirrored);
    left = across.first[mirrored ? set->width - 1 : 0];
    right = mirrored ? across.first[0] + across.count[0] : across.first[set->width - 1] + across.count[set->width - 1];
    cut = cut_image(jpeg, down.first[0], left, right);
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
        unsigned char *to = out + (flip & FLIP_VERTICAL ? set->height - 1 - y : y) * out_row;
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
            sum_pixels_rgb(to, sums, across.first, pairs, n_pairs, set->width);
        else
            sum_pixels_gray(to, sums, &across, set->width);
    }
    return NULL;
}

/* The state of read_precisely: what both orders of the passes need. */
typedef struct {
    precise_taps down, across;
    v8s *pairs, *row_pairs;
    const unsigned char **window;
    unsigned char *kept, *gray, *read; /* rows for the second pass; a gray row; a decoded row */
    size_t kept_bytes;                 /* of a row */
    int samples, in_samples, wide, left, right, cut, have;
} precise_state;

/* The next decoded row of the columns that are needed, of `samples` each; NULL if there is none. */
static const unsigned char *next_row(j_decompress_ptr jpeg, precise_state *at)
{
    JSAMPROW row = at->read;
    const unsigned char *in = at->read + (size_t)(at->left - at->cut) * at->in_samples;
    if (jpeg_read_scanlines(jpeg, &row, 1) != 1)
        return NULL;
    at->have++;
    if (at->in_samples == at->samples)
        return in;
    gray_of_colour(at->gray, in, at->right - at->left);
    return at->gray;
}

/* Points `window` at the rows that output row y is made of, and finds their weights. */
static void find_rows(precise_state *at, int y)
{
    const int count = at->down.count[y];
    for (int t = 0; t < count; t++)
        at->window[t] = at->kept + at->kept_bytes * (size_t)((at->down.first[y] + t) % at->down.most);
    at->window[count] = at->window[0]; /* the other of an odd one, with weight zero */
    fill_pairs(at->row_pairs, &at->down, y, at->wide);
}

/* All memory, and the weights. 0, or a reason. */
static const char *begin_precisely(decoder *self, const settings *set, box part, int divisor, int flip, int by_columns,
                                   precise_state *at)
{
    const j_decompress_ptr jpeg = &self->jpeg;
    const int in_height = (int)jpeg->output_height, in_width = (int)jpeg->output_width,
              mirrored = flip & FLIP_HORIZONTAL;
    precise_taps *down = &at->down, *across = &at->across;
    at->in_samples = jpeg->output_components;
    at->samples = set->channels == 3 ? 4 : 1;
    at->wide = plan_taps(down, across, set, part.height / divisor, part.width / divisor, in_height, in_width);
    /* taps beyond the right edge have weight zero, but are read */
    const size_t in_bytes = (((size_t)in_width + across->most + 2) * at->in_samples + 32 + 63) / 64 * 64,
                 out_bytes = ((size_t)set->width * at->samples + 16 + 63) / 64 * 64;
    at->kept_bytes = by_columns ? in_bytes : out_bytes;
    size_t used = 0, total = 16 * 64 + taps_bytes(down, set->height) + taps_bytes(across, set->width) +
                             pairs_bytes(across, set->width, at->samples) + pairs_bytes(down, 1, 4) +
                             ((size_t)down->most + 1) * sizeof(void *) + at->kept_bytes * down->most + 2 * in_bytes +
                             out_bytes;
    unsigned char *memory = scratch(self, total);
    if (memory == NULL)
        return "no memory";
    down->first = piece(&used, memory, (size_t)set->height * sizeof(int));
    down->count = piece(&used, memory, (size_t)set->height * sizeof(int));
    down->weight = piece(&used, memory, (size_t)set->height * down->most * sizeof(int32_t));
    down->exact = piece(&used, memory, (size_t)down->most * sizeof(double));
    across->first = piece(&used, memory, (size_t)set->width * sizeof(int));
    across->count = piece(&used, memory, (size_t)set->width * sizeof(int));
    across->weight = piece(&used, memory, (size_t)set->width * across->most * sizeof(int32_t));
    across->exact = piece(&used, memory, (size_t)across->most * sizeof(double));
    at->pairs = piece(&used, memory, pairs_bytes(across, set->width, at->samples));
    at->row_pairs = piece(&used, memory, pairs_bytes(down, 1, 4));
    at->window = piece(&used, memory, ((size_t)down->most + 1) * sizeof(void *));
    at->kept = piece(&used, memory, at->kept_bytes * down->most);
    at->gray = piece(&used, memory, in_bytes > out_bytes ? in_bytes : out_bytes);
    at->read = (unsigned char *)piece(&used, memory, in_bytes) + 8; /* not aligned, as above */

    fill_precise_taps(down, set, at->wide, in_height, part.top / divisor, part.height / divisor, set->height, 0);
    fill_precise_taps(across, set, at->wide, in_width, part.left / divisor, part.width / divisor, set->width, mirrored);
    at->left = across->first[mirrored ? set->width - 1 : 0];
    at->right =
        mirrored ? across->first[0] + across->count[0] : across->first[set->width - 1] + across->count[set->width - 1];
    at->cut = cut_image(&self->jpeg, down->first[0], at->left, at->right);
    at->have = (int)jpeg->output_scanline;
    for (int x = 0; x < set->width; x++) {
        across->first[x] -= at->left;
        if (at->samples == 4)
            fill_pairs(at->pairs + (size_t)x * across->n_pairs * (1 + at->wide), across, x, at->wide);
    }
    return NULL;
}

/* The same by jpeg_precise.h: for negative weights, and for Pillow's pixels; gray is made of colour as Pillow does.
 * 0, or a reason. */
static const char *read_precisely(decoder *self, const settings *set, box part, int divisor, int flip,
                                  unsigned char *out)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const int by_columns = columns_first(set, (int)jpeg->output_height, (int)jpeg->output_width);
    const size_t out_row = (size_t)set->width * set->channels;
    precise_state at;
    const char *reason = begin_precisely(self, set, part, divisor, flip, by_columns, &at);
    if (reason != NULL)
        return reason;
    const int columns = (at.right - at.left) * at.samples;
    for (int y = 0; y < set->height; y++) {
        const int first = at.down.first[y], end = first + at.down.count[y];
        unsigned char *to = out + (flip & FLIP_VERTICAL ? set->height - 1 - y : y) * out_row;
        while (at.have < end) {
            unsigned char *keep = at.kept + at.kept_bytes * (size_t)(at.have % at.down.most);
            const int needed = at.have >= first;
            const unsigned char *in = next_row(jpeg, &at);
            if (in == NULL)
                return "fewer rows than promised";
            if (needed && by_columns)
                memcpy(keep, in, (size_t)columns);
            else if (needed)
                resize_row(keep, in, &at.across, at.pairs, at.samples, at.wide, set->width);
        }
        find_rows(&at, y);
        if (!by_columns) {
            sum_precise_rows(to, at.window, at.row_pairs, (at.down.count[y] + 1) / 2, at.samples, at.wide, set->width);
            continue;
        }
        sum_precise_samples(at.read, at.window, at.row_pairs, (at.down.count[y] + 1) / 2, at.wide, columns);
        if (at.samples == 1) {
            resize_gray(to, at.read, &at.across, at.wide, set->width);
        } else {
            resize_row(at.gray, at.read, &at.across, at.pairs, at.samples, at.wide, set->width);
            pack_pixels(to, at.gray, set->width);
        }
    }
    return NULL;
}

/* The nearest pixels of the part, as Pillow finds them. 0, or a reason. */
static const char *read_nearest(decoder *self, const settings *set, box part, int flip, unsigned char *out)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const int in_samples = jpeg->output_components, in_height = (int)jpeg->output_height,
              in_width = (int)jpeg->output_width, mirrored = flip & FLIP_HORIZONTAL;
    const size_t out_row = (size_t)set->width * set->channels, in_bytes = (size_t)in_width * in_samples + 32;
    size_t at = 0, total = 4 * 64 + ((size_t)set->height + set->width) * sizeof(int) + 2 * in_bytes + 2 * 64;
    unsigned char *memory = scratch(self, total);
    if (memory == NULL)
        return "no memory";
    int *rows = piece(&at, memory, (size_t)set->height * sizeof(int));
    int *columns = piece(&at, memory, (size_t)set->width * sizeof(int));
    unsigned char *gray = piece(&at, memory, in_bytes);
    unsigned char *read = (unsigned char *)piece(&at, memory, in_bytes) + 8;
    find_nearest(rows, in_height, part.top, part.height, set->height, 0);
    find_nearest(columns, in_width, part.left, part.width, set->width, mirrored);
    const int left = columns[mirrored ? set->width - 1 : 0], right = columns[mirrored ? 0 : set->width - 1] + 1,
              cut = cut_image(jpeg, rows[0], left, right);
    int have = (int)jpeg->output_scanline;
    const unsigned char *before = NULL;
    for (int x = 0; x < set->width; x++)
        columns[x] -= left;
    for (int y = 0; y < set->height; y++) {
        unsigned char *to = out + (flip & FLIP_VERTICAL ? set->height - 1 - y : y) * out_row;
        if (before != NULL && rows[y] == rows[y - 1]) {
            memcpy(to, before, out_row);
            continue;
        }
        for (; have <= rows[y]; have++) {
            JSAMPROW row = read;
            if (jpeg_read_scanlines(jpeg, &row, 1) != 1)
                return "fewer rows than promised";
        }
        const unsigned char *in = read + (size_t)(left - cut) * in_samples;
        if (set->channels == 1 && in_samples > 1) {
            gray_of_colour(gray, in, right - left);
            in = gray;
        }
        take_nearest(to, in, columns, set->channels, set->width);
        before = to;
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

/* One image into out (height, width, channels). draws: what random_box takes, or NULL. flip: FLIP_… bits. 0, or why
 * not. */
static const char *decode(decoder *self, const unsigned char *data, size_t size, const settings *set,
                          const double *draws, int flip, unsigned char *out)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const char *reason;
    int height = 0, width = 0, divisor, whole, gray;
    size_t frame = 0;
    box part;
    if ((reason = find_frame(data, size, &height, &width, &frame)) != NULL)
        return reason;
    if ((double)height * width > set->max_pixels)
        return "too many pixels";
    if (!has_end(data, size, frame))
        return "no end-of-image marker";
    if (set->same && (height != set->height || width != set->width))
        return "another size";
    if (set->exact && height / 100 > width)
        return "very tall"; /* Pillow 12.2 resizes such an image in two steps */
    part = choose_box(height, width, set, draws);
    whole = set->crop == CROP_RESIZE && height == set->height && width == set->width;
    divisor = whole || set->exact || set->filter == NEAREST ? 1 : dct_divisor(&part, set);

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
        /* Pillow makes gray of the decoded colours, others take the luma */
        gray = set->channels == 1 && !(set->exact && jpeg->jpeg_color_space != JCS_GRAYSCALE);
        whole = whole && gray == (set->channels == 1);
        jpeg->out_color_space = gray ? JCS_GRAYSCALE : whole ? JCS_RGB : JCS_EXT_RGBX;
        jpeg->scale_num = 1;
        jpeg->scale_denom = (unsigned)divisor;
        /* coefficients of a progressive image take 6 bytes for a pixel at most; the rest is small */
        jpeg->mem->max_memory_to_use = (long)(8 * set->max_pixels + (64 << 20));
        jpeg_start_decompress(jpeg);
        if (!fits(jpeg, height, width, divisor, gray ? 1 : 3))
            reason = "another size than its header says";
        else if (is_incomplete(jpeg))
            reason = "incomplete progressive image";
        else if (whole)
            read_whole(self, set, flip, out);
        else if (set->filter == NEAREST)
            reason = read_nearest(self, set, part, flip, out);
        else if (set->exact || set->filter == BICUBIC || set->filter == LANCZOS)
            reason = read_precisely(self, set, part, divisor, flip, out);
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
#endif
