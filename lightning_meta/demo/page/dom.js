// Elements, announcements and problems: what every part of the page needs. Text only ever enters as text.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A new HTML element; attributes that start with "on" are listeners, strings become text nodes. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** A new SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const ICONS = {
  undo: "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  clear: "M4 7h16M10 11v6M14 11v6M6 7l1 13h10l1-13M9 7V4h6v3",
  remove: "M6 6l12 12M18 6 6 18",
  add: "M12 5v14M5 12h14",
};

/** A button that shows an icon and tells its name to screen readers and on hovering. */
export function iconButton(icon, label, attributes = {}) {
  const drawing = svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: ICONS[icon] }));
  return element("button", { type: "button", class: "icon", "aria-label": label, title: label, ...attributes }, drawing);
}

export const byId = (id) => document.getElementById(id);

export const percent = (probability) => `${Math.round(100 * probability)}%`;

export const prefersStillness = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

let announcement = 0;

/** Tells screen readers; of messages that follow each other quickly only the last is read. */
export function announce(text) {
  clearTimeout(announcement);
  announcement = setTimeout(() => (byId("announcer").textContent = text), 300);
}

/** Shows an error in words at the head of a panel, or takes it away (null). */
export function showProblem(panel, error, retry = null) {
  const box = panel.querySelector(".problem");
  box.replaceChildren();
  box.hidden = error === null;
  if (error === null) return;
  box.append(element("p", {}, error.message));
  if (retry) box.append(element("button", { type: "button", onclick: retry }, "Try again"));
}

/** After an item of `list` is gone, the keyboard goes on at its neighbour's button, or else at `fallback`. */
export function focusNear(list, index, fallback) {
  const neighbour = list.children[index] ?? list.lastElementChild;
  (neighbour?.querySelector("button") ?? fallback).focus();
}

/** Runs calls of which only the latest matters: an earlier one is aborted and resolves to undefined. */
export class Latest {
  #controller = null;

  cancel() {
    this.#controller?.abort();
  }

  async run(call) {
    this.cancel();
    const { signal } = (this.#controller = new AbortController());
    try {
      const value = await call(signal);
      return signal.aborted ? undefined : value;
    } catch (error) {
      if (signal.aborted) return undefined;
      throw error;
    }
  }
}
