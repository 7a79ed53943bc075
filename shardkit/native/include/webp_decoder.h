/* One WebP: from a file's bytes into slots of batches, by libwebp, no more of it than they need.
 *
 *   "RIFF" size (4, little-endian) "WEBP", then chunks `name(4) size(4) …`, padded to an even size: "VP8 " or "VP8L" alone;
 *   or "VP8X" and after it an image, with "ALPH" before a "VP8 " that has one, and notes              RFC 9649, 2
 *
 * The pixels are Pillow's, to the bit: without alpha, which is decoded all the same where Pillow would find it damaged.
 * Anything unusual (animations too) is left to the caller, who has another decoder: every function here returns NULL
 * for "done" or a text for "not done, because". The other decoder has the last word on an image, so that errors do not
 * depend on whether this module was built.
 *
 * Knows no Python: webp.c is the module, and tests/fuzz/fuzz_webp.c includes this file.
 */
#ifndef SHARDKIT_WEBP_DECODER_H
#define SHARDKIT_WEBP_DECODER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>

#include "pixels/view.h"

#define TEXT_BYTES 80
#define MOST_DECODED_BYTES ((size_t)1 << 29)

typedef struct {
    int height, width, alpha;   /* alpha: in a chunk of its own */
    const unsigned char *coded; /* that chunk, if any, and the image's: what Pillow hands to libwebp */
    size_t coded_size;
} header;

typedef struct decoder {
    header head;
    arena kept; /* the decoded pixels, four bytes each */
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
    empty(&self->kept);
    for (int i = 0; i < self->view_room; i++)
        release(&self->views[i]);
    free(self->views);
    free(self);
}

/* ------------------------------------------------------------------------------------------------------ the chunks */

