// Datasets: a manifest, and the columns of its index, of which parts are read when they are needed.

const WHOLE = 192 * 1024; // an index file, or a column of a row group, up to this size is read at once
const FIRST = 48 * 1024; // what is read of a larger column at first
const GAP = 24 * 1024; // ranges as close as this are read together
const TAIL = 64 * 1024; // a footer is rarely larger

class IndexFile {
  constructor(url, entry) {
    this.url = url;
    this.bytes = entry.bytes;
    this.shards = entry.shards;
    this.whole = null;
    this.opened = null;
  }
  footer() {
    this.opened ??= this.open().catch((error) => {
      this.opened = null;
      throw error;
    });
    return this.opened;
  }
  async open() {
    const begin = this.bytes <= WHOLE ? 0 : this.bytes - TAIL;
    let tail = await readRange(this.url, begin, this.bytes, this.bytes);
    if (begin === 0) this.whole = tail;
    const mark = tail.length - 8,
      size = tail.length >= 12 ? wordAt(tail, mark) : 0;
    if (utf8.decode(tail.subarray(-4)) !== "PAR1" || size > this.bytes - 12)
      throw this.damaged("it is not a Parquet file");
    if (size > mark) tail = await readRange(this.url, this.bytes - 8 - size, this.bytes, this.bytes);
    try {
      const found = readFooter(tail.subarray(tail.length - 8 - size, tail.length - 8));
      if (found.groups.length !== this.shards)
        throw new Error(`${found.groups.length} row groups for ${this.shards} shards`);
      return found;
    } catch (error) {
      throw this.damaged(error.message);
    }
  }
  damaged(what) {
    return new PageError(
      `The index ${shown(this.url)} can't be read: ${what}`,
      "Run shardkit verify; shardkit index writes a new one.",
      { code: "index" },
    );
  }
  async read(begin, end) {
    return this.whole ? this.whole.subarray(begin, end) : readRange(this.url, begin, end, this.bytes);
  }
}

/** The samples of one shard that are not deleted: rows `first` to `first + rows` of all datasets on the page. */
class Group {
  constructor(dataset, place, file, number, first) {
    const shard = dataset.manifest.shards[place];
    this.dataset = dataset;
    this.place = place; // the number of the shard in its dataset
    this.file = file;
    this.number = number; // and in its index file
    this.first = first;
    this.packedRows = shard.samples;
    this.rows = shard.samples - (dataset.overlay?.deleted.get(place) ?? 0);
    this.shard = {
      url: dataset.shardUrl(shard.name),
      bytes: shard.bytes,
      name: shard.name,
      version: dataset.versions[place] ?? null,
    };
    this.packed = dataset.packed[place] > 0;
    this.chunks = new Map();
    this.turn = Promise.resolve();
  }
  /** The values of a column that have been read, or nothing. */
  part(name) {
    return this.chunks.get(name)?.part;
  }
  has(names, rows) {
    return names.every((name) => {
      const chunk = this.chunks.get(name);
      return chunk && (chunk.absent || chunk.part?.count >= rows);
    });
  }
  /** Read columns up to a number of rows. */
  async load(names, rows = this.rows) {
    if (this.has(names, rows)) return;
    const mine = this.turn.then(() => this.fetchParts(names, rows));
    this.turn = mine.catch(() => {});
    await mine;
  }
  async where(name) {
    const { groups } = await this.file.footer(),
      found = groups[this.number];
    if (found.rows !== this.packedRows)
      throw this.file.damaged(`${found.rows} rows for the ${this.packedRows} samples of ${this.shard.name}`);
    return found.columns.get(name);
  }
  /** The least and greatest value of a column as it is shown; null if they are not known. */
  range(place) {
    return place.column.name === "label" && this.dataset.overlay ? null : place.range;
  }
  async fetchParts(names, rows) {
    const corrections = (await this.dataset.overlay?.of(this.place)) ?? null,
      needed = corrections?.kept && rows ? corrections.kept[rows - 1] + 1 : rows; // of those as packed
    for (const name of names) {
      if (this.chunks.has(name)) continue;
      const place = this.dataset.added.has(name) ? null : await this.where(name);
      this.chunks.set(name, place?.column.kind ? { place, got: new Uint8Array(0), part: null } : { absent: true });
    }
    for (;;) {
      const wanted = [];
      for (const chunk of names.map((name) => this.chunks.get(name))) {
        if (chunk.absent || (chunk.part?.count ?? 0) >= rows) continue;
        const { begin, end } = chunk.place,
          size = end - begin,
          have = chunk.got.length;
        if (have >= size) throw this.file.damaged(`a column of ${this.shard.name} is too short`);
        const guess = Math.max(FIRST, 2 * have, Math.ceil((size * needed * 1.2) / this.packedRows) + 8192);
        wanted.push({ chunk, begin: begin + have, end: size <= WHOLE || guess > 0.8 * size ? end : begin + guess });
      }
      if (!wanted.length) return;
      await Promise.all(
        together(wanted).map(async (run) => {
          const bytes = await this.file.read(run.begin, run.end);
          for (const { chunk, begin, end } of run.parts)
            this.grow(chunk, bytes.subarray(begin - run.begin, end - run.begin), corrections);
        }),
      );
    }
  }
  grow(chunk, more, corrections) {
    const got = new Uint8Array(chunk.got.length + more.length);
    got.set(chunk.got);
    got.set(more, chunk.got.length);
    try {
      const part = readColumn(chunk.place, got);
      chunk.part = corrections ? new CorrectedPart(part, corrections) : part;
    } catch (error) {
      throw this.file.damaged(error.message);
    }
    chunk.got = chunk.part.count < this.rows ? got : new Uint8Array(0);
  }
}

