/* The rows of a PNG, from the top: inflated a piece at a time, and without their filters.
 *
 * The checksum of the pixels is looked at where all of them are read.
 */
#ifndef SHARDKIT_PNG_ROWS_H
#define SHARDKIT_PNG_ROWS_H

#include "../pixels/view.h"
#include "chunks.h"
#include "filters.h"
#include "inflate.h"

#define STEP_BYTES ((size_t)64 << 10) /* that are inflated at once, if there is no need for more */

typedef struct {
    inflater stream;
    arena input, output, lines;
    unsigned char *line, *prior; /* rows without their filters; the second is the one before */
    size_t capacity;             /* of the output */
    size_t used, summed, gone;   /* bytes of it that are taken, are in the checksum, were moved out */
    size_t total, wanted;        /* bytes of all rows, and of those that are needed */
    uint32_t sum;
} png_rows;

/* Adler-32 (RFC 1950, 9) of more bytes; 1 is that of none. */
static uint32_t adler_of(uint32_t sum, const unsigned char *data, size_t n)
{
    enum { PRIME = 65521, MOST = 5536 }; /* bytes whose sums fit */
    uint64_t a = sum & 0xFFFF, b = sum >> 16;
    while (n) {
        size_t now = n < MOST ? n : MOST;
        n -= now;
#if defined(__SSE2__)
        const __m128i zero = _mm_setzero_si128(), high = _mm_set_epi16(9, 10, 11, 12, 13, 14, 15, 16),
                      low = _mm_set_epi16(1, 2, 3, 4, 5, 6, 7, 8);
        __m128i sums = zero, before = zero, weighted = zero;
        uint32_t lanes[3][4];
        const size_t steps = now / 16;
        for (size_t i = 0; i < steps; i++, data += 16) {
            const __m128i bytes = _mm_loadu_si128((const __m128i *)data);
            before = _mm_add_epi32(before, sums);
            sums = _mm_add_epi32(sums, _mm_sad_epu8(bytes, zero));
            weighted = _mm_add_epi32(weighted, _mm_madd_epi16(_mm_unpacklo_epi8(bytes, zero), high));
            weighted = _mm_add_epi32(weighted, _mm_madd_epi16(_mm_unpackhi_epi8(bytes, zero), low));
        }
        _mm_storeu_si128((__m128i *)lanes[0], sums);
        _mm_storeu_si128((__m128i *)lanes[1], before);
        _mm_storeu_si128((__m128i *)lanes[2], weighted);
        b += 16 * (steps * a + lanes[1][0] + lanes[1][2]);
        for (int i = 0; i < 4; i++)
            b += lanes[2][i];
        a += lanes[0][0] + lanes[0][2];
        now -= 16 * steps;
#endif
        for (; now; now--) {
            a += *data++;
            b += a;
        }
        a %= PRIME;
        b %= PRIME;
    }
    return (uint32_t)(b << 16 | a);
}

/* What all IDAT hold, in one piece; there are bytes of the file after it. NULL without memory. */
static const unsigned char *coded_data(png_rows *self, const header *head, const unsigned char *data)
{
    unsigned char *joined;
    size_t at = head->first, have = 0;
    if (head->parts == 1)
        return data + head->first + 8;
    if ((joined = room(&self->input, head->coded + 8)) == NULL)
        return NULL;
    for (size_t part = 0; part < head->parts;) {
        const size_t n = big_endian(data + at);
        if (memcmp(data + at + 4, "IDAT", 4) == 0) {
            memcpy(joined + have, data + at + 8, n);
            have += n;
            part++;
        }
        at += n + 12;
    }
    return joined;
}

static size_t row_bytes(const header *head, int width)
{
    return ((size_t)width * (size_t)head->bits + 7) / 8;
}

/* Adam7 (ISO 15948, 8.2): what a pass has of the image. */
typedef struct {
    int x, y, right, down; /* the first pixel, and the steps to the next */
} pass_of;

static const pass_of passes[7] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                  {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};

static int pixels_of_pass(int all, int first, int step)
{
    return all > first ? (all - first + step - 1) / step : 0;
}

