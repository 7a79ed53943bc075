/* The thread that writes a shard (shardkit/native/include/framing/output.h), for ThreadSanitizer: run.sh builds and runs
 * it. What is in the file must be what was given, also if it ends early, and its CRC-32C that of its bytes.
 */
#include "../../shardkit/native/include/framing/output.h"
#include <stdio.h>

enum { ROUNDS = 300, LARGEST = 3 << 19, STEPS = 40 };

static uint8_t source[LARGEST];
static unsigned seed = 1;

static unsigned draw(unsigned limit)
{
    seed = seed * 1103515245u + 12345u;
    return (seed >> 8) % limit;
}

static void wait_for(output *self, int all)
{
    while (!output_has_room(self, all))
        ;
}

/* As output_object.h does, without Python's objects. */
static void fill(output *self, FILE *wanted)
{
    wait_for(self, 0);
    block *to = output_filling(self);
    to->length = to->size = to->count = 0;
    if (!grow((void **)&to->bytes, &to->room, LARGEST, 1) ||
        !grow((void **)&to->insertions, &to->insertion_room, STEPS, sizeof(insertion)))
        abort();
    for (int step = 0; step < STEPS; step++) {
        const size_t size = draw(4) ? draw(3000) : draw(LARGEST / STEPS), from = draw(LARGEST - LARGEST / STEPS);
        if (fwrite(source + from, 1, size, wanted) != size)
            abort();
        if (draw(3)) {
            memcpy(to->bytes + to->length, source + from, size);
            to->length += size;
        } else {
            to->insertions[to->count++] = (insertion){to->length, source + from, size, NULL};
        }
        to->size += size;
    }
    output_give(self, draw(20) == 0);
}

static void compare(const output *self, FILE *found, FILE *wanted)
{
    uint8_t one[4096], other[4096];
    uint32_t crc = 0;
    int64_t length = 0;
    rewind(found);
    rewind(wanted);
    for (size_t count; (count = fread(one, 1, sizeof one, found)) > 0; length += (int64_t)count) {
        if (fread(other, 1, count, wanted) != count || memcmp(one, other, count) != 0)
            abort();
        crc = crc32c(crc, one, count);
    }
    if (length != self->length || crc != self->crc)
        abort();
}

int main(void)
{
    if (!crc32c_setup())
        return 0;
    for (size_t i = 0; i < LARGEST; i++)
        source[i] = (uint8_t)draw(256);
    int64_t bytes = 0;
    for (int round = 0; round < ROUNDS; round++) {
        FILE *found = tmpfile(), *wanted = tmpfile(), *full = fopen("/dev/full", "w");
        output self;
        if (found == NULL || wanted == NULL || full == NULL)
            abort();
        output_start(&self, fileno(round % 10 == 9 ? full : found));
        for (int blocks = (int)draw(30); blocks >= 0; blocks--)
            fill(&self, wanted);
        if (round % 4 != 3) {
            wait_for(&self, 1);
            output_join(&self);
        }
        if (round % 10 == 9 && round % 4 != 3 && output_failed(&self) != ENOSPC)
            abort();
        output_stop(&self);
        compare(&self, found, wanted);
        bytes += self.length;
        output_free(&self);
        fclose(found);
        fclose(wanted);
        fclose(full);
    }
    printf("%lld bytes were written in %d rounds\n", (long long)bytes, ROUNDS);
    return bytes == 0;
}
