"use strict";
// Numbers over time: one card for each tag, several runs overlaid.

(() => {
  const { make } = board;
  const settings = { smooth: 0, logX: false, logY: false, axis: "step", only: "" };

  function clock(value) {
    return new Date(value * 1000).toLocaleString();
  }

  class Card {
    constructor(tag, name) {
      Object.assign(this, { tag, name, found: new Map(), version: -1, asked: "", near: false, low: null, high: null });
      this.canvas = make("canvas", { class: "whole" });
      this.readout = make("div", { class: "readout", "aria-live": "off" });
      this.odd = make("div", { class: "note bad" });
      const large = make("button", { type: "button", text: "⤢", "aria-label": `Enlarge ${name}`, "aria-pressed": "false" });
      large.addEventListener("click", () => {
        const on = this.element.classList.toggle("large");
        large.setAttribute("aria-pressed", String(on));
        this.chart.height = on ? 420 : 220;
        this.load();
      });
      this.element = make("section", { class: "card" },
        make("div", { class: "head" }, make("h3", { text: name }), large), this.canvas, this.readout, this.odd);
      this.chart = new board.Chart(this.canvas, this.readout, (low, high) => {
        Object.assign(this, { low, high });
        this.load();
      });
      this.chart.title = name;
    }

    // Ask for what has changed, or for everything where the question is another one.
    async load() {
      if (!this.near) return;
      const runs = board.shown().map((row) => row.run);
      const width = Math.max(100, Math.min(this.canvas.clientWidth || 400, Math.floor(40000 / (runs.length || 1))));
      const { smooth, axis } = settings;
      const given = { tag: this.tag, width, axis, log: settings.logX ? 1 : 0, low: this.low, high: this.high,
        smooth, runs: runs.join(",") };
      const asked = JSON.stringify(given);
      const same = asked === this.asked;
      if (same && board.exported) return this.show();
      this.asked = asked;
      try {
        const answer = await board.ask("scalars", { ...given, since: same ? this.version : -1 });
        if (this.asked !== asked) return; // another question was asked meanwhile
        if (!same) this.found.clear();
        this.version = answer.version;
        for (const [run, part] of Object.entries(answer.runs)) this.found.set(Number(run), part);
        this.show();
      } catch (error) {
        board.notice(String(error.message || error));
      }
    }

    show() {
      const lines = [];
      const odd = [];
      for (const row of board.shown()) {
        const part = this.found.get(row.run);
        if (!part) continue;
        const line = { number: row.run, name: row.name, x: part.x, y: part.y, sx: part.sx, sy: part.sy };
        if (board.exported && settings.smooth) [line.sx, line.sy] = [part.x, board.smoothed(part.y, settings.smooth)];
        if (part.odd) odd.push(`${row.name}: ${part.odd} not finite, first at ${format(part.first_odd)}`);
        lines.push(line);
      }
      this.odd.textContent = odd.slice(0, 3).join("; ");
      this.chart.logX = settings.logX;
      this.chart.logY = settings.logY;
      this.chart.formatX = format;
      this.chart.set(lines);
    }
  }

  function format(value) {
    if (settings.axis === "wall") return clock(value);
    return settings.axis === "relative" ? board.seconds(value) : board.short(value);
  }

  function controls(changed) {
    const box = (name, text) => make("label", {}, make("input", { type: "checkbox", checked: settings[name],
      on: { change: (e) => { settings[name] = e.target.checked; changed(); } } }), text);
    const shown = make("output", { text: String(settings.smooth) });
    const slider = make("input", { type: "range", min: 0, max: 0.999, step: 0.001, value: settings.smooth, id: "smooth",
      on: { input: (e) => {
        // Finer towards the end, where it matters.
        settings.smooth = Number((1 - (1 - e.target.value) ** 2).toFixed(4));
        shown.textContent = String(settings.smooth);
        changed();
      } } });
    slider.value = 1 - Math.sqrt(1 - settings.smooth);
    const axis = make("select", { id: "axis", on: { change: (e) => { settings.axis = e.target.value; changed(true); } } },
      ...[["step", "step"], ["relative", "time since begin"], ["wall", "date"]].map(([value, text]) =>
        make("option", { value, text, selected: settings.axis === value })));
    const only = make("input", { type: "search", id: "tags", placeholder: "loss", value: settings.only,
      on: { input: (e) => { settings.only = e.target.value; changed(false, true); } } });
    return make("div", { class: "controls" },
      make("label", {}, "Tags", only), make("label", {}, "Smoothing", slider, shown),
      box("logX", "log x"), box("logY", "log y"),
      board.exported ? null : make("label", {}, "x", axis),
      make("span", { class: "note", text: "drag to zoom, double click or 0 for all; arrows and + on a chart" }));
  }

  // A panel of all numbers whose tag is wanted.
  class Scalars {
    constructor(wanted) {
      Object.assign(this, { wanted, cards: new Map() });
    }

    open(panel) {
      this.observer = new IntersectionObserver((entries) => {
        for (const entry of entries) {
          const card = this.cards.get(Number(entry.target.dataset.tag));
          if (!card) continue;
          card.near = entry.isIntersecting;
          if (card.near) card.load();
        }
      }, { rootMargin: "150px" });
      this.grid = make("div");
      this.cards.clear();
      this.key = "";
      panel.append(controls((axis, tags) => {
        for (const card of this.cards.values()) {
          if (axis) Object.assign(card, { low: null, high: null }), card.chart.view = null;
          if (!tags) card.load();
        }
        if (tags) this.update();
      }), this.grid);
      this.update();
    }

    update() {
      const names = board.state.tags.scalars;
      const has = new Set(board.shown().flatMap((row) => row.has.scalars));
      const only = settings.only.toLowerCase();
      const tags = names.map((name, tag) => [tag, name])
        .filter(([tag, name]) => has.has(tag) && this.wanted(name) && name.toLowerCase().includes(only));
      const key = JSON.stringify(tags);
      if (key !== this.key) {
        this.key = key;
        this.lay(tags);
      }
      for (const card of this.cards.values()) card.load();
    }

    lay(tags) {
      this.observer.disconnect();
      const groups = new Map();
      for (const [tag, name] of tags) {
        const group = name.includes("/") ? name.slice(0, name.indexOf("/")) : "";
        if (!groups.has(group)) groups.set(group, []);
        if (!this.cards.has(tag)) this.cards.set(tag, new Card(tag, name));
        groups.get(group).push(this.cards.get(tag));
      }
      for (const tag of [...this.cards.keys()]) if (!tags.some(([t]) => t === tag)) this.cards.delete(tag);
      this.grid.replaceChildren();
      for (const [group, cards] of [...groups].sort()) {
        if (group) this.grid.append(make("h2", { text: group }));
        this.grid.append(make("div", { class: "grid" }, ...cards.map((card) => card.element)));
      }
      for (const card of this.cards.values()) {
        card.element.dataset.tag = card.tag;
        this.observer.observe(card.element);
      }
      if (!tags.length) this.grid.append(make("p", { class: "soft", text: "No numbers here: choose runs beside, or wait for the first." }));
    }

    redraw() {
      for (const card of this.cards.values()) card.chart.draw();
    }

    close() {
      this.observer.disconnect();
    }
  }

  board.Scalars = Scalars;
})();
