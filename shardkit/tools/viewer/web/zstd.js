// Zstandard (RFC 8878), without dictionaries: pages of the index are compressed with it, and browsers bring no decoder.
// A source that ends early gives the blocks that are whole, so that the first rows of a large page can be shown early.

const FRAME = 0xfd2fb528;
const LITERAL_BASE = [
  16, 18, 20, 22, 24, 28, 32, 40, 48, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536,
];
const LITERAL_BITS = [1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const MATCH_BASE = [
  35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771, 65539,
];
const MATCH_BITS = [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
const USUAL = [
  fseTable(
    [4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1],
    6,
  ),
  fseTable([1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1], 5),
  fseTable([1, 4, 3, 2, 2, 2, 2, 2, 2, ...Array(37).fill(1), -1, -1, -1, -1, -1, -1, -1], 6),
]; // of literal lengths, offsets and match lengths
const SYMBOLS = [36, 32, 53];
const MOST_LOG = [9, 8, 9];

function damaged(what) {
  return new Error(`the compressed data is damaged (${what})`);
}

function topBit(number) {
  return 31 - Math.clz32(number);
}

/** A table for finite-state entropy: for each state the symbol, the bits to read, and the base of the next state. */
function fseTable(counts, log) {
  const size = 1 << log,
    symbol = new Uint8Array(size),
    bits = new Uint8Array(size),
    base = new Uint16Array(size);
  const next = new Int32Array(counts.length);
  let high = size;
  counts.forEach((count, each) => {
    if (count === -1) {
      symbol[--high] = each;
      next[each] = 1;
    }
  });
  const step = (size >> 1) + (size >> 3) + 3;
  let at = 0;
  counts.forEach((count, each) => {
    if (count > 0) next[each] = count;
    for (let left = count; left > 0; left--) {
      symbol[at] = each;
      do at = (at + step) & (size - 1);
      while (at >= high);
    }
  });
  for (let state = 0; state < size; state++) {
    const number = next[symbol[state]]++;
    bits[state] = log - topBit(number);
    base[state] = (number << bits[state]) - size;
  }
  return { log, symbol, bits, base };
}

/** The FSE table that is described at `from`, and where its description ends. */
function readFse(src, from, to, symbols, mostLog) {
  let bit = from * 8;
  const take = (count) => {
    const at = bit >> 3,
      value = (src[at] | (src[at + 1] << 8) | (src[at + 2] << 16)) >>> (bit & 7);
    bit += count;
    return value & ((1 << count) - 1);
  };
  const log = take(4) + 5,
    counts = [];
  if (log > mostLog) throw damaged("a table is too large");
  let left = 1 << log;
  while (left > 0) {
    const count = topBit(left + 1) + 1,
      low = (1 << (count - 1)) - 1,
      limit = (1 << count) - 2 - left;
    let value = take(count);
    if ((value & low) < limit) {
      bit -= 1;
      value &= low;
    } else if (value > low) value -= limit;
    left -= Math.abs(value - 1);
    counts.push(value - 1);
    if (value === 1) {
      let zeros;
      do {
        zeros = take(2);
        for (let n = 0; n < zeros; n++) counts.push(0);
      } while (zeros === 3 && bit < to * 8);
    }
    if (counts.length > symbols || bit > to * 8) throw damaged("a table");
  }
  if (left < 0) throw damaged("a table");
  return [fseTable(counts, log), (bit + 7) >> 3];
}

/** Bits from the end of a stream to its begin; before its begin there are zeros. */
class Backward {
  constructor(src, from, to) {
    if (to <= from || !src[to - 1]) throw damaged("a stream has no end mark");
    this.src = src;
    this.from = from;
    this.left = (to - from - 1) * 8 + topBit(src[to - 1]);
  }
  take(count) {
    if (count > 16) {
      const high = this.take(count - 16);
      return high * 65536 + this.take(16);
    }
    this.left -= count;
    let at = this.left,
      shift = 0;
    if (at < 0) {
      shift = -at;
      at = 0;
      if (shift >= count) return 0;
    }
    const b = this.from + (at >> 3),
      src = this.src;
    const value = (src[b] | (src[b + 1] << 8) | (src[b + 2] << 16)) >>> (at & 7);
    return (value & ((1 << (count - shift)) - 1)) << shift;
  }
}

/** The Huffman table that is described at `from`, and where its description ends. */
function readHuffman(src, from, to) {
  const head = src[from++],
    weights = [];
  if (head >= 128) {
    for (let n = 0; n < head - 127; n++) weights.push(n & 1 ? src[from + (n >> 1)] & 15 : src[from + (n >> 1)] >> 4);
    from += (head - 126) >> 1;
  } else {
    const end = from + head;
    if (end > to) throw damaged("Huffman weights");
    const [table, begin] = readFse(src, from, end, 256, 6);
    const reader = new Backward(src, begin, end),
      states = [reader.take(table.log), reader.take(table.log)];
    for (let turn = 0; ; turn ^= 1) {
      const state = states[turn];
      weights.push(table.symbol[state]);
      if (weights.length > 254) throw damaged("Huffman weights");
      states[turn] = table.base[state] + reader.take(table.bits[state]);
      if (reader.left < 0) {
        weights.push(table.symbol[states[turn ^ 1]]);
        break;
      }
    }
    from = end;
  }
  let sum = 0;
  for (const weight of weights) sum += weight && 1 << (weight - 1);
  if (!sum || from > to) throw damaged("Huffman weights");
  const most = topBit(sum) + 1,
    rest = (1 << most) - sum;
  if (most > 11 || rest & (rest - 1)) throw damaged("Huffman weights");
  weights.push(topBit(rest) + 1);
  const table = new Uint16Array(1 << most);
  let at = 0;
  for (let weight = 1; weight <= most; weight++) {
    weights.forEach((each, symbol) => {
      if (each === weight) {
        table.fill(((most + 1 - weight) << 8) | symbol, at, at + (1 << (weight - 1)));
        at += 1 << (weight - 1);
      }
    });
  }
  return [{ table, most }, from];
}

function huffmanStream(src, from, to, { table, most }, out, at, end) {
  if (to <= from || !src[to - 1]) throw damaged("a stream has no end mark");
  let left = (to - from - 1) * 8 + topBit(src[to - 1]);
  const mask = (1 << most) - 1;
  while (at < end) {
    const bit = left - most;
    let code;
    if (bit >= 0) {
      const b = from + (bit >> 3);
      code = ((src[b] | (src[b + 1] << 8) | (src[b + 2] << 16)) >>> (bit & 7)) & mask;
    } else {
      code = ((src[from] | (src[from + 1] << 8)) << -bit) & mask;
    }
    const entry = table[code];
    out[at++] = entry;
    left -= entry >> 8;
  }
  if (left !== 0) throw damaged("a Huffman stream");
}

/** Decode one compressed block into `out` at `at`; returns where it ends there. */
function compressedBlock(src, from, to, frame, out, at) {
  let literals;
  [literals, from] = readLiterals(src, from, to, frame);
  let count = src[from++];
  if (count >= 128)
    count = count < 255 ? ((count - 128) << 8) + src[from++] : src[from++] + (src[from++] << 8) + 0x7f00;
  let used = 0;
  const copyLiterals = (end) => {
    if (end > literals.length || at + end - used > out.length) throw damaged("literals");
    out.set(literals.subarray(used, end), at);
    at += end - used;
    used = end;
  };
  if (count) {
    const modes = src[from++];
    for (let kind = 0; kind < 3; kind++) {
      const mode = (modes >> (6 - 2 * kind)) & 3;
      if (mode === 0) frame.tables[kind] = USUAL[kind];
      else if (mode === 1) {
        if (src[from] >= SYMBOLS[kind]) throw damaged("a code");
        frame.tables[kind] = { log: 0, symbol: [src[from++]], bits: [0], base: [0] };
      } else if (mode === 2) [frame.tables[kind], from] = readFse(src, from, to, SYMBOLS[kind], MOST_LOG[kind]);
      else if (!frame.tables[kind]) throw damaged("a table that is not there");
    }
    const [lengths, offsets, matches] = frame.tables,
      reader = new Backward(src, from, to),
      recent = frame.recent;
    let length = reader.take(lengths.log),
      offsetState = reader.take(offsets.log),
      match = reader.take(matches.log);
    for (let n = 0; n < count; n++) {
      const code = offsets.symbol[offsetState];
      if (code > 31) throw damaged("an offset");
      const value = 2 ** code + reader.take(code);
      const matchCode = matches.symbol[match],
        lengthCode = lengths.symbol[length];
      const size =
        matchCode < 32 ? matchCode + 3 : MATCH_BASE[matchCode - 32] + reader.take(MATCH_BITS[matchCode - 32]);
      const run =
        lengthCode < 16 ? lengthCode : LITERAL_BASE[lengthCode - 16] + reader.take(LITERAL_BITS[lengthCode - 16]);
      let offset;
      if (value > 3) {
        offset = value - 3;
        recent[2] = recent[1];
        recent[1] = recent[0];
        recent[0] = offset;
      } else {
        const which = value - 1 + (run === 0 ? 1 : 0);
        offset = which === 3 ? recent[0] - 1 : recent[which];
        if (which > 1) recent[2] = recent[1];
        if (which > 0) {
          recent[1] = recent[0];
          recent[0] = offset;
        }
      }
      copyLiterals(used + run);
      if (offset < 1 || offset > at - frame.begin || at + size > out.length) throw damaged("a match");
      if (offset >= size) out.copyWithin(at, at - offset, at - offset + size);
      else for (let n = 0; n < size; n++) out[at + n] = out[at + n - offset];
      at += size;
      if (n + 1 < count) {
        length = lengths.base[length] + reader.take(lengths.bits[length]);
        match = matches.base[match] + reader.take(matches.bits[match]);
        offsetState = offsets.base[offsetState] + reader.take(offsets.bits[offsetState]);
      }
      if (reader.left < 0) throw damaged("sequences");
    }
    if (reader.left !== 0) throw damaged("sequences");
  }
  copyLiterals(literals.length);
  return at;
}

function readLiterals(src, from, to, frame) {
  const head = src[from],
    kind = head & 3,
    format = (head >> 2) & 3;
  const word = (src[from] | (src[from + 1] << 8) | (src[from + 2] << 16) | (src[from + 3] << 24)) >>> 0;
  if (kind < 2) {
    const bytes = format === 1 ? 2 : format === 3 ? 3 : 1;
    const size = bytes === 1 ? head >> 3 : bytes === 2 ? (word & 0xffff) >> 4 : (word & 0xffffff) >> 4;
    from += bytes;
    if (kind === 1) return [new Uint8Array(size).fill(src[from]), from + 1];
    if (from + size > to) throw damaged("literals");
    return [src.subarray(from, from + size), from + size];
  }
  const bits = format < 2 ? 10 : format === 2 ? 14 : 18,
    mask = (1 << bits) - 1;
  const size = (word >>> 4) & mask;
  const packed = bits === 18 ? (word >>> 22) + src[from + 4] * 1024 : (word >>> (4 + bits)) & mask;
  from += format < 2 ? 3 : format === 2 ? 4 : 5;
  const end = from + packed,
    out = new Uint8Array(size);
  if (end > to || size > 1 << 17) throw damaged("literals");
  if (kind === 2) [frame.huffman, from] = readHuffman(src, from, end);
  if (!frame.huffman) throw damaged("a Huffman table that is not there");
  if (format === 0) huffmanStream(src, from, end, frame.huffman, out, 0, size);
  else {
    const part = (size + 3) >> 2;
    let begin = from + 6;
    for (let n = 0; n < 4; n++) {
      const stop = n === 3 ? end : begin + (src[from + 2 * n] | (src[from + 2 * n + 1] << 8));
      if (stop > end) throw damaged("literals");
      huffmanStream(
        src,
        begin,
        stop,
        frame.huffman,
        out,
        Math.min(size, n * part),
        n === 3 ? size : Math.min(size, (n + 1) * part),
      );
      begin = stop;
    }
  }
  return [out, end];
}

/** Decompress to at most `size` bytes; fewer if the source ends early. */
function unzstd(src, size) {
  const out = new Uint8Array(size);
  let at = 0,
    from = 0;
  while (from + 5 < src.length && at < size) {
    const magic = (src[from] | (src[from + 1] << 8) | (src[from + 2] << 16) | (src[from + 3] << 24)) >>> 0;
    if (magic !== FRAME) throw damaged("not Zstandard");
    const flags = src[from + 4],
      single = (flags >> 5) & 1;
    if (flags & 3) throw damaged("it needs a dictionary");
    from += 5 + (single ? 0 : 1) + (flags >> 6 ? 1 << (flags >> 6) : single);
    const frame = { tables: [], huffman: null, recent: [1, 4, 8], begin: at };
    for (let last = 0; !last;) {
      if (from + 3 > src.length) return out.subarray(0, at);
      const head = src[from] | (src[from + 1] << 8) | (src[from + 2] << 16),
        kind = (head >> 1) & 3,
        bytes = head >> 3;
      last = head & 1;
      from += 3;
      if (kind === 3) throw damaged("a block");
      const end = from + (kind === 1 ? 1 : bytes);
      if (end > src.length) return out.subarray(0, at);
      if (kind < 2) {
        if (at + bytes > size) throw damaged("it is too long");
        if (kind === 0) out.set(src.subarray(from, end), at);
        else out.fill(src[from], at, at + bytes);
        at += bytes;
      } else at = compressedBlock(src, from, end, frame, out, at);
      from = end;
    }
    if (flags & 4) from += 4;
  }
  return out.subarray(0, at);
}
