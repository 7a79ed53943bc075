/* One PNG: from a file's bytes into slots of batches, no further down and to the right than they need.
 *
 * The pixels are Pillow's, to the bit: without alpha, 16 bits by their high byte, gray from the high bytes of colours.
 * Anything unusual is left to the caller, who has another decoder: every function here returns NULL for "done" or a
 * text for "not done, because". The other decoder has the last word on an image, so that errors do not depend on
 * whether this module was built.
 *
 * Knows no Python: png.c is the module, and tests/fuzz/fuzz_png.c includes this file.
 */
#ifndef SHARDKIT_PNG_DECODER_H
#define SHARDKIT_PNG_DECODER_H

#include "rows.h"

#define TEXT_BYTES 80
#define MOST_ROW_BYTES ((size_t)16 << 20)
#define MOST_INTERLACED_BYTES ((size_t)1 << 29)

typedef struct decoder {
    png_rows rows;
    arena kept; /* pixels that the views need at once */
    header head;
    uint32_t colors[256]; /* of the values of a palette, or of gray with few bits: R, G, B, and 1 where there is none */
    unsigned char grays[256];
    view *views;
    int view_room;
    struct decoder *next;
} decoder;

static decoder *decoder_new(void)
{
    return calloc(1, sizeof(decoder));
}

static void decoder_free(decoder *self)
{
    arena *all[] = {&self->rows.input, &self->rows.output, &self->rows.lines, &self->kept};
    for (int i = 0; i < 4; i++)
        empty(all[i]);
    for (int i = 0; i < self->view_room; i++)
        release(&self->views[i]);
    free(self->views);
    free(self);
}

/* ------------------------------------------------------------------------------------------------------ the pixels */

static unsigned char luma(unsigned r, unsigned g, unsigned b)
{
    return (unsigned char)((r * 19595u + g * 38470u + b * 7471u + 0x8000u) >> 16); /* as in precise.h */
}

/* The colours that values stand for: of a palette, or gray with fewer than 8 bits. */
static void fill_colors(decoder *self)
{
    const header *head = &self->head;
    const int values = head->depth < 8 ? 1 << head->depth : 256;
    if (head->color != PALETTE && head->depth >= 8)
        return;
    for (int i = 0; i < values; i++) {
        unsigned char rgb[4] = {0};
        if (head->color == GRAY)
            rgb[0] = rgb[1] = rgb[2] = (unsigned char)(i * 255 / (values - 1));
        else if (i < head->palette_size)
            memcpy(rgb, head->palette + 3 * i, 3);
        else
            rgb[3] = 1;
        memcpy(&self->colors[i], rgb, 4);
        self->grays[i] = luma(rgb[0], rgb[1], rgb[2]);
    }
}

/* Values of 1, 2, 4 or 8 bits by their colours. 0 if one has none. */
static int look_up_line(const decoder *self, unsigned char *out, int left, int right, int samples)
{
    const int depth = self->head.depth;
    const unsigned char *in = self->rows.line;
    uint32_t missing = 0;
    unsigned char marks[4];
    for (int x = left; x < right; x++) {
        const size_t bit = (size_t)x * (size_t)depth;
        const int value = depth == 8 ? in[x] : in[bit / 8] >> (8 - depth - (int)(bit % 8)) & ((1 << depth) - 1);
        const uint32_t color = self->colors[value];
        missing |= color;
        if (samples == 4)
            memcpy(out + 4 * (size_t)(x - left), &color, 4);
        else
            out[x - left] = self->grays[value];
    }
    memcpy(marks, &missing, 4);
    return marks[3] == 0;
}

static ALWAYS_INLINE void spread(unsigned char *out, const unsigned char *in, int n, const int step, const int apart)
{
    for (int x = 0; x < n; x++, in += step, out += 4) {
        out[0] = in[0];
        out[1] = in[apart];
        out[2] = in[2 * apart];
        out[3] = 0;
    }
}

static ALWAYS_INLINE void to_gray(unsigned char *out, const unsigned char *in, int n, const int step, const int apart)
{
    for (int x = 0; x < n; x++, in += step)
        out[x] = apart ? luma(in[0], in[apart], in[2 * apart]) : in[0];
}

