// The lightbox: one image in full, with all columns of its row.

const bytesText = (bytes) =>
  bytes < 1000
    ? `${bytes} B`
    : bytes < 1e6
      ? `${(bytes / 1e3).toFixed(1)} kB`
      : bytes < 1e9
        ? `${(bytes / 1e6).toFixed(1)} MB`
        : `${(bytes / 1e9).toFixed(2)} GB`;

class Lightbox {
  constructor({ dialog, collection, images, selection, grid, told }) {
    Object.assign(this, { dialog, collection, images, selection, grid, told });
    this.row = -1;
    const find = (name) => dialog.querySelector(`[data-part=${name}]`);
    this.parts = Object.fromEntries(
      ["title", "class", "stage", "place", "columns", "select", "save", "previous", "next"].map((name) => [
        name,
        find(name),
      ]),
    );
    this.parts.previous.addEventListener("click", () => this.step(-1));
    this.parts.next.addEventListener("click", () => this.step(1));
    this.parts.select.addEventListener("click", () => {
      selection.toggle(this.row);
      this.update();
    });
    find("close").addEventListener("click", () => dialog.close());
    find("copy").addEventListener("click", async () =>
      told(
        (await copyText(this.collection.value(this.row, "key") ?? ""))
          ? "Key copied"
          : "The browser does not allow copying",
      ),
    );
    dialog.addEventListener("close", () => {
      this.row = -1;
      grid.go(grid.active);
      grid.element.focus();
    });
    dialog.addEventListener("keydown", (event) => this.key(event));
  }
  key(event) {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (step) {
      event.preventDefault();
      this.step(step);
    } else if (event.key === " " && !event.target.closest("button, a")) {
      event.preventDefault();
      this.selection.toggle(this.row);
      this.update();
    }
  }
  step(by) {
    const place = this.grid.active + by;
    if (place >= 0 && place < this.grid.view.length) {
      this.grid.go(place);
      this.open();
    }
  }
  /** Show the active sample of the grid. */
  async open() {
    const { view, active } = this.grid,
      row = view.at(active),
      group = this.collection.group(row);
    this.row = row;
    if (!this.dialog.open) this.dialog.showModal();
    const near = [active, active + 1, active - 1]
      .filter((place) => place >= 0 && place < view.length)
      .map((place) => view.at(place));
    this.images.want([...near, ...this.grid.rows()]);
    this.update();
    try {
      await group.load([...this.collection.columns.keys()], row - group.first + 1);
    } catch (error) {
      tell(error);
    }
    if (this.row === row) this.update();
  }
  update() {
    if (this.row < 0) return;
    const { collection, parts, row } = this,
      { dataset } = collection.group(row),
      name = collection.className(row);
    parts.title.textContent = collection.value(row, "key") ?? "…";
    parts.class.textContent = [name, collection.datasets.length > 1 ? dataset.name : ""].filter(Boolean).join(" · ");
    const [place, all] = [this.grid.active + 1, this.grid.view.length];
    parts.place.textContent = `${place.toLocaleString("en")} of ${all.toLocaleString("en")}`;
    parts.previous.disabled = this.grid.active === 0;
    parts.next.disabled = this.grid.active === this.grid.view.length - 1;
    parts.select.setAttribute("aria-pressed", this.selection.has(row));
    parts.select.textContent = this.selection.has(row) ? "Selected" : "Select";
    this.showImage(this.images.get(row));
    const rows = [];
    for (const [column, { kind, unit }] of collection.columns) {
      const value = collection.value(row, column);
      if (value === undefined) continue;
      const line = document.createElement("tr"),
        head = document.createElement("th"),
        cell = document.createElement("td");
      head.scope = "row";
      head.textContent = column;
      cell.textContent =
        valueText(column, kind, value, unit) + (column === "label" && name && value !== null ? ` (${name})` : "");
      if (column === "crc32c") this.check(this.images.get(row), value, cell);
      line.append(head, cell);
      rows.push(line);
    }
    parts.columns.replaceChildren(...rows);
  }
  /** Compare an image with its checksum in the index: a shard of the same size may hold others. */
  async check(image, sum, cell) {
    if (!image?.blob) return;
    image.sum ??= crc32c(new Uint8Array(await image.blob.arrayBuffer()));
    if (image.sum === sum) {
      cell.append(" (checked)");
      return;
    }
    const told = document.createElement("strong");
    told.className = "bad";
    told.textContent = " The image has another checksum: the shard has changed, or is damaged.";
    cell.append(told);
  }
  showImage(image) {
    const { stage, save } = this.parts;
    const state = `${this.row}:${image ? image.error || image.url : ""}`;
    if (stage.dataset.state === state) return;
    stage.dataset.state = state;
    save.hidden = !image?.url;
    if (image?.url) {
      save.href = image.url;
      save.download =
        (this.collection.value(this.row, "key") ?? "image").replace(/.*\//, "") +
        (image.type ? `.${image.type.slice(6).replace("jpeg", "jpg")}` : "");
    }
    if (!image || image.error) {
      stage.replaceChildren(note(image ? image.error : "Loading…"));
      return;
    }
    const picture = document.createElement("img");
    picture.alt = `Image of ${this.collection.value(this.row, "key") ?? "the sample"}`;
    picture.src = image.url;
    picture.addEventListener("load", () => {
      picture.classList.toggle("small", picture.naturalWidth < 160);
      const factor = Math.max(
        1,
        Math.floor(
          Math.min(
            (stage.clientWidth - 32) / picture.naturalWidth,
            (stage.clientHeight - 32) / picture.naturalHeight,
            12,
          ),
        ),
      );
      if (picture.naturalWidth < 160) picture.style.width = `${picture.naturalWidth * factor}px`;
    });
    picture.addEventListener("error", () => {
      this.images.failed(this.row);
      this.update();
    });
    stage.replaceChildren(picture);
  }
}

/** A day, or a point in time, given in milliseconds since 1970. */
function timeText(milliseconds, isDay) {
  const time = new Date(milliseconds);
  if (Number.isNaN(time.getTime())) return String(milliseconds);
  const text = time.toISOString();
  return isDay ? text.slice(0, 10) : text.slice(0, 23).replace("T", " ");
}

function note(text) {
  const found = document.createElement("p");
  found.className = "note";
  found.textContent = text;
  return found;
}

function valueText(column, kind, value, unit) {
  if (value === null) return "none";
  if (kind === "time") return timeText(value * unit, unit === 86400000);
  if (kind === "flag") return value ? "yes" : "no";
  if (column === "crc32c") return value.toString(16).padStart(8, "0");
  if (column === "size" || column === "image_size") return `${value.toLocaleString("en")} (${bytesText(value)})`;
  if (kind === "number")
    return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(6)));
  return String(value);
}
