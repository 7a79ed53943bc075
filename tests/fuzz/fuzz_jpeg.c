/* libFuzzer target for the fused JPEG decoder (shardkit/reading/_jpeg.c); run.sh builds and runs it.
 *
 * An input is a JPEG and, after it, six bytes that say what is asked of it: height, width, crop and channels,
 * headroom, and two that the random crop and the flip come from. */
#define SHARDKIT_NO_PYTHON
#include "../../shardkit/reading/_jpeg.c"

static decoder *self;

static void finish(void)
{
    if (self != NULL)
        decoder_free(self);
    self = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const double headrooms[4] = {0.25, 1, 1.5, 1e9};
    double draws[RANDOM_DRAWS];
    settings set = {.max_pixels = 1 << 20, .max_scans = 20};
    if (self == NULL && (self = decoder_new()) == NULL)
        abort();
    if (size < 6)
        return 0;
    const uint8_t *asked = data + size - 6;
    uint64_t random = (uint64_t)asked[4] << 8 | asked[5] | 1 << 20;
    int height, width;
    size_t frame;
    set.height = 1 + asked[0] % 100;
    set.width = 1 + asked[1] % 100;
    set.crop = asked[2] % 3;
    set.channels = asked[2] & 64 ? 1 : 3;
    set.headroom = headrooms[asked[3] % 4];
    if (asked[3] & 128 && find_frame(data, size, &height, &width, &frame) == NULL && height < 300 && width < 300) {
        set.crop = CROP_RESIZE; /* the way without resizing */
        set.height = height;
        set.width = width;
    }
    for (int i = 0; i < RANDOM_DRAWS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        draws[i] = (double)(random >> 11) / 9007199254740992.0;
    }
    size_t bytes = (size_t)set.height * set.width * set.channels;
    unsigned char *out = malloc(bytes);
    const char *reason = decode(self, data, size, &set, draws, asked[5] & 1, out);
    volatile unsigned sum = 0;
    if (reason == NULL) /* every byte was written: MemorySanitizer and valgrind would tell */
        for (size_t i = 0; i < bytes; i++)
            if (out[i] > 128)
                sum = sum + 1;
    free(out);
    if ((random & 0x3F) == 0)
        finish(); /* now and then a new decoder, so that leaks are seen */
    return 0;
}

#ifdef REPLAY
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
    finish();
    return 0;
}
#endif
