"use strict";
// Histograms over time, pictures with a slider of steps, texts.

(() => {
  const { make } = board;

  // Cards of what the shown runs have of one kind; a card is made anew when its run changed.
  class Media {
    constructor(kind, card) {
      Object.assign(this, { kind, card });
    }

    open(panel) {
      this.box = make("div");
      this.only = make("input", { type: "search", placeholder: "tag", on: { input: () => this.update() } });
      panel.append(make("div", { class: "controls" }, make("label", {}, "Tags", this.only)), this.box);
      this.cards = new Map();
      this.update();
    }

    update() {
      const names = board.state.tags[this.kind];
      const only = this.only.value.toLowerCase();
      const kept = new Map();
      const groups = [];
      names.forEach((name, tag) => {
        if (!name.toLowerCase().includes(only)) return;
        const cards = [];
        for (const row of board.shown()) {
          if (!row.has[this.kind].includes(tag)) continue;
          const key = `${row.run} ${tag}`;
          const known = this.cards.get(key) || { element: make("section", { class: "card" }), seen: -1, row, tag, name, near: false };
          known.row = row;
          kept.set(key, known);
          cards.push(known);
        }
        if (cards.length) groups.push([name, cards]);
      });
      this.observer?.disconnect();
      this.observer = new IntersectionObserver((entries) => {
        for (const entry of entries) {
          const known = [...this.cards.values()].find((card) => card.element === entry.target);
          if (known) known.near = entry.isIntersecting;
          if (known && known.near) this.fill(known);
        }
      }, { rootMargin: "200px" });
      const laid = JSON.stringify([...kept.keys()]);
      if (laid !== this.laid || !this.box.childElementCount) {
        this.laid = laid;
        const grid = this.kind === "images" ? "pictures" : "grid";
        this.box.replaceChildren(...groups.flatMap(([name, cards]) => [make("h2", { text: name }),
          make("div", { class: grid }, ...cards.map((card) => card.element))]));
        if (!groups.length) this.box.append(make("p", { class: "soft", text: "None was logged in the runs that are shown." }));
      }
      this.cards = kept;
      for (const known of kept.values()) this.observer.observe(known.element);
    }

    async fill(known) {
      const version = board.state.changed.get(known.row.run);
      if (known.seen === version) return;
      known.seen = version;
      try {
        await this.card(known);
      } catch (error) {
        known.element.replaceChildren(make("p", { class: "bad", text: String(error.message || error) }));
      }
    }

    redraw() {
      for (const known of this.cards.values()) {
        known.seen = -1;
        if (known.near) this.fill(known);
      }
    }

    close() {
      this.observer?.disconnect();
    }
  }

  function title(known) {
    return make("h3", {}, board.swatch(known.row.run), ` ${known.row.name}`);
  }

  // Steps from left to right, values from below to above, the darker the more values.
  async function histogram(known) {
    const found = await board.ask("histograms", { run: known.row.run, tag: known.tag });
    const canvas = make("canvas", { class: "whole", tabindex: 0, role: "img", "aria-label": `${known.name} of ${known.row.name} over steps` });
    const readout = make("div", { class: "readout" });
    known.element.replaceChildren(title(known), canvas, readout);
    const { steps, rows, low, high } = found;
    const height = 200;
    const left = 58;
    const { context, width } = board.prepared(canvas, height);
    const bottom = height - 24;
    if (!rows.length) { context.fillText("nothing to draw", width / 2, height / 2); return; }
    const shade = board.colour("--shade");
    const wide = (width - left - 8) / rows.length;
    const bins = rows[0].length;
    rows.forEach((row, column) => {
      const most = Math.max(...row) || 1;
      row.forEach((count, bin) => {
        if (!count) return;
        context.fillStyle = `rgba(${shade}, ${(0.06 + 0.94 * Math.sqrt(count / most)).toFixed(3)})`;
        // Whole pixels: boxes that overlap would be darker there.
        const [above, below] = [bin + 1, bin].map((b) => Math.round(bottom - (bottom - 6) * b / bins));
        const [from, to] = [column, column + 1].map((c) => Math.round(left + c * wide));
        context.fillRect(from, above, to - from, below - above);
      });
    });
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = board.colour("--soft");
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const tick of board.ticks(low, high, 4)) {
      context.fillText(board.short(tick), left - 6, bottom - (bottom - 6) * (tick - low) / (high - low));
    }
    context.textBaseline = "top";
    context.textAlign = "left";
    context.fillText(board.short(steps[0]), left, bottom + 6);
    context.textAlign = "right";
    context.fillText(board.short(steps[steps.length - 1]), width - 8, bottom + 6);
    let at = -1;
    const read = (column) => {
      at = Math.min(Math.max(column, 0), rows.length - 1);
      const row = rows[at];
      const total = row.reduce((a, b) => a + b, 0) || 1;
      const quantile = (part) => {
        let sum = 0;
        const bin = row.findIndex((count) => (sum += count) >= part * total);
        return low + (high - low) * (bin + 0.5) / bins;
      };
      const told = [5, 50, 95].map((q) => `${q} %: ${board.short(Number(quantile(q / 100).toPrecision(3)))}`);
      readout.textContent = `step ${board.short(steps[at])}: ${board.short(Math.round(total))} values, ${told.join(", ")}`;
    };
    canvas.addEventListener("pointermove", (e) => read(Math.floor((e.clientX - canvas.getBoundingClientRect().left - left) / wide)));
    canvas.addEventListener("keydown", (e) => {
      if (e.key !== "ArrowLeft" && e.key !== "ArrowRight") return;
      e.preventDefault();
      read(at + (e.key === "ArrowRight" ? 1 : -1));
    });
  }

  async function picture(known) {
    const found = await board.ask("images", { run: known.row.run, tag: known.tag });
    const last = found.steps.length - 1;
    const place = known.place === undefined || known.place === known.last ? last : Math.min(known.place, last);
    Object.assign(known, { place, last });
    const image = make("img", { alt: "", loading: "lazy" });
    const told = make("span", { class: "note" });
    const slider = make("input", { type: "range", min: 0, max: Math.max(last, 0), step: 1, value: place,
      "aria-label": `Step of ${known.name} of ${known.row.name}` });
    const show = () => {
      known.place = Number(slider.value);
      const step = found.steps[known.place];
      if (step === undefined) { told.textContent = "no picture is kept"; return; }
      told.textContent = `step ${board.short(step)}, ${known.place + 1} of ${last + 1}`;
      slider.setAttribute("aria-valuetext", told.textContent);
      if (found.shown[known.place]) {
        image.src = board.picture(known.row.run, known.tag, known.place);
        image.alt = `${known.name} of ${known.row.name} at step ${step}`;
      } else {
        image.removeAttribute("src");
        image.alt = "not a PNG, JPEG, GIF or WebP";
      }
    };
    slider.addEventListener("input", show);
    show();
    known.element.replaceChildren(title(known), image, last > 0 ? slider : "", told);
  }

  async function text(known) {
    const found = await board.ask("texts", { run: known.row.run, tag: known.tag });
    const parts = found.steps.map((step, i) => [make("div", { class: "note", text: `step ${board.short(step)}` }),
      make("pre", { text: found.texts[i], tabindex: 0 })]).reverse();
    known.element.replaceChildren(title(known), ...parts.flat());
  }

  // Rows are true, columns predicted; cells are the darker, the larger their share of the row.
  async function confusion(known) {
    const found = await board.ask("confusions", { run: known.row.run, tag: known.tag });
    const last = found.steps.length - 1;
    const place = known.place === undefined || known.place === known.last ? last : Math.min(known.place, last);
    Object.assign(known, { place, last });
    const told = make("p", { class: "note" });
    const readout = make("div", { class: "readout", "aria-live": "polite" });
    const canvas = make("canvas", { class: "whole", tabindex: 0, role: "img" });
    const slider = make("input", { type: "range", class: "steps", min: 0, max: Math.max(last, 0), step: 1, value: place,
      "aria-label": `Step of ${known.name} of ${known.row.name}` });
    known.element.classList.toggle("large", Math.max(0, ...found.matrices.map((m) => m.labels.length)) > 7);
    known.element.replaceChildren(title(known), last > 0 ? slider : "", told, canvas, readout);
    let drawn = null; // where cells are
    let cell = null;

    const read = (row, column) => {
      const { labels, counts } = drawn.matrix;
      const limit = (at) => Math.min(Math.max(at, 0), labels.length - 1);
      cell = [limit(row), limit(column)];
      const [r, c] = cell;
      const sum = counts[r].reduce((a, b) => a + b, 0) || 1;
      readout.textContent = `${labels[r]} taken for ${labels[c]}: ${counts[r][c].toLocaleString("en")}, ${(100 * counts[r][c] / sum).toFixed(1)} % of ${labels[r]}`;
      draw();
    };

    function draw() {
      const matrix = found.matrices[known.place];
      if (!matrix) { told.textContent = "no matrix is kept"; return; }
      const { labels, counts } = matrix;
      const n = labels.length;
      const room = canvas.parentElement.clientWidth - 24;
      const left = Math.min(130, room * 0.28);
      const side = Math.max(3, Math.min(46, (room - left) / n));
      const named = side >= 11;
      const below = named ? 80 : 20;
      const { context } = board.prepared(canvas, Math.ceil(n * side + below));
      drawn = { matrix, left, side };
      const shade = board.colour("--shade");
      context.font = "11px system-ui, sans-serif";
      context.textBaseline = "middle";
      const fitted = (text, width) => {
        let short = text;
        while (short.length > 1 && context.measureText(short).width > width) short = short.slice(0, -2);
        return short === text ? text : `${short}…`;
      };
      counts.forEach((row, r) => {
        const sum = row.reduce((a, b) => a + b, 0) || 1;
        row.forEach((count, c) => {
          const part = count / sum;
          const [x, y] = [left + c * side, r * side];
          context.fillStyle = `rgba(${shade}, ${(count ? 0.06 + 0.94 * part : 0.02).toFixed(3)})`;
          context.fillRect(x, y, side - 1, side - 1);
          if (cell && cell[0] === r && cell[1] === c) {
            context.strokeStyle = board.colour("--ink");
            context.strokeRect(x + 0.5, y + 0.5, side - 2, side - 2);
          }
          if (!count || side < 24) return;
          const strong = part > 0.55;
          context.fillStyle = strong ? board.colour("--paper") : board.colour("--ink");
          context.textAlign = "center";
          context.fillText(fitted(count >= 10000 ? board.short(count) : String(count), side - 2), x + side / 2, y + side / 2);
        });
        if (!named) return;
        context.fillStyle = board.colour("--soft");
        context.textAlign = "right";
        context.fillText(fitted(labels[r], left - 8), left - 5, (r + 0.5) * side);
        context.save();
        context.translate(left + (r + 0.5) * side, n * side + 5);
        context.rotate(-Math.PI / 4);
        context.fillText(fitted(labels[r], 95), 0, 0);
        context.restore();
      });
      const step = board.short(found.steps[known.place]);
      const some = n < matrix.classes ? `, ${n} of ${matrix.classes} classes: those confused most` : "";
      told.textContent = `step ${step}, ${known.place + 1} of ${last + 1}: accuracy ${matrix.accuracy === null ? "–" : `${(100 * matrix.accuracy).toFixed(1)} %`}${some}; rows are true, columns predicted`;
      canvas.setAttribute("aria-label", `${known.name} of ${known.row.name}, ${told.textContent}`);
      slider.setAttribute("aria-valuetext", `step ${step}`);
    }

    slider.addEventListener("input", () => { known.place = Number(slider.value); cell = null; readout.textContent = ""; draw(); });
    canvas.addEventListener("pointermove", (event) => {
      if (!drawn) return;
      const edge = canvas.getBoundingClientRect();
      const [row, column] = [(event.clientY - edge.top) / drawn.side, (event.clientX - edge.left - drawn.left) / drawn.side].map(Math.floor);
      const n = drawn.matrix.labels.length;
      if (row >= 0 && row < n && column >= 0 && column < n) read(row, column);
    });
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!way || !drawn) return;
      event.preventDefault();
      const [row, column] = cell || [0, 0];
      read(cell ? row + way[0] : 0, cell ? column + way[1] : 0);
    });
    draw();
  }

  Object.assign(board, { Media, mediaCards: { histograms: histogram, images: picture, texts: text, confusions: confusion } });
})();
