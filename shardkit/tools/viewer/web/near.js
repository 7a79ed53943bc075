// Near-duplicates: rows whose perceptual hashes differ in few bits, by the index alone and in a bounded time. The rule is
// that of images/quality/duplicates.py, but the pictures are not compared: `shardkit report` does that.

const LOOKS = ["phash", "brightness", "entropy"]; // the columns that it needs
const BRIGHTNESS_APART = 0.1; // images of other brightness are not near-duplicates
const PLAIN = 1; // an image with less entropy (bits) shows too little
const NEAR_BITS = [0, 3, 7]; // choices: all pairs are found that differ in so many bits
const MOST_WORK = 6e8; // comparisons of hashes, some seconds; with more to do, fewer bits are searched
const SLICE = 40; // milliseconds without a pause for the page
const CHUNK_VALUES = 1 << 16; // a hash is four chunks of 16 bits

const hasLooks = (dataset) => {
  const kinds = new Map(dataset.columns.map(({ name, kind }) => [name, kind]));
  return kinds.get("phash") === "wide" && kinds.get("brightness") === "number" && kinds.get("entropy") === "number";
};

const onesIn = (word) => {
  let n = word - ((word >>> 1) & 0x55555555);
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333);
  return (((n + (n >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
};

/** Places by a number below CHUNK_VALUES, in their order: those of value v are order[starts[v]] to order[starts[v + 1]]. */
function buckets(values, order = null) {
  const starts = new Uint32Array(CHUNK_VALUES + 1),
    next = new Uint32Array(CHUNK_VALUES),
    found = new Uint32Array(values.length);
  for (const value of values) starts[value + 1]++;
  for (let value = 0; value < CHUNK_VALUES; value++) starts[value + 1] += next[value] = starts[value];
  for (let n = 0; n < found.length; n++) {
    const place = order ? order[n] : n;
    found[next[values[place]]++] = place;
  }
  return { starts, order: found };
}

/** The hashes and brightness of rows, as columns. */
class RowLooks {
  constructor(collection, rows, count) {
    this.rows = new Int32Array(count);
    this.words = new Uint32Array(2 * count);
    this.brightness = new Float32Array(count);
    let group = null,
      length = 0;
    for (let n = 0; n < count; n++) {
      const row = rows[n];
      if (!group || row < group.first || row >= group.first + group.rows) group = collection.group(row);
      const [hashes, brightness, entropy] = LOOKS.map((name) => group.part(name)?.values),
        at = row - group.first;
      if (!hashes || !brightness || !entropy || !(entropy[at] >= PLAIN)) continue; // NaN is not
      this.rows[length] = row;
      this.words[2 * length] = Number(hashes[at] & 0xffffffffn);
      this.words[2 * length + 1] = Number(hashes[at] >> 32n);
      this.brightness[length++] = brightness[at];
    }
    this.length = length;
  }
  chunk(number) {
    const shift = 16 * (number & 1),
      found = new Uint16Array(this.length);
    for (let n = 0; n < this.length; n++) found[n] = this.words[2 * n + (number >> 1)] >>> shift;
    return found;
  }
  near(one, other, bits) {
    const { words } = this;
    return (
      onesIn(words[2 * one] ^ words[2 * other]) + onesIn(words[2 * one + 1] ^ words[2 * other + 1]) <= bits &&
      Math.abs(this.brightness[one] - this.brightness[other]) <= BRIGHTNESS_APART
    );
  }
}

/** Sets of numbers that grow together; each is named by its least one. */
class Sets {
  constructor(count) {
    this.above = Int32Array.from({ length: count }, (_, n) => n);
  }
  of(one) {
    const { above } = this;
    while (above[one] !== one) one = above[one] = above[above[one]];
    return one;
  }
  join(one, other) {
    const [low, high] = [this.of(one), this.of(other)].sort((a, b) => a - b);
    this.above[high] = low;
  }
}

/** Rows in groups that look alike: groups[n] is the number of the group of the row at place n. */
class NearRows {
  constructor(rows, groups, count, bits) {
    this.rows = rows;
    this.groups = groups;
    this.count = count;
    this.bits = bits;
    this.length = rows.length;
  }
  at(place) {
    return this.rows[place];
  }
  group(place) {
    return this.groups[place];
  }
  /** The rows after the first of each group. */
  *copies() {
    for (let n = 1; n < this.length; n++) if (this.groups[n] === this.groups[n - 1]) yield this.rows[n];
  }
}

/** Rows by one chunk of their hashes, with the hashes beside each other. */
class Chunk {
  constructor(looks, rows, values) {
    const { starts, order } = buckets(Uint16Array.from(rows, (row) => values[row]));
    this.starts = starts;
    this.rows = order.map((place) => rows[place]);
    this.words = [0, 1].map((half) => this.rows.map((row) => looks.words[2 * row + half]));
  }
  /** Pairs of rows, one with each of two values of the chunk, whose hashes are near. */
  near(value, other, bits) {
    const { starts, rows, words } = this,
      [lows, highs] = words,
      found = [];
    for (let one = starts[value]; one < starts[value + 1]; one++) {
      const low = lows[one],
        high = highs[one];
      for (let to = value === other ? one + 1 : starts[other]; to < starts[other + 1]; to++) {
        const apart = onesIn(low ^ lows[to]);
        if (apart <= bits && apart + onesIn(high ^ highs[to]) <= bits) found.push([rows[one], rows[to]]);
      }
    }
    return found;
  }
}

const FLIPS = (bits) => (bits > 3 ? [0, ...Array.from({ length: 16 }, (_, bit) => 1 << bit)] : [0]);

/** The comparisons that a search of so many bits takes. */
function workOf(chunks, bits) {
  let work = 0;
  if (bits)
    for (const { starts } of chunks)
      for (const flip of FLIPS(bits))
        for (let value = 0; value < CHUNK_VALUES; value++)
          work += (starts[value + 1] - starts[value]) * (starts[(value ^ flip) + 1] - starts[value ^ flip]);
  return work / 2;
}

/** The near-duplicates among some rows: a NearRows, in their order, or null if `signal` stops it. told: called with what
 * is done, from 0 to 1. */
async function nearRows(collection, found, bits, signal, told) {
  const looks = new RowLooks(collection, found.rows, found.length),
    sets = new Sets(looks.length),
    values = [0, 1, 2, 3].map((number) => looks.chunk(number));
  let order = null,
    paused = performance.now();
  const pause = async (done) => {
    told(done);
    await new Promise((resolve) => setTimeout(resolve));
    paused = performance.now();
    return signal.aborted;
  };
  for (const chunk of values) order = buckets(chunk, order).order; // now by the whole hash
  const firsts = [];
  for (let n = 0, first = 0; n < order.length; n++) {
    const same = n && looks.near(first, order[n], 64) && sameHash(looks, first, order[n]);
    if (same) sets.join(first, order[n]);
    else if (!n || !sameHash(looks, first, order[n])) firsts.push((first = order[n]));
  }
  firsts.sort((a, b) => a - b); // the first of equal hashes stands for all
  const single = Uint32Array.from(firsts),
    chunks = values.map((chunk) => new Chunk(looks, single, chunk));
  while (workOf(chunks, bits) > MOST_WORK) bits = NEAR_BITS[NEAR_BITS.indexOf(bits) - 1];
  const turns = bits ? chunks.flatMap((chunk) => FLIPS(bits).map((flip) => [chunk, flip])) : [];
  for (const [turn, [chunk, flip]] of turns.entries())
    for (let value = 0; value < CHUNK_VALUES; value++) {
      if ((value ^ flip) >= value)
        for (const [n, other] of chunk.near(value, value ^ flip, bits))
          if (looks.near(n, other, bits)) sets.join(n, other);
      if ((value & 63) === 0 && performance.now() - paused > SLICE)
        if (await pause((turn + value / CHUNK_VALUES) / turns.length)) return null;
    }
  return inGroups(looks, sets, bits);
}

const sameHash = ({ words }, one, other) =>
  words[2 * one] === words[2 * other] && words[2 * one + 1] === words[2 * other + 1];

function inGroups(looks, sets, bits) {
  const sizes = new Uint32Array(looks.length),
    begins = new Int32Array(looks.length).fill(-1);
  let count = 0,
    length = 0;
  for (let n = 0; n < looks.length; n++) sizes[sets.of(n)]++;
  const numbers = new Int32Array(looks.length);
  for (let n = 0; n < looks.length; n++) {
    const set = sets.of(n);
    if (sizes[set] < 2 || begins[set] >= 0) continue;
    begins[set] = length;
    length += sizes[set];
    numbers[set] = count++;
  }
  const rows = new Int32Array(length),
    groups = new Int32Array(length);
  for (let n = 0; n < looks.length; n++) {
    const set = sets.of(n);
    if (sizes[set] < 2) continue;
    groups[begins[set]] = numbers[set];
    rows[begins[set]++] = looks.rows[n];
  }
  return new NearRows(rows, groups, count, bits);
}
