// A saved page: stands in for the kernel, with the numbers that were saved.

const readPage = (id) => document.getElementById(id).textContent;
const text = atob(readPage("bytes"));
const packed = new Uint8Array(text.length);
for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
const allBytes = await new Response(unpacked).arrayBuffer();
const bytesAt = ([start, end]) => new DataView(allBytes, start, end - start);
const saved = JSON.parse(readPage("state"), (_, value) => (value?.bytes ? bytesAt(value.bytes) : value));
const state = saved.state;
const answers = new Map(saved.answers.map(([question, answer, buffers]) => [JSON.stringify(question), [answer, buffers]]));
const listeners = new Map();
const tell = (name, ...said) => { for (const listener of listeners.get(name) ?? []) listener(...said); };

const model = {
  get: (name) => state[name],
  set(name, value) {
    if (JSON.stringify(state[name]) === JSON.stringify(value)) return;
    state[name] = value;
    tell(`change:${name}`);
  },
  save_changes() {},
  on(names, listener) {
    for (const name of names.split(" ")) listeners.set(name, [...(listeners.get(name) ?? []), listener]);
  },
  off(names, listener) {
    for (const name of names.split(" ")) listeners.set(name, (listeners.get(name) ?? []).filter((l) => l !== listener));
  },
  async send({ number, question }) {
    await null; // an answer never comes before the question's end
    const found = answers.get(JSON.stringify(question));
    if (found) tell("msg:custom", { number, answer: found[0] }, found[1].map(bytesAt));
    else tell("msg:custom", { number, error: "This saved page does not hold more detail; Python does." });
  },
};
widget.render({ model, el: document.getElementById("view") });
