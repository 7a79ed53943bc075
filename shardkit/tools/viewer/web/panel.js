// The panel of filters: splits, classes, and every column of the index.

const LABELS = {
  width: "Width",
  height: "Height",
  image_size: "Bytes",
  size: "Sample bytes",
  key: "Key contains",
  path: "Path contains",
};
const USUAL_COLUMNS = ["key", "width", "height", "image_size"];
const OTHER_COLUMNS = ["path", "shard", "size", "offset", "image_offset", "crc32c"];
const MOST_CLASSES = 200; // in the list at a time
const PAUSE = 200; // milliseconds

class Panel {
  constructor({ form, collection, changed }) {
    this.form = form;
    this.collection = collection;
    this.changed = changed;
    this.filter = noFilter();
    this.waiting = new Map(); // input -> what it does to the filter when nothing has been typed for a moment
    this.search = form.querySelector("[data-part=class-search]");
    this.list = form.querySelector("[data-part=class-list]");
    this.search.addEventListener("input", () => this.showClasses());
    form.addEventListener("submit", (event) => event.preventDefault());
    this.makeSplits();
    this.makeNear();
    this.makeColumns();
    this.tellWhatIsMissing();
    form.querySelector("[data-part=classes]").hidden = !this.classes().length;
  }
  set(filter) {
    if (filter !== this.filter) this.waiting.clear();
    this.filter = filter;
    for (const box of this.form.querySelectorAll("[data-split]")) box.checked = filter.splits.has(box.dataset.split);
    for (const input of this.form.querySelectorAll("[data-bound]")) {
      const bounds = filter.ranges[input.dataset.column];
      if (document.activeElement !== input) input.value = bounds?.[Number(input.dataset.bound)] ?? "";
    }
    for (const input of this.form.querySelectorAll("[data-time]"))
      if (document.activeElement !== input) input.value = filter.times[input.dataset.time]?.[input.dataset.end] ?? "";
    this.near.value = filter.near ?? "";
    for (const input of this.form.querySelectorAll("[data-text]"))
      if (document.activeElement !== input) input.value = filter.texts[input.dataset.text] ?? "";
    for (const input of this.form.querySelectorAll("[data-flag]"))
      input.value = filter.ranges[input.dataset.flag]?.[0] ?? "";
    const more = this.form.querySelector("[data-part=more]");
    if (OTHER_COLUMNS.some((name) => filter.ranges[name] || filter.texts[name])) more.open = true;
    this.showClasses();
  }
  /** [name, samples] of each class in the splits that are shown; the last one is that of samples without a label. */
  classes() {
    const counts = new Map(),
      taken = this.collection.datasets.filter((each) => takesSplit(this.filter, each));
    for (const { classes } of taken)
      for (const { name, count } of classes) counts.set(name, (counts.get(name) || 0) + count);
    const none = taken.reduce((sum, each) => sum + each.unlabelled, 0);
    return [...counts, ...(none ? [[null, none]] : [])];
  }
  showClasses() {
    const text = this.search.value.trim().toLowerCase(),
      all = this.classes(),
      { classes: chosen, none } = this.filter;
    const found = all.filter(([name]) => (name ?? NO_LABEL).toLowerCase().includes(text));
    const shownFirst = found.filter(([name]) => (name === null ? none : chosen.has(name)));
    const rest = found.filter(([name]) => !(name === null ? none : chosen.has(name)));
    const listed = found.length > MOST_CLASSES ? [...shownFirst, ...rest].slice(0, MOST_CLASSES) : found;
    const most = Math.max(1, ...all.map(([, count]) => count)),
      focused = document.activeElement?.dataset?.class;
    this.list.replaceChildren(
      ...listed.map(([name, count]) => {
        const line = document.createElement("label"),
          box = document.createElement("input"),
          text = document.createElement("span"),
          number = document.createElement("span");
        box.type = "checkbox";
        box.dataset.class = name ?? "";
        box.checked = name === null ? none : chosen.has(name);
        box.addEventListener("change", () =>
          this.change((filter) => {
            if (name === null) filter.none = box.checked;
            else if (box.checked) filter.classes.add(name);
            else filter.classes.delete(name);
          }),
        );
        text.className = "name";
        text.textContent = name ?? NO_LABEL;
        text.title = name ?? NO_LABEL;
        number.className = "count";
        number.textContent = count.toLocaleString("en");
        line.style.setProperty("--share", `${(100 * count) / most}%`);
        line.append(box, text, number);
        return line;
      }),
    );
    if (found.length > listed.length)
      this.list.append(note(`${(found.length - listed.length).toLocaleString("en")} more classes: search for them.`));
    if (!found.length) this.list.append(note("No class matches."));
    if (focused !== undefined)
      [...this.list.querySelectorAll("input")].find((box) => box.dataset.class === focused)?.focus();
    this.form.querySelector("[data-part=class-clear]").hidden = !byClass(this.filter);
  }
  /** Edit the filter, with what was typed before. */
  change(edit) {
    clearTimeout(this.timer);
    for (const waiting of this.waiting.values()) waiting(this.filter);
    this.waiting.clear();
    edit(this.filter);
    this.changed(this.filter);
  }
  /** Edit the filter by an input when nothing has been typed into any for a moment. */
  changeLater(input, edit) {
    this.waiting.set(input, edit);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.change(() => {}), PAUSE);
  }
  makeSplits() {
    const place = this.form.querySelector("[data-part=splits]"),
      list = place.querySelector("[data-part=split-list]");
    place.hidden = this.collection.datasets.length < 2;
    for (const { name, rows } of this.collection.datasets) {
      const line = document.createElement("label"),
        box = document.createElement("input"),
        text = document.createElement("span"),
        number = document.createElement("span");
      box.type = "checkbox";
      box.dataset.split = name;
      box.addEventListener("change", () =>
        this.change(({ splits }) => (box.checked ? splits.add(name) : splits.delete(name))),
      );
      text.className = "name";
      text.textContent = name;
      number.className = "count";
      number.textContent = rows.toLocaleString("en");
      line.append(box, text, number);
      list.append(line);
    }
  }
  makeNear() {
    const place = this.form.querySelector("[data-part=near]"),
      note = place.querySelector("[data-part=near-note]"),
      without = this.collection.datasets.filter((each) => each.rows && !hasLooks(each)),
      all = without.length === this.collection.datasets.filter((each) => each.rows).length;
    this.near = place.querySelector("select");
    this.near.disabled = all;
    for (const bits of NEAR_BITS)
      this.near.append(new Option(bits ? `hashes up to ${bits} bits apart` : "equal hashes", bits));
    this.near.addEventListener("change", () =>
      this.change((filter) => (filter.near = this.near.value === "" ? null : Number(this.near.value))),
    );
    const cure = "shardkit index --overwrite --quality-columns adds them.";
    if (all) note.textContent = `The index has no quality columns. ${cure}`;
    else if (without.length)
      note.textContent = `Not in ${without.map(({ name }) => name).join(", ")}: no quality columns there. ${cure}`;
    else note.textContent = "By hashes in the index. shardkit report compares the pictures too, and finds more.";
  }
  /** Say which columns and labels are not shown here. */
  tellWhatIsMissing() {
    const unread = [...new Set(this.collection.datasets.flatMap(({ unread }) => unread))],
      kinds = this.collection.datasets.map(({ manifest }) => manifest.options.labels),
      told = [];
    if (kinds.some((kind) => kind === "multi" || kind === "number"))
      told.push("Labels that are lists or numbers are in the shards, not in the index, and are not shown here.");
    if (unread.length) told.push(`Columns that are not shown here: ${unread.join(", ")}.`);
    const place = this.form.querySelector("[data-part=missing]");
    place.hidden = !told.length;
    place.textContent = told.join(" ");
  }
  makeColumns() {
    const usual = this.form.querySelector("[data-part=columns]"),
      more = this.form.querySelector("[data-part=more]");
    const names = [...this.collection.columns.keys()].filter(
      (name) => name !== "label" && this.collection.columns.get(name).kind !== "wide",
    );
    const others = names.filter((name) => OTHER_COLUMNS.includes(name)),
      own = names.filter((name) => !others.includes(name) && !USUAL_COLUMNS.includes(name));
    for (const name of [...USUAL_COLUMNS.filter((name) => names.includes(name)), ...own])
      usual.append(this.columnFilter(name));
    for (const name of others) more.append(this.columnFilter(name));
    more.hidden = !others.length;
  }
  columnFilter(name) {
    const { kind, unit } = this.collection.columns.get(name),
      title = LABELS[name] || (kind === "text" ? `${name} contains` : name);
    const place = document.createElement("fieldset"),
      legend = document.createElement("legend");
    place.className = kind;
    legend.textContent = title;
    place.append(legend);
    if (kind === "text") place.append(this.textInput(name, title));
    else if (kind === "flag") place.append(this.flagInput(name, title));
    else if (kind === "time") {
      legend.textContent = unit === DAY ? name : `${name} (UTC)`;
      place.append(this.timeInput(name, 0, `${title}, from`), this.timeInput(name, 1, `${title}, to`));
    } else
      place.append(
        this.boundInput(name, 0, `${title}, at least`),
        Object.assign(document.createElement("span"), { textContent: "to" }),
        this.boundInput(name, 1, `${title}, at most`),
      );
    return place;
  }
  textInput(name, title) {
    const input = document.createElement("input");
    input.type = "search";
    input.dataset.text = name;
    input.setAttribute("aria-label", title);
    input.autocomplete = "off";
    input.spellcheck = false;
    input.addEventListener("input", () =>
      this.changeLater(input, ({ texts }) => {
        if (input.value) texts[name] = input.value;
        else delete texts[name];
      }),
    );
    return input;
  }
  flagInput(name, title) {
    const input = document.createElement("select");
    input.dataset.flag = name;
    input.setAttribute("aria-label", title);
    for (const [value, text] of [
      ["", "any"],
      ["1", "yes"],
      ["0", "no"],
    ])
      input.append(new Option(text, value));
    input.addEventListener("change", () =>
      this.change(({ ranges }) => {
        if (input.value) ranges[name] = [Number(input.value), Number(input.value)];
        else delete ranges[name];
      }),
    );
    return input;
  }
  timeInput(name, end, title) {
    const input = document.createElement("input"),
      isDay = this.collection.columns.get(name).unit === DAY;
    input.type = isDay ? "date" : "datetime-local";
    if (!isDay) input.step = "0.001";
    input.dataset.time = name;
    input.dataset.end = end;
    input.setAttribute("aria-label", title);
    input.addEventListener("input", () =>
      this.changeLater(input, ({ times }) => {
        const bounds = times[name] || [null, null];
        bounds[end] = Number.isNaN(millisecondsOf(input.value, isDay)) ? null : input.value;
        if (bounds.every((each) => each === null)) delete times[name];
        else times[name] = bounds;
      }),
    );
    return input;
  }
  boundInput(name, bound, title) {
    const input = document.createElement("input");
    input.type = "number";
    input.step = "any";
    input.inputMode = "decimal";
    input.dataset.column = name;
    input.dataset.bound = bound;
    input.setAttribute("aria-label", title);
    input.placeholder = bound ? "max" : "min";
    input.addEventListener("input", () =>
      this.changeLater(input, ({ ranges }) => {
        const bounds = ranges[name] || [null, null];
        bounds[bound] = input.value === "" ? null : Number(input.value);
        if (bounds.every((each) => each === null)) delete ranges[name];
        else ranges[name] = bounds;
      }),
    );
    return input;
  }
  /** Show the least and greatest value of each column, as far as the footers tell. */
  async showRanges() {
    const found = new Map();
    for (const { groups } of this.collection.datasets) {
      for (const group of groups.slice(0, 1)) {
        for (const { columns } of (await group.file.footer()).groups) {
          for (const [name, { range }] of columns) {
            if (!range) continue;
            const [low, high] = found.get(name) || [Infinity, -Infinity];
            found.set(name, [Math.min(low, range[0]), Math.max(high, range[1])]);
          }
        }
      }
    }
    for (const input of this.form.querySelectorAll("[data-bound]")) {
      const range = found.get(input.dataset.column);
      if (range) input.placeholder = Number(range[Number(input.dataset.bound)].toPrecision(6));
    }
  }
}
