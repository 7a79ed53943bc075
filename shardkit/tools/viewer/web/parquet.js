// The index: a Parquet file, of which the footer and single columns are read. Flat columns, compressed by Zstandard or
// not at all, in the encodings PLAIN, RLE_DICTIONARY and (numbers) DELTA_BINARY_PACKED: as shardkit writes them. A column
// may be given in part.

const KINDS = ["flag", "number", "number", "", "number", "number", "text", ""]; // by physical type

/** Thrift's compact protocol: a struct becomes an object whose names are the field numbers. */
class Thrift {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
    this.view = new DataView(bytes.buffer, bytes.byteOffset);
  }
  byte() {
    if (this.at >= this.bytes.length) throw new RangeError("it ends early");
    return this.bytes[this.at++];
  }
  varint() {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = this.byte();
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  }
  integer() {
    const value = this.varint();
    return value % 2 ? -(value + 1) / 2 : value / 2;
  }
  blob() {
    const size = this.varint(),
      begin = this.at;
    if (begin + size > this.bytes.length) throw new RangeError("it ends early");
    this.at += size;
    return this.bytes.subarray(begin, this.at);
  }
  value(type) {
    if (type === 1 || type === 2) return type === 1;
    if (type === 3) return this.byte();
    if (type < 7) return this.integer();
    if (type === 7) {
      this.at += 8;
      return this.view.getFloat64(this.at - 8, true);
    }
    if (type === 8) return this.blob();
    if (type === 9 || type === 10) return this.list();
    if (type === 12) return this.struct();
    throw new Error(`the Thrift type ${type} is not known`);
  }
  list() {
    const head = this.byte(),
      count = head >> 4 === 15 ? this.varint() : head >> 4,
      found = [];
    for (let n = 0; n < count; n++) found.push((head & 15) < 3 ? this.byte() === 1 : this.value(head & 15));
    return found;
  }
  struct() {
    const found = {};
    for (let id = 0; ;) {
      const head = this.byte();
      if (head === 0) return found;
      id = head >> 4 ? id + (head >> 4) : this.integer();
      found[id] = this.value(head & 15);
    }
  }
}

const utf8 = new TextDecoder();
const wordAt = (bytes, at) => (bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)) >>> 0;

/** What the footer says: {columns: [{name, kind, …}], groups: [{rows, columns: {name: where and how}}], metadata}. */
function readFooter(bytes) {
  const meta = new Thrift(bytes).struct(),
    columns = [],
    root = meta[2][0];
  for (let at = 1, left = root[5]; left > 0; left--) {
    const element = meta[2][at];
    const flat = !element[5] && element[3] !== 2;
    const unit = unitOf(element);
    const kind = !flat
      ? ""
      : unit
        ? "time"
        : element[6] === 14
          ? "wide"
          : KINDS[element[1]] === "text" && !isText(element)
            ? ""
            : KINDS[element[1]] || "";
    columns.push({
      name: utf8.decode(element[4]),
      kind,
      type: element[1],
      unsigned: element[6] === 13,
      nullable: element[3] === 1,
      unit,
      utc: element[10]?.[8] ? element[10][8][1] === true : element[6] === 9 || element[6] === 10,
    });
    for (let inside = 1; inside > 0; at++) inside += (meta[2][at][5] || 0) - 1;
  }
  const byName = new Map(columns.map((column) => [column.name, column]));
  const groups = meta[4].map((group) => {
    const found = new Map();
    for (const { 3: chunk } of group[1]) {
      if (chunk[3].length !== 1) continue;
      const column = byName.get(utf8.decode(chunk[3][0]));
      const begin = chunk[11] > 0 ? Math.min(chunk[11], chunk[9]) : chunk[9];
      found.set(column.name, {
        column,
        begin,
        end: begin + chunk[7],
        codec: chunk[4],
        rows: group[3],
        range: rangeOf(column, chunk[12]),
      });
    }
    return { rows: group[3], columns: found };
  });
  const metadata = new Map((meta[5] || []).map(({ 1: name, 2: value }) => [utf8.decode(name), utf8.decode(value)]));
  return { columns, groups, metadata };
}

/** The milliseconds of a unit of dates (DATE) or points in time (TIMESTAMP_MILLIS, _MICROS); 0 for all else. */
const unitOf = (element) =>
  ({ 6: 86400000, 9: 1, 10: 0.001 })[element[6]] || (element[10]?.[8] ? unitOfTime(element[10][8]) : 0);

const unitOfTime = ({ 2: unit }) => (unit?.[1] ? 1 : unit?.[2] ? 0.001 : unit?.[3] ? 0.000001 : 0);

const isText = (element) => element[6] === 0 || Boolean(element[10] && element[10][1]);

/** The least and greatest value of a column of numbers, from its statistics; null if they are not known. */
function rangeOf(column, statistics) {
  const [low, high] = [statistics?.[6], statistics?.[5]];
  if (column.kind !== "number" || !low?.length || !high?.length) return null;
  const read = (bytes) => numbersOf(column, bytes, 1)[0];
  return [read(low), read(high)];
}

