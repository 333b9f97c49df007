"use strict";
// Where answers come from: the server, or the block of data of an exported report.

(() => {
  const block = typeof document === "undefined" ? null : document.getElementById("content");
  const kept = block ? JSON.parse(block.textContent) : null;

  function question(name, given) {
    const parts = Object.entries(given).filter(([, value]) => value !== null && value !== undefined);
    const text = parts.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
    return text ? `${name}?${text}` : name;
  }

  async function ask(name, given = {}) {
    if (kept) {
      if (name === "runs") return kept.runs;
      const { run, tag } = given;
      const found = kept[question(name, { run: run ?? null, tag: tag ?? null })];
      if (found === undefined) throw new Error("this is not part of the report");
      return found;
    }
    const answer = await fetch(`api/${question(name, given)}`, { credentials: "same-origin" });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.error || answer.statusText);
    return found;
  }

  function picture(run, tag, place) {
    const asked = question("image", { run, tag, place });
    return kept ? kept[asked] : `api/${asked}`;
  }

  // An element: names of attributes, or `text`, or `on` with handlers. Text is never HTML.
  function make(name, given = {}, ...inner) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(given)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "text") element.textContent = value;
      else if (key === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...inner.filter((part) => part !== null));
    return element;
  }

  Object.assign(board, { ask, picture, make, exported: kept !== null });
})();
