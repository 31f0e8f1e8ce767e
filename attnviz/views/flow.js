// Attention as lines between two columns of tokens, in one colour for each head.
import { clamp, LABEL, make, makeButton, makeToken, onTheme, questions, READ, readShorts, soon, tableButton, takesKeys, toNoKey, writeTable } from "./common.js";
import { shorten, visible } from "./visible.js";

const WINDOW = 64; // tokens of a column, as in flow.py
const STEPS = 65535; // of a weight that travels in two bytes
const ROW = [15, 24], COMFORTABLE = 560; // CSS pixels: a token's height, at least and at most; the height of all that is aimed at
const LINES = [160, 420], MAX_LABEL = 160, NUMBER = 42, GAP = 6, STUB = 22, PANEL = 250; // widths
const LEVELS = 32; // of strength, drawn one after the other
const FADE = 1, FADE_ALONE = 0.5; // a line's opacity is its weight to this power: among all, or of one token
const FAINT = 0.005; // a mean weight that is not written beside its token
const KEPT = 40; // windows that were asked for and are kept
const SIDES = ["query", "key"], OTHER = { query: "key", key: "query" };
const HINT = "Point at a token, or focus the picture and use the arrow keys, to see its links alone and their weights. Click or Enter pins it, Esc lets it go.";

