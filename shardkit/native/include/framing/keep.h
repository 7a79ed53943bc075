/* What a Framer keeps of a sample that was taken (framing/sample.h): its bytes in the shard, and its index row. */
#ifndef SHARDKIT_FRAMING_KEEP_H
#define SHARDKIT_FRAMING_KEEP_H

#include "sample.h"

/* Put what the index needs of a sample besides numbers and texts into lists; the last step that can fail. */
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
        self->jpegs += now->jpeg;
        self->progressive += now->progressive;
    }
    self->keys_of_rows.ends[self->rows] = (int64_t)self->keys_of_rows.length;
    self->paths_of_rows.ends[self->rows] = (int64_t)self->paths_of_rows.length;
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

/* Put the texts of a sample behind those of the others, for which there must be room. */
static void keep_texts(Framer *self, const frame_sample *sample)
{
    text_column *keys = &self->keys_of_rows;
    memcpy(keys->bytes + keys->length, sample->key, sample->key_length);
    keys->length += sample->key_length;
    self->paths_of_rows.length += sample->path_length; /* take_path put it there */
}

/* Put the sample into the block that is filled, and between its bytes the data that is apart. */
static void keep_bytes(Framer *self, job *now, block *to, int64_t size)
{
    frame_sample *sample = &now->sample;
    uint8_t *out = to->bytes + to->length;
    const size_t put = self->records ? record_put(out, sample) : tar_put(out, &self->pattern, sample);
    for (int i = 0; i < sample->count; i++)
        if (sample->parts[i].apart)
            insert_bytes(to, to->length + sample->parts[i].cut, now->data[i]);
    to->length += put;
    to->size += (size_t)size;
}

/* Room for everything that is kept of a sample of `size` bytes. */
static int make_rooms(Framer *self, const frame_sample *sample, block *to, int64_t size)
{
    size_t apart = 0, insertions = 0;
    text_column *keys = &self->keys_of_rows;
    for (int i = 0; i < sample->count; i++)
        if (sample->parts[i].apart) {
            apart += sample->parts[i].size;
            insertions++;
        }
    if (block_room(to, (size_t)size - apart, insertions) != NULL &&
        grow((void **)&keys->bytes, &keys->room, keys->length + sample->key_length, 1))
        return 1;
    PyErr_NoMemory();
    return -1;
}

static int keep_sample(Framer *self, job *now)
{
    frame_sample *sample = &now->sample;
    output *out = &self->output->out;
    const int64_t size = self->records ? record_measured(sample) : tar_measured(sample);
    if (size == 0 || self->position + size > self->limit || self->samples_left == 0)
        return 0;
    int went = output_ready(out); /* if writing has failed, Python raises it */
    if (went != 1)
        return went;
    block *to = output_filling(out);
    went = make_rooms(self, sample, to, size);
    if (went != 1)
        return went;
    mark wanted = {0, 0};
    if (self->keys != NULL) {
        wanted = siphash(self->keys->set.secret, (const uint8_t *)sample->key, sample->key_length);
        if (has_mark(&self->keys->set, wanted))
            return 0;
    }
    went = keep_objects(self, now);
    if (went != 1)
        return went;
    if (self->keys != NULL)
        put_mark(&self->keys->set, wanted);
    keep_texts(self, sample);
    keep_bytes(self, now, to, size);
    keep_row(self, now, size);
    if (to->size >= BLOCK_BYTES)
        output_give(out, 0);
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
        went = take_path(self, now, path);
    if (went == 1)
        went = take_data(self, now);
    if (went == 1)
        went = take_image(self, now);
    return went == 1 ? keep_sample(self, now) : went;
}

#endif
