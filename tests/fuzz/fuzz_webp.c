/* libFuzzer target for the fused WebP decoder (webp_decoder.h in shardkit/native/include, with all it includes); run.sh builds
 * and runs it.
 *
 * An input is a WebP, and after it eight bytes that say what is asked, as in fuzz_png.c. The sizes of its chunks are made
 * right now and then, so that more of them are taken. */
#include "../../shardkit/native/include/webp_decoder.h"
#include "../../shardkit/native/include/pixels/finish.h"

enum { ASKED = 8 };

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

static decoder *self;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    double draws[RANDOM_DRAWS];
    settings set = {.max_pixels = 1 << 20, .exact = 1, .scale = {0.08, 1}, .ratio = {0.75, 4.0 / 3}};
    finish ending = {.fill = {1, 2, 3}, .item = 1};
    header head;
    if (self == NULL)
        self = decoder_new();
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
    for (int i = 0; i < 2; i++)
        set.log_ratio[i] = log(set.ratio[i]);
    ending.planar = asked[2] >> 5 & 1;
    ending.padding = asked[7] & 128 ? asked[7] >> 2 & 31 : 0;
    unsigned char *copy = malloc(size ? size : 1);
    memcpy(copy, data, size); /* no longer than the image: reading beyond it is seen */
    if (asked[3] & 128 && read_header(&head, copy, size) == NULL && head.height < 300 && head.width < 300) {
        set.crop = CROP_RESIZE;
        set.height = head.height;
        set.width = head.width;
    }
    for (int i = 0; i < RANDOM_DRAWS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        draws[i] = (double)(random >> 11) / 9007199254740992.0;
    }
    const size_t bytes = (size_t)set.height * (size_t)set.width * (size_t)set.channels;
    unsigned char *out = malloc(bytes);
    self->views[0].set = &set;
    self->views[0].draws = draws;
    self->views[0].flip = asked[5] & 3;
    self->views[0].out = out;
    if (decode_and_finish(self, copy, size, 1, &ending) == NULL) {
        volatile unsigned sum = 0;
        for (size_t i = 0; i < bytes; i++)
            sum = sum + (out[i] > 128);
    }
    free(copy);
    free(out);
    if ((random & 0x3F) == 0) { /* now and then a new decoder, so that leaks are seen */
        decoder_free(self);
        self = NULL;
    }
    return 0;
}

static void put_size(uint8_t *at, size_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    size = LLVMFuzzerMutate(data, size, most);
    if (seed % 3 == 0 || size < 30 + ASKED)
        return size;
    size -= (size - ASKED) & 1;
    const size_t end = size - ASKED;
    memcpy(data, "RIFF", 4);
    memcpy(data + 8, "WEBP", 4);
    put_size(data + 4, end - 8);
    for (size_t at = 12; at + 8 <= end;) {
        size_t n = little_endian(data + at + 4);
        if (n > end - at - 8)
            put_size(data + at + 4, n = end - at - 8);
        at += 8 + n + (n & 1);
    }
    return size;
}