function render({ model, el }) {
  const root = make(el, "div", "attnviz attnviz-flow");
  make(root, "div", "attnviz-title", model.get("title"));
  const bar = make(root, "div", "attnviz-foot");
  const layerBox = select(bar, "layer", model.get("layers").map(({ name }, i) => [i, `${i}`, name]));
  const linksBox = select(bar, "links", [["all", "all links"], ...["AA", "AB", "BA", "BB"].map((s) => [s, `${s[0]} → ${s[1]}`])]);
  linksBox.parentNode.hidden = !model.get("sentences").length;
  linksBox.title = "Which sentence's queries, and which sentence's keys";
  const chips = make(root, "div", "attnviz-flow-chips");
  const beside = make(root, "div", "attnviz-flow-beside");
  const picture = make(beside, "div", "attnviz-flow-picture");
  const plot = make(make(picture, "div", "attnviz-flow-scroll"), "div", "attnviz-flow-plot");
  takesKeys(plot, `${model.get("title") || "Attention"}: queries left, keys right${model.get("layers").some(({ sinks }) => sinks) ? ", a share of each row to no key" : ""}. Up and down walk through a column, left and right change it, Enter pins a token, Escape lets it go.`);
  const heads = Object.fromEntries(SIDES.map((side) => [side, make(plot, "div", `attnviz-flow-head attnviz-flow-head-${side}`)]));
  const canvas = make(plot, "canvas", "attnviz-flow-lines");
  const columns = Object.fromEntries(SIDES.map((side) => [side, make(plot, "div", `attnviz-flow-column attnviz-flow-column-${side}`)]));
  const readout = make(beside, "div", "attnviz-readout");
  readout.setAttribute("aria-live", "polite");
  const foot = make(picture, "div", "attnviz-foot");
  const problem = make(root, "div", "attnviz-problem");
  problem.setAttribute("role", "status");
  const thresholdLabel = make(foot, "label", "", "hide below");
  const slider = make(thresholdLabel, "input");
  Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01 });
  slider.dataset.lmSuppressShortcuts = "true";
  const thresholdText = make(thresholdLabel, "span");
  const togetherLabel = make(foot, "label");
  const together = make(togetherLabel, "input");
  togetherLabel.append("move both columns");
  Object.assign(together, { type: "checkbox", checked: true });
  const table = tableButton(foot, root, fillTable);

  const { ask, stop } = questions(model);
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const given = { query: model.get("query_tokens"), key: model.get("key_tokens") };
  const tokens = { query: given.query.map(visible), key: given.key.map(visible) }; // as they can be seen
  const sentences = model.get("sentences"), colors = model.get("colors");
  const colorOf = (head) => colors[head % colors.length];
  const isLong = (side) => tokens[side].length > WINDOW;
  const same = tokens.query.length === tokens.key.length && given.query.every((t, i) => t === given.key[i]);
  togetherLabel.hidden = !(same && isLong("query"));

  let shown = null; // what the picture shows: { layer, query, key, part }
  let marked = null; // the token that is pointed at: { side, index }
  let whole = null; // the picture with no token alone: many lines take their time
  let asking = false, removed = false;
  let row, left, width; // the layout in CSS pixels: height of a token, where the lines begin, how wide they are

  // --- the data -------------------------------------------------------------------------------

  const wanted = () => ({ layer: model.get("selection").layer, ...model.get("start") });
  const isSame = (a, b) => ["layer", ...SIDES].every((name) => a[name] === b[name]);
  const extent = (side) => Math.min(WINDOW, tokens[side].length);
  const holds = (part, { layer, query, key }) =>
    part.layer === layer &&
    query >= part.query && query + extent("query") <= part.query + part.rows &&
    key >= part.key && key + extent("key") <= part.key + part.columns;
  const readPart = (place, values, totals) => ({ ...place, values: readShorts(values), totals: readShorts(totals) });

  const parts = model.get("parts").map((part) => readPart(part, part.values, part.totals)); // as read_part of flow.py makes them

  // Show what the reader wants to see, once it is there; Python is asked one question at a time.
  async function bring() {
    if (removed) return;
    const at = wanted(), found = parts.find((part) => holds(part, at));
    if (found) return use(at, found);
    if (!shown) use(parts[0], parts[0]); // rather than nothing
    if (asking) return;
    asking = true;
    beside.dataset.waiting = "true";
    try {
      const { answer, buffers } = await ask(at);
      if (parts.length > KEPT) parts.splice(1, 1); // the oldest of those asked for
      parts.push(readPart(answer, ...buffers));
    } catch (error) {
      if (removed) return;
      problem.textContent = error.message;
      if (isSame(at, wanted())) goBack();
    } finally {
      asking = false;
      delete beside.dataset.waiting;
    }
    bring(); // by now something else may be wanted
  }
  // What is shown and what the controls say stay the same thing.
  function goBack() {
    const { layer, query, key } = shown;
    set({ start: { query, key }, selection: { ...model.get("selection"), layer } });
  }

  function use(at, part) {
    if (!shown || !isSame(shown, at)) {
      shown = { layer: at.layer, query: at.query, key: at.key, part };
      problem.textContent = "";
      layOut();
    }
    writeControls();
    draw();
    table.refresh();
  }

  const inSight = (side, index) => index >= shown[side] && index < shown[side] + extent(side);
  const step = (head, query, key) => {
    const p = shown.part;
    return p.values[(head * p.rows + query - p.query) * p.columns + key - p.key];
  };
  const weight = (head, query, key) => step(head, query, key) / STEPS;
  const headsHere = () => model.get("layers")[shown.layer].heads;
  function shownHeads() {
    const { head } = model.get("selection");
    return (head === null ? model.get("heads") : [head]).filter((h) => h < headsHere());
  }
  const mean = (numbers) => numbers.reduce((a, b) => a + b, 0) / (numbers.length || 1);
  // How much of a query's attention goes to keys that are not in sight.
  function outside(head, query) {
    if (!isLong("key")) return 0;
    let rest = shown.part.totals[head * shown.part.rows + query - shown.part.query];
    for (let key = shown.key; key < shown.key + extent("key"); key++) rest -= step(head, query, key);
    return Math.max(0, rest / STEPS);
  }
  const hasSinks = () => model.get("layers")[shown.layer].sinks;
  const toNone = (head, query) => 1 - shown.part.totals[head * shown.part.rows + query - shown.part.query] / STEPS;
  const links = () => (sentences.length ? model.get("links") : "all");
  const allowed = (query, key) =>
    links() === "all" || ("AB"[sentences[query]] === links()[0] && "AB"[sentences[key]] === links()[1]);

  const pins = () => {
    const selection = model.get("selection");
    return SIDES.filter((side) => selection[side] !== null && inSight(side, selection[side]))
      .map((side) => ({ side, index: selection[side] }));
  };
  // The token whose links stand alone, and one of the other column that is looked at with it.
  function current() {
    const pinned = pins(), mark = marked && inSight(marked.side, marked.index) ? marked : null;
    const token = mark && (pinned.find(({ side }) => side !== mark.side) ?? mark);
    if (token) return { token, partner: token === mark ? null : mark };
    return { token: pinned[0] ?? null, partner: pinned[1] ?? null };
  }

  // --- the picture ----------------------------------------------------------------------------

  function lengthOfLongest(side) {
    const context = canvas.getContext("2d");
    context.font = `700 12px ${getComputedStyle(root).fontFamily}`;
    const longest = tokens[side].reduce((most, t) => (t.length > most.length ? t : most), ""); // by characters: quick
    const some = tokens[side].length > 500 ? [longest] : tokens[side];
    return clamp(Math.ceil(Math.max(...some.map((t) => context.measureText(shorten(t, LABEL)).width))) + 2, 24, MAX_LABEL);
  }

  function layOut() {
    const room = Math.max(300, root.clientWidth || 900), most = Math.max(...SIDES.map(extent));
    const [queryLabel, keyLabel] = SIDES.map((side) => Math.min(lengthOfLongest(side), room / 5));
    row = clamp(Math.floor(COMFORTABLE / most), ...ROW);
    left = NUMBER + queryLabel + GAP;
    const labels = left + GAP + keyLabel + NUMBER;
    const isWide = room - labels - PANEL > LINES[0];
    width = clamp(room - labels - (isWide ? PANEL + 40 : 24), ...LINES);
    beside.classList.toggle("attnviz-flow-wide", isWide);
    const top = isLong("query") || isLong("key") ? 44 : 20, dpr = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: Math.round(width * dpr), height: Math.round(row * most * dpr) });
    Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${row * most}px` });
    Object.assign(plot.style, { width: `${labels + width}px`, height: `${top + row * most}px` });
    Object.assign(columns.query.style, { left: "0", top: `${top}px`, width: `${left - GAP}px` });
    Object.assign(columns.key.style, { left: `${left + width + GAP}px`, top: `${top}px`, width: `${keyLabel + NUMBER}px` });
    heads.query.style.minWidth = `${left - GAP}px`;
    heads.key.style.minWidth = `${keyLabel + NUMBER}px`;
    for (const side of SIDES) writeColumn(side);
  }

  function writeColumn(side) {
    columns[side].replaceChildren();
    for (let index = shown[side]; index < shown[side] + extent(side); index++) {
      const line = make(columns[side], "div", "attnviz-flow-row");
      Object.assign(line.style, { height: `${row}px`, lineHeight: `${row}px` });
      const token = make(line, "span", `attnviz-flow-label attnviz-flow-label-${side}`, shorten(tokens[side][index], LABEL));
      token.title = `${tokens[side][index]} (${side} ${index})`;
      make(line, "span", "attnviz-flow-number");
    }
  }

  // Lines of each head and strength, as [query, key, …].
  function pileUp(shownNow, { token, partner }) {
    const piles = Array.from({ length: LEVELS }, () => shownNow.map(() => []));
    const [first, last] = [{}, {}];
    for (const side of SIDES) {
      const only = [token, partner].find((one) => one?.side === side);
      first[side] = only?.index ?? shown[side];
      last[side] = only?.index ?? shown[side] + extent(side) - 1;
    }
    const least = Math.max(1, model.get("threshold") * STEPS);
    let count = 0;
    for (let query = first.query; query <= last.query; query++) {
      for (let key = first.key; key <= last.key; key++) {
        if (!allowed(query, key)) continue;
        shownNow.forEach((head, i) => {
          const strength = step(head, query, key);
          if (strength < least) return;
          piles[Math.min(LEVELS - 1, Math.floor(Math.sqrt(strength / STEPS) * LEVELS))][i].push(query, key);
          count += 1;
        });
      }
    }
    return { piles, count };
  }

  const middle = (side, index) => (index - shown[side] + 0.5) * row;
  function draw() {
    if (!shown) return;
    const context = canvas.getContext("2d"), some = shownHeads(), now = current();
    const ink = getComputedStyle(root).color, about = JSON.stringify([
      shown.layer, shown.query, shown.key, some, model.get("threshold"), links(), ink, canvas.width, canvas.height]);
    context.resetTransform();
    context.globalAlpha = 1;
    context.clearRect(0, 0, canvas.width, canvas.height);
    let count;
    if (!now.token && whole?.about === about) {
      context.drawImage(whole.image, 0, 0);
      ({ count } = whole);
    } else {
      const dpr = window.devicePixelRatio || 1;
      context.scale(dpr, dpr);
      count = drawLines(context, some, now);
      drawStubs(context, some, now, ink);
      if (!now.token) {
        whole = { about, count, image: new OffscreenCanvas(canvas.width, canvas.height) };
        whole.image.getContext("2d").drawImage(canvas, 0, 0);
      }
    }
    markTokens(some, now);
    writeReadout(some, now, count);
  }

  function drawLines(context, some, now) {
    const { piles, count } = pileUp(some, now), fade = now.token ? FADE_ALONE : FADE;
    piles.forEach((ofHeads, level) => { // strong lines lie on top
      const strength = ((level + 0.5) / LEVELS) ** 2;
      if (strength ** fade < 1 / 255) return; // would not be seen
      context.globalAlpha = strength ** fade;
      context.lineWidth = 0.7 + 2.6 * strength;
      ofHeads.forEach((pairs, i) => {
        if (!pairs.length) return;
        const shift = ((i + 0.5) / some.length - 0.5) * row * 0.8; // the heads of one pair side by side
        context.strokeStyle = colorOf(some[i]);
        context.beginPath();
        for (let at = 0; at < pairs.length; at += 2) {
          const from = middle("query", pairs[at]) + shift, to = middle("key", pairs[at + 1]) + shift;
          context.moveTo(0, from);
          context.bezierCurveTo(width * 0.4, from, width * 0.6, to, width, to);
        }
        context.stroke();
      });
    });
    return count;
  }

  // Dots that lead nowhere, for attention to keys that are not in sight.
  function drawStubs(context, some, { token, partner }, ink) {
    if (!isLong("key") || !some.length || partner || token?.side === "key") return;
    context.strokeStyle = ink;
    context.setLineDash([2, 3]);
    context.lineWidth = 2;
    for (let query = shown.query; query < shown.query + extent("query"); query++) {
      const much = mean(some.map((head) => outside(head, query)));
      if ((token && token.index !== query) || much < FAINT) continue;
      context.globalAlpha = 0.15 + 0.6 * Math.min(1, much);
      context.beginPath();
      context.moveTo(0, middle("query", query));
      context.lineTo(STUB, middle("query", query));
      context.stroke();
    }
    context.setLineDash([]);
  }

  // The mean weight of each token of the other column, or null where the filter lets no link through.
  function partners(some, { side, index }) {
    const other = OTHER[side];
    return Array.from({ length: extent(other) }, (_, i) => {
      const pair = { [side]: index, [other]: shown[other] + i };
      return allowed(pair.query, pair.key) ? mean(some.map((head) => weight(head, pair.query, pair.key))) : null;
    });
  }

  function markTokens(some, { token, partner }) {
    const weights = token && partners(some, token), pinned = pins();
    for (const side of SIDES) {
      [...columns[side].children].forEach((line, i) => {
        const is = (one) => one?.side === side && one.index === shown[side] + i;
        const far = token && token.side !== side && !((weights[i] ?? 0) >= FAINT);
        line.classList.toggle("attnviz-flow-current", is(token) || is(partner));
        line.classList.toggle("attnviz-flow-held", pinned.some(is));
        line.classList.toggle("attnviz-flow-far", Boolean(far || (token?.side === side && !is(token))));
        line.lastChild.textContent = token && token.side !== side && !far ? weights[i].toFixed(3) : "";
      });
    }
  }

  // --- the words ------------------------------------------------------------------------------

  const nameOfHeads = (some) => (some.length === 1 ? `head ${some[0]}` : `mean of ${some.length} heads`);
  const write = (parent, ...texts) => {
    for (const text of texts) {
      if (typeof text === "string") parent.append(text);
      else if ("head" in text) {
        make(parent, "span", "attnviz-flow-swatch").style.background = colorOf(text.head);
        parent.append(` head ${text.head}`);
      } else makeToken(parent, tokens[text.side][text.index]);
    }
    return parent;
  };
  const list = (title, rows) => {
    if (!rows.length) return;
    if (title) make(readout, "div", "attnviz-place", title);
    for (const [number, ...texts] of rows) {
      const line = make(readout, "div", "attnviz-flow-found");
      make(line, "span", "", number.toFixed(3));
      write(make(line, "span"), ...texts);
    }
  };

  function writeReadout(some, { token, partner }, count) {
    readout.replaceChildren();
    if (!some.length) make(readout, "div", "", "No head is shown: choose some above.");
    else if (!count && !partner) make(readout, "div", "", `No weight ${token ? "of this token" : "here"} reaches ${model.get("threshold").toFixed(2)}: all are hidden.`);
    if (!token) make(readout, "div", "", HINT);
    else if (partner) writePair(some, token, partner);
    else if (some.length) writeToken(some, token);
    followToken(partner ?? token);
  }

  function heading(token, text) {
    const line = make(readout, "div");
    if (pins().some((pin) => pin.side === token.side && pin.index === token.index)) make(line, "span", "attnviz-pinned", "pinned: ");
    write(make(line, "b", "attnviz-value"), token);
    make(line, "span", "attnviz-place", ` ${token.side} ${token.index}`);
    make(readout, "div", "", text);
  }

  const strongest = (all, n) => all.filter(([number]) => number >= 0.0005).sort((a, b) => b[0] - a[0]).slice(0, n);
  function writeToken(some, token) {
    const { side, index } = token, other = OTHER[side], single = [];
    heading(token, side === "query" ? "attends most to" : `gets most from${isLong("query") ? ", of the queries in sight" : ""}`);
    const means = partners(some, token).map((number, i) => [number ?? 0, { side: other, index: shown[other] + i }]);
    list(nameOfHeads(some), strongest(means, 5));
    for (const [, partner] of some.length > 1 ? means : []) {
      const pair = { [side]: index, [other]: partner.index };
      if (allowed(pair.query, pair.key)) for (const head of some) single.push([weight(head, pair.query, pair.key), { head }, side === "query" ? " → " : " ← ", partner]);
    }
    list("single heads", strongest(single, 4));
    const rest = side === "query" ? mean(some.map((head) => outside(head, index))) : 0;
    if (rest >= FAINT) make(readout, "div", "attnviz-flow-outside", `${rest.toFixed(2)} goes to tokens not shown`);
    if (side === "query" && hasSinks()) make(readout, "div", "attnviz-flow-none", toNoKey(mean(some.map((head) => toNone(head, index)))));
  }

  function writePair(some, token, partner) {
    const query = token.side === "query" ? token : partner, key = query === token ? partner : token;
    const line = make(readout, "div");
    write(make(line, "b", "attnviz-value"), query, " → ", key);
    make(line, "span", "attnviz-place", ` query ${query.index}, key ${key.index}`);
    if (!some.length) return;
    const each = some.map((head) => [weight(head, query.index, key.index), { head }]);
    if (some.length > 1) list("", [[mean(each.map(([number]) => number)), nameOfHeads(some)]]);
    list(some.length > 12 ? "the strongest heads" : "each head", each.sort((a, b) => b[0] - a[0]).slice(0, 12));
  }

  // In a long picture the words stand beside the token that they speak of.
  function followToken(token) {
    const room = plot.clientHeight - readout.clientHeight;
    const from = token && room > 100 && beside.classList.contains("attnviz-flow-wide") ? clamp(middle(token.side, token.index) - 60, 0, room) : 0;
    readout.style.marginTop = `${from}px`;
  }

  function fillTable(node) {
    const token = current().token ?? { side: "query", index: shown.query };
    const { side, index } = token, other = OTHER[side], some = shownHeads(), rows = [];
    for (let i = shown[other]; i < shown[other] + extent(other); i++) {
      const pair = { [side]: index, [other]: i };
      if (!allowed(pair.query, pair.key)) continue;
      const each = some.map((head) => weight(head, pair.query, pair.key));
      rows.push([i, tokens[other][i], ...[mean(each), ...each].map((number) => number.toFixed(3))]);
    }
    if (side === "query" && isLong("key")) {
      const each = some.map((head) => outside(head, index));
      rows.push(["", "tokens not shown", ...[mean(each), ...each].map((number) => number.toFixed(2))]);
    }
    if (side === "query" && hasSinks()) {
      const each = some.map((head) => toNone(head, index));
      rows.push(["", "no key", ...[mean(each), ...each].map((number) => number.toFixed(3))]);
    }
    const does = side === "query" ? "attends to" : "gets from";
    writeTable(node, `What “${shorten(tokens[side][index], READ)}” (${side} ${index}) ${does}, layer ${shown.layer}`,
      ["position", other, some.length === 1 ? "weight" : "mean", ...(some.length === 1 ? [] : some.map((h) => `head ${h}`))],
      rows.map((cells) => (some.length === 1 ? cells.slice(0, 3) : cells)), 1);
  }

  // --- the controls ---------------------------------------------------------------------------

  function writeControls() {
    layerBox.value = shown.layer;
    layerBox.title = model.get("layers")[shown.layer].name;
    linksBox.value = model.get("links");
    slider.value = model.get("threshold");
    thresholdText.textContent = model.get("threshold").toFixed(2);
    const some = shownHeads();
    if (chips.dataset.heads !== String(headsHere())) writeChips();
    [...chips.querySelectorAll(".attnviz-flow-chip")].forEach((chip, head) => chip.setAttribute("aria-pressed", String(some.includes(head))));
    for (const side of SIDES) writeHead(side);
  }

  function writeChips() {
    chips.replaceChildren();
    chips.dataset.heads = headsHere();
    make(chips, "span", "attnviz-place", "heads");
    for (let head = 0; head < headsHere(); head++) {
      const chip = makeButton(chips, "", (event) => press(head, event));
      chip.className = "attnviz-flow-chip";
      make(chip, "span", "attnviz-flow-swatch").style.background = colorOf(head);
      chip.append(String(head));
      chip.dataset.lmSuppressShortcuts = "true"; // Shift+Enter would run the cell
      chip.setAttribute("aria-label", `head ${head}`);
      chip.title = "Click: on or off. Double click, or Shift with click or Enter: only this head.";
    }
    const all = Array.from({ length: Math.max(...model.get("layers").map((layer) => layer.heads)) }, (_, head) => head);
    makeButton(chips, "all", () => choose(all, null));
    makeButton(chips, "none", () => choose([], null));
    make(chips, "span", "attnviz-place", "double click: only this one");
  }
  const choose = (some, head) => set({ heads: some, selection: { ...model.get("selection"), head } });
  let before = null; // the heads as they were before a double click's first click
  function press(head, event) {
    const { head: alone } = model.get("selection");
    if (event.shiftKey || event.detail === 2) {
      const [some, old] = event.detail === 2 && before ? before : [model.get("heads"), alone];
      return choose(some, old === head ? null : head);
    }
    before = [model.get("heads"), alone];
    const some = alone === null ? model.get("heads") : [alone];
    choose(some.includes(head) ? some.filter((h) => h !== head) : [...some, head].sort((a, b) => a - b), null);
  }

  function writeHead(side) {
    const node = heads[side];
    if (!node.firstChild) {
      make(node, "div", "attnviz-flow-axis", side === "query" ? "query (attends)" : "key (is attended to)");
      if (isLong(side)) {
        const line = make(node, "div", "attnviz-flow-move");
        make(line, "span", "attnviz-flow-range");
        makeButton(line, "↑", () => move(-WINDOW, side)).setAttribute("aria-label", `Earlier ${side === "query" ? "queries" : "keys"}`);
        makeButton(line, "↓", () => move(WINDOW, side)).setAttribute("aria-label", `Later ${side === "query" ? "queries" : "keys"}`);
      }
    }
    if (!isLong(side)) return;
    const [up, down] = node.querySelectorAll("button");
    node.querySelector(".attnviz-flow-range").textContent = `${shown[side]}–${shown[side] + WINDOW - 1} of ${tokens[side].length}`;
    up.disabled = shown[side] === 0;
    down.disabled = shown[side] + WINDOW >= tokens[side].length;
  }

  // --- the reader -----------------------------------------------------------------------------

  // Move the window; returns whether it could be moved.
  function move(by, side) {
    const start = { ...model.get("start") };
    for (const one of together.checked && same ? SIDES : [side]) start[one] = clamp(start[one] + by, 0, tokens[one].length - extent(one));
    return startAt(start);
  }
  function startAt(start) {
    const old = model.get("start");
    if (SIDES.every((side) => start[side] === old[side])) return false;
    set({ start });
    return true;
  }

  const isSameToken = (a, b) => a?.side === b?.side && a?.index === b?.index;
  function point(at) {
    if (isSameToken(marked, at)) return;
    marked = at;
    draw();
    table.refresh();
  }
  function toggle({ side, index }) {
    const selection = model.get("selection"), held = selection[side] === index && selection[OTHER[side]] === null;
    set({ selection: { ...selection, query: null, key: null, [side]: held ? null : index } });
  }

  function walk(down, toSide) {
    const start = model.get("start"), at = marked ?? pins()[0];
    const known = at && at.index >= start[at.side] && at.index < start[at.side] + extent(at.side);
    if (!known) return point({ side: toSide ?? "query", index: start[toSide ?? "query"] }); // shows where the mark stands
    const side = toSide ?? at.side, place = side === at.side ? at.index : at.index - start[at.side] + start[side];
    const index = clamp(place + down, 0, side === at.side ? tokens[side].length - 1 : start[side] + extent(side) - 1);
    if (index < start[side]) move(-WINDOW / 2, side);
    if (index >= start[side] + extent(side)) move(WINDOW / 2, side);
    point({ side, index });
    columns[side].children[index - shown[side]]?.scrollIntoView({ block: "nearest" });
  }
  function page(by) {
    const side = marked?.side ?? "query";
    if (move(by, side) && marked) marked = { side, index: clamp(marked.index + by, 0, tokens[side].length - 1) };
  }

  const steps = { ArrowUp: [-1], ArrowDown: [1], ArrowLeft: [0, "query"], ArrowRight: [0, "key"] };
  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== plot) return;
    if (event.key in steps) walk(...steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") toggle(marked ?? pins()[0] ?? { side: "query", index: shown.query });
    else if (event.key === "PageUp") page(-WINDOW);
    else if (event.key === "PageDown") page(WINDOW);
    else if (event.key === "Escape") {
      if (!marked && !pins().length) return; // the view around may want it
      marked = null;
      set({ selection: { ...model.get("selection"), query: null, key: null } });
      draw();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
  // Which token is under the pointer: its row in a column, not the lines between them.
  function tokenAt(event) {
    const line = event.target.closest?.(".attnviz-flow-row"), side = SIDES.find((one) => line?.parentNode === columns[one]);
    return side ? { side, index: shown[side] + [...columns[side].children].indexOf(line) } : null;
  }
  plot.addEventListener("pointermove", (event) => point(tokenAt(event)));
  plot.addEventListener("pointerleave", () => point(null));
  plot.addEventListener("blur", () => point(null));
  plot.addEventListener("click", (event) => { const at = tokenAt(event); if (at) toggle(at); });
  plot.addEventListener("keydown", onKey);
  plot.addEventListener("wheel", (event) => { // once it has the focus, so that a page scrolled past it scrolls on
    if (document.activeElement !== plot || event.ctrlKey || !event.deltaY) return;
    const tokensMoved = Math.sign(event.deltaY) * Math.max(1, Math.round(Math.abs(event.deltaY) / row));
    if (move(tokensMoved, tokenAt(event)?.side ?? "query")) event.preventDefault();
  }, { passive: false });
  layerBox.addEventListener("change", () => {
    const { head, ...selection } = model.get("selection"), layer = Number(layerBox.value);
    set({ selection: { ...selection, layer, head: head < model.get("layers")[layer].heads ? head : null } });
  });
  linksBox.addEventListener("change", () => set({ links: linksBox.value }));
  slider.addEventListener("input", () => set({ threshold: Number(slider.value) }));
  together.addEventListener("change", () => {
    const { query } = model.get("start");
    if (together.checked) set({ start: { query, key: query } });
  });

  // --- from Python ------------------------------------------------------------------------------

  // A token that another view selects is brought into sight.
  function seek() {
    const selection = model.get("selection"), start = { ...model.get("start") };
    for (const side of SIDES) {
      const index = selection[side];
      if (index === null || (index >= start[side] && index < start[side] + extent(side))) continue;
      start[side] = clamp(index - WINDOW / 2, 0, tokens[side].length - extent(side));
      if (together.checked && same && selection[OTHER[side]] === null) start[OTHER[side]] = start[side];
    }
    startAt(start);
  }
  function keepTogether() {
    const { query, key } = model.get("start");
    if (query !== key) together.checked = false;
  }
  const again = soon(bring);
  const shows = "change:selection change:start change:heads change:threshold change:links";
  model.on("change:selection", seek);
  model.on("change:start", keepTogether);
  model.on(shows, again.later);

  let lastWidth = 0;
  const resized = new ResizeObserver(() => {
    if (root.clientWidth === lastWidth) return;
    lastWidth = root.clientWidth;
    layOut();
    draw();
  });
  const stopTheme = onTheme(draw);
  keepTogether();
  bring();
  resized.observe(root);
  return () => {
    removed = true;
    again.cancel();
    resized.disconnect();
    stopTheme();
    stop();
    model.off("change:selection", seek);
    model.off("change:start", keepTogether);
    model.off(shows, again.later);
  };
}

// A labelled choice: [value, text, tooltip] for each option.
function select(parent, name, options) {
  const label = make(parent, "label", "", name);
  const box = make(label, "select");
  box.dataset.lmSuppressShortcuts = "true";
  for (const [value, text, title = ""] of options) {
    const option = make(box, "option", "", text);
    Object.assign(option, { value, title });
  }
  return box;
}

export default { render };
