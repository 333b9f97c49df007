"use strict";
// Numbers, colours, filters: plain functions that touch no page.
globalThis.board = globalThis.board || {};

(() => {
  // Told apart by people with any colour vision (Okabe and Ito 2008), for light and dark paper.
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#b5578f", "#a86f00", "#3c93c9", "#4d4d4d"];
  const DARK = ["#56b4e9", "#ff8f4a", "#2ec99b", "#e59cc7", "#e6b422", "#8fd0ff", "#c9c9c9"];
  // Beyond the number of colours lines differ in their dashes.
  const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [14, 4]];

  function style(number, dark) {
    const colours = dark ? DARK : LIGHT;
    return {
      colour: colours[number % colours.length],
      dash: DASHES[Math.floor(number / colours.length) % DASHES.length],
    };
  }

  function short(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") return String(value);
    if (!Number.isFinite(value)) return String(value);
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e7 || size < 1e-4) return value.toExponential(3).replace(/\.?0+e/, "e");
    return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(5)));
  }

  function seconds(value) {
    if (value === null || value === undefined) return "–";
    if (value < 1e-3) return `${(value * 1e6).toPrecision(3)} µs`;
    if (value < 1) return `${(value * 1e3).toPrecision(3)} ms`;
    if (value < 120) return `${Number(value.toPrecision(3))} s`;
    if (value < 7200) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
    return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  }

  function bytes(value) {
    for (const unit of ["B", "kB", "MB"]) {
      if (value < 1000) return `${Number(value.toPrecision(3))} ${unit}`;
      value /= 1000;
    }
    return `${Number(value.toPrecision(3))} GB`;
  }

  // Round places within a range, 1, 2 or 5 times a power of ten apart.
  function ticks(low, high, count) {
    if (!(high > low)) return [low];
    const raw = (high - low) / Math.max(count, 1);
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i++) {
      found.push(Number((i * step).toPrecision(12)));
      if (found.length > 200) break;
    }
    return found;
  }

  function logTicks(low, high) {
    const first = Math.floor(Math.log10(low));
    const last = Math.ceil(Math.log10(high));
    const every = Math.max(1, Math.ceil((last - first) / 7));
    const found = [];
    for (let i = first; i <= last; i += every) {
      for (const m of last - first <= 2 ? [1, 2, 5] : [1]) {
        const value = m * 10 ** i;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    }
    if (found.length > 2) return found;
    return ticks(low, high, 4).filter((value) => value > 0); // less than a decade or so
  }

  // An average that forgets, not pulled towards zero at its beginning.
  function smoothed(values, weight) {
    let average = 0;
    let scale = 0;
    return values.map((value) => {
      if (value !== null && Number.isFinite(value)) {
        average = weight * average + (1 - weight) * value;
        scale = weight * scale + (1 - weight);
      }
      return scale ? average / scale : null;
    });
  }

  // "lr<0.01 status=finished resnet": conditions, and words that the name has to contain.
  function parseFilter(text) {
    return text.trim().split(/\s+/).filter(Boolean).map((term) => {
      const found = /^(.+?)(<=|>=|!=|=|<|>)(.*)$/.exec(term);
      if (!found) return { word: term.toLowerCase() };
      const number = found[3] === "" ? NaN : Number(found[3]);
      return { name: found[1], op: found[2], text: found[3].toLowerCase(), number };
    });
  }

  function matches(terms, row) {
    return terms.every((term) => {
      if (term.word !== undefined) return row.name.toLowerCase().includes(term.word);
      const settings = new Map(Object.entries(row.hyperparameters));
      const own = { status: row.status, name: row.name, step: row.step, seconds: row.seconds };
      const value = Object.hasOwn(own, term.name) ? own[term.name] : settings.get(term.name);
      if (value === undefined || value === null) return term.op === "!=";
      if (typeof value === "number" && !Number.isNaN(term.number)) {
        return { "<": value < term.number, ">": value > term.number, "<=": value <= term.number,
          ">=": value >= term.number, "=": value === term.number, "!=": value !== term.number }[term.op];
      }
      const is = String(value).toLowerCase();
      return { "=": is === term.text, "!=": is !== term.text, "<": is < term.text,
        ">": is > term.text, "<=": is <= term.text, ">=": is >= term.text }[term.op];
    });
  }

  // Numbers before text before nothing, whichever way is up.
  function compare(a, b, down) {
    const rank = (v) => (typeof v === "number" ? 0 : v === null || v === undefined ? 2 : 1);
    if (rank(a) !== rank(b)) return rank(a) - rank(b);
    if (rank(a) === 2) return 0;
    const order = rank(a) === 0 ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
    return down ? -order : order;
  }

  // The last place of a sorted list whose value is not above `x`; -1 if there is none.
  function before(list, x) {
    let low = 0;
    let high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle] <= x) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  Object.assign(board, { style, short, seconds, bytes, ticks, logTicks, smoothed, parseFilter,
    matches, compare, before });
})();
