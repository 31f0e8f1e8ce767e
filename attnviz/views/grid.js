// Many heads as thumbnails on one canvas: point at them, walk among them, choose one.
import { clamp, largestOf, make, onTheme, paint, pool, readBytes, takesKeys } from "./common.js";

const SMALLEST = 14, LARGEST = 44, SPACE = 3, LEFT = 36, TOP = 30, NAME = 13, NAMED = 26; // CSS pixels

// parent: where to put it.
//   choose(head, byKey): the reader chose a head, { layer, head, index }
//   point(head): the reader points at a head, or at none (null)
//   label: what the canvas is, for a screen reader
export function makeGrid(parent, { choose, point, label }) {
  const canvas = make(parent, "canvas", "attnviz-grid");
  takesKeys(canvas, label);
  let perLayer = [], order = [], ranked = false; // how many heads a layer has; the heads as shown; whether they are sorted
  let roots, rows, columns, most, palette; // one byte a weight, the size of a thumbnail, the largest
  let side = LARGEST, across = 1, room = 900, tall = Infinity; // the size of a thumbnail, how many stand side by side, the space
  let pointed = null, open = { layer: null, head: null }, marks = [], painted = null;

  const left = () => (ranked ? 2 : LEFT), top = () => (ranked ? 2 : TOP);
  const pitchX = () => side + SPACE, pitchY = () => side + SPACE + (ranked ? NAME : 0);
  const placeOf = (i) => (ranked ? [i % across, Math.floor(i / across)] : [order[i].head, order[i].layer]);
  const headAt = (column, row) => order.findIndex((_, i) => placeOf(i)[0] === column && placeOf(i)[1] === row);
  const indexOf = ({ layer, head }) => order.findIndex((one) => one.layer === layer && one.head === head);

  function layOut() {
    across = Math.max(...perLayer);
    const high = ranked ? Infinity : Math.floor((tall - top()) / perLayer.length);
    side = clamp(Math.min(Math.floor((room - left()) / across), high) - SPACE, SMALLEST, LARGEST);
    if (ranked) {
      side = Math.max(side, NAMED); // room for the name below
      across = Math.max(1, Math.min(across, Math.floor((room - left()) / pitchX())));
    }
    const down = ranked ? Math.ceil(order.length / across) : perLayer.length, dpr = window.devicePixelRatio || 1;
    const [width, height] = [left() + across * pitchX(), top() + down * pitchY()];
    Object.assign(canvas, { width: width * dpr, height: height * dpr });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    painted = null;
    return width;
  }

  function paintAll() {
    const context = canvas.getContext("2d"), dpr = window.devicePixelRatio || 1, style = getComputedStyle(parent);
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    Object.assign(context, { font: `11px ${style.fontFamily}`, fillStyle: style.color, textAlign: "center", textBaseline: "middle" });
    if (!ranked) writeAxes(context);
    const pixels = Math.ceil(side * dpr);
    order.forEach((one, i) => {
      const [column, row] = placeOf(i), x = left() + column * pitchX(), y = top() + row * pitchY();
      const small = pool(thumbnail(one), rows, columns, pixels, pixels);
      context.drawImage(paint(small.values, small.rows, small.columns, palette, (root) => root / most), x, y, side, side);
      if (ranked) context.fillText(`${one.layer}·${one.head}`, x + side / 2, y + side + 7);
    });
    painted = new OffscreenCanvas(canvas.width, canvas.height);
    painted.getContext("2d").drawImage(canvas, 0, 0);
  }
  function writeAxes(context) {
    const every = Math.ceil(18 / pitchX());
    for (let i = 0; i < across; i += every) context.fillText(i, LEFT + i * pitchX() + side / 2, TOP - 9);
    for (let i = 0; i < perLayer.length; i += every) context.fillText(i, LEFT - 11, TOP + i * pitchY() + side / 2);
    context.textAlign = "left";
    context.fillText("head", LEFT, 7);
    context.save();
    context.translate(8, TOP);
    context.rotate(-Math.PI / 2);
    context.textAlign = "right";
    context.fillText("layer", 0, 0);
    context.restore();
    context.textAlign = "center";
  }

  // Frames and marks stand on a copy of the thumbnails, so that moving the pointer paints nothing anew.
  function draw() {
    if (!order.length || !roots) return;
    if (!painted) paintAll();
    const context = canvas.getContext("2d"), style = getComputedStyle(parent);
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(painted, 0, 0);
    context.restore();
    for (const mark of marks) writeMark(context, mark);
    frame(context, indexOf(open), style.getPropertyValue("--attnviz-accent").trim() || "#1976d2", 3);
    if (pointed !== null) frame(context, pointed, style.color, 1.5);
  }
  const corner = (i) => [left() + placeOf(i)[0] * pitchX(), top() + placeOf(i)[1] * pitchY()];
  function frame(context, i, color, line) {
    if (i < 0) return;
    const [x, y] = corner(i);
    Object.assign(context, { strokeStyle: color, lineWidth: line });
    context.strokeRect(x - 1, y - 1, side + 2, side + 2);
  }
  function writeMark(context, mark) {
    const i = indexOf(mark);
    if (i < 0) return;
    const [x, y] = corner(i);
    context.fillStyle = "rgb(0 0 0 / 55%)";
    context.fillRect(x, y, side, side);
    Object.assign(context, { fillStyle: "#fff", font: `700 ${clamp(side * 0.5, 9, 12)}px sans-serif` });
    context.fillText(mark.text, x + side / 2, y + side / 2, side);
  }
  const thumbnail = ({ index }) => roots.subarray(index * rows * columns, (index + 1) * rows * columns);
  const findMost = () => { most = largestOf(roots, 1); };

  function pointAt(i) {
    const next = i === null || i < 0 ? null : i;
    if (next === pointed) return;
    pointed = next;
    draw();
    point(pointed === null ? null : order[pointed]);
  }
  const at = (event) => headAt(Math.floor((event.offsetX - left()) / pitchX()), Math.floor((event.offsetY - top()) / pitchY()));
  const steps = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  canvas.addEventListener("pointermove", (event) => pointAt(at(event)));
  canvas.addEventListener("pointerleave", () => pointAt(null));
  canvas.addEventListener("blur", () => pointAt(null));
  canvas.addEventListener("click", (event) => { if (at(event) >= 0) choose(order[at(event)], false); });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const opened = Math.max(0, indexOf(open));
    if (event.key in steps) {
      const [right, down] = steps[event.key], [column, row] = placeOf(pointed ?? opened);
      const next = pointed === null ? opened : headAt(column + right, row + down); // the first press shows where it stands
      if (next >= 0) pointAt(next);
    } else if (event.key === "Enter" || event.key === " ") choose(order[pointed ?? opened], true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const stopTheme = onTheme(() => { painted = null; draw(); });

  return {
    canvas,
    // heads: all of them as [{ layer, head, index }], in the order to show; sorted: by something else than their place;
    // width, height: the space, which the grid leaves only where thumbnails would be too small
    arrange(heads, counts, sorted, width, height = Infinity) {
      [order, perLayer, ranked, room, tall] = [heads, counts, sorted, width, height];
      pointed = null;
      return layOut();
    },
    // sent: { rows, columns, values }, one byte for the root of each weight, all heads one after the other
    show(sent, colors) {
      roots = Uint8Array.from(readBytes(sent.values)); // a copy, which may be made better piece by piece
      ({ rows, columns } = sent);
      palette = colors;
      findMost();
      painted = null;
      draw();
    },
    // Better rows of some heads' thumbnails, from `first` up to `end`.
    improve({ start, heads, first, end }, better) {
      const high = end - first;
      for (let h = 0; h < heads; h++) {
        roots.set(better.subarray(h * high * columns, (h + 1) * high * columns), ((start + h) * rows + first) * columns);
      }
      findMost();
      painted = null;
    },
    draw,
    open(layer, head) { open = { layer, head }; draw(); },
    mark(list) { marks = list; draw(); }, // [{ layer, head, text }]: written over their thumbnails
    // A head's thumbnail as cells of a matrix: at hand before its weights are.
    cellsOf: (one) => ({ rows, columns, exact: false, values: thumbnail(one) }),
    remove: stopTheme,
  };
}

// The heads of all layers in their order, from how many each layer has.
export const listHeads = (counts) =>
  counts.flatMap((n, layer) => Array.from({ length: n }, (_, head) => ({ layer, head }))).map((one, index) => ({ ...one, index }));