static size_t bytes_of_rows(const header *head, int rows)
{
    size_t total = 0;
    if (!head->interlaced)
        return (size_t)rows * (1 + row_bytes(head, head->width));
    for (int i = 0; i < 7; i++) {
        const int width = pixels_of_pass(head->width, passes[i].x, passes[i].right);
        const int height = pixels_of_pass(head->height, passes[i].y, passes[i].down);
        total += width ? (size_t)height * (1 + row_bytes(head, width)) : 0;
    }
    return total;
}

/* Ready to read rows: `bottom` of them, or all of an interlaced image. */
static const char *begin_rows(png_rows *self, const header *head, const unsigned char *data, int bottom)
{
    const size_t longest = 1 + row_bytes(head, head->width), line = (longest + ROW_SLACK + 63) / 64 * 64;
    const unsigned char *coded;
    const char *reason;
    self->total = bytes_of_rows(head, head->height);
    self->wanted = head->interlaced || bottom == head->height ? self->total : bytes_of_rows(head, bottom);
    self->used = self->summed = self->gone = 0;
    self->sum = 1;
    self->capacity = WINDOW + longest + STEP_BYTES;
    self->capacity = self->wanted + 1 < self->capacity ? self->wanted + 1 : self->capacity;
    self->line = room(&self->lines, 2 * line);
    if ((coded = coded_data(self, head, data)) == NULL || self->line == NULL ||
        (self->stream.out = room(&self->output, self->capacity + SLACK + ROW_SLACK)) == NULL)
        return "no memory";
    self->prior = self->line + line;
    if ((reason = inflate_begin(&self->stream, coded, head->coded, self->wanted)) != NULL)
        return reason;
    return NULL;
}

/* Makes room in the output for bytes to come; what may still be copied from stays. */
static void move_output(png_rows *self)
{
    inflater *stream = &self->stream;
    size_t from = stream->have > WINDOW ? stream->have - WINDOW : 0;
    from = from < self->used ? from : self->used;
    if (self->wanted == self->total)
        self->sum = adler_of(self->sum, stream->out + self->summed, stream->have - self->summed);
    memmove(stream->out, stream->out + from, stream->have - from);
    stream->have -= from;
    self->summed = stream->have;
    self->used -= from;
    self->gone += from;
}

/* The next n bytes of output; NULL if there are none. */
static const unsigned char *next_bytes(png_rows *self, size_t n, const char **reason)
{
    inflater *stream = &self->stream;
    const unsigned char *found;
    if (stream->have - self->used < n) {
        size_t limit;
        if (self->used + n > self->capacity || stream->have >= self->capacity)
            move_output(self);
        limit = self->wanted - self->gone;
        limit = limit < self->capacity ? limit : self->capacity;
        if ((*reason = inflate_to(stream, limit)) == NULL && stream->have - self->used < n)
            *reason = "fewer rows than promised";
        if (*reason != NULL)
            return NULL;
    }
    found = stream->out + self->used;
    self->used += n;
    return found;
}

/* Whether the data ends after the last row, with the right checksum, if all rows were read. */
static const char *end_rows(png_rows *self)
{
    inflater *stream = &self->stream;
    const char *reason;
    if (self->wanted != self->total)
        return NULL;
    if (stream->have >= self->capacity)
        move_output(self);
    if ((reason = inflate_to(stream, self->total - self->gone + 1)) != NULL)
        return reason;
    if (self->gone + stream->have != self->total)
        return "more rows than promised";
    self->sum = adler_of(self->sum, stream->out + self->summed, stream->have - self->summed);
    return inflate_ends_with(stream, self->sum) ? NULL : "bad checksum of the pixels";
}

/* The next row of a picture of that width, as `line`, up to column `right`; `line` is the prior one before. */
static const char *next_line(png_rows *self, const header *head, int width, int right)
{
    const char *reason = NULL;
    unsigned char *const before = self->line;
    const unsigned char *in = next_bytes(self, 1 + row_bytes(head, width), &reason);
    if (in == NULL)
        return reason;
    self->line = self->prior;
    self->prior = before;
    if (!undo_filter(in[0], self->line, in + 1, self->prior, row_bytes(head, right), head->step))
        return "unknown filter";
    return NULL;
}

static void begin_picture(png_rows *self, const header *head)
{
    memset(self->line, 0, row_bytes(head, head->width) + ROW_SLACK);
}
#endif
