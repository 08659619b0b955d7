"""Style and script of the reports."""

from __future__ import annotations

__all__ = ["SCRIPT", "STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #fff; --line: #dde2e8;
  --tint: #f5f7f9; --strong: 31,111,139; --a: #1f6f8b; --b: #d1642e; --c: #5a8f3c; --d: #8a5fa8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaef; --soft: #9aa6b4; --paper: #14181d;
  --line: #303842; --tint: #1c2229; --strong: 90,170,200; --a: #5fb3d0; --b: #ee8a55;
  --c: #8cc16c; --d: #b892d4; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 24px 20px 60px; }
header { border-bottom: 1px solid var(--line); margin-bottom: 20px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 36px 0 10px; }
h3 { font-size: 1rem; margin: 0 0 6px; overflow-wrap: anywhere; }
p { margin: 0 0 12px; max-width: 75ch; overflow-wrap: anywhere; }
header p, .note, small, figcaption { color: var(--soft); }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.tile { background: var(--tint); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 14px; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.3; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .85rem; display: block; }
.wide { overflow-x: auto; margin: 0 0 14px; max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
.sortable { width: 100%; }
td, th { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; line-height: 22px; }
td:first-child, th:first-child { text-align: left; }
.sortable td:first-child, .sortable th:first-child { position: sticky; left: 0;
  background: var(--paper); }
tbody tr:hover td { background: var(--tint); }
.sortable th { padding: 0; vertical-align: bottom; white-space: normal; }
.sortable th button { all: unset; box-sizing: border-box; cursor: pointer; padding: 5px 10px;
  width: 100%; text-align: inherit; font-weight: 600; font-size: .85rem; color: var(--soft); }
.sortable th button:focus-visible { outline: 2px solid var(--a); outline-offset: -2px; }
.sortable th button::before { content: ""; font-size: .7em; display: inline-block;
  width: 1.3em; text-align: left; }
.sortable th:first-child button::before { float: right; text-align: right; }
.sortable th[aria-sort=ascending] button::before { content: "▲"; }
.sortable th[aria-sort=descending] button::before { content: "▼"; }
.sortable th[aria-sort] button { color: var(--ink); }
.facts th, .facts td { text-align: left; vertical-align: top; white-space: normal; }
.facts td { overflow-wrap: anywhere; min-width: 5em; }
.facts th { font-weight: 600; overflow-wrap: normal; }
.reasons { width: 100%; }
.reasons td:last-child { width: 42%; }
.facts thead th { color: var(--soft); font-size: .85rem; }
.confusion td, .confusion th { padding: 5px 8px; text-align: center; border: 0; }
.confusion tbody th { text-align: right; font-weight: 400; }
.confusion thead th { font-weight: 400; vertical-align: bottom; }
.confusion thead th.name { writing-mode: vertical-rl; transform: rotate(180deg);
  text-align: left; }
.confusion td { min-width: 3.4em; border-radius: 3px; }
.confusion tbody tr:hover td { background: revert-layer; }
.confusion td.own { outline: 1px solid var(--soft); outline-offset: -1px; }
.swatch { display: inline-block; width: .95em; height: .95em; margin-right: .45em;
  border: 1px solid rgba(128,128,128,.6); border-radius: 3px; vertical-align: -.12em; }
.legend { list-style: none; margin: 0 0 14px; padding: 0; display: flex; flex-wrap: wrap;
  gap: 4px 18px; }
.charts, .views { display: grid; gap: 20px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); }
.views { grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; max-width: 560px; }
svg text { font: 12px system-ui, "DejaVu Sans", sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--line); } svg .curve { fill: none; stroke-width: 2; }
.key { display: inline-block; margin-right: 14px; white-space: nowrap; }
.key i { display: inline-block; width: 18px; height: 3px; vertical-align: .25em;
  margin-right: 6px; border-radius: 2px; }
.view { background: var(--tint); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px; }
.stack { position: relative; width: 100%; margin: 0 auto; overflow: hidden;
  background: #808080; }
.stack img { position: absolute; inset: 0; width: 100%; height: 100%;
  image-rendering: pixelated; }
.stack img[hidden] { display: none; }
.controls { display: flex; flex-wrap: wrap; gap: 4px 14px; margin: 10px 0 2px;
  align-items: center; }
.controls label { display: inline-flex; align-items: center; gap: 5px; min-height: 32px;
  cursor: pointer; }
.controls .opacity { flex: 1 1 100%; }
.controls input[type=range] { flex: 1; min-width: 0; accent-color: var(--a); height: 28px; }
.controls input[type=radio] { accent-color: var(--a); margin: 0; width: 16px; height: 16px; }
.warning { border-left: 3px solid var(--b); padding: 4px 12px; background: var(--tint); }
@media (max-width: 600px) { main { padding: 16px 12px 40px; } h1 { font-size: 1.35rem; }
  td, .facts th, .sortable th button { padding: 5px 7px; }
  .sortable th { white-space: nowrap; }
  .facts td { min-width: 3.5em; }
  .reasons thead { display: none; }
  .reasons tbody, .reasons { display: block; }
  .reasons tr { display: grid; grid-template-columns: minmax(8.5em, 36%) 1fr;
    border-bottom: 1px solid var(--line); }
  .reasons th, .reasons td { border: 0; }
  .reasons td:empty { display: none; }
  .reasons td:last-child { width: auto; grid-column: 2; color: var(--soft); }
  .reasons td:not(:empty) + td:last-child { padding-top: 0; } }
@media print { .controls { display: none; } section { break-inside: avoid; } }
"""

SCRIPT = """
function keyOf(row, column) {
  const text = row.cells[column].dataset.key;
  if (text === "inf") return Infinity;
  if (text === "-inf") return -Infinity;
  const number = Number(text);
  return text === "" || Number.isNaN(number) ? text : number;
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const before = head.getAttribute("aria-sort");
    // Names from A to Z first, numbers from the highest.
    const first = column === 0 ? "ascending" : "descending";
    const second = column === 0 ? "descending" : "ascending";
    const order = before === first ? second : first;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const x = keyOf(a, column), y = keyOf(b, column);
      if (typeof x !== typeof y) return sign * (typeof x === "string" ? 1 : -1);
      if (typeof x === "string") return sign * x.localeCompare(y, undefined, { numeric: true });
      return x === y ? 0 : sign * (x < y ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  }));
}
for (const view of document.querySelectorAll(".view")) {
  const layers = view.querySelectorAll("img[data-layer]");
  const slider = view.querySelector("input[type=range]");
  const show = () => {
    const chosen = view.querySelector("input[type=radio]:checked").value;
    for (const layer of layers) {
      layer.hidden = layer.dataset.layer !== chosen;
      layer.style.opacity = slider.value / 100;
    }
    slider.nextElementSibling.textContent = slider.value + " %";
  };
  view.addEventListener("input", show);
  show();
}
"""
