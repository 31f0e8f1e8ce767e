// Text as a reader can see it: what has no shape of its own gets one. visible.py does the same.

const MARKS = { " ": "␣", "\n": "↵", "\t": "⇥" };
const SPACES = String.raw`\xa0\u1680\u2000-\u200a\u202f\u205f\u3000`; // all but the usual one
// They shape what stands before them: an emoji's colour, a ligature, a flag.
const JOINERS = String.raw`\u034f\u180b-\u180d\u180f\u200c\u200d\ufe00-\ufe0f\u{e0020}-\u{e007f}\u{e0100}-\u{e01ef}`;
// Controls, formats, fillers, an empty Braille cell, halves of characters, joiners.
const HIDDEN = String.raw`\x00-\x08\x0b-\x1f\p{Cs}\p{DI}\x7f-\x9f\u2028\u2029\u2800\ufff9-\ufffb${JOINERS}`;
const SEEN = String.raw`[^ \n\t${SPACES}${HIDDEN}]`;
const ONE_SPACE = `[ ${SPACES}](?=${SEEN})`;
const UNSEEN = new RegExp(String.raw`((?<=${SEEN})(?:[${JOINERS}]+(?:${ONE_SPACE})?|${ONE_SPACE}))|([ \n\t])|[${SPACES}${HIDDEN}]+`, "gu");

const byNumber = (run) => Array.from(run, (sign) => `U+${sign.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`).join(" ");

// A label in which everything can be seen: "␣", "↵", "⇥", "∅" for nothing, "U+200B".
export function visible(text) {
  const show = (run, stays, mark) => stays ?? MARKS[mark] ?? (run === text ? byNumber(run) : `‹${byNumber(run)}›`);
  return (text.replace(UNSEEN, show) || "∅").replace(/^(?=\p{M})/u, "◌");
}

// At most so many characters, the last of them "…" where some are left out; no cut number.
export function shorten(text, most) {
  if (text.length <= most) return text;
  const all = Array.from(text);
  if (all.length <= most) return text;
  const end = all.slice(0, most - 1).join("").length, numbers = text.slice(0, end + 9).matchAll(/[ ‹]?U\+[0-9A-F]{4,6}/g);
  const cut = Array.from(numbers).find(({ 0: number, index }) => index < end && end < index + number.length);
  return `${text.slice(0, cut?.index ?? end)}…`;
}
