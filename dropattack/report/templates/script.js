"use strict";
// Without this script everything is visible; with it, the page can be filtered. The address keeps the state:
// #table-mini-vision&dataset=mnist&method=fgm,pgd&q=words
(() => {
  const KINDS = ["dataset", "model", "method"];
  const form = document.getElementById("filter");
  const boxes = [...form.querySelectorAll("input[type=checkbox]")];
  const drawers = [...document.querySelectorAll(".drawer")];
  const narrow = matchMedia("(max-width: 60rem)");
  let anchor = "";

  const chosen = (kind) => boxes.filter((box) => box.name === kind && box.checked).map((box) => box.value);

  /** The searchable text of an item: its words, its facets, and the headings above it. */
  const known = new Map();
  function said(item) {
    if (!known.has(item)) {
      const headings = [item.closest("tbody")?.querySelector(".heading"), item.closest("section").firstElementChild];
      const parts = [item, ...headings].map((element) => element?.textContent ?? "");
      known.set(item, [...parts, ...Object.values(item.dataset)].join(" ").toLowerCase());
    }
    return known.get(item);
  }

  /** Show items that match a chosen value; a kind with nothing chosen matches everything. */
  function apply() {
    const wanted = Object.fromEntries(KINDS.map((kind) => [kind, new Set(chosen(kind))]));
    const words = form.elements.q.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (element) => KINDS.every((kind) => !wanted[kind].size || !element.dataset[kind] || wanted[kind].has(element.dataset[kind]));
    for (const element of document.querySelectorAll("main [data-dataset], main [data-model], main [data-method]")) {
      element.classList.toggle("off", !fits(element));
    }
    const items = [...document.querySelectorAll("main .item")];
    for (const item of items) {
      item.classList.toggle("off", !fits(item) || !words.every((word) => said(item).includes(word)));
    }
    const filtering = words.length > 0 || boxes.some((box) => box.checked);
    for (const holder of document.querySelectorAll("main tbody, main .grid, main .figures")) {
      const inside = [...holder.querySelectorAll(".item")];
      if (inside.length) holder.classList.toggle("off", inside.every((item) => item.closest(".off")));
    }
    for (const section of document.querySelectorAll("main section")) {
      const inside = [...section.querySelectorAll(".item")];
      const empty = filtering && inside.length > 0 && inside.every((item) => item.closest(".off"));
      section.querySelector(":scope > .nothing").hidden = !empty;
    }
    for (const one of document.querySelectorAll("details.numbers")) {  // unfold what the search found
      one.open = words.length > 0 && one.querySelector(".item:not(.off)") !== null;
    }
    const shown = items.filter((item) => !item.closest(".off")).length;
    document.getElementById("status").textContent = filtering ? `Shows ${shown} of ${items.length} rows, figures and cards.` : "";
    document.getElementById("filter-count").textContent = filtering ? `(${shown} of ${items.length})` : "";
  }

  function address() {
    const state = KINDS.filter((kind) => chosen(kind).length).map((kind) => `${kind}=${chosen(kind).map(encodeURIComponent).join(",")}`);
    const q = form.elements.q.value.trim();
    if (q) state.push(`q=${encodeURIComponent(q)}`);
    return `#${[anchor, ...state].filter((part, i) => part || (i === 0 && state.length)).join("&")}`;
  }

  function decode(text) {
    try { return decodeURIComponent(text); } catch { return text; }
  }

  /** Restore the state from the address, then scroll to the anchor. */
  function restore() {
    const parts = location.hash.slice(1).split("&");
    anchor = parts[0].includes("=") ? "" : decode(parts.shift());
    const state = Object.fromEntries(parts.filter((part) => part.includes("=")).map((part) => part.split("=", 2)));
    for (const box of boxes) box.checked = (state[box.name] || "").split(",").map(decode).includes(box.value);
    form.elements.q.value = decode(state.q || "");
    apply();
    go(anchor);
  }

  function go(id) {
    const target = id && document.getElementById(id);
    if (!target) return;
    if (!target.hasAttribute("tabindex")) target.setAttribute("tabindex", "-1");
    target.focus({ preventScroll: true });
    target.scrollIntoView();
  }

  function changed() {
    apply();
    history.replaceState(null, "", address());
  }

  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(changed));
  addEventListener("hashchange", restore);
  // A link within the page keeps the filter.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    anchor = link.getAttribute("href").slice(1);
    if (narrow.matches) drawers.forEach((drawer) => { drawer.open = false; });
    history.pushState(null, "", address());
    go(anchor);
  });

  // Open everything for printing, and restore it afterwards.
  const foldable = [...document.querySelectorAll("details.more")];
  let before = [];
  matchMedia("print").addEventListener("change", (event) => {
    if (event.matches) before = foldable.map((one) => one.open);
    foldable.forEach((one, i) => { one.open = event.matches || before[i]; });
  });

  // Highlight the reader's position in the contents.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id).setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -80% 0px" });
  links.forEach((_, id) => watcher.observe(document.getElementById(id)));

  document.documentElement.classList.add("js");
  document.getElementById("filter-drawer").hidden = false;
  foldable.forEach((one) => { one.open = false; });
  const fold = () => drawers.forEach((drawer) => { drawer.open = !narrow.matches; });
  narrow.addEventListener("change", fold);
  fold();
  restore();
})();
