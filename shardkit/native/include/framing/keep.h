/* What a Framer keeps of a sample that was taken (framing/sample.h): its bytes in the shard, and its index row. */
#ifndef SHARDKIT_FRAMING_KEEP_H
#define SHARDKIT_FRAMING_KEEP_H

#include "sample.h"

static int grow(void **memory, size_t *room, size_t wanted, size_t each)
{
    if (wanted <= *room)
        return 1;
    size_t more = *room * 2 > wanted ? *room * 2 : wanted;
    void *grown = realloc(*memory, more * each);
    if (grown == NULL)
        return 0;
    *memory = grown;
    *room = more;
    return 1;
}

/* Put what the index needs besides numbers into lists; the only step of keeping a sample that can fail. */
static int keep_objects(Framer *self, job *now)
{
    if (self->keys != NULL && !make_room(&self->keys->set)) {
        PyErr_NoMemory();
        return -1;
    }
    for (int i = 0; i < now->sample.count; i++)
        if (!now->of[i]->seen && PyList_Append(self->new_names, now->of[i]->text) < 0)
            return -1;
    for (int i = 0; i < now->sample.count; i++)
        now->of[i]->seen = 1;
    if (PyList_Append(self->row_keys, now->key) < 0 || PyList_Append(self->row_paths, now->path) < 0)
        return -1;
    if (now->kind != NULL && PyList_Append(self->types, now->kind) < 0)
        return -1;
    if (now->classes != NULL && now->sample.label < 0) {
        PyObject *done = PyObject_CallMethod(self->classes, "extend", "O", now->classes);
        Py_XDECREF(done);
        if (done == NULL)
            return -1;
    }
    return 1;
}

static void keep_row(Framer *self, job *now, int64_t size)
{
    const frame_part *image = now->image < 0 ? NULL : now->parts + now->image;
    int64_t row[COLUMNS] = {now->sample.label, self->position, size, -1, -1, 0, 0, 0};
    if (image != NULL) {
        row[3] = self->position + image->at;
        row[4] = (int64_t)image->size;
        row[5] = now->width;
        row[6] = now->height;
        row[7] = crc32c(0, image->data, image->size);
        if (now->kind == NULL)
            now->of[now->image]->jpegs++;
    }
    for (int column = 0; column < COLUMNS; column++)
        self->columns[column][self->rows] = row[column];
    self->rows++;
    self->position += size;
    self->pending += size;
    self->number++;
    self->samples_left--;
    if (now->sample.label > self->most)
        self->most = now->sample.label;
}

/* Put the sample into the buffer, and remember the data that goes between. */
static int keep_sample(Framer *self, job *now)
{
    frame_sample *sample = &now->sample;
    int64_t size = self->records ? record_measured(sample) : tar_measured(sample);
    if (size == 0 || self->position + size > self->limit || self->samples_left == 0)
        return 0;
    size_t apart = 0, cuts = 0;
    for (int i = 0; i < sample->count; i++)
        if (sample->parts[i].apart) {
            apart += sample->parts[i].size;
            cuts++;
        }
    if (!grow((void **)&self->bytes, &self->room, self->length + (size_t)size - apart, 1) ||
        !grow((void **)&self->cuts, &self->cut_room, self->cut_count + cuts, sizeof(cut))) {
        PyErr_NoMemory();
        return -1;
    }
    mark wanted = {0, 0};
    if (self->keys != NULL) {
        wanted = siphash(self->keys->set.secret, (const uint8_t *)sample->key, sample->key_length);
        if (has_mark(&self->keys->set, wanted))
            return 0;
    }
    int went = keep_objects(self, now);
    if (went != 1)
        return went;
    if (self->keys != NULL)
        put_mark(&self->keys->set, wanted);
    uint8_t *to = self->bytes + self->length;
    size_t put = self->records ? record_put(to, sample) : tar_put(to, &self->pattern, sample);
    for (int i = 0; i < sample->count; i++)
        if (sample->parts[i].apart) {
            Py_INCREF(now->data[i]);
            self->cuts[self->cut_count++] = (cut){self->length + sample->parts[i].cut, now->data[i]};
        }
    self->length += put;
    keep_row(self, now, size);
    return 1;
}

static int add_sample(Framer *self, job *now, PyObject *sample, PyObject *path)
{
    int went = take_items(now, sample);
    if (went == 1)
        went = sort_items(self, now);
    now->sample.parts = now->parts;
    if (went == 1)
        went = take_key(self, now);
    if (went == 1)
        went = take_label(self, now);
    if (went == 1)
        went = take_text(self, now);
    if (went == 1)
        went = take_path(now, path);
    if (went == 1)
        went = take_data(self, now);
    if (went == 1)
        went = take_image(self, now);
    return went == 1 ? keep_sample(self, now) : went;
}

#endif
