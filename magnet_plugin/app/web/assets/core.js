// Helpers that the other scripts share: elements without HTML strings, times, and one player at a time.
window.magnetApp = (() => {
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  };

  const seconds = (value) => {
    const whole = Math.floor(value);
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}.${Math.floor((value % 1) * 10)}`;
  };

  const colour = (name) => getComputedStyle(document.body).getPropertyValue(`--mg-${name}`).trim();

  // Redraw what is on a canvas when the page changes between dark and light, or in width.
  const whenLooksChange = (node, draw) => {
    new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    new ResizeObserver(draw).observe(node);
  };

  // A field of Gradio's, as if somebody typed into it.
  const type = (id, text) => {
    const field = document.querySelector(`#${id} textarea, #${id} input`);
    if (!field || field.value === text) return;
    const kind = field.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(field, text);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };

  return { make, seconds, colour, whenLooksChange, type, playing: null };
})();
