// The choice of a trained network, and what is said about it.

import { element } from "./dom.js";

const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

function description(checkpoint) {
  const { kind, method, ways, shots, steps, accuracy } = checkpoint;
  const known = kind === "pictures" ? ways && shots : shots; // a checkpoint of one's own may not say it
  const examples = known && plural(shots, "example");
  const task = kind === "pictures" ? `${plural(ways, "class", "classes")} with ${examples} each` : `waves with ${examples}`;
  const training = known ? `trained on tasks of ${task}; ` : "";
  const adaptation = steps ? `adapts by ${plural(steps, "gradient step")}` : "adapts without gradient steps";
  const result = kind === "pictures" && accuracy ? `; right for ${accuracy} of pictures of new classes` : "";
  return `${method.split(".").at(-1)}: ${training}${adaptation}${result}.`;
}

/** Fills `select` with `checkpoints`, and calls `changed(checkpoint)` for the first choice and every later one. */
export function connectCheckpoints(select, note, checkpoints, preferred, changed) {
  const option = ({ name, title, accuracy }) =>
    element("option", { value: name, selected: name === preferred }, accuracy ? `${title} · ${accuracy}` : title);
  select.replaceChildren(...checkpoints.map(option));
  select.disabled = false;

  function update() {
    const checkpoint = checkpoints.find((each) => each.name === select.value);
    note.textContent = description(checkpoint);
    changed(checkpoint);
  }

  select.addEventListener("change", update);
  update();
}
