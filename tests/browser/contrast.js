// Every text that one can see and whose contrast is below WCAG's AA: [words, ratio, colour, background].
// Canvas text (tables) and text on pictures can't be told from the document; both take the theme's colours.
() => {
  const LARGE = 24, LARGE_BOLD = 18.66;
  const parse = (colour) => {
    const numbers = (colour.match(/-?[\d.]+(e-?\d+)?/g) || []).map(Number);
    if (colour.startsWith('color(')) return [...numbers.slice(0, 3).map((x) => x * 255), numbers[3] ?? 1];
    return colour.startsWith('rgb') ? [...numbers.slice(0, 3), numbers[3] ?? 1] : [0, 0, 0, 0];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((x) => {
      const share = x / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const parentOf = (element) => element.parentElement || element.getRootNode().host || null;
  const opacity = (element) => {
    let all = 1;
    for (let at = element; at; at = parentOf(at)) all *= Number(getComputedStyle(at).opacity);
    return all;
  };
  const filled = (element) => {
    const style = getComputedStyle(element);
    const colour = parse(style.fill);
    return [...colour.slice(0, 3), colour[3] * Number(style.fillOpacity) * opacity(element)];
  };
  // What lies behind a point of an element: its own and its ancestors' backgrounds, from the first opaque one up.
  const behind = (element, x, y) => {
    const layers = [];
    for (let at = element; at; at = parentOf(at)) {
      const box = at.getBoundingClientRect();
      const inside = box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;
      if (!inside && at !== document.body && getComputedStyle(at).display !== 'contents') continue;
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  // In a drawing the shapes painted before the text, where they lie under that point, come on top.
  const shapes = new Map();
  const drawn = (text, x, y) => {
    const plot = text.closest('.svg-container') || text.ownerSVGElement;
    if (!shapes.has(plot)) {
      const all = [...plot.querySelectorAll('rect, path, circle')];
      shapes.set(plot, all.map((shape) => [shape, shape.getBoundingClientRect(), filled(shape)])
        .filter(([shape, box, colour]) => colour[3] > 0 && box.width && !shape.closest('defs, .modebar')));
    }
    let colour = behind(plot, x, y);
    for (const [shape, box, fill] of shapes.get(plot)) {
      if (x < box.left || x > box.right || y < box.top || y > box.bottom) continue;
      if (!(shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING)) continue;
      const point = new DOMPoint(x, y).matrixTransform(shape.getScreenCTM().inverse());
      if (shape.isPointInFill(point)) colour = over(fill, colour);
    }
    return colour;
  };
  const found = new Map();
  const judge = (words, element, colour, backgrounds) => {
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= LARGE || (size >= LARGE_BOLD && Number(style.fontWeight) >= 700);
    const icon = element.closest('[data-testid="stIconMaterial"]') !== null;
    for (const background of backgrounds) {
      const got = ratio(over(colour, background), background);
      if (got + 0.005 >= (large || icon ? 3 : 4.5)) continue;
      const hex = (c) => '#' + c.slice(0, 3).map((v) => Math.round(v).toString(16).padStart(2, '0')).join('');
      const line = [words.slice(0, 60), got.toFixed(2), hex(over(colour, background)), hex(background)];
      const key = line.join('|');
      if (!found.has(key)) found.set(key, line);
    }
  };
  const exempt = (element) =>
    !element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) ||
    element.closest('script, style, noscript, :disabled, [aria-disabled="true"], .modebar') !== null;
  const look = (root) => {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT | NodeFilter.SHOW_ELEMENT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      if (node.nodeType === Node.ELEMENT_NODE) {
        if (node.shadowRoot) look(node.shadowRoot);
        if (!node.matches('input, textarea') || exempt(node)) continue;
        if (['checkbox', 'radio', 'range', 'file'].includes(node.type)) continue;
        const words = node.value || node.placeholder;
        const style = getComputedStyle(node, node.value ? null : '::placeholder');
        const colour = parse(style.color);
        colour[3] *= opacity(node) * (node.value ? 1 : Number(style.opacity));
        const box = node.getBoundingClientRect();
        if (words && box.width > 4) judge(words, node, colour, [behind(node, box.left + 2, box.top + 2)]);
        continue;
      }
      const element = node.parentElement;
      const words = node.textContent.trim();
      if (!words || !element || exempt(element)) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      const box = range.getBoundingClientRect();
      if (box.width < 2 || box.height < 2) continue;
      if (element instanceof SVGElement) {
        const points = [0.1, 0.5, 0.9].map((share) => box.left + share * box.width);
        const text = element.closest('text') || element;
        judge(words, element, filled(element), points.map((x) => drawn(text, x, box.top + box.height / 2)));
      } else {
        const colour = parse(getComputedStyle(element).color);
        colour[3] *= opacity(element);
        judge(words, element, colour, [behind(element, box.left + box.width / 2, box.top + box.height / 2)]);
      }
    }
  };
  look(document.body);
  return [...found.values()];
}