function together(wanted) {
  const runs = [];
  for (const part of wanted.sort((a, b) => a.begin - b.begin)) {
    const last = runs[runs.length - 1];
    if (last && part.begin - last.end <= GAP) {
      last.parts.push(part);
      last.end = Math.max(last.end, part.end);
    } else runs.push({ begin: part.begin, end: part.end, parts: [part] });
  }
  return runs;
}

const NEWEST = 3; // the version of manifests that this page reads: CORRECTED_VERSION in shards/manifest.py

class Dataset {
  constructor({ name, manifest, shards }) {
    this.name = name;
    this.manifestUrl = new URL(manifest, document.baseURI).href;
    this.given = shards; // where the shards are, if not beside the manifest
  }
  url(name) {
    return new URL(encodeURIComponent(name), this.manifestUrl).href;
  }
  shardUrl(name) {
    return new URL(encodeURIComponent(name), this.shardsUrl).href;
  }
  /** The folder of shards that are not beside the manifest. */
  far(folder) {
    if (this.given) return new URL(this.given, document.baseURI).href;
    if (typeof folder === "string" && /^https?:/.test(folder)) return folder.replace(/\/*$/, "/");
    throw new PageError(
      `The shards of ${this.name} are elsewhere, and this page does not know where`,
      "Write the page again: shardkit view --html.",
      { code: "manifest" },
    );
  }
  async load(first) {
    const manifest = (this.manifest = {
      classes: [],
      shards: [],
      index: [],
      options: {},
      samples: 0,
      ...(await readJson(this.manifestUrl)),
    });
    if (manifest.format !== "shardkit")
      throw new PageError(`${shown(this.manifestUrl)} is not a manifest of shardkit`, "Check where the page lies.", {
        code: "manifest",
      });
    if (manifest.version > NEWEST)
      throw new PageError(
        `${this.name} has version ${manifest.version}, and this page reads versions up to ${NEWEST}`,
        "Write the page again with a newer shardkit.",
        { code: "manifest" },
      );
    if (manifest.samples && !manifest.index.length)
      throw new PageError(`${this.name} has no index`, "Run shardkit index on its shards.", { code: "manifest" });
    this.first = first;
    this.rows = manifest.samples;
    this.classes = ["multi", "number", "none"].includes(manifest.options.labels) ? [] : manifest.classes;
    this.labels = new Map(this.classes.map((each, label) => [each.name, label]));
    this.unlabelled = this.classes.length ? this.rows - this.classes.reduce((sum, each) => sum + each.count, 0) : 0;
    this.packed = manifest.options.unpacked_bytes || [];
    const { corrections, elsewhere } = manifest.options;
    this.shardsUrl = elsewhere ? this.far(elsewhere.folder) : this.manifestUrl;
    this.versions = elsewhere?.versions || [];
    this.overlay = corrections?.overlay ? new Overlay(this, corrections, manifest.shards) : null;
    // added fields are in files of their own, and win over columns of the same name
    this.added = new Set((corrections?.fields || []).flatMap((each) => Object.keys(each.columns).map((name) => `meta.${name}`)));
    this.groups = [];
    let shard = 0;
    for (const entry of manifest.index) {
      const file = new IndexFile(this.url(entry.name), entry);
      for (let number = 0; number < entry.shards; number++, shard++) {
        const group = new Group(this, shard, file, number, first);
        this.groups.push(group);
        first += group.rows;
      }
    }
    const columns = this.groups.length ? (await this.groups[0].file.footer()).columns : [];
    this.columns = columns.filter(({ name }) => !this.added.has(name));
    this.unread = [
      ...this.columns.filter(({ kind, name }) => !kind && name.startsWith("meta.")).map(({ name }) => name),
      ...this.added,
    ];
  }
}

/** All datasets of the page, whose rows have one line of numbers. */
class Collection {
  constructor(datasets) {
    this.datasets = datasets;
    this.groups = datasets.flatMap((each) => each.groups).filter((group) => group.rows);
    this.rows = datasets.reduce((sum, each) => sum + each.rows, 0);
    this.columns = new Map();
    for (const { columns } of datasets)
      for (const column of columns)
        if (column.kind && !this.columns.has(column.name)) this.columns.set(column.name, column);
  }
  /** The group of a row. */
  group(row) {
    let low = 0,
      high = this.groups.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.groups[middle].first <= row) low = middle;
      else high = middle - 1;
    }
    return this.groups[low];
  }
  /** A value that has been read; undefined if it has not. */
  value(row, name) {
    const group = this.group(row),
      part = group.part(name),
      at = row - group.first;
    return part && at < part.count ? part.get(at) : undefined;
  }
  className(row) {
    const { classes } = this.group(row).dataset,
      label = this.value(row, "label");
    if (!classes.length || label === undefined) return "";
    return label === null ? NO_LABEL : (classes[label]?.name ?? `label ${label}`);
  }
}

const NO_LABEL = "no label";
