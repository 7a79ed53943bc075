// The filter: its form in the address, the rows that pass it, and its expression in Python.

const STEP = 8; // row groups that are read ahead

/** ranges: {column: [least, most]}; times: the same of days and points in time, as texts of their inputs; texts: {column:
 * text}; near: how many bits near-duplicates may differ in, or null for all rows; sort: [column, descending], or null. */
function noFilter() {
  return { splits: new Set(), classes: new Set(), none: false, ranges: {}, times: {}, texts: {}, near: null, sort: null };
}

function filterToHash(filter) {
  const parts = new URLSearchParams();
  for (const name of filter.splits) parts.append("split", name);
  for (const name of filter.classes) parts.append("class", name);
  if (filter.none) parts.append("unlabelled", "1");
  for (const [column, [least, most]] of Object.entries(filter.ranges))
    parts.append(`range.${column}`, `${least ?? ""}..${most ?? ""}`);
  for (const [column, [least, most]] of Object.entries(filter.times))
    parts.append(`time.${column}`, `${least ?? ""}..${most ?? ""}`);
  for (const [column, text] of Object.entries(filter.texts)) parts.append(`text.${column}`, text);
  if (filter.near !== null) parts.append("near", filter.near);
  if (filter.sort) parts.append("sort", (filter.sort[1] ? "-" : "+") + filter.sort[0]);
  return parts.toString();
}

function filterFromHash(hash, collection) {
  const filter = noFilter(),
    known = (name, kinds) => kinds.includes(collection.columns.get(name)?.kind);
  for (const [name, value] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const column = name.slice(name.indexOf(".") + 1);
    if (name === "split") filter.splits.add(value);
    else if (name === "class") filter.classes.add(value);
    else if (name === "unlabelled") filter.none = true;
    else if (name.startsWith("range.") && known(column, ["number", "flag"])) {
      const bounds = value
        .split("..")
        .map((each) => (each === "" || !Number.isFinite(Number(each)) ? null : Number(each)));
      if (bounds.length === 2 && bounds.some((each) => each !== null)) filter.ranges[column] = bounds;
    } else if (name.startsWith("time.") && known(column, ["time"])) {
      const isDay = collection.columns.get(column).unit === DAY,
        bounds = value.split("..").map((each) => (Number.isNaN(millisecondsOf(each, isDay)) ? null : each));
      if (bounds.length === 2 && bounds.some((each) => each !== null)) filter.times[column] = bounds;
    } else if (name === "near" && collection.datasets.some(hasLooks))
      filter.near = NEAR_BITS.includes(Number(value)) ? Number(value) : null;
    else if (name.startsWith("text.") && value && known(column, ["text"])) filter.texts[column] = value;
    else if (name === "sort" && known(value.slice(1), ["number", "time"])) filter.sort = [value.slice(1), value[0] === "-"];
  }
  const splits = new Set(collection.datasets.map((each) => each.name));
  filter.splits = new Set([...filter.splits].filter((name) => splits.has(name)));
  filter.classes = new Set(
    [...filter.classes].filter((name) => collection.datasets.some((each) => each.labels.has(name))),
  );
  return filter;
}

const DAY = 86400000; // milliseconds

/** The point in time that the text of an input means, in UTC; NaN for other texts. */
function millisecondsOf(text, isDay) {
  const pattern = isDay ? /^\d{4}-\d\d-\d\d$/ : /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?$/;
  return pattern.test(text) ? Date.parse(isDay ? text : `${text}Z`) : NaN;
}

const takesSplit = (filter, dataset) => !filter.splits.size || filter.splits.has(dataset.name);
const byClass = (filter) => filter.classes.size > 0 || filter.none;
const hasBounds = ({ ranges, times, texts }) => [ranges, times, texts].some((each) => Object.keys(each).length > 0);
const isEmpty = (filter) => !byClass(filter) && !hasBounds(filter) && filter.near === null;

/** The labels that pass, of one dataset; null for all. */
function labelsOf(filter, dataset) {
  if (!byClass(filter)) return null;
  return [...filter.classes]
    .map((name) => dataset.labels.get(name))
    .filter((label) => label !== undefined)
    .sort((a, b) => a - b);
}

