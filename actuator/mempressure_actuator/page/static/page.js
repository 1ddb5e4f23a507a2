// Keeps the page up to date: fetches it again and changes only what differs, so that focus, selection and input are kept.
// Without it everything works by reloading.
"use strict";

const live = document.getElementById("live");
const lost = document.getElementById("lost");
const announcer = document.getElementById("announcer");
let timer = 0;
let leaving = false;

function morph(was, will) {
  for (const { name, value } of will.attributes) {
    if (was.getAttribute(name) !== value) was.setAttribute(name, value);
  }
  for (const { name } of [...was.attributes]) {
    if (!will.hasAttribute(name) && !(was.localName === "details" && name === "open")) was.removeAttribute(name);
  }
  morphChildren(was, will);
}

function morphChildren(was, will) {
  const kept = new Set([...will.children].map((child) => child.id).filter(Boolean));
  const known = new Map([...was.children].filter((child) => child.id).map((child) => [child.id, child]));
  let next = was.firstChild;
  for (const fresh of [...will.childNodes]) {
    // Removed rows go first: moving a row past them would take the focus from it.
    while (next && next.id && !kept.has(next.id)) next = removed(next);
    const match = fresh.id ? known.get(fresh.id) : next && !next.id && isAlike(next, fresh) ? next : null;
    if (!match) {
      was.insertBefore(fresh, next);
      continue;
    }
    if (match === next) next = next.nextSibling;
    else was.insertBefore(match, next);
    if (match.nodeType === Node.ELEMENT_NODE) morph(match, fresh);
    else if (match.nodeValue !== fresh.nodeValue) match.nodeValue = fresh.nodeValue;
  }
  while (next) next = removed(next);
}

function removed(node) {
  const next = node.nextSibling;
  node.remove();
  return next;
}

function isAlike(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName;
}

function update(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  const fresh = page.getElementById("live");
  if (!fresh) throw new Error("the answer is not this page");
  const focused = document.activeElement;
  const section = focused && focused.closest("section");
  for (const was of document.querySelectorAll("[data-live]")) morph(was, page.getElementById(was.id));
  if (focused && !focused.isConnected && section) section.querySelector("h2").focus();
  announce(live.dataset.announcement);
}

function announce(text) {
  if (announcer.textContent !== text) announcer.textContent = text;
}

async function refresh() {
  clearTimeout(timer);
  if (document.hidden || leaving) return;
  try {
    const answer = await fetch("/", { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(20000) });
    const text = await answer.text();
    if (leaving) return;
    update(text);
    lost.hidden = true;
  } catch {
    lost.hidden = leaving;
  }
  timer = setTimeout(refresh, 1000 * Number(live.dataset.refreshSeconds));
}

function leave(event) {
  // A second click would send the same form again while the first is carried out.
  if (leaving) return event.preventDefault();
  leaving = true;
  const button = event.submitter;
  if (button) button.setAttribute("aria-busy", "true");
}

function returned(event) {
  if (!event.persisted) return;
  leaving = false;
  for (const button of document.querySelectorAll("[aria-busy]")) button.removeAttribute("aria-busy");
  refresh();
}

document.addEventListener("submit", leave);
window.addEventListener("pageshow", returned);
if (location.search) history.replaceState(null, "", "/");
if (live) {
  announcer.textContent = live.dataset.announcement;
  timer = setTimeout(refresh, 1000 * Number(live.dataset.refreshSeconds));
  document.addEventListener("visibilitychange", refresh);
}
