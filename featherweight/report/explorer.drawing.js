// Elements, figures in words, and the drawing. Text becomes text, never markup.

const WORDS = {
  size: { find: "the smallest file", name: "File", axis: "size of the file", change: ["smaller", "larger"] },
  package: { find: "the smallest package", name: "Package", axis: "bytes to download", change: ["smaller", "larger"] },
  macs: { find: "the fewest multiply-accumulates", name: "MACs", axis: "MACs for a sample", change: ["fewer", "more"] },
  latency: { find: "the shortest time", name: "Time", axis: "time for a sample", change: ["faster", "slower"] },
};
const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];
// Asked for, since no address stands on this page, not even one that nothing is loaded from.
const SVG = document.querySelector("svg").namespaceURI;

function filledWith(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(name, value);
  node.append(...children.filter(child => child !== null));
  return node;
}
const make = (tag, attributes = {}, ...children) =>
  filledWith(document.createElement(tag), attributes, children);
const draw = (tag, attributes = {}, ...children) =>
  filledWith(document.createElementNS(SVG, tag), attributes, children);

const grouped = value => value.toLocaleString("en-US", { maximumFractionDigits: 0 });
const digits = (value, count) => {
  const rounded = Number(value.toPrecision(count));
  const small = rounded && Math.abs(rounded) < 0.001;
  return (small ? rounded.toExponential() : String(rounded)).replace(/^-/, "−");
};

function prefixed(value) {
  let power = 0;
  while (Math.abs(value) >= 999.95 && power < PREFIXES.length - 1) [value, power] = [value / 1000, power + 1];
  return `${value.toFixed(power ? 1 : 0)} ${PREFIXES[power]}`;
}
const shown = (quantity, value) =>
  quantity === "latency" ? `${digits(value, 3)} ms` : prefixed(value) + (quantity === "macs" ? "" : "B");

/** From a figure's own unit to that of its field, by the size of the original's. */
function fieldOf(quantity, whole) {
  if (quantity === "latency") return { factor: 1, name: "ms" };
  const power = whole >= 1e7 ? 2 : 1;
  const name = quantity === "macs" ? ["", "thousand", "million"][power] : `${PREFIXES[power]}B`;
  return { factor: 1000 ** power, name };
}

function change(quantity, before, after) {
  if (before === after || !(before > 0 && after > 0)) return before === after ? "unchanged" : "–";
  const ratio = Math.max(before / after, after / before);
  return `${ratio.toFixed(ratio < 9.995 ? 2 : 1)}× ${WORDS[quantity].change[after < before ? 0 : 1]}`;
}

const PLOT = { left: 62, right: 464, top: 16, bottom: 264 };

/** Round numbers from low to high, few enough to read. */
function ticks(low, high, most, logarithmic) {
  const first = Math.floor(Math.log10(logarithmic ? low : (high - low) / most));
  const powers = Array.from({ length: 24 }, (_, at) => 10 ** (first + at));
  if (!logarithmic) {
    const step = powers.flatMap(power => [power, 2 * power, 5 * power]).find(one => (high - low) / one <= most);
    const from = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - from + 1 }, (_, at) => (from + at) * step);
  }
  const sets = [[1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 5, 7], [1, 2, 5], [1, 3], [1]];
  const found = sets.map(set =>
    powers.flatMap(power => set.map(one => one * power)).filter(one => one >= low && one <= high));
  return found.find(one => one.length <= most) || found[found.length - 1];
}

function picture({ across, upwards, path, limits, dots, label }) {
  const { left, right, top, bottom } = PLOT;
  const [low, high] = across.range, wide = Math.log(high / low);
  const x = value => left + (right - left) * Math.min(1, Math.max(0, Math.log(value / low) / wide));
  const y = value => bottom - (bottom - top) * Math.min(1, Math.max(0, value / upwards.high));
  const corners = path.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`);
  return draw("svg", { viewBox: "0 0 480 316", role: "img", "aria-label": label },
    draw("title", {}, label),
    ...ticks(low, high, 6, true).map(value => draw("g", {},
      draw("line", { x1: x(value), x2: x(value), y1: top, y2: bottom, class: "grid" }),
      draw("text", { x: x(value), y: bottom + 18, "text-anchor": "middle", class: "soft" }, across.show(value)))),
    ...ticks(0, upwards.high, 5, false).map(value => draw("g", {},
      draw("line", { x1: left, x2: right, y1: y(value), y2: y(value), class: "grid" }),
      draw("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end", class: "soft" }, upwards.show(value)))),
    draw("text", { x: (left + right) / 2, y: 308, "text-anchor": "middle", class: "soft" }, across.title),
    draw("text", { transform: "translate(13 140) rotate(-90)", "text-anchor": "middle", class: "soft" }, upwards.title),
    ...limits.map(({ at, level }) => level
      ? draw("line", { x1: left, x2: right, y1: y(at), y2: y(at), class: "limit" })
      : draw("line", { x1: x(at), x2: x(at), y1: top, y2: bottom, class: "limit" })),
    draw("polyline", { points: corners.join(" "), class: "front" }),
    ...dots.map(dot => draw("g", { class: dot.kind },
      draw("circle", { cx: x(dot.x), cy: y(dot.y), r: dot.kind === "pick" ? 7 : 4.5 }, draw("title", {}, dot.hint)),
      dot.name ? draw("text", { x: x(dot.x) + 9, y: y(dot.y) - 7, class: "soft" }, dot.name) : null)));
}