static uint32_t little_endian(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Finds the image from `at` on. Whether the chunks up to `end` are those of one image, each once, and in an order that
 * every reader takes. */
static int find_image(header *head, const unsigned char *data, size_t at, size_t end, int flags)
{
    enum { HAS_ALPHA = 0x10 };
    int images = 0;
    while (at + 8 <= end) {
        const unsigned char *name = data + at;
        const size_t n = little_endian(name + 4), padded = 8 + n + (n & 1);
        if (n > end - at - 8)
            return 0;
        if (memcmp(name, "VP8 ", 4) == 0 || memcmp(name, "VP8L", 4) == 0) {
            if (images++ || (head->alpha && name[3] == 'L'))
                return 0;
            head->coded = head->alpha ? head->coded : name;
            head->coded_size = (size_t)(name + padded - head->coded);
        } else if (memcmp(name, "ALPH", 4) == 0) {
            if (images || head->alpha || !(flags & HAS_ALPHA))
                return 0;
            head->alpha = 1;
            head->coded = name;
        } else if (memcmp(name, "ICCP", 4) != 0 && memcmp(name, "EXIF", 4) != 0 && memcmp(name, "XMP ", 4) != 0) {
            return 0;
        }
        at += padded;
    }
    return images == 1 && at == end;
}

static const char *read_header(header *head, const unsigned char *data, size_t size)
{
    enum { ANIMATION = 2, FIRST = 12, AFTER_VP8X = 30 };
    WebPBitstreamFeatures found;
    memset(head, 0, sizeof *head);
    if (size < 30 || memcmp(data, "RIFF", 4) != 0 || memcmp(data + 8, "WEBP", 4) != 0)
        return "no WebP";
    const size_t riff = little_endian(data + 4);
    if (riff > size - 8 || riff < 22 || riff & 1)
        return "cut";
    const int extended = memcmp(data + FIRST, "VP8X", 4) == 0, flags = extended ? data[20] : 0;
    if (extended && (little_endian(data + 16) != 10 || flags & ANIMATION))
        return "animated";
    if (!find_image(head, data, extended ? AFTER_VP8X : FIRST, 8 + riff, flags))
        return "unusual chunks";
    if (WebPGetFeatures(head->coded, head->coded_size, &found) != VP8_STATUS_OK || found.has_animation)
        return "impossible header";
    head->height = found.height;
    head->width = found.width;
    if (extended && ((little_endian(data + 24) & 0xFFFFFF) + 1 != (uint32_t)found.width ||
                     little_endian(data + 26) >> 8 != (uint32_t)found.height - 1))
        return "another size than its header says";
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------ the pixels */

/* Rows `top` to `bottom` and columns `left` to `right` to out, `stride` bytes apart: R, G, B and, in four bytes, A. */
static const char *decode_part(const header *head, int top, int bottom, int left, int right, int bytes,
                               unsigned char *out, size_t stride)
{
    WebPDecoderConfig config;
    const int height = bottom - top, width = right - left;
    if (!WebPInitDecoderConfig(&config))
        return "libwebp is not the one that this was built with";
    if (height != head->height || width != head->width) {
        config.options.use_cropping = 1;
        config.options.crop_top = top;
        config.options.crop_left = left;
        config.options.crop_height = height;
        config.options.crop_width = width;
    }
    config.output.colorspace = bytes == 4 ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = out;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size = stride * (size_t)(height - 1) + (size_t)width * (size_t)bytes;
    return WebPDecode(head->coded, head->coded_size, &config) == VP8_STATUS_OK ? NULL : "damaged";
}

/* The parts of the image that the views take, resized into their slots. Columns and rows next to a cut may differ from
 * those of the whole image, since colour is interpolated across; libwebp begins with an even one. */
static const char *read_views(decoder *self, int n)
{
    enum { MARGIN = 4 };
    const header *head = &self->head;
    span all;
    ring from = {.samples = 4, .count = 1};
    const char *reason;
    for (int i = 0; i < n; i++)
        self->views[i].part = choose_box(head->height, head->width, self->views[i].set, self->views[i].draws);
    if ((reason = plan_views(self->views, n, head->height, head->width, 1, &all)) != NULL)
        return reason;
    if (self->views[0].set->crop == CROP_RESIZE)
        all.bottom = head->height; /* nearest pixels may leave out the last rows: damage there is seen, too */
    const int top = all.top > MARGIN ? (all.top - MARGIN) & ~1 : 0,
              left = all.left > MARGIN ? (all.left - MARGIN) & ~1 : 0;
    const int bottom = all.bottom + MARGIN < head->height ? all.bottom + MARGIN : head->height;
    const int right = all.right + MARGIN < head->width ? all.right + MARGIN : head->width;
    from.cut = left;
    from.bytes = (size_t)(right - left) * 4;
    if (from.bytes > MOST_DECODED_BYTES / (size_t)(bottom - top))
        return "large image";
    unsigned char *pixels = room(&self->kept, from.bytes * (size_t)(bottom - top) + (size_t)all.beyond * 4 + 64);
    if (pixels == NULL)
        return "no memory";
    if ((reason = decode_part(head, top, bottom, left, right, 4, pixels, from.bytes)) != NULL)
        return reason;
    for (int y = all.top; y < all.bottom; y++) {
        from.rows = pixels + from.bytes * (size_t)(y - top);
        for (int i = 0; i < n; i++)
            take_row(&self->views[i], &from, y);
    }
    return NULL;
}

/* The whole image has the slot's size. */
static const char *read_whole(decoder *self)
{
    const header *head = &self->head;
    const view *one = &self->views[0];
    const int height = head->height, width = head->width, channels = one->set->channels,
              direct = channels == 3 && !head->alpha && !(one->flip & FLIP_VERTICAL);
    const size_t stride = (size_t)width * 4, slot = (size_t)width * (size_t)channels;
    const char *reason;
    unsigned char *pixels = one->out;
    if (stride > MOST_DECODED_BYTES / (size_t)height)
        return "large image";
    if (!direct && (pixels = room(&self->kept, stride * (size_t)height + 64)) == NULL)
        return "no memory";
    reason = decode_part(head, 0, height, 0, width, direct ? 3 : 4, pixels, direct ? slot : stride);
    for (int y = 0; reason == NULL && y < height; y++) {
        unsigned char *to = slot_row(one, y);
        if (!direct && channels == 3)
            pack_pixels(to, pixels + stride * (size_t)y, width);
        else if (!direct)
            gray_of_colour(to, pixels + stride * (size_t)y, width);
        if (one->flip & FLIP_HORIZONTAL)
            reverse_row(to, width, channels);
    }
    return reason;
}

/* One image into the first n of self->views, which say what is asked; filters are `exact`. 0, or why not. */
static const char *decode(decoder *self, const unsigned char *data, size_t size, int n)
{
    const settings *set = self->views[0].set;
    const header *head = &self->head;
    const char *reason;
    if ((reason = read_header(&self->head, data, size)) != NULL)
        return reason;
    if ((double)head->height * head->width > set->max_pixels)
        return "too many pixels";
    const int fits = head->height == set->height && head->width == set->width;
    if (set->same && !fits)
        return "another size";
    if (head->height / 100 > head->width)
        return "very tall"; /* Pillow 12.2 resizes such an image in two steps */
    if (n == 1 && set->crop == CROP_RESIZE && fits)
        reason = read_whole(self);
    else
        reason = read_views(self, n);
    empty_if_large(&self->kept);
    return reason;
}
#endif
