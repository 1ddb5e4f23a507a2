"""What a page must hold to for everybody: checked in the browser, on what it really shows.

Contrast is WCAG's: (lighter + 0.05) / (darker + 0.05) of relative luminances, 4.5 at least for text.
"""

FINDINGS = r"""
() => {
  const found = [];
  const shown = (element) =>
    element.checkVisibility({ visibilityProperty: true }) && !element.closest(".hidden, .skip");
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const colour = (text) => text.match(/[\d.]+/g).map(Number);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const [r, g, b, alpha = 1] = colour(getComputedStyle(each).backgroundColor);
      if (alpha === 1) return [r, g, b];
      if (alpha > 0) found.push(`a ground one can see through: ${each.outerHTML.slice(0, 80)}`);
    }
    return [255, 255, 255];
  };
  const contrast = (one, other) => {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  };
  let texts = 0;
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.nodeValue.trim());
    const typed = element.localName === "input" && element.type !== "hidden";
    if (!(own || typed) || !shown(element)) continue;
    texts += 1;
    const style = getComputedStyle(element);
    const ratio = contrast(colour(element.localName === "text" ? style.fill : style.color), behind(element));
    if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)}: ${element.outerHTML.slice(0, 80)}`);
  }
  if (texts < 10) found.push(`only ${texts} texts`);
  for (const field of document.querySelectorAll("input:not([type=hidden])")) {
    if (!field.labels.length) found.push(`no label: ${field.outerHTML}`);
    for (const id of (field.getAttribute("aria-describedby") || "").split(" ").filter(Boolean)) {
      if (!document.getElementById(id)) found.push(`nothing describes: ${field.outerHTML}`);
    }
  }
  for (const named of document.querySelectorAll("[aria-labelledby]")) {
    if (!document.getElementById(named.getAttribute("aria-labelledby"))) found.push(`no name: ${named.outerHTML}`);
  }
  for (const pressed of document.querySelectorAll("button, a, summary")) {
    const name = pressed.getAttribute("aria-label") || pressed.textContent;
    if (!name.trim()) found.push(`no name: ${pressed.outerHTML}`);
    const { width, height } = pressed.getBoundingClientRect();
    if (shown(pressed) && Math.min(width, height) < 24) found.push(`too small: ${pressed.outerHTML}`);
  }
  for (const picture of document.querySelectorAll("svg")) {
    if (!picture.closest("[aria-hidden], [role=img]")) found.push(`without words: ${picture.outerHTML.slice(0, 80)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`twice: #${id}`);
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((heading) => Number(heading.localName[1]));
  if (levels.filter((level) => level === 1).length !== 1) found.push("not one h1");
  levels.forEach((level, at) => {
    if (at && level > levels[at - 1] + 1) found.push(`a heading left out before h${level}`);
  });
  if (!document.documentElement.lang) found.push("no language");
  if (document.querySelectorAll("main").length !== 1) found.push("not one main");
  if (document.querySelector("[tabindex]:not([tabindex='-1'])")) found.push("an order of its own");
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) found.push("wider than the window");
  return found;
}
"""


def obstacles(page):
    """Return everything that is wrong with a page as it is shown now."""
    page.wait_for_load_state()  # without its style everything is small
    return page.evaluate(FINDINGS)
