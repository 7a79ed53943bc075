// Images: those on the screen are read first, neighbours in one request; what was scrolled away is aborted.

const NEIGHBOURS = 8 * 1024; // bytes between two images that are read together
const TOGETHER = 128 * 1024; // bytes of a request for several images, so that the first ones appear early
const KEPT_BYTES = 96e6;
const KEPT_IMAGES = 3000;

const STARTS = [
  ["image/jpeg", [0xff, 0xd8]],
  ["image/png", [0x89, 0x50, 0x4e, 0x47]],
  ["image/gif", [0x47, 0x49, 0x46, 0x38]],
  ["image/bmp", [0x42, 0x4d]],
  ["image/webp", [0x52, 0x49, 0x46, 0x46]],
];

/** The type of an image that browsers show, by its first bytes; "" for others. */
function typeOf(bytes) {
  for (const [type, start] of STARTS) if (start.every((byte, at) => bytes[at] === byte)) return type;
  return utf8.decode(bytes.subarray(4, 8)) === "ftyp" && utf8.decode(bytes.subarray(8, 11)) === "avi"
    ? "image/avif"
    : "";
}

class Images {
  constructor(collection, columns, ready) {
    this.collection = collection;
    this.columns = columns;
    this.ready = ready;
    this.kept = new Map();
    this.bytes = 0;
    this.batches = new Set();
    this.loading = new Map();
    this.wanted = new Set();
  }
  /** What is known of a row's image: {url, type, bytes} or {error}; undefined if it is not here yet. */
  get(row) {
    return this.kept.get(row);
  }
  failed(row) {
    this.kept.set(row, { ...this.kept.get(row), error: "The browser can't decode this image." });
  }
  retry() {
    for (const [row, image] of this.kept) if (image.error && !image.url) this.kept.delete(row);
  }

  /** Read the images of these rows, in this order, and no others. */
  want(rows) {
    this.wanted = new Set(rows);
    for (const batch of this.batches) if (!batch.rows.some((row) => this.wanted.has(row))) batch.stop.abort();
    const pending = new Set([...this.batches].flatMap((batch) => (batch.stop.signal.aborted ? [] : batch.rows)));
    const here = [],
      places = new Map();
    for (const row of rows) {
      if (this.kept.has(row)) {
        const image = this.kept.get(row);
        this.kept.delete(row);
        this.kept.set(row, image);
        continue;
      }
      if (pending.has(row)) continue;
      const group = this.collection.group(row),
        at = row - group.first;
      if (group.has(this.columns, at + 1)) here.push([row, group, at]);
      else places.set(group, Math.max(places.get(group) || 0, at + 1));
    }
    for (const [group, count] of places) this.loadRows(group, count);
    for (const batch of this.plan(here, rows)) this.start(batch);
    const without = here.map(([row]) => row).filter((row) => this.kept.has(row));
    if (without.length) this.ready(without);
  }

  async loadRows(group, count) {
    if (this.loading.get(group) >= count) return;
    this.loading.set(group, count);
    try {
      await group.load(this.columns, count);
    } catch (error) {
      this.fail(
        [...this.wanted].filter((row) => this.collection.group(row) === group),
        error,
      );
    } finally {
      if (this.loading.get(group) === count) this.loading.delete(group);
    }
    this.ready(null);
    this.want([...this.wanted]);
  }

  plan(here, order) {
    const found = [],
      rank = new Map(order.map((row, at) => [row, at]));
    for (const [row, group, at] of here) {
      const begin = group.part("image_offset").values[at],
        size = group.part("image_size").values[at];
      if (group.packed)
        this.keep(row, { error: `${group.shard.name} is compressed: its images can't be read by themselves.` });
      else if (Number.isNaN(begin) || Number.isNaN(size)) this.keep(row, { error: "This sample has no image." });
      else if (size <= 0) this.keep(row, { error: "The image has no bytes." });
      else found.push({ row, group, begin, end: begin + size });
    }
    found.sort((a, b) => a.group.first - b.group.first || a.begin - b.begin);
    const batches = [];
    for (const image of found) {
      const last = batches[batches.length - 1];
      const near = last?.group === image.group && image.begin >= last.begin && image.begin - last.end <= NEIGHBOURS;
      if (near && image.end - last.begin <= TOGETHER) {
        last.images.push(image);
        last.end = Math.max(last.end, image.end);
      } else
        batches.push({
          group: image.group,
          begin: image.begin,
          end: image.end,
          images: [image],
          stop: new AbortController(),
        });
    }
    for (const batch of batches) {
      batch.rows = batch.images.map(({ row }) => row);
      batch.rank = Math.min(...batch.rows.map((row) => rank.get(row)));
    }
    return batches.sort((a, b) => a.rank - b.rank);
  }

  async start(batch) {
    this.batches.add(batch);
    const { url, bytes: total, version } = batch.group.shard;
    try {
      if (batch.end > total) throw changed(url);
      const bytes = await readRange(url, batch.begin, batch.end, total, batch.stop.signal, version);
      for (const { row, begin, end } of batch.images) {
        const own = bytes.subarray(begin - batch.begin, end - batch.begin),
          type = typeOf(own);
        const blob = new Blob([own], { type });
        this.keep(row, { url: URL.createObjectURL(blob), blob, bytes: own.length, type });
      }
    } catch (error) {
      if (!batch.stop.signal.aborted) this.fail(batch.rows, error);
    } finally {
      this.batches.delete(batch);
    }
    if (!batch.stop.signal.aborted) this.ready(batch.rows);
  }

  fail(rows, error) {
    for (const row of rows) this.keep(row, { error: error.message });
    tell(error);
  }

  keep(row, image) {
    this.kept.set(row, image);
    this.bytes += image.bytes || 0;
    for (const [old, each] of this.kept) {
      if (this.bytes <= KEPT_BYTES && this.kept.size <= KEPT_IMAGES) break;
      if (this.wanted.has(old)) continue;
      this.kept.delete(old);
      this.bytes -= each.bytes || 0;
      if (each.url) URL.revokeObjectURL(each.url);
    }
  }
}