/* Three bytes to four; in has room for one more, which is read. */
static void spread_rgb(unsigned char *out, const unsigned char *in, int n)
{
    for (int x = 0; x < n; x++)
        memcpy(out + 4 * (size_t)x, in + 3 * (size_t)x, 4);
}

/* Columns left … right - 1 of `line`: four bytes a pixel, R, G, B and an undefined one; or one, gray. 0, or a reason. */
static const char *take_line(const decoder *self, unsigned char *out, int left, int right, int samples)
{
    const header *head = &self->head;
    const int n = right - left;
    const unsigned char *in = self->rows.line + (size_t)left * (size_t)head->step;
    if (head->color == PALETTE || head->depth < 8)
        return look_up_line(self, out, left, right, samples) ? NULL : "a value beyond the palette";
    if (samples == 4)
        switch (head->color * 16 + head->step) {
        case GRAY * 16 + 1: spread(out, in, n, 1, 0); break;
        case GRAY * 16 + 2: spread(out, in, n, 2, 0); break;
        case RGB * 16 + 3: spread_rgb(out, in, n); break;
        case RGB * 16 + 6: spread(out, in, n, 6, 2); break;
        case GRAY_ALPHA * 16 + 2: spread(out, in, n, 2, 0); break;
        case GRAY_ALPHA * 16 + 4: spread(out, in, n, 4, 0); break;
        case RGB_ALPHA * 16 + 4: memcpy(out, in, 4 * (size_t)n); break;
        default: spread(out, in, n, 8, 2);
        }
    else
        switch (head->color * 16 + head->step) {
        case GRAY * 16 + 1: memcpy(out, in, (size_t)n); break;
        case GRAY * 16 + 2: to_gray(out, in, n, 2, 0); break;
        case RGB * 16 + 3: to_gray(out, in, n, 3, 1); break;
        case RGB * 16 + 6: to_gray(out, in, n, 6, 2); break;
        case GRAY_ALPHA * 16 + 2: to_gray(out, in, n, 2, 0); break;
        case GRAY_ALPHA * 16 + 4: to_gray(out, in, n, 4, 0); break;
        case RGB_ALPHA * 16 + 4: to_gray(out, in, n, 4, 1); break;
        default: to_gray(out, in, n, 8, 2);
        }
    return NULL;
}

/* --------------------------------------------------------------------------------------------------- one image */

/* The whole interlaced image as `rows` of the ring, with its full width. */
static const char *read_interlaced(decoder *self, ring *into)
{
    const header *head = &self->head;
    const int samples = into->samples;
    unsigned char *row = into->rows + into->bytes * (size_t)into->count; /* one more, of a pass */
    for (int i = 0; i < 7; i++) {
        const pass_of *pass = &passes[i];
        const int width = pixels_of_pass(head->width, pass->x, pass->right);
        begin_picture(&self->rows, head);
        for (int y = pass->y; width && y < head->height; y += pass->down) {
            unsigned char *to = into->rows + into->bytes * (size_t)y + (size_t)pass->x * samples;
            const char *reason = next_line(&self->rows, head, width, width);
            if (reason != NULL || (reason = take_line(self, row, 0, width, samples)) != NULL)
                return reason;
            for (int x = 0; x < width; x++, to += (size_t)pass->right * samples)
                memcpy(to, row + (size_t)x * samples, (size_t)samples);
        }
    }
    return end_rows(&self->rows);
}

/* The rows for the views, from the top. */
static const char *read_rows(decoder *self, int n, ring *from, const span *all)
{
    const header *head = &self->head;
    const char *reason = NULL;
    if (head->interlaced) {
        if ((reason = read_interlaced(self, from)) != NULL)
            return reason;
        for (int y = all->top; y < all->bottom; y++)
            for (int i = 0; i < n; i++)
                take_row(&self->views[i], from, y);
        return NULL;
    }
    begin_picture(&self->rows, head);
    for (int y = 0; y < all->bottom; y++) {
        if ((reason = next_line(&self->rows, head, head->width, all->right)) != NULL)
            return reason;
        if (y < all->top)
            continue;
        reason =
            take_line(self, from->rows + from->bytes * (size_t)(y % from->count), from->cut, all->right, from->samples);
        if (reason != NULL)
            return reason;
        for (int i = 0; i < n; i++)
            take_row(&self->views[i], from, y);
    }
    return end_rows(&self->rows);
}

