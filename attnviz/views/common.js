// What every view needs: elements, numbers out of bytes, colours, questions to Python, themes.
import { shorten } from "./visible.js";

export const LABEL = 60, READ = 200; // characters of a token beside a picture, and in a sentence

export const make = (parent, tag, className = "", text = "") => {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text; // tokens are text, never markup
  parent.append(node);
  return node;
};

// A token in a sentence: kept apart from scripts of the other direction; a very long one is whole on hover.
export function makeToken(parent, token) {
  const node = make(parent, "bdi", "", shorten(token, READ));
  if (node.textContent !== token) node.title = token;
  return node;
}

export const makeButton = (parent, text, onClick) => {
  const button = make(parent, "button", "", text);
  button.type = "button";
  button.addEventListener("click", onClick);
  return button;
};

// A focusable element with keys of its own: JupyterLab would take them (the arrows, "b" for a new cell …).
export const takesKeys = (element, label) => {
  element.tabIndex = 0;
  element.dataset.lmSuppressShortcuts = "true";
  element.setAttribute("role", "application");
  element.setAttribute("aria-label", label);
};

// JSON has no nan and no infinity: they come as words (`strict` in page.py), and are shown as words.
const NOT_FINITE = { nan: NaN, inf: Infinity, "-inf": -Infinity };
export const asNumber = (x) => NOT_FINITE[x] ?? x;
export const asWord = (x) => (Number.isNaN(x) ? "nan" : x > 0 ? "inf" : "−inf");

// What of a row goes to no key, a share from 0 to 1; no_key.py has the same sentence.
export function toNoKey(share, sign = "") {
  const percent = 100 * share, few = (percent > 0 && percent < 1) || (percent > 99 && percent < 100);
  return `${sign}${percent.toFixed(Number(few))} % to no key`;
}

export const clamp = (x, low, high) => Math.max(low, Math.min(high, x));

// Numbers out of a DataView that may start anywhere in its buffer; the machine is little-endian, as all with a browser.
const copyOf = (view, size) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength - (view.byteLength % size));
export const readFloats = (view) => new Float32Array(copyOf(view, 4));
export const readShorts = (view) => new Uint16Array(copyOf(view, 2));
export const readBytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
// One byte for the square root of a weight: wrong by at most 0.004.
const SQUARES = Float32Array.from({ length: 256 }, (_, root) => (root / 255) ** 2);
export function readRoots(view) {
  const roots = readBytes(view), values = new Float32Array(roots.length);
  for (let i = 0; i < roots.length; i++) values[i] = SQUARES[roots[i]];
  return values;
}
// The largest of the values, or `least` if all are smaller.
export function largestOf(values, least) {
  let most = least;
  for (let i = 0; i < values.length; i++) if (values[i] > most) most = values[i];
  return most;
}

// The largest number of each patch, from (rows, columns) to at most (toRows, toColumns).
export function pool(values, rows, columns, toRows, toColumns) {
  if (rows <= toRows && columns <= toColumns) return { values, rows, columns };
  const [r, c] = [Math.min(rows, toRows), Math.min(columns, toColumns)];
  const result = new Float32Array(r * c).fill(-Infinity);
  const places = Int32Array.from({ length: columns }, (_, j) => Math.floor((j * c) / columns));
  for (let i = 0; i < rows; i++) {
    const to = Math.floor((i * r) / rows) * c;
    for (let j = 0; j < columns; j++) {
      const at = to + places[j], value = values[i * columns + j];
      if (value > result[at]) result[at] = value;
    }
  }
  return { values: result, rows: r, columns: c };
}

