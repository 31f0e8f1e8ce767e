// Tokenizers side by side: a text to type, and the pieces that each of them cuts it into.
import { clamp, make, makeToken, questions, tableButton, writeTable } from "./common.js";
import { shorten, visible } from "./visible.js";

const PAUSE = 100; // milliseconds without typing before Python is asked
const TALL = 152; // CSS pixels: the text field at its highest
const LONGEST = 60, BYTES = 16; // characters of a piece that are drawn, bytes that are listed
const KINDS = ["", "special", "unknown"]; // of pieces

const counted = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

// From a place in characters, as Python counts them, to one in the halves that JavaScript counts.
function placeOf(text, characters) {
  let place = 0;
  for (let i = 0; i < characters; i++) place += text.codePointAt(place) > 0xffff ? 2 : 1;
  return place;
}

function render({ model, el }) {
  const root = make(el, "div", "attnviz attnviz-tokenizer");
  const title = make(root, "div", "attnviz-title");
  const box = make(root, "div", "attnviz-cut-text");
  const mirror = make(box, "div", "attnviz-cut-mirror"); // the same text unseen, for the mark below the letters
  mirror.setAttribute("aria-hidden", "true");
  const field = make(box, "textarea");
  Object.assign(field, { rows: 1, spellcheck: false });
  field.dataset.lmSuppressShortcuts = "true";
  field.setAttribute("aria-label", "text to cut into pieces");
  const size = make(root, "div", "attnviz-cut-size");
  const problem = make(root, "div", "attnviz-problem");
  problem.setAttribute("role", "alert");
  if (!model.get("live")) {
    field.readOnly = true;
    make(root, "div", "attnviz-place", "A saved page cannot cut another text: for that, open it in a notebook, where Python runs the tokenizer.");
  }
  const rows = make(root, "div", "attnviz-cut-rows");
  const readout = make(root, "div", "attnviz-readout");
  const foot = make(root, "div", "attnviz-foot");
  const table = tableButton(foot, root, writePieces);
  const { ask, stop } = questions(model);

  // --- the pieces -------------------------------------------------------------------------------

  let lists = []; // an element for each tokenizer
  let held = null, pointed = null; // [tokenizer, piece]: walked to or clicked, and under the pointer
  const cuts = () => model.get("shown").cuts;

  function describe({ cut, at }) { // what a piece stands for, in words
    const { starts, ends } = cut, start = starts[at], end = ends[at];
    if (start === end) return { span: "", where: "no part of the text" };
    const text = model.get("text"), span = text.slice(placeOf(text, start), placeOf(text, end));
    let first = at, last = at; // pieces of one character share its place
    while (first > 0 && starts[first - 1] === start && ends[first - 1] === end) first -= 1;
    while (last < starts.length - 1 && starts[last + 1] === start && ends[last + 1] === end) last += 1;
    const part = last > first ? `part ${at - first + 1} of ${last - first + 1} of ` : "";
    return { span, where: `${part}offsets (${start}, ${end})` };
  }
  const inBytes = (span) => {
    const bytes = new TextEncoder().encode(span);
    const some = Array.from(bytes.slice(0, BYTES), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
    return `${counted(bytes.length, "byte")} ${some}${bytes.length > BYTES ? " …" : ""}`;
  };
  const kindOf = (cut, at) => KINDS[cut.kinds[at]];

  function build() { // a heading and a list for each tokenizer
    rows.replaceChildren();
    lists = cuts().map(({ name }, number) => {
      const heading = make(rows, "div", "attnviz-cut-heading");
      make(heading, "b", "", name && visible(name));
      const count = make(heading, "span");
      const list = make(rows, "div", "attnviz-cut-pieces");
      Object.assign(list, { tabIndex: 0, count });
      list.dataset.lmSuppressShortcuts = "true";
      list.setAttribute("role", "listbox");
      list.setAttribute("aria-label", `pieces${name && ` of ${visible(name)}`}`);
      const indexOf = (event) => { const chip = event.target.closest(".attnviz-piece"); return chip ? Number(chip.dataset.at) : null; };
      list.addEventListener("pointerover", (event) => { const at = indexOf(event); point(at === null ? null : [number, at]); });
      list.addEventListener("pointerleave", () => point(null));
      list.addEventListener("click", (event) => { const at = indexOf(event); if (at !== null) hold([number, at]); });
      list.addEventListener("focus", () => { if (held?.[0] !== number && list.matches(":focus-visible") && list.children.length) hold([number, 0]); });
      list.addEventListener("keydown", (event) => walk(event, number));
      return list;
    });
  }

  function draw() {
    const { n_characters: characters, n_bytes: bytes } = model.get("shown");
    size.textContent = `${counted(characters, "character")}, ${counted(bytes, "byte")}`;
    if (lists.length !== cuts().length) build();
    held = pointed = null;
    cuts().forEach((cut, number) => {
      const list = lists[number], { n, special, unknown, tokens } = cut;
      const more = [special && `${special} special`, unknown && `${unknown.toLocaleString("en")} unknown`].filter(Boolean);
      list.count.textContent = counted(n, "piece") + (more.length ? `, ${more.join(" and ")}` : "")
        + (tokens.length < n ? `; the first ${tokens.length.toLocaleString("en")} are drawn` : "");
      const all = document.createDocumentFragment();
      tokens.forEach((token, at) => {
        const kind = kindOf(cut, at), chip = make(all, "span", `attnviz-piece ${kind && `attnviz-piece-${kind}`}`);
        const id = `${me}-${number}-${at}`;
        chip.id = id;
        chip.dataset.at = at;
        if (!kind) chip.dataset.tint = at % 4;
        chip.setAttribute("role", "option");
        const said = visible(token), short = shorten(said, LONGEST);
        if (short !== said) chip.title = said;
        chip.setAttribute("aria-label", `${short}, ${kind && `${kind}, `}id ${cut.ids[at]}, ${at + 1} of ${n}`);
        make(chip, "bdi", "", short);
        make(chip, "small", "", cut.ids[at]);
      });
      list.replaceChildren(all);
      list.removeAttribute("aria-activedescendant");
    });
    table.refresh();
    say();
  }
  const me = `attnviz-cut-${Math.random().toString(36).slice(2)}`;

  function say() { // about the piece under the pointer, or else the one that is held
    const one = pointed ?? held;
    for (const list of lists) for (const chip of list.querySelectorAll(".attnviz-current")) chip.classList.remove("attnviz-current");
    readout.replaceChildren();
    if (!one) {
      make(readout, "span", "attnviz-place", "Point at a piece, or walk with the arrow keys, to find it in the text.");
      mark("", 0, 0);
      return;
    }
    const [number, at] = one, cut = cuts()[number], { span, where } = describe({ cut, at });
    lists[number].children[at].classList.add("attnviz-current");
    makeToken(make(readout, "b"), visible(cut.tokens[at]));
    const kind = kindOf(cut, at);
    make(readout, "span", "", ` id ${cut.ids[at]}${kind && `, ${kind}`}: ${where}`);
    if (span) {
      make(readout, "span", "", " “");
      makeToken(readout, visible(span));
      make(readout, "span", "", `”, ${inBytes(span)}`);
    }
    mark(model.get("text"), cut.starts[at], cut.ends[at]);
  }

  function mark(text, start, end) { // underline characters in the text field
    mirror.replaceChildren();
    if (start === end || field.value !== text) return;
    const [a, b] = [placeOf(text, start), placeOf(text, end)];
    mirror.append(text.slice(0, a));
    const span = make(mirror, "mark", "", text.slice(a, b));
    mirror.append(`${text.slice(b)}\u200b`); // so that a last empty line has its height
    const { offsetTop: top, offsetHeight: height } = span;
    if (top < field.scrollTop || top + height > field.scrollTop + field.clientHeight) field.scrollTop = top - 40;
    mirror.scrollTop = field.scrollTop;
  }

  function point(one) { pointed = one; say(); }
  function hold(one) {
    held = one;
    pointed = null;
    for (const [number, list] of lists.entries()) {
      list.querySelector("[aria-selected]")?.removeAttribute("aria-selected");
      if (number !== one?.[0]) { list.removeAttribute("aria-activedescendant"); continue; }
      const chip = list.children[one[1]], low = chip.offsetTop, high = low + chip.offsetHeight;
      chip.setAttribute("aria-selected", "true");
      list.setAttribute("aria-activedescendant", chip.id);
      if (low < list.scrollTop) list.scrollTop = low - 4;
      else if (high > list.scrollTop + list.clientHeight) list.scrollTop = high - list.clientHeight + 4;
    }
    say();
  }

  function walk(event, number) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const chips = lists[number].children, at = held?.[0] === number ? held[1] : 0, last = chips.length - 1;
    if (event.key === "Escape") { hold(null); return; }
    if (last < 0) return;
    const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, ArrowUp: besides(chips, at, -1), ArrowDown: besides(chips, at, 1) };
    if (!(event.key in steps)) return;
    event.preventDefault();
    hold([number, clamp(steps[event.key], 0, last)]);
  }
  function besides(chips, at, way) { // the piece above or below
    const middle = (chip) => chip.offsetLeft + chip.offsetWidth / 2, here = chips[at];
    let best = null;
    for (let i = at + way; chips[i]; i += way) {
      if (chips[i].offsetTop === here.offsetTop) continue;
      if (best !== null && chips[i].offsetTop !== chips[best].offsetTop) break;
      if (best === null || Math.abs(middle(chips[i]) - middle(here)) < Math.abs(middle(chips[best]) - middle(here))) best = i;
    }
    return best ?? at;
  }

  function writePieces(element) {
    const lines = cuts().flatMap((cut) => cut.tokens.map((token, at) => {
      const { span, where } = describe({ cut, at });
      return [cut.name && visible(cut.name), at, visible(token), cut.ids[at], kindOf(cut, at), where, span && visible(span)];
    }));
    writeTable(element, size.textContent, ["tokenizer", "place", "piece", "id", "kind", "where", "text"], lines, 2);
  }

  // --- the text -----------------------------------------------------------------------------------

  let typing = 0, asked = null, gone = false; // the timer, the text that Python is cutting now, the end
  const typed = () => field.value.toWellFormed?.() ?? field.value; // no half characters
  async function send() {
    clearTimeout(typing);
    typing = 0;
    if (asked !== null) return; // asks again when the answer is there
    const text = typed();
    if (text === model.get("text")) { problem.textContent = ""; say(); return; }
    asked = text;
    rows.setAttribute("aria-busy", "true");
    try {
      await ask({ cut: text });
      problem.textContent = "";
    } catch (error) { problem.textContent = error.message; }
    asked = null;
    rows.removeAttribute("aria-busy");
    if (typed() !== text && !typing && !gone) send();
  }
  function fit() { // as high as its text
    field.style.height = "";
    field.style.height = `${Math.min(field.scrollHeight + 2, TALL)}px`;
  }
  field.addEventListener("input", () => {
    fit();
    mark("", 0, 0);
    clearTimeout(typing);
    typing = setTimeout(send, PAUSE);
  });
  field.addEventListener("scroll", () => { mirror.scrollTop = field.scrollTop; });

  function showText() {
    if (!typing && (asked === null || asked === field.value) && field.value !== model.get("text")) {
      field.value = model.get("text"); // never over what is being typed
      problem.textContent = "";
      fit();
    }
    hold(null); // its place may be gone
  }
  const writeTitle = () => { title.textContent = model.get("title"); };
  let width = 0; // of the field, whose height is set above: only another width counts
  const resized = new ResizeObserver(() => {
    if (field.clientWidth === width) return;
    width = field.clientWidth;
    fit();
  });
  writeTitle();
  draw();
  showText();
  model.on("change:shown", draw);
  model.on("change:text", showText);
  model.on("change:title", writeTitle);
  resized.observe(field);
  return () => {
    gone = true;
    clearTimeout(typing);
    resized.disconnect();
    stop();
    model.off("change:shown", draw);
    model.off("change:text", showText);
    model.off("change:title", writeTitle);
  };
}

export default { render };