/** `count` plain numbers. */
function numbersOf({ type, unsigned }, bytes, count) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    found = new Float64Array(count);
  for (let n = 0; n < count; n++) {
    if (type === 1) found[n] = unsigned ? view.getUint32(4 * n, true) : view.getInt32(4 * n, true);
    else if (type === 2) found[n] = view.getInt32(8 * n + 4, true) * 4294967296 + view.getUint32(8 * n, true);
    else if (type === 4) found[n] = view.getFloat32(4 * n, true);
    else found[n] = view.getFloat64(8 * n, true);
  }
  return found;
}

/** Runs of equal or packed numbers (Parquet's RLE hybrid), up to `count`; fewer if the bytes end early. */
function hybrid(bytes, at, width, count) {
  const found = new Int32Array(count),
    stop = bytes.length,
    wide = (width + 7) >> 3,
    mask = 2 ** width - 1;
  let done = 0;
  if (width > 24) throw new Error("a dictionary is too large");
  while (done < count && at < stop) {
    let head = 0;
    for (let shift = 0, byte = 128; byte >= 128 && at < stop; shift += 7) {
      byte = bytes[at++];
      head |= (byte & 127) << shift;
    }
    if (head & 1) {
      const values = Math.min(count - done, (head >> 1) * 8, width ? Math.floor(((stop - at) * 8) / width) : count);
      for (let n = 0, bit = at * 8; n < values; n++, bit += width) {
        const b = bit >> 3;
        found[done++] =
          ((bytes[b] | (bytes[b + 1] << 8) | (bytes[b + 2] << 16) | (bytes[b + 3] << 24)) >>> (bit & 7)) & mask;
      }
      if (values < Math.min(count - done + values, (head >> 1) * 8)) break;
      at += (head >> 1) * width;
    } else {
      if (at + wide > stop) break;
      const end = Math.min(count, done + (head >> 1)),
        value = wordAt(bytes, at) & mask;
      if (end === done) throw new Error("an empty run");
      found.fill(value, done, end);
      done = end;
      at += wide;
    }
  }
  return found.subarray(0, done);
}

/** Whole numbers whose differences are packed (DELTA_BINARY_PACKED), `count` of them. */
function deltas(bytes, count) {
  const head = new Thrift(bytes),
    block = head.varint(),
    parts = head.varint(),
    found = new Float64Array(Math.min(count, head.varint())),
    each = block / parts;
  if (!(each >= 8 && each % 8 === 0)) throw new Error("its differences are packed in an odd way");
  let value = head.integer(),
    done = 0;
  if (found.length) found[done++] = value;
  while (done < found.length) {
    const least = head.integer(),
      widths = bytes.subarray(head.at, head.at + parts);
    head.at += parts;
    for (let part = 0; part < parts && done < found.length; part++) {
      const width = widths[part],
        begin = head.at * 8;
      head.at += (each / 8) * width;
      if (!(width <= 40) || head.at > bytes.length) throw new Error("its differences end early, or are too large");
      for (let n = 0; n < each && done < found.length; n++)
        found[done++] = value += least + bitsAt(bytes, begin + n * width, width);
    }
  }
  return found;
}

/** A number of up to 40 bits. */
function bitsAt(bytes, bit, width) {
  let value = 0;
  for (let at = bit >> 3, factor = 1; factor < 2 ** ((bit & 7) + width); at++, factor *= 256) value += bytes[at] * factor;
  return Math.floor(value / 2 ** (bit & 7)) % 2 ** width;
}

/** Texts as places in bytes: {bytes, starts, ends}. A length stands before each. */
function textsOf(bytes, from, count) {
  const starts = new Int32Array(count),
    ends = new Int32Array(count);
  let done = 0;
  for (let at = from; done < count && at + 4 <= bytes.length; done++) {
    const end = at + 4 + wordAt(bytes, at);
    if (end > bytes.length) break;
    starts[done] = at + 4;
    ends[done] = at = end;
  }
  return { bytes, starts: starts.subarray(0, done), ends: ends.subarray(0, done) };
}

/** The values of one column of a row group, as many as `bytes` hold: a Part. */
function readColumn(chunk, bytes) {
  const part = new Part(chunk.column, chunk.rows);
  let dictionary = null;
  for (let at = 0; at < bytes.length && part.count < chunk.rows;) {
    let head, body;
    try {
      const thrift = new Thrift(bytes, at);
      head = thrift.struct();
      body = thrift.at;
    } catch (error) {
      if (error instanceof RangeError) break; // the rest is not here yet
      throw error;
    }
    at = body + head[3];
    const whole = at <= bytes.length,
      packed = bytes.subarray(body, Math.min(at, bytes.length));
    if (head[1] === 2) {
      if (!whole) break;
      dictionary = plain(chunk.column, unpack(chunk.codec, packed, head[2]), 0, head[7][1]);
    } else if (head[1] === 0 || head[1] === 3) readPage(chunk, head, packed, dictionary, part);
    if (!whole) break;
  }
  return part;
}

