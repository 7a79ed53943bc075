/* One view of an image: a box of it, resized into a slot while its rows come in from the top.
 *
 * Knows nothing of JPEG, and nothing of other views. `plan_view` finds what the box needs of the decoded image;
 * `take_row` gets each of its rows in order, and writes the rows of the slot as soon as theirs are there.
 */
#ifndef SHARDKIT_PIXELS_VIEW_H
#define SHARDKIT_PIXELS_VIEW_H

#include <stdlib.h>

#include "best.h"
#include "resize.h"
#include "precise.h"

#define KEPT_BYTES ((size_t)16 << 20) /* of scratch memory between images: as images.SCRATCH_BYTES */
#define MOST_VIEWS 1024               /* of an image */

/* Memory that is kept from image to image. */
typedef struct {
    unsigned char *memory;
    size_t bytes;
} arena;

/* The decoded rows that are kept: row y is at `rows + bytes * (y % count)`, and begins with the column `cut`. */
typedef struct {
    unsigned char *rows;
    size_t bytes;
    int count, cut, samples;
} ring;

/* All that the weights of a view depend on. */
typedef struct {
    box part;
    int in_height, in_width, divisor, height, width, channels, filter, exact, tall, mirrored, vectors;
} plan_of;

typedef struct {
    /* what is asked */
    const settings *set;
    const double *draws; /* what random_box takes, or NULL */
    int flip;            /* FLIP_… bits */
    unsigned char *out;  /* (height, width, channels) */

    /* what it takes: rows top … bottom - 1 and columns left … right - 1, `kept` rows of them at once, and it reads
     * up to `beyond` columns more, with weight zero */
    box part;
    int top, bottom, left, right, kept, beyond;

    int y; /* the next row of the slot */
    plan_of planned; /* what `scratch` and the above were made for */
    int is_planned;
    arena scratch;
    taps down, across;
    v8 *pairs;
    int n_pairs;
    const unsigned char **window;
    uint16_t *sums;

    precise_taps fine_down, fine_across;
    v8s *eights, *row_pairs; /* the weights of columns and of rows, by fill_eights and fill_pairs */
    uint32_t *fine_quads, *row_quads; /* the weights' digits, of all columns and of all rows */
    int digits; /* how many; 0: there are none, since VNNI is not used */
    unsigned char *own, *line, *gray; /* rows for the second pass; a row between the passes; a gray row */
    size_t own_bytes; /* of a row */
    int samples, wide, by_columns;

    int *rows, *columns; /* of the nearest pixels */

    /* of an image that is changed after the resize; see pixels/finish.h */
    arena bytes;
    unsigned char *slot;
    int flip_after;
} view;

/* A piece of memory that starts at *at, 64-byte aligned; *at moves behind it. */
static void *piece(size_t *at, unsigned char *memory, size_t bytes)
{
    unsigned char *found = memory + *at;
    *at += (bytes + 63) / 64 * 64;
    return found;
}

/* At least `total` bytes, zeros or what the images before have left; NULL if there is no memory. */
static unsigned char *room(arena *self, size_t total)
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

static void empty(arena *self)
{
    free(self->memory);
    self->memory = NULL;
    self->bytes = 0;
}