/** The tests of a dataset's rows: [column, function of its part that gives a function of the row, range]. */
function testsOf(filter, dataset) {
  const tests = [],
    labels = labelsOf(filter, dataset);
  if (labels) {
    const wanted = new Set(labels),
      least = filter.none ? null : labels[0],
      most = filter.none ? null : labels[labels.length - 1];
    const passes = (value) => (Number.isNaN(value) ? filter.none : wanted.has(value));
    tests.push([
      "label",
      ({ values }) =>
        (row) =>
          passes(values[row]),
      [least, most],
    ]);
  }
  for (const [column, [least, most]] of Object.entries(filter.ranges)) {
    const low = least ?? -Infinity,
      high = most ?? Infinity;
    tests.push([
      column,
      ({ values }) =>
        (row) =>
          values[row] >= low && values[row] <= high,
      [least, most],
    ]);
  }
  for (const [column, bounds] of Object.entries(filter.times)) {
    const { unit } = dataset.columns.find(({ name }) => name === column) ?? {},
      [low, high] = bounds.map((text) => (text === null ? null : millisecondsOf(text, unit === DAY)));
    tests.push([
      column,
      ({ values }) =>
        (row) =>
          (low === null || values[row] * unit >= low) && (high === null || values[row] * unit <= high) &&
          !Number.isNaN(values[row]),
      [null, null],
    ]);
  }
  for (const [column, text] of Object.entries(filter.texts)) {
    const needle = new TextEncoder().encode(text);
    tests.push([column, (part) => (row) => holds(part.place(row), needle), [null, null]]);
  }
  return tests;
}

function holds([bytes, start, end], needle) {
  if (start < 0) return false;
  const first = needle[0],
    last = end - needle.length;
  search: for (let at = bytes.indexOf(first, start); at >= 0 && at <= last; at = bytes.indexOf(first, at + 1)) {
    for (let n = 1; n < needle.length; n++) if (bytes[at + n] !== needle[n]) continue search;
    return true;
  }
  return false;
}

/** A list of row numbers that grows. */
class RowList {
  constructor() {
    this.rows = new Int32Array(1024);
    this.length = 0;
  }
  push(row) {
    if (this.length === this.rows.length) {
      const more = new Int32Array(2 * this.length);
      more.set(this.rows);
      this.rows = more;
    }
    this.rows[this.length++] = row;
  }
  at(place) {
    return this.rows[place];
  }
}

/** All rows of some groups, without a list. */
class RowRanges {
  constructor(groups) {
    this.groups = groups;
    this.starts = [];
    this.length = 0;
    for (const group of groups) {
      this.starts.push(this.length);
      this.length += group.rows;
    }
  }
  at(place) {
    let low = 0,
      high = this.groups.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.starts[middle] <= place) low = middle;
      else high = middle - 1;
    }
    return this.groups[low].first + place - this.starts[low];
  }
}

async function mayHold(group, tests) {
  for (const [column, , [least, most]] of tests) {
    const place = await group.where(column);
    if (!place) return false; // another split has this column
    const range = group.range(place);
    if (range && ((least !== null && range[1] < least) || (most !== null && range[0] > most))) return false;
  }
  return tests.every(([column, , [least]]) => column !== "label" || least !== undefined);
}

/** Find the rows that pass. show(rows, done, in all) is called from time to time, with null for rows that are not known
 * yet, and at the end. */
async function applyFilter(collection, filter, signal, show) {
  const groups = collection.groups.filter((group) => takesSplit(filter, group.dataset));
  if (isEmpty(filter) && !filter.sort) {
    show(new RowRanges(groups), groups.length, groups.length);
    return;
  }
  const sort = filter.sort?.[0],
    near = filter.near !== null,
    further = [...(sort ? [sort] : []), ...(near ? LOOKS : [])],
    tests = new Map(collection.datasets.map((each) => [each, testsOf(filter, each)]));
  const load = async (group) => {
    const own = tests.get(group.dataset);
    if (!(await mayHold(group, own))) return false;
    if (near && !hasLooks(group.dataset)) return false;
    await group.load([...new Set([...own.map(([column]) => column), ...further])]);
    return true;
  };
  const loads = [],
    found = new RowList();
  let shownAt = performance.now();
  for (let at = 0; at < groups.length; at++) {
    while (loads.length < Math.min(groups.length, at + STEP)) {
      loads.push(load(groups[loads.length]));
      loads[loads.length - 1].catch(() => {});
    }
    const group = groups[at];
    if (await loads[at]) {
      const passes = tests.get(group.dataset).map(([column, test]) => test(group.part(column)));
      for (let row = 0; row < group.rows; row++) if (passes.every((test) => test(row))) found.push(group.first + row);
    }
    if (signal.aborted) return;
    if (performance.now() - shownAt > 150) {
      if (!further.length) show(found, at + 1, groups.length);
      else show(null, at + 1, groups.length);
      await new Promise((resolve) => setTimeout(resolve));
      if (signal.aborted) return;
      shownAt = performance.now();
    }
  }
  if (sort) sortRows(collection, found, filter.sort);
  const told = (done) => show(null, done, 1, "Comparing hashes"),
    shown = near ? await nearRows(collection, found, filter.near, signal, told) : found;
  if (shown) show(shown, 1, 1);
}

