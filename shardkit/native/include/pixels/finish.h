/* After the resize: a window of the padded image, other values, another layout.
 *
 * Values come from a table of 256 for each channel, which the caller has computed: one lookup stands for the change of
 * the number type, the factor, the mean and the deviation, and gives the same bits as the caller's own arithmetic.
 *
 * Knows nothing of JPEG: it is included after a header with a `decoder`, which has `views` and room for `view_room` of
 * them, and with `decode`.
 */
#ifndef SHARDKIT_PIXELS_FINISH_H
#define SHARDKIT_PIXELS_FINISH_H

#include "view.h"

typedef struct {
    int item;          /* bytes of a value: 1, 2 or 4 */
    int planar;        /* channels, height, width */
    const void *table; /* (channels, 256) values; NULL: the bytes are kept, and item is 1 */
    int padding;       /* on each side; the window is drawn, and has the size of the image */
    unsigned char fill[3];
} finish;

/* The image moved by (down, right) pixels; what is laid bare has the fill. flip: of the result. */
static void move_image(unsigned char *out, const unsigned char *in, const settings *set, const finish *last, int down,
                       int right, int flip)
{
    const int c = set->channels, height = set->height, width = set->width;
    const size_t row = (size_t)width * c;
    const int begin = right > 0 ? (right < width ? right : width) : 0,
              end = right < 0 ? (-right < width ? width + right : 0) : width;
    for (int y = 0; y < height; y++) {
        unsigned char *to = out + (flip & FLIP_VERTICAL ? height - 1 - y : y) * row;
        const int from = y - down, inside = from >= 0 && from < height;
        for (int x = 0; x < width; x++) {
            if (inside && x == begin && begin < end) {
                memcpy(to + (size_t)x * c, in + from * row + (size_t)(x - right) * c, (size_t)(end - begin) * c);
                x = end - 1;
                continue;
            }
            memcpy(to + (size_t)x * c, last->fill, (size_t)c);
        }
        if (flip & FLIP_HORIZONTAL)
            reverse_row(to, width, c);
    }
}

#define LOOK_UP(name, type) \
    static void name(type *out, const unsigned char *in, const type *table, size_t pixels, int channels, int planar) \
    { \
        const type *r = table, *g = table + 256, *b = table + 512; \
        if (channels == 1) \
            for (size_t i = 0; i < pixels; i++) \
                out[i] = r[in[i]]; \
        else if (planar) \
            for (size_t i = 0; i < pixels; i++) { \
                out[i] = r[in[3 * i]]; \
                out[pixels + i] = g[in[3 * i + 1]]; \
                out[2 * pixels + i] = b[in[3 * i + 2]]; \
            } \
        else \
            for (size_t i = 0; i < pixels; i++) { \
                out[3 * i] = r[in[3 * i]]; \
                out[3 * i + 1] = g[in[3 * i + 1]]; \
                out[3 * i + 2] = b[in[3 * i + 2]]; \
            } \
    }

LOOK_UP(look_up_1, uint8_t)
LOOK_UP(look_up_2, uint16_t)
LOOK_UP(look_up_4, uint32_t)

static void planes_of(unsigned char *out, const unsigned char *in, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++) {
        out[i] = in[3 * i];
        out[pixels + i] = in[3 * i + 1];
        out[2 * pixels + i] = in[3 * i + 2];
    }
}

static void convert(unsigned char *out, const unsigned char *in, const settings *set, const finish *last)
{
    const size_t pixels = (size_t)set->height * set->width;
    if (last->table == NULL && last->planar && set->channels == 3)
        planes_of(out, in, pixels);
    else if (last->table == NULL)
        memcpy(out, in, pixels * set->channels);
    else if (last->item == 1)
        look_up_1(out, in, last->table, pixels, set->channels, last->planar);
    else if (last->item == 2)
        look_up_2((uint16_t *)(void *)out, in, last->table, pixels, set->channels, last->planar);
    else
        look_up_4((uint32_t *)(void *)out, in, last->table, pixels, set->channels, last->planar);
}

/* Memory for `n` views, whose scratch memory is kept. 0 without. */
static int views_for(decoder *self, int n)
{
    view *more;
    if (n <= self->view_room)
        return 1;
    more = realloc(self->views, (size_t)n * sizeof *more);
    if (more == NULL)
        return 0;
    memset(more + self->view_room, 0, (size_t)(n - self->view_room) * sizeof *more);
    self->views = more;
    self->view_room = n;
    return 1;
}

/* Where the pixels of a view are put before they are changed: room for two images; NULL if there is no memory. */
static unsigned char *pixels_of(view *one)
{
    const settings *set = one->set;
    return room(&one->bytes, 2 * (size_t)set->height * set->width * set->channels);
}

/* The pixels of a view into its slot. */
static void finish_view(view *one, const finish *last, int changed)
{
    const settings *set = one->set;
    unsigned char *pixels = one->out;
    if (last->padding) {
        const int places = 2 * last->padding + 1;
        unsigned char *moved = changed ? pixels + (size_t)set->height * set->width * set->channels : one->slot;
        move_image(moved, pixels, set, last, last->padding - (int)(one->draws[0] * places),
                   last->padding - (int)(one->draws[1] * places), one->flip_after);
        pixels = moved;
    }
    if (changed)
        convert(one->slot, pixels, set, last);
}

/* As decode, and what comes after it. The slots of the views are (height, width, channels) values, or planes of them. */
static const char *decode_and_finish(decoder *self, const unsigned char *data, size_t size, int n, const finish *last)
{
    const int changed = last->table != NULL || (last->planar && self->views[0].set->channels > 1);
    const char *reason;
    for (int i = 0; (changed || last->padding) && i < n; i++) {
        view *one = &self->views[i];
        one->slot = one->out;
        one->flip_after = last->padding ? one->flip : 0;
        one->flip = last->padding ? 0 : one->flip;
        if ((one->out = pixels_of(one)) == NULL)
            return "no memory";
    }
    reason = decode(self, data, size, n);
    for (int i = 0; i < n; i++) {
        if (reason == NULL && (changed || last->padding))
            finish_view(&self->views[i], last, changed);
        release_if_large(&self->views[i]);
    }
    return reason;
}
#endif
