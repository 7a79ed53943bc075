// Corrections: the overlay of a dataset, as shards/corrections/overlay.py writes it. Shards and index are as packed; what
// was deleted or has another label is in a Parquet file of its own, which is read whole.

class Overlay {
  constructor(dataset, { version, overlay, deleted }, shards) {
    this.dataset = dataset;
    this.entry = overlay;
    this.samples = shards.map((shard) => shard.samples);
    this.deleted = new Map(deleted);
    if (version < 2 || !overlay.bytes) throw this.damaged("the manifest does not say how samples are corrected");
  }
  damaged(what) {
    return new PageError(
      `The corrections ${this.entry?.name ?? ""} can't be read: ${what}`,
      "Restore the file, or open another version: NAME@N.",
      { code: "overlay" },
    );
  }
  /** {kept, labels} of a shard: the rows that are left, or null for all, and new labels by their place among these. */
  async of(shard) {
    this.reading ??= this.read().catch((error) => {
      this.reading = null;
      throw error;
    });
    return (await this.reading).get(shard) ?? null;
  }
  async read() {
    const bytes = await readRange(this.dataset.url(this.entry.name), 0, this.entry.bytes, this.entry.bytes);
    if (crc32c(bytes) !== parseInt(this.entry.crc32c, 16)) throw this.damaged("it is not the one that the manifest names");
    let columns;
    try {
      columns = this.columns(bytes);
    } catch (error) {
      throw error instanceof PageError ? error : this.damaged(error.message);
    }
    return this.byShard(columns);
  }
  columns(bytes) {
    const end = bytes.length - 8,
      { groups, metadata } = readFooter(bytes.subarray(end - wordAt(bytes, end), end)),
      version = metadata.get("shardkit.overlay");
    if (version !== "1")
      throw new PageError(
        `${this.entry.name} has version ${version ?? "?"}, and this page reads version 1`,
        "Write the page again with a newer shardkit.",
        { code: "overlay" },
      );
    const found = { shard: [], row: [], deleted: [], label: [] };
    for (const group of groups)
      for (const [name, values] of Object.entries(found)) {
        const place = group.columns.get(name);
        if (!place) throw new Error(`it has no column ${name}`);
        const part = readColumn(place, bytes.subarray(place.begin, place.end));
        if (part.count !== group.rows) throw new Error(`its column ${name} is too short`);
        for (let row = 0; row < part.count; row++) values.push(part.values[row]);
      }
    if (found.shard.length !== this.entry.rows) throw new Error(`it has ${found.shard.length} rows`);
    return found;
  }
  byShard({ shard, row, deleted, label }) {
    const found = new Map();
    for (let at = 0; at < shard.length;) {
      const number = shard[at],
        gone = new Set(),
        labels = new Map();
      for (let last = -1; at < shard.length && shard[at] === number; at++) {
        if (!(row[at] > last && row[at] < this.samples[number])) throw this.damaged("its rows are not in order");
        last = row[at];
        if (deleted[at]) gone.add(last);
        else if (label[at] >= 0) labels.set(last - gone.size, label[at]); // NaN is not: another kind of label
      }
      if (found.has(number)) throw this.damaged("its rows are not in order");
      if (gone.size !== (this.deleted.get(number) ?? 0)) throw this.damaged("it deletes other samples than its manifest");
      found.set(number, { kept: gone.size ? left(this.samples[number], gone) : null, labels });
    }
    for (const number of this.deleted.keys())
      if (!found.has(number)) throw this.damaged("it deletes other samples than its manifest");
    return found;
  }
}

function left(rows, gone) {
  const kept = new Int32Array(rows - gone.size);
  for (let row = 0, at = 0; row < rows; row++) if (!gone.has(row)) kept[at++] = row;
  return kept;
}

/** A column as corrected: without the rows that are deleted, and with new labels. */
class CorrectedPart extends Part {
  constructor(part, { kept, labels }) {
    super(part.column, 0);
    this.part = part;
    this.kept = kept;
    this.rows = kept ? kept.length : part.rows;
    this.count = kept ? placesBelow(kept, part.count) : part.count;
    if (part.column.kind === "text") return;
    this.values = kept
      ? part.values.constructor.from(kept.subarray(0, this.count), (row) => part.values[row])
      : part.values.slice(0, this.count);
    if (part.column.name === "label")
      for (const [row, label] of labels) if (row < this.count) this.values[row] = label;
  }
  place(row) {
    return this.part.place(this.kept ? this.kept[row] : row);
  }
}

/** How many of some rising numbers are below another. */
function placesBelow(numbers, limit) {
  let low = 0,
    high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
