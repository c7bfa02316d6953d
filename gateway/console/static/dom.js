// Makes elements. All content is inserted as text, never as HTML: the page's policy forbids anything else.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== false && value != null) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== "" && child !== false));
  return element;
}

// An attribute whose value is a function is an event listener.
export const make = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
export const draw = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);
export const at = (id) => document.getElementById(id);

// Replaces the content of an element. What had the focus gets it again if it is there under the same `data-key`.
export function replace(element, ...children) {
  const key = element.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  element.replaceChildren();
  fill(element, {}, children);
  if (key !== undefined) element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

let hush;
// Says what has happened: shown for some seconds, and read out by screen readers.
export function say(text) {
  clearTimeout(hush);
  at("said").textContent = text;
  hush = setTimeout(() => at("said").replaceChildren(), 6000);
}
