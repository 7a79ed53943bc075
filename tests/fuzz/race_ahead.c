/* Threads that list, read, take and find at once (shardkit/native/include/scan/ahead.h), for ThreadSanitizer: run.sh builds and runs
 * it. Every file holds its own name, so that what is found can be compared.
 */
#define FIRST_SLOTS 64 /* so that they become more */
#include "../../shardkit/native/include/scan/ahead.h"
#include <stdio.h>

enum { FOLDERS = 12, FILES = 60, TAKERS = 3, ROUNDS = 200 };

static char root[] = "/tmp/race-ahead-XXXXXX";
static Ahead ahead;
static int patient; /* whether what was passed over may be read too */

static void set_up(void)
{
    char path[200];
    if (mkdtemp(root) == NULL)
        abort();
    for (int folder = 0; folder < FOLDERS; folder++) {
        snprintf(path, sizeof path, "%s/%02d", root, folder);
        mkdir(path, 0700);
        for (int number = 0; number < FILES; number++) {
            snprintf(path, sizeof path, "%s/%02d/%03d.jpg", root, folder, number);
            FILE *file = fopen(path, "w");
            if (file == NULL || fputs(path, file) < 0 || fclose(file) != 0)
                abort();
        }
    }
}

static void *lister(void *unused)
{
    ahead_run(&ahead);
    return unused;
}

static void *taker(void *number)
{
    char path[200], whole[400];
    for (int folder = (int)(intptr_t)number; folder < FOLDERS; folder += TAKERS) {
        Names names = {0};
        snprintf(path, sizeof path, "%02d", folder);
        if (ahead_take(&ahead, path, &names) && names.count != FILES)
            abort();
        free_names(&names);
    }
    if (patient)
        usleep(3000);
    ahead_end(&ahead);
    for (int folder = 0; folder < FOLDERS; folder++)
        for (int file = 0; file < FILES; file++) {
            const int length = snprintf(path, sizeof path, "%02d/%03d.jpg", folder, file);
            const int size = snprintf(whole, sizeof whole, "%s/%s", root, path);
            const uint64_t mark = mark_below("", path, (size_t)length);
            fetch_slot(&ahead.files, mark);
            fetch_record(&ahead.files, mark);
            const uint8_t *found = find_file(&ahead.files, mark, "", path, (size_t)length, size);
            if (found != NULL && memcmp(found, whole, (size_t)size) != 0)
                abort();
        }
    return NULL;
}

int main(void)
{
    static const char jpg[] = "jpg";
    size_t read = 0;
    set_up();
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[TAKERS + 1];
        const size_t room = round % 3 == 0 ? 0 : round % 3 == 1 ? 5000 : 1 << 20;
        if (!ahead_start(&ahead, root, (Extensions){jpg, sizeof jpg}, room, round % 5 ? SIZE_MAX : 100, 2))
            abort();
        patient = round % 4 == 3;
        pthread_create(&threads[0], NULL, lister, NULL);
        if (round % 2)
            usleep(1000);
        for (int number = 0; number < TAKERS; number++)
            pthread_create(&threads[number + 1], NULL, taker, (void *)(intptr_t)number);
        for (int number = 0; number <= TAKERS; number++)
            pthread_join(threads[number], NULL);
        read += ahead.files.count;
        ahead_free(&ahead);
    }
    char command[60];
    snprintf(command, sizeof command, "rm -r %s", root);
    printf("%zu files were read in %d rounds\n", read, ROUNDS);
    return system(command) != 0 || read == 0;
}
