/* libFuzzer target for the fused JPEG decoder (jpeg/decoder.h in shardkit/native/include, with all it includes); run.sh
 * builds and runs it.
 *
 * An input is a JPEG, or two, and after them eight bytes that say what is asked: height, width, crop, channels and
 * layout, headroom, two that the random crop and the flips come from, the filter and its exactness, the padding and the
 * type of the values; the bytes of the draws also say how many views there are. Of two images the second must give what
 * it gives alone: nothing of the first may be left in the decoder. Its quality must be that of libjpeg's own pixels. Some images come with their seek points, which must
 * not change a pixel, or with points in which bytes were changed, which may.
 *
 * Half of the mutations know JPEG: segments are left out, repeated and moved, frames change their kind (lossless ones
 * too), precision, sampling and size, and images are put together. */
#include "../../shardkit/native/include/jpeg/decoder.h"
#include "../../shardkit/native/include/pixels/finish.h"
#include "../../shardkit/native/include/jpeg/points.h"
#include "../../shardkit/native/include/jpeg/quality.h"

enum { ASKED = 8, MOST_SEGMENTS = 64, VIEWS = 4, MOST_POINTS = 3000 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

static decoder *self;

static void forget(void)
{
    if (self != NULL)
        decoder_free(self);
    self = NULL;
}

static decoder *made(void)
{
    decoder *new = decoder_new();
    if (new == NULL)
        abort();
    return new;
}

/* Where the second image starts: at the last FF D8 FF after the first bytes; `size` where there is no second one. */
static size_t second_image(const uint8_t *data, size_t size)
{
    for (size_t at = size; at > 5; at--)
        if (at + 2 < size && data[at] == 0xFF && data[at + 1] == 0xD8 && data[at + 2] == 0xFF)
            return at;
    return size;
}

/* What is asked of an image. Each view is as high and wide as its settings say, and has draws of its own. */
typedef struct {
    settings set[VIEWS];
    double draws[VIEWS][RANDOM_DRAWS];
    int views, flip;
    finish ending;
    const unsigned char *points;
    size_t points_bytes;
} question;

/* Decodes a copy that is no longer than the image, so that reading beyond it is seen. out: the slots of the views. */
static int decoded(decoder *by, const uint8_t *data, size_t size, const question *asked, unsigned char *out)
{
    unsigned char *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    if (!views_for(by, asked->views))
        abort();
    for (int i = 0; i < asked->views; i++) {
        const settings *set = &asked->set[i];
        view *one = &by->views[i];
        one->set = set;
        one->draws = asked->draws[i];
        one->flip = asked->flip + i & 3;
        one->out = out;
        out += (size_t)set->height * set->width * set->channels * asked->ending.item;
    }
    by->points = asked->points;
    by->points_bytes = asked->points_bytes;
    const char *reason = decode_and_finish(by, copy, size, asked->views, &asked->ending);
    free(copy);
    return reason == NULL;
}

/* Decodes with the image's seek points: the same pixels as before. Then with the points changed: any pixels. */
static void decode_with_points(const uint8_t *data, size_t size, question *asked, int taken, const unsigned char *out,
                               size_t bytes, uint64_t random)
{
    unsigned char *points = malloc(MOST_POINTS), *again = malloc(bytes), *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    size_t found = find_points(self, copy, size, 1, asked->set, points, random % MOST_POINTS);
    asked->points = points = realloc(points, found ? found : 1);
    asked->points_bytes = found;
    if (found && (decoded(self, data, size, asked, again) != taken || (taken && memcmp(again, out, bytes) != 0)))
        abort(); /* the points changed something */
    for (int i = 0; found > SEEK_HEAD && i < 4; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t at = SEEK_HEAD + (i < 2 ? random >> 33 : random >> 40 & 15) % (found - SEEK_HEAD);
        points[at] ^= (unsigned char)(1 + (random >> 20) % 255);
        decoded(self, data, size, asked, again);
    }
    if (found > SEEK_HEAD) { /* cut */
        asked->points_bytes = SEEK_HEAD + (random >> 33) % (found - SEEK_HEAD);
        asked->points = points = realloc(points, asked->points_bytes);
        decoded(self, data, size, asked, again);
    }
    asked->points = NULL;
    free(points);
    free(again);
    free(copy);
}

/* What the quality is by libjpeg alone. 0 if it has complaints. */
static int quality_by_libjpeg(const uint8_t *data, size_t size, int orientation, int scale, quality *found,
                              uint16_t *expected)
{
    decoder *by = made();
    j_decompress_ptr jpeg = &by->jpeg;
    unsigned char *volatile pixels = NULL;
    int64_t *volatile sums = NULL;
    volatile int taken = 0;
    by->max_scans = 20;
    if (setjmp(by->on_error) == 0) {
        jpeg_mem_src(jpeg, data, (unsigned long)size);
        jpeg_read_header(jpeg, TRUE);
        jpeg->out_color_space = JCS_GRAYSCALE;
        jpeg->scale_num = 1;
        jpeg->scale_denom = (unsigned)scale;
        jpeg_start_decompress(jpeg);
        const int height = (int)jpeg->output_height, width = (int)jpeg->output_width;
        pixels = malloc((size_t)height * width);
        sums = malloc((size_t)width * sizeof *sums);
        for (int y = 0; y < height; y++) {
            JSAMPROW row = pixels + (size_t)y * width;
            jpeg_read_scanlines(jpeg, &row, 1);
        }
        const small_picture of = {pixels,     height, width, scale, (int)jpeg->image_height, (int)jpeg->image_width,
                                  orientation};
        *found = quality_of(&of, sums, expected);
        taken = 1;
    }
    free(pixels);
    free(sums);
    decoder_free(by);
    return taken;
}

static void compare_qualities(const uint8_t *data, size_t size, const settings *set, uint64_t random)
{
    const int scale = random & 128 ? 8 : 1 << (random >> 8 & 3), orientation = 1 + (int)(random >> 16 & 7);
    unsigned char *copy = malloc(size ? size : 1);
    quality found, expected;
    uint16_t cells[2][GRID * GRID];
    memcpy(copy, data, size);
    if (find_quality(self, copy, size, orientation, scale, set, &found, cells[0]) == NULL &&
        quality_by_libjpeg(copy, size, orientation, scale, &expected, cells[1]) &&
        (found.hash != expected.hash || found.brightness != expected.brightness ||
         found.sharpness != expected.sharpness || found.entropy != expected.entropy ||
         memcmp(cells[0], cells[1], sizeof cells[0]) != 0))
        abort();
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const double headrooms[4] = {0.25, 1, 1.5, 1e9};
    static const int items[4] = {1, 2, 4, 1};
    question all = {.ending = {.fill = {1, 2, 3}}};
    settings set = {.max_pixels = 1 << 20, .max_scans = 20, .scale = {0.08, 1}, .ratio = {0.75, 4.0 / 3}};
    if (self == NULL)
        self = made();
    if (size < ASKED)
        return 0;
    size -= ASKED;
    const uint8_t *asked = data + size;
    const size_t second = second_image(data, size);
    const uint8_t *last = second < size ? data + second : data;
    const size_t last_size = second < size ? size - second : size;
    uint64_t random = (uint64_t)asked[4] << 8 | asked[5] | 1 << 20;
    int height, width;
    size_t frame;
    set.height = 1 + asked[0] % 100;
    set.width = 1 + asked[1] % 100;
    set.crop = asked[2] % (CROP_RANDOM_COVER + 1);
    set.channels = asked[2] & 64 ? 1 : 3;
    set.headroom = headrooms[asked[3] % 4];
    set.filter = asked[6] % FILTERS;
    set.exact = asked[6] >> 4 & 1;
    set.tall = asked[6] >> 5 & 1;
    set.same = asked[6] >> 7 & 1;
    if (asked[6] & 64) { /* boxes of odd shapes */
        set.scale[0] = 0.001;
        set.ratio[0] = 0.01;
        set.ratio[1] = 100;
    }
    set.log_ratio[0] = log(set.ratio[0]);
    set.log_ratio[1] = log(set.ratio[1]);
    all.flip = asked[5] & 3;
    all.ending.planar = asked[2] >> 5 & 1;
    all.ending.item = items[asked[7] % 4];
    all.ending.padding = asked[7] & 128 ? asked[7] >> 2 & 31 : 0;
    if (asked[3] & 128 && find_frame(last, last_size, &height, &width, &frame) == NULL && height < 300 && width < 300) {
        set.crop = CROP_RESIZE; /* the way without resizing */
        set.height = height;
        set.width = width;
    }
    all.views = set.crop == CROP_RANDOM && !set.same ? 1 + (asked[4] >> 6) : 1;
    size_t bytes = 0;
    for (int v = 0; v < all.views; v++) {
        all.set[v] = set;
        all.set[v].height = 1 + (set.height - 1 + 37 * v) % 100;
        all.set[v].width = 1 + (set.width - 1 + 53 * v) % 100;
        if (all.views == 1)
            all.set[v] = set;
        for (int i = 0; i < RANDOM_DRAWS; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            all.draws[v][i] = (double)(random >> 11) / 9007199254740992.0;
        }
        bytes += (size_t)all.set[v].height * all.set[v].width * set.channels * all.ending.item;
    }
    size_t table_bytes = (size_t)256 * set.channels * all.ending.item; /* no longer than it has to be */
    unsigned char *table = malloc(table_bytes);
    for (size_t i = 0; i < table_bytes; i++)
        table[i] = (unsigned char)(i * 37);
    all.ending.table = all.ending.item > 1 || asked[7] % 4 == 3 ? table : NULL;
    unsigned char *out = malloc(bytes);
    if (second < size) {
        unsigned char *alone = malloc(bytes);
        decoder *one = made();
        int taken = decoded(one, last, last_size, &all, alone);
        decoder_free(one);
        decoded(self, data, second, &all, out);
        if (decoded(self, last, last_size, &all, out) != taken)
            abort(); /* an error alone, and none after another image, or the reverse */
        if (taken && memcmp(alone, out, bytes) != 0)
            abort(); /* other pixels than alone */
        free(alone);
    } else {
        const int taken = decoded(self, data, size, &all, out);
        volatile unsigned sum = 0; /* every byte was written: MemorySanitizer and valgrind would tell */
        for (size_t i = 0; taken && i < bytes; i++)
            if (out[i] > 128)
                sum = sum + 1;
        if (asked[3] & 32)
            compare_qualities(data, size, &set, random * 0x9E3779B97F4A7C15u >> 16);
        if (asked[3] & 64)
            decode_with_points(data, size, &all, taken, out, bytes, random * 0x9E3779B97F4A7C15u);
    }
    free(out);
    free(table);
    if ((random & 0x3F) == 0)
        forget(); /* now and then a new decoder, so that leaks are seen */
    return 0;
}

/* ------------------------------------------------------------------------------------------------------- mutators */

static uint64_t state;

static unsigned below(size_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return n ? (unsigned)((state >> 33) % n) : 0;
}

typedef struct {
    size_t at, size;
    int marker;
} piece_of;

/* The segments of the first image, up to its scan. */
static int segments_of(const uint8_t *data, size_t size, piece_of *found)
{
    size_t at = 2;
    int n = 0;
    while (n < MOST_SEGMENTS && at + 4 <= size && data[at] == 0xFF) {
        size_t length = 2 + ((size_t)data[at + 2] << 8 | data[at + 3]);
        if (at + length > size)
            break;
        found[n++] = (piece_of){at, length, data[at + 1]};
        if (data[at + 1] == 0xDA)
            break;
        at += length;
    }
    return n;
}

static size_t cut(uint8_t *data, size_t size, size_t at, size_t n)
{
    memmove(data + at, data + at + n, size - at - n);
    return size - n;
}

static size_t put(uint8_t *data, size_t size, size_t most, size_t at, const uint8_t *what, size_t n)
{
    if (size + n > most)
        return size;
    memmove(data + at + n, data + at, size - at);
    memcpy(data + at, what, n);
    return size + n;
}

static size_t change_frame(uint8_t *data, size_t size, size_t most, piece_of frame)
{
    static const uint8_t kinds[] = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB};
    static const uint8_t samplings[] = {0x11, 0x12, 0x21, 0x22, 0x14, 0x41, 0x42, 0x33, 0x44, 0x31};
    uint8_t *body = data + frame.at;
    (void)most;
    if (frame.size < 13)
        return size;
    switch (below(4)) {
    case 0: body[1] = kinds[below(sizeof kinds)]; break;
    case 1: body[4] = (uint8_t)(below(2) ? 12 : 2 + below(15)); break;
    case 2: body[11] = samplings[below(sizeof samplings)]; break;
    default: body[5 + 2 * below(2) + 1] = (uint8_t)below(256);
    }
    return size;
}

