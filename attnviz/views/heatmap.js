// One attention matrix, close up.
import { make, questions, soon } from "./common.js";
import { makeMatrix } from "./matrix.js";

function render({ model, el }) {
  const root = make(el, "div", "attnviz attnviz-heatmap");
  const { ask, stop } = questions(model);
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const matrix = makeMatrix(root, {
    ask,
    select: ({ query, key }) => set({ selection: { ...model.get("selection"), query, key } }),
    setColors: set,
  });

  const draw = soon(() => {
    matrix.show({
      title: model.get("title"),
      queries: model.get("query_tokens"),
      keys: model.get("key_tokens"),
      cells: model.get("cells"),
      palette: model.get("palette"),
    });
    matrix.setColors(model.get("scale"), model.get("threshold"));
    matrix.pin(model.get("selection"));
  });
  // the matrix a new selection speaks of may still be on its way
  const pin = () => { if (!draw.due()) matrix.pin(model.get("selection")); };
  const color = () => { if (!draw.due()) matrix.setColors(model.get("scale"), model.get("threshold")); };
  const data = "change:cells change:query_tokens change:key_tokens change:title";
  model.on(data, draw.later);
  model.on("change:selection", pin);
  model.on("change:scale change:threshold", color);
  draw.now();
  return () => {
    draw.cancel();
    matrix.remove();
    stop();
    model.off(data, draw.later);
    model.off("change:selection", pin);
    model.off("change:scale change:threshold", color);
  };
}

export default { render };