// An image with one pixel for each number; toColor gives its place among the 256 colours, or null for none.
export function paint(values, rows, columns, palette, toColor) {
  const image = new ImageData(columns, rows), colors = readBytes(palette);
  for (let i = 0; i < rows * columns; i++) {
    const place = toColor(values[i], i);
    if (place === null) continue;
    const color = 3 * Math.round(clamp(place, 0, 1) * 255);
    image.data[4 * i] = colors[color];
    image.data[4 * i + 1] = colors[color + 1];
    image.data[4 * i + 2] = colors[color + 2];
    image.data[4 * i + 3] = 255;
  }
  const canvas = new OffscreenCanvas(columns, rows);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

export function paintLegend(canvas, palette) {
  Object.assign(canvas, { width: 256, height: 1 });
  const all = Float32Array.from({ length: 256 }, (_, i) => i / 255);
  canvas.getContext("2d").drawImage(paint(all, 1, 256, palette, (x) => x), 0, 0);
}

// Ask Python; the promise is kept with { answer, buffers }, or broken with an Error in words for the reader.
const SILENCE = 10_000; // milliseconds
export const UNREACHABLE = "No answer from Python. It is busy, or was restarted: run this cell again.";
export function questions(model) {
  const waiting = new Map();
  let last = 0;
  const me = Math.random().toString(36).slice(2); // another view of the same model asks for itself
  const hear = (said, buffers) => {
    const promise = waiting.get(said.number);
    if (!promise) return;
    waiting.delete(said.number);
    clearTimeout(promise.timer);
    if (said.error !== undefined) promise.reject(new Error(said.error));
    else promise.resolve({ answer: said.answer, buffers: buffers ?? [] });
  };
  model.on("msg:custom", hear);
  const ask = (question) =>
    new Promise((resolve, reject) => {
      const number = `${me}-${++last}`;
      const timer = setTimeout(() => { waiting.delete(number); reject(new Error(UNREACHABLE)); }, SILENCE);
      waiting.set(number, { resolve, reject, timer });
      try {
        Promise.resolve(model.send({ number, question })).catch(() => hear({ number, error: UNREACHABLE }));
      } catch { hear({ number, error: UNREACHABLE }); }
    });
  const stop = () => {
    model.off("msg:custom", hear);
    for (const { timer } of waiting.values()) clearTimeout(timer);
    waiting.clear();
  };
  return { ask, stop };
}

// Call back when the theme changes: JupyterLab's, VS Code's or the system's. Returns how to stop.
export function onTheme(callback) {
  const observer = new MutationObserver(() => requestAnimationFrame(callback));
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name", "data-jp-theme-light", "data-vscode-theme-kind", "class"] });
  const system = matchMedia("(prefers-color-scheme: dark)");
  system.addEventListener("change", callback);
  return () => { observer.disconnect(); system.removeEventListener("change", callback); };
}

// Call back once for many changes, before the next frame. Returns { later, now, cancel, due }.
export function soon(callback) {
  let frame = 0;
  return {
    later: () => { frame ||= requestAnimationFrame(() => { frame = 0; callback(); }); },
    now: callback,
    cancel: () => cancelAnimationFrame(frame),
    due: () => frame !== 0,
  };
}

// A table behind a button. `fill(table)` writes it whenever it is shown or `refresh`ed.
export function tableButton(buttons, parent, fill) {
  const place = make(parent, "div", "attnviz-table");
  place.hidden = true;
  place.tabIndex = 0; // so that the keyboard can scroll it
  const button = makeButton(buttons, "Show as table", () => {
    place.hidden = !place.hidden;
    button.textContent = place.hidden ? "Show as table" : "Hide table";
    button.setAttribute("aria-expanded", String(!place.hidden));
    refresh();
  });
  button.setAttribute("aria-expanded", "false");
  function refresh() {
    if (place.hidden) return;
    place.replaceChildren();
    fill(make(place, "table"));
  }
  return { refresh, shown: () => !place.hidden };
}

// Write a table: a caption, names of columns, rows of cells; the column `heading` names each row.
export function writeTable(table, caption, names, rows, heading) {
  make(table, "caption", "", caption);
  const head = make(make(table, "thead"), "tr");
  for (const name of names) make(head, "th", "", name).scope = "col";
  const body = make(table, "tbody");
  for (const cells of rows) {
    const row = make(body, "tr");
    cells.forEach((cell, i) => {
      if (i === heading) make(row, "th", "", cell).scope = "row";
      else make(row, "td", "", cell);
    });
  }
}
