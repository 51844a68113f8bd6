// What a page does to a reader who uses a keyboard, a telephone, a screen reader, or tired eyes.
(() => {
  const LARGE = 24, LARGE_BOLD = 18.66, BOLD = 700; // pixels, as WCAG 2 counts large text
  const about = (element) => element.outerHTML.replace(/\s+/g, " ").slice(0, 100);
  const seen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && element.getClientRects().length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)];

  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
    .getContext("2d", { willReadFrequently: true });
  const read = new Map();
  const rgba = (colour) => {
    if (!read.has(colour)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
      read.set(colour, [r, g, b, a / 255]);
    }
    return read.get(colour);
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[3] * top[i] + (1 - top[3]) * below[i]);
  const paper = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      layers.push(colour);
      if (colour[3] === 1) break;
    }
    const canvas = rgba("canvas").slice(0, 3);
    return layers.reduceRight((below, top) => over(top, below), canvas);
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92
      : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };

  const faults = [];
  const texts = new Map();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (walker.currentNode.data.trim() && !texts.has(parent)) texts.set(parent, walker.currentNode);
  }
  for (const [element, text] of texts) {
    if (!seen(element) || element.closest("svg, script, style, noscript")) continue;
    const style = getComputedStyle(element), size = parseFloat(style.fontSize);
    const large = size >= LARGE || (size >= LARGE_BOLD && style.fontWeight >= BOLD);
    const below = paper(element), ink = over(rgba(style.color), below);
    const found = contrast(ink, below);
    if (found < (large ? 3 : 4.5)) {
      faults.push(`contrast ${found.toFixed(2)} of "${text.data.trim().slice(0, 30)}": ${about(element)}`);
    }
  }

  const headings = all("h1, h2, h3, h4, h5, h6").filter(seen).map((h) => Number(h.tagName[1]));
  const firsts = headings.filter((level) => level === 1).length;
  if (firsts !== 1) faults.push(`${firsts} headings of level 1`);
  headings.forEach((level, i) => {
    if (i && level > headings[i - 1] + 1) faults.push(`h${level} follows h${headings[i - 1]}`);
  });
  if (!document.documentElement.lang) faults.push("the language is not given");
  if (!document.title) faults.push("there is no title");
  for (const image of all("img")) if (!image.alt) faults.push(`no text: ${about(image)}`);

  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) faults.push(`${wide} pixels lie beside the window`);

  const looks = (element) => [element, element.parentElement, element.nextElementSibling]
    .filter(Boolean).map((at) => {
      const s = getComputedStyle(at);
      return [s.outlineStyle, s.outlineWidth, s.outlineColor, s.boxShadow, s.backgroundColor,
        s.borderColor, s.textDecoration, s.clipPath, s.transform].join();
    }).join();
  const used = "a[href], button, input, select, textarea, summary, [tabindex], [role=button]";
  for (const element of all(used)) {
    if (!seen(element) || element.disabled || element.type === "hidden") continue;
    if (element.matches("[tabindex='-1']")) continue;
    const before = looks(element);
    element.focus({ focusVisible: true, preventScroll: true });
    if (document.activeElement !== element) faults.push(`no keyboard: ${about(element)}`);
    else if (looks(element) === before) faults.push(`focus is not seen: ${about(element)}`);
    const named = element.textContent.trim() || element.ariaLabel || element.title
      || element.placeholder || element.labels?.length || element.querySelector("img[alt]")
      || element.getAttribute("aria-labelledby") || element.value;
    if (!named) faults.push(`no name: ${about(element)}`);
    element.blur();
  }
  for (const label of all("label[for]").filter(seen)) {
    const before = looks(label);
    label.control?.focus({ focusVisible: true, preventScroll: true });
    if (!label.control || document.activeElement !== label.control) {
      faults.push(`no keyboard: ${about(label)}`);
    } else if (!seen(label.control) && looks(label) === before) {
      faults.push(`focus is not seen: ${about(label)}`);
    }
    label.control?.blur();
  }
  return faults;
})()
