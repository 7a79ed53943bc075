/* One JPEG: from a file's bytes straight into a slot of a batch, decoding only what the slot needs.
 *
 * For each image: which box is taken (the same formulas as crops.py), at which scale libjpeg-turbo may decode it
 * (1/2, 1/4, 1/8, as crops.dct_divisor), which rows and columns the resize looks at; only these are decoded, and
 * nothing after the last of them. jpeg/huffman.h decodes the coefficients, libjpeg-turbo makes pixels of them, and
 * pixels/resize.h puts them into the slot.
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

#include "huffman.h"
#include "../pixels/view.h"

#define TEXT_BYTES JMSG_LENGTH_MAX
#define ROWS_AT_ONCE 16
#define ALIGNED_BYTES 16 /* to which libjpeg-turbo's shortest vectors are aligned */

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
    arena rows; /* of the image, as many as the views need at once */
    view *views;
    int view_room; /* how many of them there is memory for */
    scan_decoder scan;
    const unsigned char *points; /* the seek points of the next image, or NULL: see jpeg/seek.h */
    size_t points_bytes;
    struct skips *skips; /* of walks over whole scans (jpeg/skip.h), made when they are needed */
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
    free(self->scan.points.at);
    free(self->skips);
    jpeg_destroy_decompress(&self->jpeg);
    empty(&self->rows);
    for (int i = 0; i < self->view_room; i++)
        release(&self->views[i]);
    free(self->views);
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

/* Rows that libjpeg should write to. Into aligned ones libjpeg-turbo writes past the cache (movntdq), which takes longer
 * than decoding a small image, and slows reading them. */
static unsigned char *off_alignment(unsigned char *rows)
{
    return rows + ALIGNED_BYTES / 2;
}

/* The whole image has the slot's size: its rows are copied there, a few at a time. */
static const char *read_whole(decoder *self, const view *one)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const settings *set = one->set;
    const size_t bytes = (size_t)set->width * set->channels,
                 each = (bytes + ALIGNED_BYTES - 1) / ALIGNED_BYTES * ALIGNED_BYTES;
    unsigned char *scratch = room(&self->rows, ROWS_AT_ONCE * each + ALIGNED_BYTES);
    JSAMPROW rows[ROWS_AT_ONCE];
    if (scratch == NULL)
        return "no memory";
    for (int i = 0; i < ROWS_AT_ONCE; i++)
        rows[i] = off_alignment(scratch) + i * each;
    replace_entropy_decoder(jpeg, 0, set->width, self->points, self->points_bytes);
    while (jpeg->output_scanline < jpeg->output_height) {
        const JDIMENSION begin = jpeg->output_scanline, n = jpeg_read_scanlines(jpeg, rows, ROWS_AT_ONCE);
        for (JDIMENSION i = 0; i < n; i++)
            memcpy(slot_row(one, (int)(begin + i)), rows[i], bytes);
    }
    if (one->flip & FLIP_HORIZONTAL)
        for (int y = 0; y < set->height; y++)
            reverse_row(slot_row(one, y), set->width, set->channels);
    return NULL;
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

/* Cuts the columns and skips the rows outside of what is needed. The column that the rows then begin with. */
static int cut_image(decoder *self, int top, int left, int right)
{
    j_decompress_ptr jpeg = &self->jpeg;
    int cut = left;
    cut_columns(jpeg, &cut, right);
    replace_entropy_decoder(jpeg, cut, (int)jpeg->output_width, self->points, self->points_bytes);
    if (top > 0 && is_common(jpeg))
        jpeg_skip_scanlines(jpeg, (JDIMENSION)top); /* once, from the first row on: later skips have faults */
    return cut;
}

/* The image from its first row to the last that a view takes, each row for all views that want it. 0, or a reason. */
static const char *read_views(decoder *self, int n, int divisor)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const int in_height = (int)jpeg->output_height, in_width = (int)jpeg->output_width;
    span all;
    ring from = {.samples = jpeg->output_components};
    const char *reason = plan_views(self->views, n, in_height, in_width, divisor, &all);
    if (reason != NULL)
        return reason;
    if (self->views[0].set->crop == CROP_RESIZE) { /* nearest pixels may leave out an edge: damage there is seen, too */
        all.bottom = in_height;
        all.right = in_width;
    }
    from.count = all.kept;
    from.bytes = (((size_t)in_width + all.beyond) * from.samples + 32 + 63) / 64 * 64;
    from.rows = room(&self->rows, from.bytes * from.count + 64);
    if (from.rows == NULL)
        return "no memory";
    from.rows = off_alignment(from.rows);
    from.cut = cut_image(self, all.top, all.left, all.right);
    for (int have = (int)jpeg->output_scanline; have < all.bottom; have++) {
        JSAMPROW row = from.rows + from.bytes * (size_t)(have % from.count);
        if (jpeg_read_scanlines(jpeg, &row, 1) != 1)
            return "fewer rows than promised";
        for (int i = 0; i < n; i++)
            take_row(&self->views[i], &from, have);
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

/* The box of each view, and the scale that the one needing most detail allows, for all of them. */
static int choose_boxes(decoder *self, int n, int height, int width)
{
    int least = 8;
    for (int i = 0; i < n; i++) {
        view *one = &self->views[i];
        const settings *set = one->set;
        one->part = choose_box(height, width, set, one->draws);
        const int divisor = set->exact || set->filter == NEAREST ? 1 : dct_divisor(&one->part, set);
        least = divisor < least ? divisor : least;
    }
    return least;
}

/* As `decode`, with the seek points or not at all. */
static const char *decode_once(decoder *self, const unsigned char *data, size_t size, int n)
{
    j_decompress_ptr jpeg = &self->jpeg;
    const settings *set = self->views[0].set;
    const char *reason;
    int height = 0, width = 0, divisor, whole, gray;
    size_t frame = 0;
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
    divisor = choose_boxes(self, n, height, width);
    whole = n == 1 && set->crop == CROP_RESIZE && height == set->height && width == set->width;
    divisor = whole ? 1 : divisor;

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
            reason = read_whole(self, &self->views[0]);
        else
            reason = read_views(self, n, divisor);
    }
    jpeg_abort_decompress(jpeg);
    empty_if_large(&self->rows);
    return reason;
}

/* One image into the first n of self->views, which say what is asked. Their settings differ in sizes and boxes only. 0,
 * or why not. With seek points that do not fit it is decoded as without. */
static const char *decode(decoder *self, const unsigned char *data, size_t size, int n)
{
    const char *reason = decode_once(self, data, size, n);
    if (reason != NULL && self->points != NULL) {
        self->points = NULL;
        reason = decode_once(self, data, size, n);
    }
    return reason;
}
#endif
