/* Threads that list, read, take and find at once (ahead.h and ahead_files.h in shardkit/native/include/scan), for
 * ThreadSanitizer: run.sh builds and runs it. Every file holds its own name, so that what is found can be compared.
 */
#define FIRST_SLOTS 64 /* so that they become more */
#include "../../shardkit/native/include/scan/ahead_files.h"
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

/* Look at all files and read them, as a list of them is; then find them. */
static void *visitor(void *unused)
{
    static char paths[FOLDERS * FILES * 60];
    static int64_t offsets[FOLDERS * FILES + 1], sizes[FOLDERS * FILES];
    ahead_files files = {paths, offsets, FOLDERS * FILES};
    for (int i = 0; i < FOLDERS * FILES; i++) {
        offsets[i + 1] = offsets[i] + sprintf(paths + offsets[i], "%s/%02d/%03d.jpg", root, i % FOLDERS, i / FOLDERS);
        sizes[i] = NOT_LOOKED_AT;
    }
    size_t start = 0;
    for (int pass = 0; pass < 2 && ahead_enter(&ahead); pass++) {
        start = ahead_visit(&ahead, &files, sizes, start);
        ahead_leave(&ahead);
    }
    for (int i = 0; i < FOLDERS * FILES; i++)
        if (sizes[i] != NOT_LOOKED_AT && sizes[i] != offsets[i + 1] - offsets[i])
            abort();
    return unused;
}

static void *waiter(void *number)
{
    char path[200];
    if (number != NULL)
        usleep(1000);
    ahead.hurried = 1;
    usleep(1000);
    ahead_end(&ahead);
    for (int i = 0; i < FOLDERS * FILES; i++) {
        const int length = snprintf(path, sizeof path, "%s/%02d/%03d.jpg", root, i % FOLDERS, i / FOLDERS);
        const uint64_t mark = mark_below("", path + 1, (size_t)length - 1);
        const uint8_t *found = find_file(&ahead.files, mark, "", path + 1, (size_t)length - 1, length);
        if (found != NULL && memcmp(found, path, (size_t)length) != 0)
            abort();
    }
    return NULL;
}

static size_t visit_all(int round)
{
    static const char jpg[] = "jpg";
    pthread_t threads[TAKERS];
    if (!ahead_start(&ahead, "/", (Extensions){jpg, sizeof jpg}, round % 2 ? 1 << 20 : 5000, 0, 0))
        abort();
    pthread_create(&threads[0], NULL, visitor, NULL);
    for (int number = 1; number < TAKERS; number++)
        pthread_create(&threads[number], NULL, waiter, round % 3 ? &threads[number] : NULL);
    for (int number = 0; number < TAKERS; number++)
        pthread_join(threads[number], NULL);
    const size_t read = ahead.files.count;
    ahead_free(&ahead);
    return read;
}

int main(void)
{
    static const char jpg[] = "jpg";
    size_t read = 0, visited = 0;
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
        visited += visit_all(round);
    }
    char command[60];
    snprintf(command, sizeof command, "rm -r %s", root);
    printf("%zu files of a tree and %zu of a list were read in %d rounds\n", read, visited, ROUNDS);
    return system(command) != 0 || read == 0 || visited == 0;
}
