"""The page's style sheet and its few lines of script.

Series colours follow Okabe and Ito's palette, which people with any colour vision can tell apart ("Color Universal
Design", 2008), darkened or lightened for the paper that they stand on.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf9f6; --card: #ffffff; --ink: #1d2126; --soft: #5a626c; --line: #e0ddd5; --head: #f3f1ec;
  --accent: #0068a8; --was: #b3b7bd; --met: #00704c; --met-tint: #e4f3ec; --unmet: #ad3c00;
  --c0: #0072b2; --c1: #e69f00; --c2: #009e73; --c3: #cc79a7; --c4: #56b4e9; --c5: #d55e00; --c6: #6f4fa3;
  --c7: #9aa0a6;
  --sans: Inter, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", system-ui, sans-serif;
  --mono: ui-monospace, "Cascadia Code", "SF Mono", Menlo, "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --card: #1b1f24; --ink: #e9e7e2; --soft: #a3abb5; --line: #333a42; --head: #22272d;
    --accent: #62b5ee; --was: #5d656e; --met: #4fcf9f; --met-tint: #13302a; --unmet: #ff9a62;
    --c0: #3d9bd8; --c1: #f0b43c; --c2: #2fc495; --c3: #dd9bc1; --c4: #8ccdf3; --c5: #f07f3c; --c6: #a98be0;
    --c7: #7d858e;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 3.5rem; }
body {
  margin: 0 auto; max-width: 72rem; padding: 1.5rem clamp(1rem, 4vw, 2.5rem) 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 var(--sans);
}
p { margin: .6rem 0; max-width: 46rem; }
h1, h2, h3 { line-height: 1.2; letter-spacing: -.012em; text-wrap: balance; }
h1 { margin: .9rem 0 .6rem; font-size: clamp(1.7rem, 4vw, 2.4rem); }
h2 { margin: 0 0 .9rem; font-size: 1.45rem; }
h3 { margin: 1.9rem 0 .6rem; font-size: 1.05rem; }
section { margin-top: 3.4rem; }
a { color: var(--accent); }
code, pre { font-family: var(--mono); font-size: .86em; }
pre code { font-size: 1em; }
code { overflow-wrap: anywhere; }
.brand { margin: 0 0 1.2rem; font-weight: 700; letter-spacing: .01em; }
.brand span, .soft, .note, figcaption { color: var(--soft); font-weight: 400; }
.note, figcaption { font-size: .875rem; }

/* the verdict */
header {
  padding: clamp(1.2rem, 3.5vw, 2.2rem); border: 1px solid var(--line); border-top: 6px solid var(--tone);
  border-radius: 14px; background: var(--card);
}
header.met { --tone: var(--met); }
header.unmet { --tone: var(--unmet); }
.mark { display: flex; align-items: center; gap: .9rem; margin-bottom: 1rem; }
.mark h1 { margin: 0; }
.mark svg { flex: none; width: 3rem; height: 3rem; }
.mark circle { fill: var(--tone); }
.mark path { fill: none; stroke: var(--card); stroke-width: 2.6; stroke-linecap: round; stroke-linejoin: round; }
blockquote { margin: 1rem 0; padding: .1rem 0 .1rem 1.1rem; border-left: 4px solid var(--tone); font-size: 1.15rem; }
.lead { font-size: 1.1rem; }
.goal { color: var(--soft); }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 1rem; margin: 1.6rem 0 0; padding: 0;
}
.tiles li { padding: 1rem 0 0; border-top: 1px solid var(--line); list-style: none; }
.tiles strong { display: block; font-size: 1.05rem; }
.tiles b { font-size: 2.1rem; line-height: 1.2; letter-spacing: -.02em; }
.tiles span { color: var(--soft); font-size: .92rem; }
nav { position: sticky; top: 0; z-index: 1; margin: 1rem -.5rem 0; padding: .4rem .5rem; background: var(--paper); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0; padding: 0; list-style: none; font-size: .9rem; }
nav a { color: var(--soft); text-decoration: none; }
nav a:hover, nav a:focus-visible { color: var(--accent); text-decoration: underline; }

/* tables */
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; background: var(--card); }
table { width: 100%; border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
th, td { padding: .5rem .8rem; border-top: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; }
thead th { border-top: 0; background: var(--head); color: var(--soft); font-size: .82rem; vertical-align: bottom; }
.number { text-align: right; }
td.number, td[colspan] { white-space: nowrap; }
tbody tr:hover { background: var(--head); }
tr.chosen { background: var(--head); }
th small, td small { display: block; color: var(--soft); font-weight: 400; }
th small { white-space: nowrap; }
thead button { padding: 0; border: 0; background: none; color: inherit; font: inherit; text-align: inherit; }
thead button { cursor: pointer; }
thead button::after { content: "\\2195"; margin-left: .3em; opacity: .45; }
[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
.compare td, .compare th { padding-block: .7rem; }
.compare td:nth-child(3) { font-weight: 700; }
.compare td:last-child { width: 9rem; }
.steps > span { display: block; }
.layers td:nth-child(2) { min-width: 13rem; }
.layers b { font-weight: 600; }
.hashes code { font-size: .8em; }
.type { padding: .05rem .45rem; border-radius: 5px; background: var(--head); font-size: .88em; }
.type.integer { background: var(--met-tint); color: var(--met); font-weight: 600; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 0 2rem; }

/* folds, lists, code */
details { margin-top: .3rem; }
summary { color: var(--soft); font-size: .875rem; cursor: pointer; }
section > details { margin-top: 1.2rem; }
section > details > summary { margin-bottom: .6rem; font-size: .95rem; }
td details ul { margin: .3rem 0 0; padding-left: 1.1rem; color: var(--soft); font-size: .875rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .9rem 2rem; margin: 1.2rem 0; }
dt { color: var(--soft); font-size: .875rem; }
dd { margin: 0; font-weight: 600; }
pre { margin: 0; padding: 1rem 1.2rem; overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; }
pre { background: var(--card); }
pre code { overflow-wrap: normal; }

/* drawings */
figure { margin: 0; }
figcaption { margin-top: .4rem; }
.drawing { overflow-x: auto; margin-bottom: .8rem; }
.drawing svg { display: block; width: 100%; min-width: 34rem; height: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.5rem 2.5rem; }
.pictures { margin-top: 1.6rem; }
.pictures svg { min-width: 18rem; max-width: 32rem; }
svg text { fill: var(--ink); font: 12px var(--sans); font-variant-numeric: tabular-nums; }
svg text.soft { fill: var(--soft); font-size: 11px; }
svg text.strong { font-weight: 600; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.c4 { fill: var(--c4); } .c5 { fill: var(--c5); } .c6 { fill: var(--c6); } .c7 { fill: var(--c7); }
.swatch { margin-right: .5rem; vertical-align: -1px; }
.pair { display: block; width: 8rem; height: 1.05rem; margin-top: .25rem; }
.pair .was { fill: var(--was); }
.pair .is { fill: var(--accent); }
.layers .pair { width: 6rem; }
.axis { stroke: var(--soft); stroke-width: 1; }
.grid { stroke: var(--line); stroke-width: 1; }
.limit { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 4; }
.forbidden { fill: var(--unmet); opacity: .13; }
.reach { stroke: var(--was); stroke-width: 4; }
.path { fill: none; stroke: var(--was); stroke-width: 1.5; }
svg .met { --tone: var(--met); }
svg .unmet { --tone: var(--unmet); }
.span { stroke: var(--tone); stroke-width: 6; }
.cap { stroke: var(--tone); stroke-width: 3; }
circle.point { fill: var(--tone); stroke: var(--paper); stroke-width: 2; }
.pictures circle.unmet { fill: var(--paper); stroke: var(--tone); }
.pictures circle.chosen { stroke: var(--ink); stroke-width: 2.5; }

@media print {
  body { max-width: none; padding: 0; font-size: 10pt; background: none; }
  nav, thead button::after { display: none; }
  thead button { display: contents; }
  section { margin-top: 1.6rem; }
  tr, figure, header, pre { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll, .drawing, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
  details::details-content { display: block; content-visibility: visible; }
}
"""

SCRIPT = """
for (const head of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const first = head.matches(".number") ? "descending" : "ascending";
    const next = { ascending: "descending", descending: "ascending" }[head.ariaSort] ?? first;
    const key = row => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].innerText;
    const compare = (a, b) => a - b || String(a).localeCompare(b, undefined, { numeric: true });
    const rows = [...body.rows].sort((a, b) => compare(key(a), key(b)));
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", next);
    body.append(...(next === "ascending" ? rows : rows.reverse()));
  });
}
"""