/* A lossless JPEG (T.81, annex H) in place of the image: one Huffman code of one bit for "no difference". */
static size_t lossless(uint8_t *data, size_t size, size_t most)
{
    // clang-format off
    uint8_t made[] = {
        0xFF, 0xD8, 0xFF, 0xC3, 0, 17, 8, 0, (uint8_t)(1 + below(255)), 0, (uint8_t)(1 + below(255)), 3, 'R', 0x11, 0, 'G',
        0x11, 0, 'B', 0x11, 0, 0xFF, 0xC4, 0, 20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xDA, 0, 12,
        3, 'R', 0, 'G', 0, 'B', 0, 1, 0, 0};
    // clang-format on
    uint8_t asked[ASKED];
    size_t coded = (size_t)made[8] * made[10] * 3 / 8 + 1;
    if (sizeof made + coded + 2 + ASKED > most || size < ASKED)
        return size;
    memcpy(asked, data + size - ASKED, ASKED);
    memcpy(data, made, sizeof made);
    memset(data + sizeof made, 0, coded);
    data[sizeof made + coded] = 0xFF;
    data[sizeof made + coded + 1] = 0xD9;
    memcpy(data + sizeof made + coded + 2, asked, ASKED);
    return sizeof made + coded + 2 + ASKED;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    static const uint8_t stray[] = {0, 0xFF, 0, 0x12, 0xFF, 0x01, 0xFF, 0xFF};
    piece_of found[MOST_SEGMENTS];
    uint8_t kept[2048];
    state = seed * 0x9E3779B97F4A7C15u + 1;
    int n = segments_of(data, size, found);
    if (n == 0 || below(2))
        return LLVMFuzzerMutate(data, size, most);
    piece_of one = found[below((size_t)n)];
    switch (below(8)) {
    case 0: /* without its tables of a kind */
        for (int i = n - 1, marker = below(2) ? 0xC4 : 0xDB; i >= 0; i--)
            if (found[i].marker == marker)
                size = cut(data, size, found[i].at, found[i].size);
        return size;
    case 1: return cut(data, size, one.at, one.size);
    case 2: /* once more, or elsewhere */
        if (one.size > sizeof kept)
            return size;
        memcpy(kept, data + one.at, one.size);
        if (below(2))
            size = cut(data, size, one.at, one.size), n = segments_of(data, size, found);
        return put(data, size, most, n ? found[below((size_t)n)].at : 2 < size ? 2 : size, kept, one.size);
    case 3: return put(data, size, most, one.at, stray + below(4), 1 + below(4));
    case 4: return size > 40 ? cut(data, size, size - ASKED - 2 - below(20), 2) : size; /* the end mark */
    case 5: return lossless(data, size, most);
    default:
        for (int i = 0; i < n; i++)
            if (found[i].marker >= 0xC0 && found[i].marker <= 0xC3)
                return change_frame(data, size, most, found[i]);
        return LLVMFuzzerMutate(data, size, most);
    }
}

/* Two images after each other, and what the second asks for. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size, uint8_t *out,
                                 size_t most, unsigned seed)
{
    (void)seed;
    if (a_size <= ASKED || a_size - ASKED + b_size > most)
        return 0;
    a_size -= ASKED;
    memcpy(out, a, a_size);
    memcpy(out + a_size, b, b_size);
    return a_size + b_size;
}

#ifdef REPLAY
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most)
{
    (void)data, (void)most;
    return size;
}

/* The same without libFuzzer: replay TIMES FILE..., for valgrind. */
int main(int count, char **arguments)
{
    for (int round = 0; round < atoi(arguments[1]); round++)
        for (int i = 2; i < count; i++) {
            FILE *file = fopen(arguments[i], "rb");
            if (file == NULL)
                return 1;
            unsigned char *data = malloc(1 << 20);
            size_t size = fread(data, 1, 1 << 20, file);
            fclose(file);
            data = realloc(data, size ? size : 1); /* no longer than the file: reading beyond it is seen */
            LLVMFuzzerTestOneInput(data, size);
            free(data);
        }
    forget();
    return 0;
}
#endif
