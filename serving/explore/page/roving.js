// Keyboard of a grid: one cell can be reached by Tab, arrow keys move the focus, Enter or a click picks.

/** Follows the rows of cells of an element with the role grid. */
export class Roving {
  constructor(element, pick) {
    this.element = element;
    this.pick = pick;
    this.cells = [];
    element.addEventListener("keydown", (event) => this.#move(event));
    element.addEventListener("click", ({ target }) => {
      const place = this.#placeOf(target.closest("[role=gridcell]"));
      if (!place) return;
      this.focus(...place);
      pick(...place);
    });
  }

  /** Index of the cell that has the focus, in reading order; -1 if none has. */
  get focused() {
    return this.cells.flat().indexOf(document.activeElement);
  }

  /** Takes new rows of cells; the focus stays at its index. */
  set(cells, focused) {
    this.cells = cells;
    const all = cells.flat();
    for (const cell of all) cell.tabIndex = -1;
    const chosen = all[focused] ?? all[0];
    chosen.tabIndex = 0;
    if (focused >= 0) chosen.focus();
  }

  /** Moves the focus to a cell. */
  focus(i, j) {
    for (const cell of this.cells.flat()) cell.tabIndex = -1;
    this.cells[i][j].tabIndex = 0;
    this.cells[i][j].focus();
  }

  #placeOf(cell) {
    const i = this.cells.findIndex((row) => row.includes(cell));
    return i < 0 ? null : [i, this.cells[i].indexOf(cell)];
  }

  #move(event) {
    const place = this.#placeOf(event.target);
    if (!place) return;
    const [i, j] = place;
    const moves = {
      ArrowUp: [i - 1, j],
      ArrowDown: [i + 1, j],
      ArrowLeft: [i, j - 1],
      ArrowRight: [i, j + 1],
      Home: [i, 0],
      End: [i, this.cells[i].length - 1],
    };
    if (event.key === "Enter" || event.key === " ") this.pick(i, j);
    else if (!(event.key in moves)) return;
    else {
      const [row, column] = moves[event.key];
      if (this.cells[row]?.[column]) this.focus(row, column);
    }
    event.preventDefault();
  }
}
