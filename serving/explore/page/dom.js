// Helpers for elements, downloads, announcements and calls that a newer call replaces.

/** An element: attributes, on... listeners, and children that are elements or text. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Tells screen readers what has changed. */
export function announce(sentence) {
  document.getElementById("status").textContent = sentence;
}

/** A region that shows one error message. */
export function problemBox() {
  const box = h("p", { class: "problem", role: "alert", hidden: true });
  return {
    box,
    show(error) {
      box.textContent = error ? String(error.message ?? error) : "";
      box.hidden = !error;
    },
  };
}

/** Wraps a function to run one call at a time; while it runs, only the newest waiting call is kept. */
export function newest(work) {
  let [running, next] = [null, null];
  return function call(...words) {
    if (running) {
      next = words;
      return running;
    }
    running = Promise.resolve(work(...words)).finally(() => {
      running = null;
      if (next) {
        const again = next;
        next = null;
        call(...again);
      }
    });
    return running;
  };
}

/** Wraps a function to run when the element is visible: at once, or once it is scrolled into view. */
export function inView(element, work) {
  let [isVisible, isStale] = [false, false];
  const observer = new IntersectionObserver(
    (entries) => {
      isVisible = entries.at(-1).isIntersecting;
      if (isVisible && isStale) call();
    },
    { rootMargin: "200px" },
  );
  observer.observe(element);
  function call() {
    isStale = !isVisible;
    if (isVisible) work();
  }
  return call;
}

/** Saves a canvas as a PNG file. */
export function download(canvas, name) {
  canvas.toBlob((blob) => {
    const url = URL.createObjectURL(blob);
    h("a", { href: url, download: `${name}.png` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }, "image/png");
}

/** Whether the window is as narrow as a phone. */
export const isNarrow = () => window.matchMedia("(max-width: 600px)").matches;