function sortRows(collection, found, [column, descending]) {
  const values = new Float64Array(found.length),
    order = new Uint32Array(found.length);
  let group = null;
  for (let n = 0; n < found.length; n++) {
    const row = found.rows[n];
    if (!group || row < group.first || row >= group.first + group.rows) group = collection.group(row);
    const value = group.part(column)?.values[row - group.first] ?? NaN;
    values[n] = Number.isNaN(value) ? Infinity : descending ? -value : value; // rows without a value come last
    order[n] = n;
  }
  order.sort((a, b) => values[a] - values[b] || a - b);
  found.rows = Int32Array.from(order, (n) => found.rows[n]);
}

const quoted = (text) => JSON.stringify(text);

function expressionOf(filter, dataset, kinds) {
  const terms = [],
    labels = labelsOf(filter, dataset),
    field = (name) => `pc.field(${quoted(name)})`;
  if (labels) {
    const some = [];
    if (labels.length === 1) some.push(`${field("label")} == ${labels[0]}`);
    else if (labels.length || !filter.none) some.push(`${field("label")}.isin([${labels.join(", ")}])`);
    if (filter.none) some.push(`${field("label")}.is_null()`);
    terms.push(some.length > 1 ? some.map((each) => `(${each})`).join(" | ") : some[0]);
  }
  for (const [column, [least, most]] of Object.entries(filter.ranges)) {
    if (kinds.get(column)?.kind === "flag") {
      terms.push(`${field(column)} == ${least ? "True" : "False"}`);
      continue;
    }
    if (least !== null && least === most) {
      terms.push(`${field(column)} == ${least}`);
      continue;
    }
    if (least !== null) terms.push(`${field(column)} >= ${least}`);
    if (most !== null) terms.push(`${field(column)} <= ${most}`);
  }
  for (const [column, bounds] of Object.entries(filter.times)) {
    const { unit, utc } = kinds.get(column),
      [least, most] = bounds.map((text) => text && pythonTime(text, unit === DAY, utc));
    if (least) terms.push(`${field(column)} >= ${least}`);
    if (most) terms.push(`${field(column)} <= ${most}`);
  }
  for (const [column, text] of Object.entries(filter.texts)) {
    const plain = column === "key" || column === "path"; // others may be dictionaries in Arrow
    const value = plain ? field(column) : `${field(column)}.cast("string")`;
    terms.push(`pc.match_substring(${value}, ${quoted(text)})`);
  }
  return terms.length > 1 ? terms.map((each) => `(${each})`).join(" & ") : terms[0];
}

/** A day or a point in time, as Python has it. */
function pythonTime(text, isDay, utc) {
  const numbers = text.match(/\d+/g).map((each, n) => (n === 6 ? Number(each.padEnd(3, "0")) * 1000 : Number(each)));
  if (isDay) return `datetime.date(${numbers.join(", ")})`;
  return `datetime.datetime(${numbers.join(", ")}${utc ? ", tzinfo=datetime.timezone.utc" : ""})`;
}

/** The filter as Python: one call of where(), or one for each split if their labels differ. "" without a filter, and for
 * near-duplicates, which no expression selects. */
function pythonOf(filter, collection) {
  if (isEmpty(filter) || filter.near !== null) return "";
  const taken = collection.datasets.filter((each) => takesSplit(filter, each));
  const calls = taken.map((each) => `where(${expressionOf(filter, each, collection.columns)})`);
  if (new Set(calls).size === 1) return `ds.${calls[0]}`;
  return taken
    .map((each, n) => `${/^[A-Za-z_]\w*$/.test(each.name) ? each.name : `datasets[${quoted(each.name)}]`}.${calls[n]}`)
    .join("\n");
}
