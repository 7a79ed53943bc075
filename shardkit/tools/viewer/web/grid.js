// The grid: only the rows on the screen are elements. A million rows are more pixels than an element may have, so the
// place in the grid is the place of the scrolled element and an offset.

const TALLEST = 4e6; // pixels of the scrolled element
const CAPTION = 30;

class Grid {
  constructor(element, { cell, moved }) {
    this.element = element;
    this.cell = cell;
    this.moved = moved;
    this.canvas = element.firstElementChild;
    this.view = new RowRanges([]);
    this.active = 0;
    this.lines = new Map();
    this.side = 150;
    this.offset = 0;
    this.page = 0;
    this.last = 0;
    element.addEventListener("scroll", () => this.scrolled());
    new ResizeObserver(() => this.measure()).observe(element);
    this.measure();
  }
  measure() {
    const width = this.canvas.clientWidth;
    if (!width || !this.element.clientHeight) return; // it is hidden
    const columns = Math.max(2, Math.floor((width + 8) / (this.side + 8))),
      line = Math.floor((width - 8 * (columns - 1)) / columns) + CAPTION + 8;
    this.high = this.element.clientHeight;
    if (columns === this.columns && line === this.line && this.total === this.view.length) {
      this.draw();
      return;
    }
    const top = this.columns ? Math.floor((this.last + this.offset) / this.line) * this.columns : 0;
    this.columns = columns;
    this.line = line;
    this.total = this.view.length;
    this.resize();
    this.clear();
    this.scrollTo(Math.floor(top / columns) * line);
  }
  resize() {
    this.virtual = Math.max(this.high, Math.ceil(this.view.length / this.columns) * this.line + 8);
    this.tall = Math.min(this.virtual, TALLEST);
    this.pageHigh = this.tall / 100;
    this.pages = Math.max(1, Math.floor(this.virtual / this.pageHigh));
    this.jump = this.tall < this.virtual ? (this.virtual - this.tall) / (this.pages - 1) : 0;
    this.canvas.style.height = `${this.tall}px`;
    this.element.setAttribute("aria-rowcount", Math.ceil(this.view.length / this.columns));
    this.element.setAttribute("aria-colcount", this.columns);
  }
  /** Show other rows. more: the rows are those before, and some more. */
  show(view, more = false) {
    this.view = view;
    this.total = view.length;
    if (!more) this.active = 0;
    this.resize();
    if (!more) {
      this.clear();
      this.scrollTo(0);
    } else {
      this.clear();
      this.draw();
    }
  }
  clear() {
    for (const line of this.lines.values()) line.remove();
    this.lines.clear();
  }
  scrolled() {
    const top = this.element.scrollTop,
      moved = Math.abs(top - this.last);
    if (moved) {
      if (moved < this.high || !this.jump) this.scrollTo(top + this.offset);
      else {
        // the bar was dragged: its place is a part of the whole
        this.page = Math.min(
          this.pages - 1,
          Math.floor((top * (this.virtual - this.high)) / (this.tall - this.high) / this.pageHigh),
        );
        this.offset = Math.round(this.page * this.jump);
        this.last = top;
        this.clear();
      }
    }
    this.draw();
  }
  scrollTo(place) {
    const at = Math.max(0, Math.min(place, this.virtual - this.high)),
      before = this.offset;
    this.page = Math.min(this.pages - 1, Math.floor(at / this.pageHigh));
    this.offset = Math.round(this.page * this.jump);
    if (this.offset !== before) this.clear();
    this.last = at - this.offset;
    if (Math.abs(this.element.scrollTop - this.last) > 0.5) {
      this.element.scrollTop = this.last;
      this.last = this.element.scrollTop;
    }
    this.draw();
  }
  /** The rows of the dataset that are on the screen, and some after them. */
  rows() {
    const [first, end] = this.span(),
      found = [];
    for (let place = first * this.columns; place < Math.min(end * this.columns, this.view.length); place++)
      found.push(this.view.at(place));
    return found;
  }
  span(extra = 0) {
    const top = this.last + this.offset,
      lines = Math.ceil(this.view.length / this.columns);
    return [
      Math.max(0, Math.floor(top / this.line) - extra),
      Math.min(lines, Math.ceil((top + this.high) / this.line) + extra),
    ];
  }
  draw() {
    const [first, end] = this.span(1);
    for (const [line, element] of this.lines)
      if (line < first || line >= end) {
        element.remove();
        this.lines.delete(line);
      }
    let after = null;
    for (let line = end - 1; line >= first; line--) {
      if (!this.lines.has(line)) {
        const made = this.makeLine(line);
        this.lines.set(line, made);
        this.canvas.insertBefore(made, after);
      }
      after = this.lines.get(line);
    }
    this.mark();
    this.moved();
  }
  makeLine(line) {
    const element = document.createElement("div");
    element.className = "line";
    element.setAttribute("role", "row");
    element.setAttribute("aria-rowindex", line + 1);
    element.style.top = `${line * this.line - this.offset}px`;
    element.style.gridTemplateColumns = `repeat(${this.columns}, minmax(0, 1fr))`;
    for (let place = line * this.columns; place < Math.min((line + 1) * this.columns, this.view.length); place++) {
      const cell = document.createElement("div");
      cell.id = `cell-${place}`;
      cell.className = "cell";
      cell.dataset.place = place;
      cell.dataset.row = this.view.at(place);
      cell.setAttribute("role", "gridcell");
      cell.setAttribute("aria-colindex", (place % this.columns) + 1);
      cell.innerHTML =
        '<div class="picture"><span class="check" aria-hidden="true"></span></div><div class="caption"></div>';
      this.cell(cell, this.view.at(place));
      element.append(cell);
    }
    return element;
  }
  /** Draw the cells of these rows again; null: all. */
  refresh(rows = null) {
    const some = rows && new Set(rows);
    for (const cell of this.canvas.querySelectorAll(".cell"))
      if (!some || some.has(Number(cell.dataset.row))) this.cell(cell, Number(cell.dataset.row));
  }
  mark() {
    for (const cell of this.canvas.querySelectorAll(".active"))
      if (Number(cell.dataset.place) !== this.active) cell.classList.remove("active");
    const cell = document.getElementById(`cell-${this.active}`);
    if (cell) {
      cell.classList.add("active");
      this.element.setAttribute("aria-activedescendant", cell.id);
    } else this.element.removeAttribute("aria-activedescendant");
  }
  /** Make a place the active one, and bring it into view. */
  go(place) {
    if (!this.view.length) return;
    this.active = Math.max(0, Math.min(place, this.view.length - 1));
    const top = Math.floor(this.active / this.columns) * this.line,
      at = this.last + this.offset;
    if (top < at) this.scrollTo(top);
    else if (top + this.line > at + this.high) this.scrollTo(top + this.line - this.high);
    else this.draw();
  }
  /** The place that a key leads to; null for other keys. */
  target(event) {
    const page = Math.max(1, Math.floor(this.high / this.line)) * this.columns,
      line = this.active - (this.active % this.columns);
    const whole = event.ctrlKey || event.metaKey;
    switch (event.key) {
      case "ArrowLeft":
        return this.active - 1;
      case "ArrowRight":
        return this.active + 1;
      case "ArrowUp":
        return this.active < this.columns ? this.active : this.active - this.columns;
      case "ArrowDown":
        return this.active + this.columns;
      case "PageUp":
        return this.active - page;
      case "PageDown":
        return this.active + page;
      case "Home":
        return whole ? 0 : line;
      case "End":
        return whole ? this.view.length - 1 : line + this.columns - 1;
      default:
        return null;
    }
  }
}
