"use strict";
// The table of runs: figures and hyper-parameters, sorted by any column.

(() => {
  const { make } = board;
  const sorting = { column: "started", down: true };
  let only = true; // hyper-parameters that differ

  function columns(rows) {
    const found = [
      { id: "name", title: "run", value: (row) => row.name },
      { id: "status", title: "status", value: (row) => row.status },
      { id: "started", title: "started", value: (row) => row.started,
        show: (v) => (typeof v === "number" ? new Date(v * 1000).toLocaleString() : "–") },
      { id: "seconds", title: "time", value: (row) => row.seconds, show: board.seconds },
      { id: "step", title: "step", value: (row) => row.step },
    ];
    for (const tag of board.state.main) {
      const name = board.state.tags.scalars[tag];
      const figure = (part) => (row) => (Object.hasOwn(row.figures, tag) ? row.figures[tag][part] : null);
      found.push({ id: `last ${tag}`, title: name, value: figure("last") });
      found.push({ id: `best ${tag}`, title: `best ${name}`, value: figure("best") });
    }
    const names = new Set(rows.flatMap((row) => Object.keys(row.hyperparameters)));
    for (const name of names) {
      const value = (row) => (Object.hasOwn(row.hyperparameters, name) ? row.hyperparameters[name] : null);
      const different = new Set(rows.map((row) => JSON.stringify(value(row)))).size > 1;
      if (different || !only || rows.length === 1) found.push({ id: `set ${name}`, title: name, value });
    }
    return found;
  }

  class Table {
    open(panel) {
      this.box = make("div", { class: "scroll" });
      panel.append(make("div", { class: "controls" },
        make("label", {}, make("input", { type: "checkbox", checked: only,
          on: { change: (e) => { only = e.target.checked; this.update(); } } }), "only hyper-parameters that differ"),
        make("span", { class: "note", text: "the filter beside takes conditions: lr<0.01 status=finished" })), this.box);
      this.update();
    }

    update() {
      const rows = board.filtered();
      const all = columns(rows);
      const by = all.find((column) => column.id === sorting.column) || all[0];
      rows.sort((a, b) => board.compare(by.value(a), by.value(b), sorting.down));
      const focused = document.activeElement && this.box.contains(document.activeElement)
        ? document.activeElement.dataset.column : null;
      const head = make("tr", {}, ...all.map((column) => {
        const chosen = column.id === by.id;
        const mark = chosen ? (sorting.down ? " ▼" : " ▲") : "";
        const button = make("button", { type: "button", text: column.title + mark, "data-column": column.id,
          on: { click: () => {
            sorting.down = chosen ? !sorting.down : false;
            sorting.column = column.id;
            this.update();
          } } });
        return make("th", { scope: "col", "aria-sort": chosen ? (sorting.down ? "descending" : "ascending") : "none" }, button);
      }));
      const body = rows.map((row) => make("tr", {}, ...all.map((column) => {
        const value = column.value(row);
        const text = column.show ? column.show(value) : board.short(value);
        const bad = column.id === "status" && (value === "failed" || value === "lost");
        const kind = typeof value === "number" ? "number" : bad ? "bad" : null;
        return make("td", { text, class: kind, title: text });
      })));
      const problems = rows.flatMap((row) => row.problems.map((text) => `${row.name}: ${text}`));
      const parts = [make("table", {}, make("thead", {}, head), make("tbody", {}, ...body))];
      if (problems.length) {
        parts.push(make("h2", { text: "What could not be read" }), make("pre", { text: problems.join("\n") }));
      }
      this.box.replaceChildren(...parts);
      if (focused) {
        const again = [...this.box.querySelectorAll("th button")].find((b) => b.dataset.column === focused);
        if (again) again.focus();
      }
    }

    redraw() {}
    close() {}
  }

  board.Table = Table;
})();