static void empty_if_large(arena *self)
{
    if (self->bytes > KEPT_BYTES)
        empty(self);
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

/* A row of the slot. */
static unsigned char *slot_row(const view *self, int y)
{
    const settings *set = self->set;
    const int from_top = self->flip & FLIP_VERTICAL ? set->height - 1 - y : y;
    return self->out + (size_t)from_top * set->width * set->channels;
}

/* What a view takes, by the first input of its outputs and how many each has. first: of outputs in the slot's order. */
static void take_span(view *self, const int *rows, const int *row_counts, const int *columns, const int *column_counts)
{
    const settings *set = self->set;
    const int last = set->height - 1, mirrored = self->flip & FLIP_HORIZONTAL, left = mirrored ? set->width - 1 : 0,
              right = set->width - 1 - left;
    self->top = rows[0];
    self->bottom = rows[last] + (row_counts ? row_counts[last] : 1);
    self->left = columns[left];
    self->right = columns[right] + (column_counts ? column_counts[right] : 1);
}

/* ----------------------------------------------------------------------------- filters without negative weights */

static const char *plan_smooth(view *self, int in_height, int in_width, int divisor)
{
    const settings *set = self->set;
    const box part = self->part;
    taps *down = &self->down, *across = &self->across;
    down->most = most_taps(set->filter, part.height / divisor, set->height);
    across->most = most_taps(set->filter, part.width / divisor, set->width);
    down->most = down->most < in_height ? down->most : in_height;
    across->most = across->most < in_width ? across->most : in_width;
    self->n_pairs = (across->most + 1) / 2;

    const size_t height = (size_t)set->height, width = (size_t)set->width,
                 pair_bytes = self->samples == 4 ? width * self->n_pairs * sizeof(v8) : 0,
                 sum_bytes = 2 * ((size_t)in_width * self->samples + 32);
    size_t at = 0, total = 8 * 64 + (height + width) * 2 * sizeof(int) +
                           (height * down->most + width * across->most) * sizeof(uint16_t) + pair_bytes + sum_bytes +
                           (size_t)down->most * sizeof(void *);
    unsigned char *memory = room(&self->scratch, total);
    if (memory == NULL)
        return "no memory";
    down->first = piece(&at, memory, height * sizeof(int));
    down->count = piece(&at, memory, height * sizeof(int));
    down->weight = piece(&at, memory, height * down->most * sizeof(uint16_t));
    across->first = piece(&at, memory, width * sizeof(int));
    across->count = piece(&at, memory, width * sizeof(int));
    across->weight = piece(&at, memory, width * across->most * sizeof(uint16_t));
    self->pairs = piece(&at, memory, pair_bytes);
    self->window = piece(&at, memory, (size_t)down->most * sizeof(void *));
    self->sums = piece(&at, memory, sum_bytes);

    fill_taps(down, set->filter, in_height, part.top / divisor, part.height / divisor, set->height, 0);
    fill_taps(across, set->filter, in_width, part.left / divisor, part.width / divisor, set->width,
              self->flip & FLIP_HORIZONTAL);
    take_span(self, down->first, down->count, across->first, across->count);
    self->kept = down->most;
    self->beyond = 0;
    for (int x = 0; x < set->width; x++) {
        across->first[x] -= self->left;
        for (int p = 0; p < self->n_pairs && self->samples == 4; p++) {
            const uint16_t *w = across->weight + (size_t)x * across->most + 2 * p;
            uint16_t a = w[0], b = 2 * p + 1 < across->most ? w[1] : 0;
            self->pairs[x * self->n_pairs + p] = (v8){a, a, a, a, b, b, b, b};
        }
    }
    return NULL;
}

static void take_smooth(view *self, const ring *from, int have)
{
    const settings *set = self->set;
    const taps *down = &self->down;
    const int columns = (self->right - self->left) * self->samples;
    const size_t left = (size_t)(self->left - from->cut) * self->samples;
    for (int y; (y = self->y) < set->height && down->first[y] + down->count[y] <= have + 1; self->y++) {
        unsigned char *to = slot_row(self, y);
        for (int t = 0; t < down->count[y]; t++)
            self->window[t] = from->rows + from->bytes * (size_t)((down->first[y] + t) % from->count) + left;
        best_sum_rows(self->sums, self->window, down->weight + (size_t)y * down->most, down->count[y], columns);
        if (self->samples == 4)
            best_sum_pixels_rgb(to, self->sums, self->across.first, self->pairs, self->n_pairs, set->width);
        else
            sum_pixels_gray(to, self->sums, &self->across, set->width);
    }
}

/* ------------------------------------------------------------- negative weights, and Pillow's pixels to the bit */

/* The digits of all weights, if the processor can use them, and they are enough. */
static void fill_quads(view *self)
{
    self->digits = 0;
#ifdef VNNI
    const settings *set = self->set;
    const precise_taps *down = &self->fine_down, *across = &self->fine_across;
    const int digits = digits_of(self->wide), columns = quads_of(across->used), rows = quads_of(down->used);
    int enough = has_vnni();
    for (int x = 0; enough && self->samples == 4 && x < outputs_of(set->width); x++)
        enough = fill_digits(self->fine_quads + (size_t)(x / 2) * columns * digits * 2 + x % 2,
                             across->weight + (size_t)x * across->most, x < set->width ? across->used : 0, columns,
                             digits, 2);
    for (int y = 0; enough && y < set->height; y++)
        enough = fill_digits(self->row_quads + (size_t)y * rows * digits, down->weight + (size_t)y * down->most,
                             down->used, rows, digits, 1);
    self->digits = enough ? digits : 0;
#endif
}

/* The weights of row y of the slot by two; see fill_pairs. */
static v8s *pairs_of_row(const view *self, int y)
{
    return self->row_pairs + (size_t)y * pairs_of(self->fine_down.used) * (1 + self->wide);
}

static const char *plan_precise(view *self, int in_height, int in_width, int divisor)
{
    const settings *set = self->set;
    const box part = self->part;
    precise_taps *down = &self->fine_down, *across = &self->fine_across;
    self->wide = plan_taps(down, across, set, part.height / divisor, part.width / divisor, in_height, in_width);
    self->by_columns = columns_first(set, in_height, in_width);
    self->beyond = across->most + QUAD;
    const size_t height = (size_t)set->height, width = (size_t)set->width, columns = outputs_of(set->width),
                 in_bytes = (((size_t)in_width + self->beyond) * self->samples + QUAD_ROOM + 63) / 64 * 64,
                 out_bytes = (columns * self->samples + QUAD_ROOM + 63) / 64 * 64,
                 row_quads = height * quads_of(down->most) * digits_of(self->wide) * sizeof(uint32_t),
                 column_quads = columns * quads_of(across->most) * digits_of(self->wide) * sizeof(uint32_t),
                 line_bytes = in_bytes > out_bytes ? in_bytes : out_bytes;
    self->own_bytes = self->by_columns ? in_bytes : out_bytes;
    size_t used = 0, total = 18 * 64 + taps_bytes(down, set->height) + taps_bytes(across, (int)columns) +
                             eights_bytes(across, (int)columns) + pairs_bytes(down, set->height) + row_quads +
                             column_quads + ((size_t)down->most + QUAD) * sizeof(void *) +
                             self->own_bytes * down->most + 2 * line_bytes;
    unsigned char *memory = room(&self->scratch, total);
    if (memory == NULL)
        return "no memory";
    down->first = piece(&used, memory, height * sizeof(int));
    down->count = piece(&used, memory, height * sizeof(int));
    down->weight = piece(&used, memory, height * down->most * sizeof(int32_t));
    down->exact = piece(&used, memory, (size_t)down->most * sizeof(double));
    across->first = piece(&used, memory, columns * sizeof(int));
    across->count = piece(&used, memory, width * sizeof(int));
    across->weight = piece(&used, memory, width * across->most * sizeof(int32_t));
    across->exact = piece(&used, memory, (size_t)across->most * sizeof(double));
    self->eights = piece(&used, memory, eights_bytes(across, (int)columns));
    self->row_pairs = piece(&used, memory, pairs_bytes(down, set->height));
    self->fine_quads = piece(&used, memory, column_quads);
    self->row_quads = piece(&used, memory, row_quads);
    self->window = piece(&used, memory, ((size_t)down->most + QUAD) * sizeof(void *));
    self->own = piece(&used, memory, self->own_bytes * down->most);
    self->gray = piece(&used, memory, line_bytes);
    self->line = piece(&used, memory, line_bytes);

    fill_precise_taps(down, set, self->wide, in_height, part.top / divisor, part.height / divisor, set->height, 0);
    fill_precise_taps(across, set, self->wide, in_width, part.left / divisor, part.width / divisor, set->width,
                      self->flip & FLIP_HORIZONTAL);
    take_span(self, down->first, down->count, across->first, across->count);
    self->kept = 1;
    fill_quads(self);
    memset(across->first + width, 0, (columns - width) * sizeof(int)); /* these have no weights */
    for (int x = 0; x < set->width; x++)
        across->first[x] -= self->left;
    if (self->samples == 1 || !self->digits)
        fill_eights(self->eights, across, set->width, self->wide);
    for (int y = 0; !self->digits && y < set->height; y++)
        fill_pairs(pairs_of_row(self, y), down->weight + (size_t)y * down->most, down->used, self->wide);
    return NULL;
}

/* Points `window` at the rows that output row y is made of. */
static void find_rows(view *self, int y)
{
    const precise_taps *down = &self->fine_down;
    const int count = down->count[y];
    for (int t = 0; t < count; t++)
        self->window[t] = self->own + self->own_bytes * (size_t)((down->first[y] + t) % down->most);
    for (int t = count; t < count + QUAD - 1; t++)
        self->window[t] = self->window[0]; /* those that are taken along, with weight zero */
}

/* A row of the image, as the pixels of a row between the passes, and up to three more. */
static void resize_columns(const view *self, unsigned char *out, const unsigned char *in)
{
    const precise_taps *across = &self->fine_across;
    const int width = self->set->width;
    if (self->samples == 1) {
        resize_gray(out, in, across->first, self->eights, eights_of(across->used), self->wide, width);
        return;
    }
#ifdef VNNI
    if (self->digits) {
        resize_row_vnni(out, in, across->first, self->fine_quads, quads_of(across->used), self->digits, width);
        return;
    }
#endif
    best_resize_row(out, in, across->first, self->eights, pairs_of(across->used), self->wide, width);
}

/* The rows of the window as row y of the slot. */
static void sum_window(const view *self, unsigned char *out, int y)
{
    const precise_taps *down = &self->fine_down;
#ifdef VNNI
    if (self->digits) {
        sum_precise_vnni(out, self->window, self->row_quads + (size_t)y * quads_of(down->used) * self->digits,
                         quads_of(down->count[y]), self->samples, self->digits, self->set->width);
        return;
    }
#endif
    best_sum_precise_rows(out, self->window, pairs_of_row(self, y), pairs_of(down->count[y]), self->samples, self->wide,
                          self->set->width);
}

/* The rows of the window as one, n samples long. */
static void sum_window_first(const view *self, unsigned char *out, int y, int n)
{
    const precise_taps *down = &self->fine_down;
#ifdef VNNI
    if (self->digits) {
        sum_samples_vnni(out, self->window, self->row_quads + (size_t)y * quads_of(down->used) * self->digits,
                         quads_of(down->count[y]), self->digits, n);
        return;
    }
#endif
    best_sum_samples(out, self->window, pairs_of_row(self, y), pairs_of(down->count[y]), self->wide, n);
}

static void take_precise(view *self, const ring *from, int have)
{
    const settings *set = self->set;
    const precise_taps *down = &self->fine_down;
    const int columns = (self->right - self->left) * self->samples, samples = self->samples;
    const unsigned char *in =
        from->rows + from->bytes * (size_t)(have % from->count) + (size_t)(self->left - from->cut) * from->samples;
    unsigned char *keep = self->own + self->own_bytes * (size_t)(have % down->most);
    if (from->samples != samples) {
        gray_of_colour(self->gray, in, self->right - self->left);
        in = self->gray;
    }
    if (self->by_columns)
        memcpy(keep, in, (size_t)columns);
    else
        resize_columns(self, keep, in);
    for (int y; (y = self->y) < set->height && down->first[y] + down->count[y] <= have + 1; self->y++) {
        unsigned char *to = slot_row(self, y);
        find_rows(self, y);
        if (!self->by_columns) {
            sum_window(self, to, y);
            continue;
        }
        sum_window_first(self, self->line, y, columns);
        resize_columns(self, self->gray, self->line);
        if (samples == 1)
            memcpy(to, self->gray, (size_t)set->width);
        else
            pack_pixels(to, self->gray, set->width);
    }
}

/* -------------------------------------------------------------------------------------------------- nearest pixels */

static const char *plan_nearest(view *self, int in_height, int in_width)
{
    const settings *set = self->set;
    const box part = self->part;
    const size_t row_bytes = (size_t)set->height * sizeof(int), column_bytes = (size_t)set->width * sizeof(int);
    size_t at = 0, total = 3 * 64 + row_bytes + column_bytes + (size_t)in_width + 32;
    unsigned char *memory = room(&self->scratch, total);
    if (memory == NULL)
        return "no memory";
    self->rows = piece(&at, memory, row_bytes);
    self->columns = piece(&at, memory, column_bytes);
    self->gray = piece(&at, memory, (size_t)in_width + 32);
    find_nearest(self->rows, in_height, part.top, part.height, set->height, 0);
    find_nearest(self->columns, in_width, part.left, part.width, set->width, self->flip & FLIP_HORIZONTAL);
    take_span(self, self->rows, NULL, self->columns, NULL);
    self->kept = 1;
    self->beyond = 0;
    for (int x = 0; x < set->width; x++)
        self->columns[x] -= self->left;
    return NULL;
}

static void take_nearest_row(view *self, const ring *from, int have)
{
    const settings *set = self->set;
    const unsigned char *before = NULL, *in = from->rows + from->bytes * (size_t)(have % from->count) +
                                              (size_t)(self->left - from->cut) * from->samples;
    if (self->rows[self->y] != have)
        return;
    if (set->channels == 1 && from->samples > 1) {
        gray_of_colour(self->gray, in, self->right - self->left);
        in = self->gray;
    }
    for (; self->y < set->height && self->rows[self->y] == have; self->y++) {
        unsigned char *to = slot_row(self, self->y);
        if (before != NULL)
            memcpy(to, before, (size_t)set->width * set->channels);
        else
            take_nearest(to, in, self->columns, set->channels, set->width);
        before = to;
    }
}

/* ----------------------------------------------------------------------------------------------------------- all */

static plan_of asked_of(const view *self, int in_height, int in_width, int divisor)
{
    const settings *set = self->set;
    plan_of asked;
    memset(&asked, 0, sizeof asked); /* what is between the members is compared, too */
    asked.part = self->part;
    asked.in_height = in_height;
    asked.in_width = in_width;
    asked.divisor = divisor;
    asked.height = set->height;
    asked.width = set->width;
    asked.channels = set->channels;
    asked.filter = set->filter;
    asked.exact = set->exact;
    asked.tall = set->tall;
    asked.mirrored = self->flip & FLIP_HORIZONTAL;
    asked.vectors = vectors_allowed;
    return asked;
}

/* What the view needs of an image that was decoded at 1 / divisor: as for the image before, if that was asked the same.
 * 0, or a reason. */
static const char *plan_view(view *self, int in_height, int in_width, int divisor)
{
    const settings *set = self->set;
    const plan_of asked = asked_of(self, in_height, in_width, divisor);
    const char *reason;
    self->y = 0;
    if (self->is_planned && self->scratch.memory != NULL && memcmp(&asked, &self->planned, sizeof asked) == 0)
        return NULL;
    self->is_planned = 0;
    self->samples = set->channels == 3 ? 4 : 1;
    if (set->filter == NEAREST)
        reason = plan_nearest(self, in_height, in_width);
    else if (set->exact || set->filter == BICUBIC || set->filter == LANCZOS)
        reason = plan_precise(self, in_height, in_width, divisor);
    else
        reason = plan_smooth(self, in_height, in_width, divisor);
    self->planned = asked;
    self->is_planned = reason == NULL;
    return reason;
}

/* What some views need of an image together: rows, columns, rows at once, and columns beyond the last. */
typedef struct {
    int top, bottom, left, right, kept, beyond;
} span;

/* What n views need of an image that was decoded at 1 / divisor, each of its own box. 0, or a reason. */
static const char *plan_views(view *views, int n, int in_height, int in_width, int divisor, span *all)
{
    *all = (span){.top = in_height, .left = in_width};
    for (int i = 0; i < n; i++) {
        view *one = &views[i];
        const char *reason = plan_view(one, in_height, in_width, divisor);
        if (reason != NULL)
            return reason;
        all->top = one->top < all->top ? one->top : all->top;
        all->left = one->left < all->left ? one->left : all->left;
        all->bottom = one->bottom > all->bottom ? one->bottom : all->bottom;
        all->right = one->right > all->right ? one->right : all->right;
        all->kept = one->kept > all->kept ? one->kept : all->kept;
        all->beyond = one->beyond > all->beyond ? one->beyond : all->beyond;
    }
    return NULL;
}

/* Row `have` of the image is in the ring. */
static void take_row(view *self, const ring *from, int have)
{
    const settings *set = self->set;
    if (have < self->top || self->y == set->height)
        return;
    if (set->filter == NEAREST)
        take_nearest_row(self, from, have);
    else if (set->exact || set->filter == BICUBIC || set->filter == LANCZOS)
        take_precise(self, from, have);
    else
        take_smooth(self, from, have);
}

static void release_if_large(view *self)
{
    empty_if_large(&self->scratch);
    empty_if_large(&self->bytes);
}

static void release(view *self)
{
    empty(&self->scratch);
    empty(&self->bytes);
}
#endif
