"use strict";
// The page: views, which runs are shown, light and dark, and asking for news.

(() => {
  const { make } = board;
  const EVERY = 2000; // milliseconds between questions
  const MOST = 100; // runs that are shown without being asked for
  const rows = new Map();
  const hidden = new Set();
  const chosen = new Set(); // beyond MOST
  board.state = { version: -1, rows, changed: new Map(), main: [],
    tags: { scalars: [], histograms: [], images: [], texts: [], confusions: [] } };
  const filter = document.getElementById("filter");
  const list = document.getElementById("runs");
  const panel = document.getElementById("panel");

  const isSystem = (name) => name.startsWith("system/");
  const views = [
    ["scalars", "Numbers", new board.Scalars((name) => !isSystem(name))],
    ["runs", "Runs", new board.Table()],
    ["histograms", "Histograms", new board.Media("histograms", board.mediaCards.histograms)],
    ["images", "Pictures", new board.Media("images", board.mediaCards.images)],
    ["confusions", "Confusion", new board.Media("confusions", board.mediaCards.confusions)],
    ["texts", "Texts", new board.Media("texts", board.mediaCards.texts)],
    ["model", "Model", new board.OneRun(() => true, board.structurePanel)],
    ["profile", "Profile", new board.OneRun((row) => row.profile, board.profilePanel)],
    ["system", "System", new board.Scalars(isSystem)],
  ];
  let current = null;

  // -- light and dark --------------------------------------------------------------------

  const prefers = matchMedia("(prefers-color-scheme: dark)");
  let theme = null;
  board.dark = () => document.documentElement.dataset.theme === "dark";

  function paint() {
    document.documentElement.dataset.theme = theme || (prefers.matches ? "dark" : "light");
    if (current) current[2].redraw();
    fillList();
  }

  document.getElementById("theme").addEventListener("click", () => {
    theme = board.dark() ? "light" : "dark";
    paint();
  });
  prefers.addEventListener("change", paint);

  // -- which runs ------------------------------------------------------------------------

  board.filtered = () => {
    const terms = board.parseFilter(filter.value);
    return [...rows.values()].filter((row) => board.matches(terms, row));
  };
  board.shown = () => board.filtered().filter((row) => chosen.has(row.run) && !hidden.has(row.run));
  board.notice = (text) => {
    const place = document.getElementById("notice");
    place.textContent = text;
    place.hidden = !text;
  };

  let listed = "";

  function fillList() {
    const found = board.filtered();
    const key = JSON.stringify([board.dark(), found.map((row) => [row.run, row.status])]);
    document.getElementById("chosen").textContent = `${board.shown().length} of ${rows.size}`;
    if (key === listed) return;
    listed = key;
    list.replaceChildren(...found.map((row) => {
      const box = make("input", { type: "checkbox", "data-run": row.run, on: { change: (e) => {
        choose([row.run], e.target.checked);
      } } });
      box.checked = chosen.has(row.run) && !hidden.has(row.run);
      const bad = row.status === "failed" || row.status === "lost" ? "bad" : "soft";
      const told = row.status === "finished" || row.status === "unknown" ? "" : row.status;
      return make("li", {}, make("label", {}, box, board.swatch(row.run), make("span", { class: "name", text: row.name }),
        make("span", { class: bad, text: told })));
    }));
  }

  function choose(runs, on) {
    for (const run of runs) {
      if (on) { hidden.delete(run); chosen.add(run); } else hidden.add(run);
    }
    for (const box of list.querySelectorAll("input")) {
      const run = Number(box.dataset.run);
      box.checked = chosen.has(run) && !hidden.has(run);
    }
    fillList();
    current[2].update();
  }

  const everyone = () => board.filtered().map((row) => row.run);
  document.getElementById("all").addEventListener("click", () => choose(everyone(), true));
  document.getElementById("none").addEventListener("click", () => choose(everyone(), false));
  filter.addEventListener("input", () => { fillList(); current[2].update(); });

  // -- views -----------------------------------------------------------------------------

  const tabs = document.getElementById("tabs");
  for (const view of views) {
    const tab = make("button", { type: "button", role: "tab", id: `tab-${view[0]}`, text: view[1],
      "aria-controls": "panel", on: { click: () => open(view) } });
    tabs.append(tab);
  }
  tabs.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const next = views[(views.indexOf(current) + way + views.length) % views.length];
    open(next);
    document.getElementById(`tab-${next[0]}`).focus();
  });

  function open(view) {
    if (current) current[2].close();
    current = view;
    for (const [name] of views) {
      const tab = document.getElementById(`tab-${name}`);
      tab.setAttribute("aria-selected", String(name === view[0]));
      tab.tabIndex = name === view[0] ? 0 : -1;
    }
    panel.setAttribute("aria-labelledby", `tab-${view[0]}`);
    panel.replaceChildren();
    if (location.hash !== `#${view[0]}`) history.replaceState(null, "", `#${view[0]}`);
    view[2].open(panel);
  }

  let waiting = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => { if (current) current[2].redraw(); });
  }).observe(panel);

  // -- news ------------------------------------------------------------------------------

  function take(found) {
    const state = board.state;
    Object.assign(state, { version: found.version, tags: found.tags });
    if (found.main) state.main = found.main;
    for (const row of found.runs) {
      if (!rows.has(row.run) && chosen.size < MOST) chosen.add(row.run);
      rows.set(row.run, row);
      state.changed.set(row.run, found.version);
    }
    document.title = `Runs: ${found.folder}`;
    document.getElementById("title").textContent = found.folder;
    board.notice(found.refused.length ? `Not read: ${found.refused.join("; ")}`
      : found.count ? "" : "No run is in this folder yet.");
    return found.runs.length > 0;
  }

  async function news() {
    try {
      const version = board.state.version;
      const found = await board.ask("runs", { since: version });
      if (found.version < version) { location.reload(); return; } // another server, other numbers
      if (take(found)) {
        fillList();
        current[2].update();
      }
    } catch (error) {
      board.notice(`No answer from the board: ${error.message || error}. Is it still running?`);
    }
    if (!board.exported) setTimeout(news, document.hidden ? 5 * EVERY : EVERY);
  }

  if (matchMedia("(max-width: 700px)").matches) document.getElementById("chooser").open = false;
  open(views.find(([name]) => `#${name}` === location.hash) || views[0]);
  paint();
  news();
})();