/* The parts of the image that the views take, resized into their slots. */
static const char *read_views(decoder *self, const unsigned char *data, int n)
{
    const header *head = &self->head;
    span all;
    ring from = {.samples = self->views[0].set->channels == 3 ? 4 : 1};
    const char *reason;
    for (int i = 0; i < n; i++)
        self->views[i].part = choose_box(head->height, head->width, self->views[i].set, self->views[i].draws);
    if ((reason = plan_views(self->views, n, head->height, head->width, 1, &all)) != NULL)
        return reason;
    if (self->views[0].set->crop == CROP_RESIZE)
        all.bottom = head->height; /* nearest pixels may leave out the last rows: damage there is seen, too */
    from.cut = head->interlaced ? 0 : all.left;
    from.bytes =
        ((size_t)((head->interlaced ? head->width : all.right) - from.cut + all.beyond) * (size_t)from.samples + 95) /
        64 * 64;
    from.count = head->interlaced ? head->height : all.kept;
    if (head->interlaced && from.bytes > MOST_INTERLACED_BYTES / (size_t)from.count)
        return "large interlaced image";
    if ((from.rows = room(&self->kept, from.bytes * ((size_t)from.count + 1))) == NULL)
        return "no memory";
    if ((reason = begin_rows(&self->rows, head, data, all.bottom)) != NULL)
        return reason;
    return read_rows(self, n, &from, &all);
}

/* The whole image has the slot's size. */
static const char *read_whole(decoder *self, const unsigned char *data)
{
    const header *head = &self->head;
    const view *one = &self->views[0];
    const int channels = one->set->channels, samples = channels == 3 ? 4 : 1;
    const size_t row = ((size_t)head->width * (size_t)samples + 64 + 63) / 64 * 64;
    ring from = {.samples = samples, .bytes = row, .count = head->interlaced ? head->height : 1};
    const char *reason;
    if (head->interlaced && row > MOST_INTERLACED_BYTES / (size_t)from.count)
        return "large interlaced image";
    if ((from.rows = room(&self->kept, row * ((size_t)from.count + 1))) == NULL)
        return "no memory";
    if ((reason = begin_rows(&self->rows, head, data, head->height)) != NULL)
        return reason;
    if (head->interlaced && (reason = read_interlaced(self, &from)) != NULL)
        return reason;
    begin_picture(&self->rows, head);
    for (int y = 0; y < head->height; y++) {
        unsigned char *to = slot_row(one, y), *pixels = from.rows + row * (size_t)(y % from.count);
        if (!head->interlaced && ((reason = next_line(&self->rows, head, head->width, head->width)) != NULL ||
                                  (reason = take_line(self, pixels, 0, head->width, samples)) != NULL))
            return reason;
        if (channels == 3)
            pack_pixels(to, pixels, head->width);
        else
            memcpy(to, pixels, (size_t)head->width);
        if (one->flip & FLIP_HORIZONTAL)
            reverse_row(to, head->width, channels);
    }
    return head->interlaced ? NULL : end_rows(&self->rows);
}

/* One image into the first n of self->views, which say what is asked; filters are `exact`. 0, or why not. */
static const char *decode(decoder *self, const unsigned char *data, size_t size, int n)
{
    const settings *set = self->views[0].set;
    header *head = &self->head;
    const char *reason;
    if ((reason = read_header(head, data, size)) != NULL)
        return reason;
    if ((double)head->height * head->width > set->max_pixels || row_bytes(head, head->width) > MOST_ROW_BYTES)
        return "too many pixels";
    const int fits = head->height == set->height && head->width == set->width;
    if (set->same && !fits)
        return "another size";
    if (head->height / 100 > head->width)
        return "very tall"; /* Pillow 12.2 resizes such an image in two steps */
    if ((reason = read_chunks(head, data, size)) != NULL)
        return reason;
    fill_colors(self);
    if (n == 1 && set->crop == CROP_RESIZE && fits)
        reason = read_whole(self, data);
    else
        reason = read_views(self, data, n);
    empty_if_large(&self->rows.input);
    empty_if_large(&self->rows.output);
    empty_if_large(&self->rows.lines);
    empty_if_large(&self->kept);
    return reason;
}
#endif
