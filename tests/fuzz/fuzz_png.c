/* libFuzzer target for the fused PNG decoder (png/decoder.h in shardkit/native/include, with all it includes); run.sh
 * builds and runs it.
 *
 * An input is a PNG, and after it eight bytes that say what is asked: height, width, crop, channels and layout, two that
 * the random crop and the flips come from, the filter, the padding and the type of the values. What it takes as a whole
 * must be what zlib makes of the same data, with filters undone by the words of the standard.
 *
 * Most mutations know PNG: the header's kind is changed, rows are changed before they are packed again, chunks are left
 * out, repeated and cut in two, and checksums are made right. */
#include "../../shardkit/native/include/png/decoder.h"
#include "../../shardkit/native/include/pixels/finish.h"

#include <math.h>
#include <stdio.h>
#include <zlib.h>

enum { ASKED = 8, MOST_CHUNKS = 64, MOST_PACKED = 1 << 20 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

static decoder *self;

static void forget(void)
{
    if (self != NULL)
        decoder_free(self);
    self = NULL;
}

static uint32_t number_at(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put_number(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* All IDAT of a PNG as one; the size, 0 without any. */
static size_t packed_of(const uint8_t *data, size_t size, uint8_t *packed)
{
    size_t have = 0;
    for (size_t at = 8; at + 12 <= size;) {
        size_t n = number_at(data + at);
        if (n > size - at - 12)
            break;
        if (memcmp(data + at + 4, "IDAT", 4) == 0 && have + n <= MOST_PACKED) {
            memcpy(packed + have, data + at + 8, n);
            have += n;
        }
        at += n + 12;
    }
    return have;
}

/* ------------------------------------------------------------------------------------------------------- the oracle */

static int slow_guess(int a, int b, int c)
{
    int p = a + b - c, pa = abs(p - a), pb = abs(p - b), pc = abs(p - c);
    return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

/* The bytes of all rows of the decoder's image by zlib and the standard, for comparing; NULL if zlib refuses. */
static uint8_t *rows_by_zlib(const uint8_t *data, size_t size)
{
    static uint8_t packed[MOST_PACKED];
    const header *head = &self->head;
    const size_t row = row_bytes(head, head->width), total = (row + 1) * (size_t)head->height;
    uint8_t *rows = malloc(total);
    uLongf have = total;
    if (uncompress(rows, &have, packed, packed_of(data, size, packed)) != Z_OK || have != total) {
        free(rows);
        return NULL;
    }
    for (int y = 0; y < head->height; y++) {
        uint8_t *out = rows + (row + 1) * (size_t)y + 1, *up = y ? out - row - 1 : NULL;
        for (size_t i = 0; i < row; i++) {
            int a = i < (size_t)head->step ? 0 : out[i - (size_t)head->step], b = up ? up[i] : 0,
                c = up && i >= (size_t)head->step ? up[i - (size_t)head->step] : 0;
            int guesses[5] = {0, a, b, (a + b) / 2, slow_guess(a, b, c)};
            out[i] = (uint8_t)(out[i] + guesses[rows[(row + 1) * (size_t)y] % 5]);
        }
    }
    return rows;
}

/* A gray image of 8 bits, or colours of 8 bits, that was taken whole: the slot against the oracle. */
static void compare(const uint8_t *data, size_t size, const unsigned char *out, int channels)
{
    const header *head = &self->head;
    const int bands = head->step;
    if (head->interlaced || head->depth != 8 ||
        (head->color != GRAY && head->color != RGB && head->color != RGB_ALPHA) || channels != 3)
        return;
    uint8_t *rows = rows_by_zlib(data, size);
    if (rows == NULL)
        abort(); /* taken, but zlib would not */
    for (int y = 0; y < head->height; y++)
        for (int x = 0; x < head->width; x++)
            for (int c = 0; c < 3; c++) {
                const uint8_t *row = rows + (row_bytes(head, head->width) + 1) * (size_t)y + 1;
                if (out[((size_t)y * (size_t)head->width + (size_t)x) * 3 + (size_t)c] !=
                    row[x * bands + (bands > 1 ? c : 0)])
                    abort();
            }
    free(rows);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int items[4] = {1, 2, 4, 1};
    double draws[RANDOM_DRAWS];
    settings set = {.max_pixels = 1 << 20, .exact = 1, .scale = {0.08, 1}, .ratio = {0.75, 4.0 / 3}};
    finish ending = {.fill = {1, 2, 3}};
    header head;
    if (self == NULL) {
        fill_entries();
        crc32_setup();
        self = decoder_new();
    }
    if (size < ASKED || self == NULL || !views_for(self, 1))
        return 0;
    size -= ASKED;
    const uint8_t *asked = data + size;
    uint64_t random = (uint64_t)asked[4] << 8 | asked[5] | 1 << 20;
    set.height = 1 + asked[0] % 100;
    set.width = 1 + asked[1] % 100;
    set.crop = asked[2] % (CROP_RANDOM_COVER + 1);
    set.channels = asked[2] & 64 ? 1 : 3;
    set.filter = asked[6] % FILTERS;
    set.tall = asked[6] >> 5 & 1;
    set.same = asked[6] >> 7 & 1;
    for (int i = 0; i < 2; i++)
        set.log_ratio[i] = log(set.ratio[i]);
    ending.planar = asked[2] >> 5 & 1;
    ending.item = items[asked[7] % 4];
    ending.padding = asked[7] & 128 ? asked[7] >> 2 & 31 : 0;
    const int whole = asked[3] & 128 && read_header(&head, data, size) == NULL && head.height < 300 && head.width < 300;
    if (whole) {
        set.crop = CROP_RESIZE;
        set.height = head.height;
        set.width = head.width;
    }
    for (int i = 0; i < RANDOM_DRAWS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        draws[i] = (double)(random >> 11) / 9007199254740992.0;
    }
    const size_t bytes = (size_t)set.height * (size_t)set.width * (size_t)set.channels * (size_t)ending.item;
    const size_t table_bytes = (size_t)256 * (size_t)set.channels * (size_t)ending.item;
    unsigned char *table = malloc(table_bytes), *out = malloc(bytes), *copy = malloc(size ? size : 1);
    memcpy(copy, data, size); /* no longer than the image: reading beyond it is seen */
    for (size_t i = 0; i < table_bytes; i++)
        table[i] = (unsigned char)(i * 37);
    ending.table = ending.item > 1 || asked[7] % 4 == 3 ? table : NULL;
    const int plain = ending.table == NULL && !ending.planar && !ending.padding;
    self->views[0].set = &set;
    self->views[0].draws = draws;
    self->views[0].flip = whole && plain ? 0 : asked[5] & 3;
    self->views[0].out = out;
    if (decode_and_finish(self, copy, size, 1, &ending) == NULL) {
        volatile unsigned sum = 0; /* every byte was written: MemorySanitizer and valgrind would tell */
        for (size_t i = 0; i < bytes; i++)
            if (out[i] > 128)
                sum = sum + 1;
        if (whole && plain)
            compare(copy, size, out, set.channels);
    }
    free(copy);
    free(out);
    free(table);
    if ((random & 0x3F) == 0)
        forget(); /* now and then a new decoder, so that leaks are seen */
    return 0;
}

/* -------------------------------------------------------------------------------------------------------- mutators */

static uint64_t state;

static unsigned below(size_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return n ? (unsigned)((state >> 33) % n) : 0;
}

static size_t put_chunk(uint8_t *out, const char *name, const uint8_t *body, size_t n)
{
    put_number(out, (uint32_t)n);
    memcpy(out + 4, name, 4);
    if (n)
        memmove(out + 8, body, n);
    put_number(out + 8 + n, (uint32_t)crc32(crc32(0, Z_NULL, 0), out + 4, (uInt)n + 4));
    return n + 12;
}

/* The PNG written again, with what was asked after it: the kind, the palette and the rows changed. */
static size_t written_again(uint8_t *data, size_t size, size_t most)
{
    static const uint8_t kinds[15][2] = {{0, 1}, {0, 2}, {0, 4}, {0, 8}, {0, 16}, {2, 8}, {2, 16}, {3, 1},
                                         {3, 2}, {3, 4}, {3, 8}, {4, 8}, {4, 16}, {6, 8}, {6, 16}};
    static uint8_t packed[MOST_PACKED], rows[MOST_PACKED], made[2 * MOST_PACKED];
    uint8_t asked[ASKED], ihdr[13], palette[768];
    uLongf n = sizeof rows, n_packed = sizeof packed;
    header head;
    if (size < 45 + ASKED)
        return LLVMFuzzerMutate(data, size, most);
    memcpy(asked, data + size - ASKED, ASKED);
    memcpy(ihdr, data + 16, 13);
    if (uncompress(rows, &n, packed, packed_of(data, size - ASKED, packed)) != Z_OK)
        n = 0;
    if (below(2)) {
        const uint8_t *kind = kinds[below(15)];
        ihdr[8] = kind[1], ihdr[9] = kind[0], ihdr[12] = (uint8_t)below(2);
        put_number(ihdr, 1 + below(70));
        put_number(ihdr + 4, 1 + below(70));
    }
    size_t have = 8;
    memcpy(made, "\x89PNG\r\n\x1a\n", 8);
    have += put_chunk(made + have, "IHDR", ihdr, 13);
    if (read_header(&head, made, 64) == NULL && head.width < 300 && head.height < 300) {
        size_t wanted = bytes_of_rows(&head, head.height) + (below(8) ? 0 : below(3));
        wanted = wanted < sizeof rows ? wanted : sizeof rows;
        for (size_t i = n; i < wanted; i++)
            rows[i] = (uint8_t)(below(4) ? below(5) : below(256));
        n = wanted;
        if (!head.interlaced)
            for (int y = 0; y < head.height; y++)
                if ((size_t)y * (1 + row_bytes(&head, head.width)) < n)
                    rows[(size_t)y * (1 + row_bytes(&head, head.width))] %= below(30) ? 5 : 6;
    }
    for (unsigned i = below(20); i > 0 && n; i--)
        rows[below(n)] = (uint8_t)below(256);
    if (below(3) == 0 && n > 600) /* a match */
        memcpy(rows + n / 2, rows + below(200), 1 + below(n / 2 - 300 < 300 ? n / 2 - 300 : 300));
    z_stream stream = {0};
    deflateInit2(&stream, (int)below(10), Z_DEFLATED, 9 + (int)below(7), 1 + (int)below(9), (int)below(5));
    stream.next_in = rows, stream.avail_in = (uInt)n, stream.next_out = packed, stream.avail_out = sizeof packed;
    deflate(&stream, Z_FINISH);
    n_packed = stream.total_out;
    deflateEnd(&stream);
    for (unsigned i = below(4) ? 0 : 1 + below(3); i > 0 && n_packed; i--)
        packed[below(n_packed)] ^= (uint8_t)(1 << below(8));
    for (int i = 0; i < 768; i++)
        palette[i] = (uint8_t)below(256);
    if (ihdr[9] == 3 || below(10) == 0)
        have += put_chunk(made + have, "PLTE", palette, below(3) ? 3u * (1u << (ihdr[8] & 15)) % 769u : below(769));
    if (below(4) == 0)
        have += put_chunk(made + have, below(2) ? "tRNS" : "eXIf", palette, below(2) ? 2 + 4 * below(2) : below(260));
    size_t cut = below(2) ? n_packed : below(n_packed + 1);
    if (have + n_packed + 60 > sizeof made)
        return size;
    have += put_chunk(made + have, "IDAT", packed, cut);
    if (below(5) == 0)
        have += put_chunk(made + have, "tEXt", palette, 10);
    if (cut < n_packed)
        have += put_chunk(made + have, "IDAT", packed + cut, n_packed - cut);
    have += put_chunk(made + have, "IEND", NULL, 0);
    if (have + ASKED > most)
        return size;
    memcpy(data, made, have);
    memcpy(data + have, asked, ASKED);
    if (below(2))
        data[have + below(ASKED)] = (uint8_t)below(256);
    return have + ASKED;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    state = seed * 0x9E3779B97F4A7C15u + 1;
    if (below(4) == 0)
        return LLVMFuzzerMutate(data, size, most);
    if (below(3))
        return written_again(data, size, most);
    size = LLVMFuzzerMutate(data, size, most);
    for (size_t at = 8; at + 12 <= size;) { /* right checksums */
        size_t n = number_at(data + at);
        if (n > size - at - 12)
            break;
        put_number(data + at + 8 + n, (uint32_t)crc32(crc32(0, Z_NULL, 0), data + at + 4, (uInt)n + 4));
        at += n + 12;
    }
    return size;
}
