// The page: puts the parts together.

const part = (name) => document.querySelector(`[data-part=${name}]`);
const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Say something for a moment, on the screen and to a screen reader. */
function announce(text) {
  const place = part("status");
  place.textContent = text;
  place.classList.add("on");
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => place.classList.remove("on"), 4000);
}

/** Show an error at the top of the page. */
function tell(error) {
  const place = part("notice");
  if (error?.name === "AbortError" || (!place.hidden && place.dataset.fatal === "true")) return;
  part("notice-title").textContent =
    error instanceof PageError ? error.message : `Something went wrong: ${error?.message ?? error}`;
  part("notice-text").textContent = error.cure ?? "Reload the page.";
  place.dataset.fatal = Boolean(error.fatal);
  place.dataset.code = error.code ?? "bug";
  place.hidden = false;
  if (!(error instanceof PageError)) console.error(error);
}

async function openCollection(config) {
  const datasets = config.datasets.map((each) => new Dataset(each));
  let first = 0;
  if (datasets.length === 1) await datasets[0].load(0);
  else {
    await Promise.all(datasets.map((each) => each.load(0)));
    for (const each of datasets) {
      // now that their numbers of rows are known
      each.first = first;
      for (const group of each.groups) group.first += first;
      first += each.rows;
    }
  }
  return new Collection(datasets);
}

const SHOWN = ["image_offset", "image_size", "label", "width", "height", "key"]; // the columns of what the grid shows
const AT_FIRST = 64; // rows whose columns are read while the page is made

