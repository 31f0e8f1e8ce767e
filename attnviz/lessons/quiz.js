// A question with one right answer: choose first, reveal after.

const make = (parent, tag, className, text = "") => {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  parent.append(node);
  return node;
};

function render({ model, el }) {
  const root = make(el, "fieldset", "attnviz-quiz");
  make(root, "legend", "", `Predict: ${model.get("question")}`);
  const name = `attnviz-quiz-${Math.random()}`; // the radio buttons of one question share a name
  const radios = model.get("options").map((option, i) => {
    const label = make(root, "label", "");
    const radio = make(label, "input", "");
    Object.assign(radio, { type: "radio", name, value: i });
    radio.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes the arrow keys for itself
    label.append(` ${option}`);
    radio.addEventListener("change", () => { model.set("chosen", i); model.save_changes(); });
    return radio;
  });
  const reveal = make(root, "button", "", "Reveal the answer");
  reveal.type = "button";
  const result = make(root, "div", "attnviz-quiz-result");
  result.setAttribute("aria-live", "polite");

  function draw() {
    const chosen = model.get("chosen");
    radios.forEach((radio, i) => { radio.checked = i === chosen; });
    reveal.disabled = chosen === null;
    result.textContent = chosen === null ? "Choose before you read on." : "Noted. Read on to the result, then reveal.";
  }
  reveal.addEventListener("click", () => {
    const answer = model.get("answer"), right = model.get("chosen") === answer;
    result.textContent = `${right ? "✓ Right" : `✗ It is: ${model.get("options")[answer]}`}. ${model.get("because")}`;
  });
  model.on("change:chosen", draw);
  draw();
  return () => model.off("change:chosen", draw);
}

export default { render };
