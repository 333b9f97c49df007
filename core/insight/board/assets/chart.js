"use strict";
// A chart of lines on a canvas: zoom by dragging or keys, logarithmic axes, a cursor that reads.

(() => {
  const LEFT = 58, RIGHT = 10, TOP = 8, BOTTOM = 24;

  function prepared(canvas, height) {
    const width = Math.max(canvas.clientWidth, 60);
    const ratio = globalThis.devicePixelRatio || 1;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return { context, width, height };
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // A short piece of a run's line, for legends.
  function swatch(number) {
    const canvas = board.make("canvas", { width: 52, height: 24, class: "swatch", "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    const { colour: ink, dash } = board.style(number, board.dark());
    context.scale(2, 2);
    context.strokeStyle = ink;
    context.lineWidth = 3;
    context.setLineDash(dash);
    context.beginPath();
    context.moveTo(0, 6);
    context.lineTo(26, 6);
    context.stroke();
    return canvas;
  }

  class Chart {
    // `zoomed(low, high)` is called with the part of the x axis to show, or with nulls.
    constructor(canvas, readout, zoomed) {
      Object.assign(this, { canvas, readout, zoomed, lines: [], view: null, cursor: null,
        logX: false, logY: false, height: 220, formatX: board.short });
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "img");
      canvas.addEventListener("pointerdown", (e) => this.down(e));
      canvas.addEventListener("pointermove", (e) => this.move(e));
      canvas.addEventListener("pointerup", (e) => this.up(e));
      canvas.addEventListener("pointercancel", () => { this.drag = null; this.draw(); });
      canvas.addEventListener("pointerleave", () => { if (!this.drag) { this.cursor = null; this.draw(); } });
      canvas.addEventListener("dblclick", () => this.zoom(null));
      canvas.addEventListener("keydown", (e) => this.key(e));
      canvas.addEventListener("blur", () => { this.cursor = null; this.draw(); });
    }

    // lines: {number, name, x, y, sx, sy}, each with x ascending.
    set(lines) {
      this.lines = lines;
      this.loaded = true;
      this.draw();
    }

    usable(x, y) {
      return x !== null && y !== null && !(this.logX && x <= 0) && !(this.logY && y <= 0);
    }

    range() {
      let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
      for (const line of this.lines) {
        for (let i = 0; i < line.x.length; i++) {
          if (!this.usable(line.x[i], line.y[i])) continue;
          x0 = Math.min(x0, line.x[i]);
          x1 = Math.max(x1, line.x[i]);
        }
      }
      if (this.view) [x0, x1] = this.view;
      for (const line of this.lines) {
        const [xs, ys] = line.sy ? [line.sx, line.sy] : [line.x, line.y];
        for (let i = 0; i < xs.length; i++) {
          if (!this.usable(xs[i], ys[i]) || xs[i] < x0 || xs[i] > x1) continue;
          y0 = Math.min(y0, ys[i]);
          y1 = Math.max(y1, ys[i]);
        }
      }
      if (!(x1 >= x0)) return null;
      if (!(y1 >= y0)) [y0, y1] = this.logY ? [0.1, 1] : [0, 1];
      if (x0 === x1) [x0, x1] = this.logX ? [x0 / 2, x1 * 2] : [x0 - 0.5, x1 + 0.5];
      if (this.logY) return [x0, x1, y0 === y1 ? y0 / 2 : y0 / 1.1, y0 === y1 ? y1 * 2 : y1 * 1.1];
      const pad = (y1 - y0) * 0.05 || Math.abs(y0) * 0.1 || 1;
      return [x0, x1, y0 - pad, y1 + pad];
    }

    draw() {
      const { context, width, height } = prepared(this.canvas, this.height);
      const range = this.range();
      this.scale = null;
      context.font = "11px system-ui, sans-serif";
      context.fillStyle = colour("--soft");
      if (!range) {
        context.textAlign = "center";
        context.fillText(this.loaded ? "nothing to draw" : "…", width / 2, height / 2);
        this.tell();
        return;
      }
      const [x0, x1, y0, y1] = range;
      const fx = this.logX ? Math.log : (v) => v;
      const fy = this.logY ? Math.log : (v) => v;
      const px = (v) => LEFT + (width - LEFT - RIGHT) * (fx(v) - fx(x0)) / (fx(x1) - fx(x0));
      const py = (v) => height - BOTTOM - (height - TOP - BOTTOM) * (fy(v) - fy(y0)) / (fy(y1) - fy(y0));
      const back = (p) => {
        const part = Math.min(Math.max((p - LEFT) / (width - LEFT - RIGHT), 0), 1);
        return this.logX ? Math.exp(fx(x0) + part * (fx(x1) - fx(x0))) : x0 + part * (x1 - x0);
      };
      this.scale = { px, py, back, x0, x1 };
      context.strokeStyle = colour("--line");
      context.lineWidth = 1;
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (const tick of this.logY ? board.logTicks(y0, y1) : board.ticks(y0, y1, 5)) {
        context.beginPath();
        context.moveTo(LEFT, py(tick));
        context.lineTo(width - RIGHT, py(tick));
        context.stroke();
        context.fillText(board.short(tick), LEFT - 6, py(tick));
      }
      context.textAlign = "center";
      context.textBaseline = "top";
      let free = 0;
      for (const tick of this.logX ? board.logTicks(x0, x1) : board.ticks(x0, x1, Math.max(2, width / 110))) {
        const label = this.formatX(tick);
        const half = context.measureText(label).width / 2;
        if (px(tick) - half < free || px(tick) + half > width) continue;
        context.fillText(label, px(tick), height - BOTTOM + 6);
        free = px(tick) + half + 8;
      }
      context.save();
      context.beginPath();
      context.rect(LEFT, TOP - 4, width - LEFT - RIGHT, height - TOP - BOTTOM + 8);
      context.clip();
      context.lineJoin = "round";
      for (const line of this.lines) {
        const { colour: ink, dash } = board.style(line.number, board.dark());
        context.strokeStyle = context.fillStyle = ink;
        context.setLineDash(dash);
        if (line.sy) {
          context.globalAlpha = 0.22;
          this.path(context, line.x, line.y, px, py, 1);
          context.globalAlpha = 1;
          this.path(context, line.sx, line.sy, px, py, 1.8);
        } else {
          this.path(context, line.x, line.y, px, py, 1.6);
        }
      }
      context.setLineDash([]);
      if (this.drag && this.drag.to !== undefined) {
        context.fillStyle = `rgba(${colour("--shade")}, .18)`;
        context.fillRect(this.drag.from, 0, this.drag.to - this.drag.from, height);
      }
      if (this.cursor !== null) {
        context.strokeStyle = colour("--soft");
        context.beginPath();
        context.moveTo(px(this.cursor), TOP);
        context.lineTo(px(this.cursor), height - BOTTOM);
        context.stroke();
      }
      context.restore();
      this.tell();
    }

    path(context, xs, ys, px, py, width) {
      context.lineWidth = width;
      context.beginPath();
      let drawn = 0;
      for (let i = 0; i < xs.length; i++) {
        if (!this.usable(xs[i], ys[i])) { drawn = 0; continue; }
        if (drawn++) context.lineTo(px(xs[i]), py(ys[i]));
        else context.moveTo(px(xs[i]), py(ys[i]));
      }
      context.stroke();
      if (xs.length <= 40) {
        const side = xs.length === 1 ? 7 : 3;
        for (let i = 0; i < xs.length; i++) {
          if (this.usable(xs[i], ys[i])) context.fillRect(px(xs[i]) - side / 2, py(ys[i]) - side / 2, side, side);
        }
      }
    }

    // The values at the cursor, or how many lines there are.
    tell() {
      const count = this.lines.length;
      this.canvas.setAttribute("aria-label", `${this.title || "chart"}, ${count} run${count === 1 ? "" : "s"}`);
      this.readout.replaceChildren();
      if (this.cursor === null || !this.scale) return;
      this.readout.append(board.make("span", { text: this.formatX(this.cursor) }));
      const found = [];
      for (const line of this.lines) {
        const [xs, ys] = line.sy ? [line.sx, line.sy] : [line.x, line.y];
        const place = board.before(xs, this.cursor);
        if (place >= 0) found.push([ys[place], line]);
      }
      found.sort((a, b) => b[0] - a[0]);
      for (const [value, line] of found.slice(0, 12)) {
        this.readout.append(board.make("span", {}, swatch(line.number), ` ${line.name}: ${board.short(value)}`));
      }
      if (found.length > 12) this.readout.append(`and ${found.length - 12} more`);
    }

    place(event) {
      return event.clientX - this.canvas.getBoundingClientRect().left;
    }

    down(event) {
      if (!this.scale || event.button) return;
      this.drag = { from: this.place(event) };
      this.canvas.setPointerCapture(event.pointerId);
    }

    move(event) {
      if (!this.scale) return;
      const place = this.place(event);
      if (this.drag) this.drag.to = place;
      this.cursor = this.scale.back(place);
      this.draw();
    }

    up(event) {
      const drag = this.drag;
      this.drag = null;
      if (!drag || !this.scale) return;
      const place = this.place(event);
      if (Math.abs(place - drag.from) > 6) {
        const ends = [this.scale.back(drag.from), this.scale.back(place)].sort((a, b) => a - b);
        this.zoom(ends);
      } else this.draw();
    }

    zoom(view) {
      this.view = view;
      this.draw();
      this.zoomed(...(view || [null, null]));
    }

    key(event) {
      if (!this.scale || event.ctrlKey || event.metaKey || event.altKey) return;
      const { x0, x1, px, back } = this.scale;
      const centre = this.cursor === null ? back((px(x0) + px(x1)) / 2) : this.cursor;
      const step = event.shiftKey ? 40 : 6;
      const around = (factor) => {
        const half = (px(x1) - px(x0)) * factor / 2;
        const middle = px(centre);
        return [back(middle - half), back(middle + half)];
      };
      if (event.key === "ArrowLeft") this.cursor = back(px(centre) - step);
      else if (event.key === "ArrowRight") this.cursor = back(px(centre) + step);
      else if (event.key === "+" || event.key === "=") return event.preventDefault(), this.zoom(around(0.5));
      else if (event.key === "-" || event.key === "0" || event.key === "Escape") return event.preventDefault(), this.zoom(null);
      else return;
      event.preventDefault();
      this.draw();
    }
  }

  Object.assign(board, { Chart, swatch, prepared, colour });
})();
