"use strict";
// The structure of a model as a tree, and the timeline of a profiled step.

(() => {
  const { make } = board;

  // Seconds and calls by path of module.
  function times(profile) {
    const found = new Map();
    for (const [path, , , seconds] of profile ? profile.modules : []) {
      const known = found.get(path) || { seconds: 0, calls: 0 };
      known.seconds += seconds;
      known.calls += 1;
      found.set(path, known);
    }
    return found;
  }

  function line(name, module, time, whole) {
    const parts = [make("b", { text: name }), ` ${module.class}`];
    if (module.words) parts.push(make("span", { class: "soft", text: ` (${module.words})` }));
    if (module.outputs) parts.push(make("span", { class: "shape", text: ` ${module.inputs} → ${module.outputs}` }));
    if (module.parameters) parts.push(` ${module.parameters.toLocaleString("en")} parameters`);
    if (time && whole) {
      const bar = make("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = `${Math.max(1, Math.round(90 * time.seconds / whole))}px`;
      parts.push(bar, make("span", { class: "soft", text: `${board.seconds(time.seconds)} in ${time.calls} call${time.calls > 1 ? "s" : ""}` }));
    }
    return parts;
  }

  function tree(name, module, path, measured, depth) {
    const time = measured.get(path);
    const whole = Math.max(0, ...[...measured.values()].map((t) => t.seconds));
    const inner = Object.entries(module.children);
    if (!inner.length) return make("div", { class: "leaf" }, ...line(name, module, time, whole));
    const element = make("details", {}, make("summary", {}, ...line(name, module, time, whole)));
    // Networks that are called on their own, such as both players of a GAN, begin paths by their class.
    const apart = depth === 0 && !time;
    const alone = (child) => inner.filter(([, other]) => other.class === child.class).length === 1;
    const below = (key, child) => apart && alone(child) && measured.has(child.class) ? child.class : `${path}/${key}`;
    const fill = () => {
      if (element.childElementCount > 1) return;
      element.append(...inner.map(([key, child]) => tree(key, child, below(key, child), measured, depth + 1)));
    };
    // Deep models are large: children are made when they are first looked at.
    element.addEventListener("toggle", () => { if (element.open) fill(); });
    if (depth < 1) { fill(); element.open = true; }
    return element;
  }

  // A panel about one run at a time, with a choice of it.
  class OneRun {
    constructor(fits, show) {
      Object.assign(this, { fits, show, run: null });
    }

    open(panel) {
      this.choice = make("select", { "aria-label": "Run", on: { change: () => { this.run = Number(this.choice.value); this.load(); } } });
      this.box = make("div");
      panel.append(make("div", { class: "controls" }, make("label", {}, "Run", this.choice)), this.box);
      this.seen = null;
      this.update();
    }

    update() {
      const rows = board.shown().filter(this.fits);
      if (!rows.some((row) => row.run === this.run)) this.run = rows.length ? rows[0].run : null;
      this.choice.replaceChildren(...rows.map((row) => make("option", { value: row.run, text: row.name, selected: row.run === this.run })));
      this.load();
    }

    async load() {
      // Of a run that goes on only what this panel shows would have to change it.
      const row = board.state.rows.get(this.run);
      const key = this.run === null ? "none" : `${this.run} ${row.profile} ${row.structure} ${row.status}`;
      if (key === this.seen) return;
      this.seen = key;
      this.redraw = () => {};
      if (this.run === null) {
        this.box.replaceChildren(make("p", { class: "soft", text: "None of the runs that are shown has this." }));
        return;
      }
      try {
        const found = await board.ask("details", { run: this.run });
        if (key !== this.seen) return;
        this.box.replaceChildren();
        this.redraw = this.show(this.box, found) || (() => {});
      } catch (error) {
        this.box.replaceChildren(make("p", { class: "bad", text: String(error.message || error) }));
      }
    }

    redraw() {}
    close() {}
  }

  function structure(box, found) {
    if (found.structure) {
      const root = found.structure.class;
      box.append(make("div", { class: "tree" }, tree("", found.structure, root, times(found.profile), 0)));
    }
    const rows = [["device", found.device], ["command", found.command.join(" ")], ...Object.entries(found.versions)];
    box.append(make("h2", { text: "Made with" }), make("div", { class: "scroll" }, make("table", {}, make("tbody", {},
      ...rows.filter(([, value]) => value).map(([name, value]) => make("tr", {}, make("td", { text: name }), make("td", { text: value, title: value })))))));
  }

  // Boxes of a timeline: modules by their depth, operations beneath.
  function timeline(profile) {
    const boxes = profile.modules.map(([path, kind, start, seconds]) => ({
      depth: path.split("/").length - 1, name: path.slice(path.lastIndexOf("/") + 1), path, start, seconds,
      told: kind, op: false }));
    for (const [name, path, start, seconds, size, shapes] of profile.ops) {
      const inside = path === "(backward)" || path === "(outside)" ? 0 : path.split("/").length;
      boxes.push({ depth: inside, name, path: `${path}: ${name}`, start, seconds,
        told: `${board.bytes(size)} ${shapes}`, op: true });
    }
    return { boxes, length: profile.seconds };
  }

  // The same, with all calls of one path as one box: how much of the time is spent where.
  function flame(profile) {
    const root = { name: "all", children: new Map(), own: 0, calls: 0, op: false };
    for (const [name, path, , seconds] of profile.ops) {
      let node = root;
      for (const [i, part] of [...path.split("/"), name].entries()) {
        const op = i === path.split("/").length;
        const key = op ? `op ${part}` : part;
        if (!node.children.has(key)) node.children.set(key, { name: part, children: new Map(), own: 0, calls: 0, op });
        node = node.children.get(key);
      }
      node.own += seconds;
      node.calls += 1;
    }
    const total = (node) => (node.total = node.own + [...node.children.values()].reduce((sum, child) => sum + total(child), 0));
    total(root);
    const boxes = [];
    const lay = (node, depth, start, path) => {
      let at = start;
      for (const child of [...node.children.values()].sort((a, b) => b.total - a.total)) {
        const inner = path ? `${path}/${child.name}` : child.name;
        boxes.push({ depth, name: child.name, path: inner, start: at, seconds: child.total,
          told: child.calls ? `${child.calls} calls` : "", op: child.op });
        lay(child, depth + 1, at, inner);
        at += child.total;
      }
    };
    lay(root, 0, 0, "");
    return { boxes, length: root.total };
  }

  function profile(box, found) {
    const told = found.profile;
    if (!told) { box.append(make("p", { class: "soft", text: "No profile can be read." })); return null; }
    const HIGH = 19;
    let drawn = timeline(told);
    let view = [0, drawn.length || 1e-9];
    let places = [];
    const canvas = make("canvas", { class: "whole", tabindex: 0, role: "img", "aria-label": "Timeline of modules and operations" });
    const readout = make("div", { class: "readout", "aria-live": "polite" });

    function draw() {
      const depth = Math.max(0, ...drawn.boxes.map((b) => b.depth)) + 1;
      const { context, width, height } = board.prepared(canvas, depth * HIGH + 24);
      const scale = width / (view[1] - view[0]);
      places = [];
      context.font = "11px system-ui, sans-serif";
      context.textBaseline = "middle";
      for (const one of drawn.boxes) {
        const left = (one.start - view[0]) * scale;
        const wide = one.seconds * scale;
        if (left + wide < 0 || left > width) continue;
        const from = Math.max(left, 0);
        const to = Math.min(left + Math.max(wide, 0.6), width);
        const y = 2 + one.depth * HIGH;
        let code = 0;
        for (const letter of one.name) code = (code * 31 + letter.charCodeAt(0)) % 997;
        context.fillStyle = board.style(code % 7, board.dark()).colour;
        context.globalAlpha = one.op ? 0.75 : 0.4;
        context.fillRect(from, y, Math.max(to - from - 0.5, 0.5), HIGH - 2);
        context.globalAlpha = 1;
        places.push([from, to, y, one]);
        if (to - from > 34) {
          context.save();
          context.beginPath();
          context.rect(from, y, to - from - 3, HIGH);
          context.clip();
          context.fillStyle = board.colour("--ink");
          context.fillText(one.name, from + 3, y + HIGH / 2 - 1);
          context.restore();
        }
      }
      context.fillStyle = board.colour("--soft");
      context.textBaseline = "top";
      context.textAlign = "left";
      context.fillText(board.seconds(view[0]), 2, height - 16);
      context.textAlign = "right";
      context.fillText(board.seconds(view[1]), width - 2, height - 16);
    }

    const at = (event) => {
      const edge = canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - edge.left, event.clientY - edge.top];
      const hit = places.filter(([from, to, top]) => x >= from - 1 && x <= to + 1 && y >= top && y < top + HIGH).pop();
      return hit ? hit[3] : null;
    };
    const look = (from, to) => {
      const least = drawn.length / 1e6 || 1e-9;
      if (to - from < least) return;
      const wide = Math.min(to - from, drawn.length);
      const start = Math.min(Math.max(from, 0), drawn.length - wide);
      view = [start, start + wide];
      draw();
    };
    canvas.addEventListener("pointermove", (e) => {
      const one = at(e);
      readout.textContent = one ? `${one.path}  ${board.seconds(one.seconds)}  ${one.told}` : "";
    });
    canvas.addEventListener("click", (e) => {
      const one = at(e);
      if (one) look(one.start - one.seconds * 0.02, one.start + one.seconds * 1.02);
    });
    canvas.addEventListener("dblclick", () => look(0, drawn.length));
    canvas.addEventListener("keydown", (e) => {
      const wide = view[1] - view[0];
      const middle = (view[0] + view[1]) / 2;
      const ways = { ArrowLeft: [view[0] - wide / 5, view[1] - wide / 5], ArrowRight: [view[0] + wide / 5, view[1] + wide / 5],
        "+": [middle - wide / 4, middle + wide / 4], "-": [middle - wide, middle + wide], 0: [0, drawn.length], Escape: [0, drawn.length] };
      if (!Object.hasOwn(ways, e.key)) return;
      e.preventDefault();
      look(...ways[e.key]);
    });
    const kind = make("select", { id: "kind", on: { change: () => {
      drawn = kind.value === "flame" ? flame(told) : timeline(told);
      view = [0, drawn.length || 1e-9];
      draw();
    } } }, make("option", { value: "timeline", text: "timeline: when" }), make("option", { value: "flame", text: "flame: how much" }));
    const sums = new Map();
    for (const [name, , , seconds, size] of told.ops) {
      const known = sums.get(name) || { calls: 0, seconds: 0, size: 0 };
      known.calls += 1;
      known.seconds += seconds;
      known.size += size;
      sums.set(name, known);
    }
    const busy = [...sums.values()].reduce((sum, one) => sum + one.seconds, 0) || 1;
    const rows = [...sums].sort((a, b) => b[1].seconds - a[1].seconds).slice(0, 30);
    const heads = ["operation", "calls", "time", "share", "memory of results"];
    box.append(make("div", { class: "controls" }, make("label", {}, "Show", kind),
      make("span", { class: "note", text: "click to zoom, double click for all; arrows, + and - by keyboard" })),
      canvas, readout,
      make("p", { class: "note", text: `${board.seconds(told.seconds)}, results of at most ${board.bytes(told.peak_bytes)} at a time`
        + (told.left_out ? `; ${told.left_out} short calls are left out` : "") }),
      make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { text, scope: "col" })))),
        make("tbody", {}, ...rows.map(([name, one]) => make("tr", {}, make("td", { text: name }),
          ...[one.calls.toLocaleString("en"), board.seconds(one.seconds), `${(100 * one.seconds / busy).toFixed(1)} %`, board.bytes(one.size)]
            .map((text) => make("td", { text, class: "number" }))))))));
    draw();
    return draw;
  }

  Object.assign(board, { OneRun, structurePanel: structure, profilePanel: profile, timeline, flame });
})();
