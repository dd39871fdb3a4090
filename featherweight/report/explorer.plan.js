// What leaves the page: a plan as a file, the command that makes it, and what a divergence means to the metric.

const FLAGS = {
  size: limit => `--max-size ${Math.ceil(limit)}`,
  package: limit => `--max-package ${Math.ceil(limit)}`,
  macs: limit => `--max-macs ${Math.ceil(limit)}`,
  latency: limit => `--max-latency ${Number(limit.toPrecision(6))}ms`,
};
const RECORDED = { size: "size_bytes", macs: "macs", package: "package_bytes", latency: "milliseconds" }; // what a plan's file says of its prediction

/**
 * What attempts lost, as a curve over the divergence predicted for them: through zero, monotone, proportional beyond
 * the last. Null where no attempt lost anything, so that a divergence can't be told as a loss.
 */
function lossCurve(attempts) {
  const knots = [[0, 0]];
  const known = attempts.filter(one => one.predicted > 0).sort((a, b) => a.predicted - b.predicted);
  for (const { predicted, drop } of known) {
    const [at, high] = knots[knots.length - 1], next = Math.max(high, drop);
    if (predicted > at) knots.push([predicted, next]);
    else knots[knots.length - 1] = [at, next];
  }
  const [last, most] = knots[knots.length - 1];
  if (!(most > 0)) return null;
  const between = (value, from, to) => {
    if (value >= knots[knots.length - 1][from]) return value * (from ? last / most : most / last);
    const after = knots.findIndex(knot => knot[from] > value), a = knots[after - 1], b = knots[after];
    return a[to] + (b[to] - a[to]) * (value - a[from]) / (b[from] - a[from]);
  };
  return { drop: divergence => between(divergence, 0, 1), divergence: drop => between(drop, 1, 0), most };
}

// ------------------------------------------------------------------------------------------------------ a plan's file

const yamlNumber = value => String(value).replace(/^(-?\d+)e/, "$1.0e");

/** The plan as YAML that `featherweight apply --plan` reads. */
function planText(data, problem, plan) {
  const units = new Map(data.layers.map((layer, at) => [layer.name, [layer.key, layer.steps[plan.options[at]]]]));
  data.units.forEach((unit, at) => {
    const steps = unit.steps[plan.keeps[at]];
    const [key, rest] = units.get(unit.name) || [unit.key, []];
    if (steps.length) units.set(unit.name, [key, [...steps, ...rest]]);
  });
  const predicted = data.quantities.map((quantity, at) => [RECORDED[quantity], plan.figures[at]]);
  predicted.push(["divergence", plan.figures[problem.last]]);
  const told = predicted.filter(([name]) => name).map(([name, value]) => `${name}: ${yamlNumber(value)}`);
  return [
    "# A Featherweight plan, chosen on a report's page: for every layer, the steps that are applied to it, in order.",
    "# Make it: featherweight apply MODEL --data DATA --plan plan.yaml --out DIR",
    "featherweight_plan: 1",
    `network: ${JSON.stringify(data.network)}`,
    `target: ${JSON.stringify(data.target)}`,
    `predicted: {${told.join(", ")}}`,
    "units:",
    ...[...units.values()].map(([key, steps]) => `  ${key}: [${steps.map(at => data.steps[at][1]).join(", ")}]`),
    "",
  ].join("\n");
}

/** What to type; the drop that must be proven stays the run's own unless the reader allows more. */
function commandText(data, asked, allowed) {
  const { factor } = data.metric, drop = factor * Math.max(data.goal.max_drop, allowed);
  const limited = data.quantities.filter((_, at) => asked[at] < Infinity);
  return [
    "featherweight apply MODEL --data DATA --plan plan.yaml",
    `--max-drop ${Number(drop.toPrecision(6))}${factor === 100 ? "pp" : ""}`,
    ...limited.map(quantity => FLAGS[quantity](asked[data.quantities.indexOf(quantity)])),
    "--out DIR",
  ].join(" ");
}