class Page {
  constructor(collection) {
    this.collection = collection;
    this.images = new Images(collection, SHOWN, (rows) => {
      this.grid.refresh(rows);
      this.lightbox.update();
    });
    this.selection = new Selected(collection.rows, () => this.selected());
    this.anchor = 0;
    this.grid = new Grid(part("grid"), { cell: (cell, row) => this.fill(cell, row), moved: () => this.moved() });
    this.lightbox = new Lightbox({
      dialog: part("lightbox"),
      collection,
      images: this.images,
      selection: this.selection,
      grid: this.grid,
      told: announce,
    });
    this.panel = new Panel({ form: part("filters"), collection, changed: () => this.filtered() });
    this.listen();
    this.fromHash();
  }
  listen() {
    const grid = this.grid.element;
    grid.addEventListener("click", (event) => this.clicked(event));
    grid.addEventListener("keydown", (event) => this.key(event));
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address holds the filter
      grid.focus();
    });
    window.addEventListener("hashchange", () => {
      if (location.hash.slice(1) !== filterToHash(this.panel.filter)) this.fromHash();
    });
    part("reset").addEventListener("click", () => {
      this.panel.search.value = "";
      this.panel.set(noFilter());
      this.filtered();
    });
    part("class-clear").addEventListener("click", () => {
      this.panel.search.value = "";
      this.panel.change((filter) => {
        filter.classes.clear();
        filter.none = false;
      });
      this.panel.search.focus();
    });
    part("retry").addEventListener("click", () => {
      part("notice").hidden = true;
      this.images.retry();
      this.grid.refresh();
      this.moved();
      this.apply();
    });
    part("copy-where").addEventListener("click", () =>
      this.copy(() => pythonOf(this.panel.filter, this.collection), "Expression copied"),
    );
    part("copy-keys").addEventListener("click", () => this.copyKeys(keysAsLines));
    part("copy-list").addEventListener("click", () => this.copyKeys(keysAsPython));
    part("select-all").addEventListener("click", () => this.selection.set(rowsOf(this.grid.view), true));
    part("select-copies").addEventListener("click", () => this.selection.set(this.grid.view.copies(), true));
    part("clear-selection").addEventListener("click", () => {
      this.selection.clear();
      grid.focus();
    });
    part("side").addEventListener("input", (event) => {
      this.grid.side = Number(event.target.value);
      this.grid.measure();
      this.store("side", event.target.value);
    });
    part("sort").addEventListener("change", (event) => {
      const { value } = event.target;
      this.panel.change((filter) => (filter.sort = value ? [value.slice(1), value[0] === "-"] : null));
    });
    const opener = part("open-filters"),
      close = () => {
        document.body.classList.remove("panel");
        opener.setAttribute("aria-expanded", "false");
      };
    opener.addEventListener("click", () => {
      document.body.classList.add("panel");
      opener.setAttribute("aria-expanded", "true");
      part("close-filters").focus();
    });
    part("close-filters").addEventListener("click", () => {
      close();
      opener.focus();
    });
    part("filters").addEventListener("keydown", (event) => {
      if (event.key === "Escape" && document.body.classList.contains("panel")) {
        close();
        opener.focus();
      }
    });
    const side = this.stored("side");
    if (side >= 80 && side <= 320) part("side").value = this.grid.side = Number(side);
    for (const [name, { kind }] of this.collection.columns) {
      if ((kind !== "number" && kind !== "time") || name === "label") continue;
      const [least, most] = kind === "time" ? ["earliest", "latest"] : ["smallest", "largest"];
      part("sort").append(
        new Option(`${LABELS[name] ?? name}, ${least} first`, `+${name}`),
        new Option(`${LABELS[name] ?? name}, ${most} first`, `-${name}`),
      );
    }
  }
  stored(name) {
    try {
      return localStorage.getItem(`shardkit.${name}`);
    } catch {
      return null;
    }
  }
  store(name, value) {
    try {
      localStorage.setItem(`shardkit.${name}`, value);
    } catch {
      /* not allowed */
    }
  }

  fromHash() {
    this.panel.set(filterFromHash(location.hash, this.collection));
    this.apply();
  }
  filtered() {
    const hash = filterToHash(this.panel.filter);
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
    this.panel.set(this.panel.filter);
    this.apply();
  }
  async apply() {
    const { filter } = this.panel;
    this.stop?.abort();
    const stop = (this.stop = new AbortController());
    const python = pythonOf(filter, this.collection);
    part("python").textContent =
      python ||
      (filter.near === null
        ? "Set a filter to see its expression."
        : "No expression selects near-duplicates: select them, and copy their keys.");
    part("copy-where").disabled = !python;
    part("reset").hidden = isEmpty(filter) && !filter.splits.size && !filter.sort;
    part("sort").value = filter.sort ? (filter.sort[1] ? "-" : "+") + filter.sort[0] : "";
    let before = null;
    const show = (view, done, total, doing) => {
      if (stop.signal.aborted) return;
      if (view) {
        this.grid.show(view, before === view);
        before = view;
      }
      this.tellCount(view, done, total, doing);
    };
    part("grid").setAttribute("aria-busy", "true");
    try {
      await applyFilter(this.collection, filter, stop.signal, show);
    } catch (error) {
      if (!stop.signal.aborted) tell(error);
    }
    if (!stop.signal.aborted) part("grid").removeAttribute("aria-busy");
  }
  tellCount(view, done, total, doing = "Reading the index") {
    const all = this.collection.rows,
      place = part("count");
    if (!view || done < total) {
      place.textContent = `${doing}: ${Math.floor((100 * done) / total)} %`;
      return;
    }
    this.tellNear(view);
    const text =
      view.length === all ? counted(all, "sample") : `${view.length.toLocaleString("en")} of ${counted(all, "sample")}`;
    place.textContent = view.copies ? `${text}, in ${counted(view.count, "group")}` : text;
    part("nothing").hidden = view.length > 0;
    part("nothing").textContent = all ? "No sample passes the filter." : "This dataset has no samples.";
    part("select-all").disabled = !view.length;
  }
  /** What belongs to groups of near-duplicates: a button, and how far they were searched. */
  tellNear(view) {
    const { near } = this.panel.filter;
    part("select-copies").hidden = !view.copies;
    part("select-copies").disabled = !view.length;
    part("near-limit").hidden = !view.copies || view.bits === near;
    part("near-limit").textContent = `There are too many rows to compare all hashes: found are ${view.bits ? `those up to ${view.bits} bits apart` : "equal ones"}. Filter by class or split to search further.`;
  }
  moved() {
    clearTimeout(this.settled);
    const now = performance.now(),
      wait = now - this.movedAt < 120 ? 60 : 0; // while it scrolls fast, nothing is read
    this.movedAt = now;
    this.settled = setTimeout(() => {
      if (this.lightbox.row >= 0) return;
      this.images.want(this.grid.rows());
      this.grid.refresh(); // labels may have come since the cells were made
    }, wait);
  }
  fill(cell, row) {
    const { collection } = this,
      image = this.images.get(row),
      name = collection.className(row),
      key = collection.value(row, "key");
    const picture = cell.firstElementChild,
      width = collection.value(row, "width"),
      height = collection.value(row, "height"),
      group = this.grid.view.group?.(Number(cell.dataset.place));
    if (group !== undefined) cell.dataset.group = group % 2 ? "odd" : "even";
    cell.setAttribute("aria-selected", this.selection.has(row));
    cell.lastElementChild.textContent = name || key?.replace(/.*\//, "") || " ";
    if (key !== undefined) {
      const size = width && height ? `, ${width} by ${height} pixels` : "";
      const among = group === undefined ? "" : `. Group ${group + 1} of ${this.grid.view.count}`;
      cell.setAttribute(
        "aria-label",
        `${name ? `${name}, ` : ""}${key}${size}${among}${image?.error ? `. ${image.error}` : ""}`,
      );
      cell.title = key;
    }
    const state = image ? image.error || image.url : "";
    if (picture.dataset.state === state) return;
    picture.dataset.state = state;
    picture.querySelector("img, .note")?.remove();
    if (!image) return;
    if (image.error) {
      picture.prepend(note(image.error));
      return;
    }
    const shownImage = document.createElement("img");
    shownImage.alt = "";
    shownImage.draggable = false;
    shownImage.addEventListener("load", () => {
      shownImage.classList.toggle("small", shownImage.naturalWidth < 128);
      this.first();
    });
    shownImage.addEventListener("error", () => {
      this.images.failed(row);
      this.fill(cell, row);
    });
    shownImage.src = image.url;
    picture.prepend(shownImage);
  }
  first() {
    if (this.begun) return;
    this.begun = true;
    performance.mark("first-picture");
    setTimeout(() => this.panel.showRanges().catch(tell), 300);
  }
  clicked(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const place = Number(cell.dataset.place),
      row = Number(cell.dataset.row);
    this.grid.go(place);
    if (event.shiftKey) this.range(place);
    else if (event.target.closest(".check") || event.ctrlKey || event.metaKey) {
      this.anchor = place;
      this.selection.toggle(row);
    } else {
      this.anchor = place;
      this.lightbox.open();
    }
  }
  range(place) {
    const { view } = this.grid,
      [low, high] = [Math.min(this.anchor, place), Math.max(this.anchor, place)];
    this.selection.set(
      Array.from({ length: high - low + 1 }, (_, n) => view.at(low + n)),
      true,
    );
  }
  key(event) {
    const { grid } = this,
      whole = event.ctrlKey || event.metaKey;
    if (event.altKey || !grid.view.length) return;
    const target = grid.target(event);
    if (target !== null) {
      if (event.shiftKey) {
        grid.go(target);
        this.range(grid.active);
      } else {
        grid.go(target);
        this.anchor = grid.active;
      }
    } else if (event.key === "Enter") this.lightbox.open();
    else if (event.key === " ") {
      this.anchor = grid.active;
      this.selection.toggle(grid.view.at(grid.active));
    } else if (event.key === "a" && whole) this.selection.set(rowsOf(grid.view), true);
    else if (event.key === "Escape" && this.selection.count) this.selection.clear();
    else return;
    event.preventDefault();
  }
  selected() {
    const { count } = this.selection;
    part("selection").hidden = !count;
    const told = count ? `${count.toLocaleString("en")} selected` : "";
    part("selected").textContent = told; // in the bar, which is hidden without a selection
    part("spoken").textContent = told || "Nothing selected";
    for (const cell of this.grid.canvas.querySelectorAll(".cell"))
      cell.setAttribute("aria-selected", this.selection.has(Number(cell.dataset.row)));
  }
  async copyKeys(format) {
    await this.copy(
      async () => format(await selectedKeys(this.collection, this.selection)),
      `${counted(this.selection.count, "key")} copied`,
    );
  }
  async copy(make, done) {
    try {
      const text = await make();
      if (await copyText(text)) {
        announce(done);
        return;
      }
      part("copied").value = text;
      part("copy-dialog").showModal();
      part("copied").select();
    } catch (error) {
      tell(error);
    }
  }
}

async function start() {
  const config = JSON.parse(document.getElementById("config").textContent);
  try {
    if (location.protocol === "file:") {
      throw new PageError(
        "This page must come from a server",
        "Browsers do not let a page that is opened from a disk read the shards beside it. " +
          "Serve the folder: shardkit view --html --serve does, as do nginx, Caddy and every bucket.",
        { fatal: true, code: "file" },
      );
    }
    const collection = await openCollection(config);
    const [first] = collection.groups;
    first?.load(SHOWN, Math.min(AT_FIRST, first.rows)).catch(() => {}); // who asks again is told
    document.body.classList.add("ready");
    new Page(collection);
  } catch (error) {
    part("count").textContent = "";
    tell(error);
  }
}

start();