function readPage(chunk, head, packed, dictionary, part) {
  const second = head[8],
    about = second || head[5],
    values = about[1],
    encoding = second ? second[4] : about[2];
  let data,
    at = 0,
    present = null;
  if (second) {
    const levels = second[5] + second[6];
    if (second[5]) present = hybrid(packed.subarray(second[6], levels), 0, 1, values);
    data = unpack(second[7] === false ? 0 : chunk.codec, packed.subarray(levels), head[2] - levels);
  } else {
    data = unpack(chunk.codec, packed, head[2]);
    if (chunk.column.nullable) {
      if (data.length < 4) return;
      at = 4 + wordAt(data, 0);
      if (at > data.length) return;
      present = hybrid(data.subarray(4, at), 0, 1, values);
    }
  }
  if (present && present.every((one) => one === 1)) present = null;
  if (encoding === 3 && chunk.column.kind === "flag")
    part.add(Float64Array.from(hybrid(data, at + 4, 1, values)), present);
  else if (encoding === 5 && chunk.column.kind === "number") part.add(deltas(data.subarray(at), values), present);
  else if (encoding === 0) part.add(plain(chunk.column, data, at, values), present);
  else if ((encoding === 2 || encoding === 8) && dictionary) {
    const numbers = at < data.length ? hybrid(data, at + 1, data[at], values) : new Int32Array(0);
    part.add(chosen(dictionary, numbers), present);
  } else throw new Error(`its column ${chunk.column.name} has an encoding (${encoding}) that this page can't read`);
}

function unpack(codec, bytes, size) {
  if (codec === 0) return bytes;
  if (codec !== 6) throw new Error(`its compression (${codec}) is not Zstandard; write it again with shardkit index`);
  if (size > 1 << 28) throw new Error("a page is too large");
  return unzstd(bytes, size);
}

const WIDTHS = [0, 4, 8, 0, 4, 8];

function plain(column, data, at, count) {
  const bytes = data.subarray(at);
  if (column.kind === "text") return textsOf(data, at, count);
  if (column.kind === "flag")
    return Float64Array.from({ length: Math.min(count, bytes.length * 8) }, (_, n) => (bytes[n >> 3] >> (n & 7)) & 1);
  const there = Math.min(count, Math.floor(bytes.length / WIDTHS[column.type]));
  if (column.kind === "wide") {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return BigUint64Array.from({ length: there }, (_, n) => view.getBigUint64(8 * n, true));
  }
  return numbersOf(column, bytes, there);
}

function chosen(dictionary, numbers) {
  const most = (dictionary.starts || dictionary).length;
  for (const number of numbers) if (number >= most) throw new Error("a number beyond its dictionary");
  if (dictionary.starts) {
    const pick = (from) => Int32Array.from(numbers, (number) => from[number]);
    return { bytes: dictionary.bytes, starts: pick(dictionary.starts), ends: pick(dictionary.ends) };
  }
  return dictionary.constructor.from(numbers, (number) => dictionary[number]);
}

/** Some first rows of a column in one row group. Null is NaN, and the text null. */
class Part {
  constructor(column, rows) {
    this.column = column;
    this.rows = rows;
    this.count = 0;
    this.pages = []; // [first row, values]
    if (column.kind !== "text")
      this.values = column.kind === "wide" ? new BigUint64Array(rows) : new Float64Array(rows);
  }
  add(values, present) {
    const there = (values.starts || values).length;
    let rows = there;
    if (present) {
      let seen = 0;
      for (rows = 0; rows < present.length && (seen < there || !present[rows]); rows++) seen += present[rows];
    }
    rows = Math.min(rows, this.rows - this.count);
    if (this.column.kind === "text") this.pages.push([this.count, present ? spread(values, present, rows) : values]);
    else
      for (let row = 0, next = 0; row < rows; row++) {
        const none = present && !present[row];
        this.values[this.count + row] = none ? (this.column.kind === "wide" ? 0n : NaN) : values[next++];
      }
    this.count += rows;
  }
  /** [bytes, start, end] of a text; start is -1 for null. */
  place(row) {
    let page = this.pages.length - 1;
    while (this.pages[page][0] > row) page--;
    const [first, { bytes, starts, ends }] = this.pages[page];
    return [bytes, starts[row - first], ends[row - first]];
  }
  /** A number, text, BigInt, or null. */
  get(row) {
    if (this.column.kind === "text") {
      const [bytes, start, end] = this.place(row);
      return start < 0 ? null : utf8.decode(bytes.subarray(start, end));
    }
    const value = this.values[row];
    return Number.isNaN(value) ? null : value;
  }
}

function spread({ bytes, starts, ends }, present, rows) {
  const found = { bytes, starts: new Int32Array(rows).fill(-1), ends: new Int32Array(rows) };
  for (let row = 0, next = 0; row < rows; row++)
    if (present[row]) {
      found.starts[row] = starts[next];
      found.ends[row] = ends[next++];
    }
  return found;
}
