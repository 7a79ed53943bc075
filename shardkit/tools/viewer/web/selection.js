// The selection, and what is copied of it.

class Selected {
  constructor(rows, changed) {
    this.marks = new Uint8Array(rows);
    this.count = 0;
    this.changed = changed;
  }
  has(row) {
    return this.marks[row] === 1;
  }
  set(rows, on) {
    for (const row of rows)
      if (this.marks[row] !== Number(on)) {
        this.marks[row] = Number(on);
        this.count += on ? 1 : -1;
      }
    this.changed();
  }
  toggle(row) {
    this.set([row], !this.has(row));
  }
  clear() {
    this.marks.fill(0);
    this.count = 0;
    this.changed();
  }
}

function* rowsOf(view) {
  for (let place = 0; place < view.length; place++) yield view.at(place);
}

/** [dataset, keys] of each dataset of which samples are selected. */
async function selectedKeys(collection, selection) {
  const found = new Map();
  for (const group of collection.groups) {
    const end = group.first + group.rows;
    let row = selection.marks.indexOf(1, group.first);
    if (row < 0) break;
    if (row >= end) continue;
    await group.load(["key"], selection.marks.lastIndexOf(1, end - 1) - group.first + 1);
    if (!found.has(group.dataset)) found.set(group.dataset, []);
    for (const keys = found.get(group.dataset); row >= 0 && row < end; row = selection.marks.indexOf(1, row + 1))
      keys.push(group.part("key").get(row - group.first));
  }
  return [...found];
}

/** A key on each line; after the name of its split and a tab if they are of several. */
function keysAsLines(found) {
  return found
    .flatMap(([dataset, keys]) => (found.length > 1 ? keys.map((key) => `${dataset.name}\t${key}`) : keys))
    .join("\n");
}

/** A list for Python, or a dict of lists by split. */
function keysAsPython(found) {
  const list = (keys) => `[${keys.map(quoted).join(", ")}]`;
  if (found.length === 1) return list(found[0][1]);
  return `{${found.map(([dataset, keys]) => `${quoted(dataset.name)}: ${list(keys)}`).join(", ")}}`;
}

/** Copy a text. Without a clipboard (a page that is not served by HTTPS) an element is copied. False: neither works. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    /* it is not there, or not allowed */
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "aside";
  area.setAttribute("aria-hidden", "true");
  (document.querySelector("dialog[open]") || document.body).append(area);
  const before = document.activeElement;
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus?.();
  return done;
}
