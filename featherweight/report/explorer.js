// What the reader moves and sees. Everything follows from one state: what is minimised, and a limit on every figure.

const STEPS = 400; // of a slider

/** Everything about the run that doesn't change while the reader moves things. */
function known(data) {
  const problem = compiled(data), last = problem.last, curve = lossCurve(data.attempts);
  const plan = (keeps, options) => ({ keeps, options, figures: figuresOf(problem, keeps, options) });
  const whole = plan(data.units.map(() => 0), data.layers.map(() => 0));
  const shipped = data.shipped && plan(data.shipped.keeps, data.shipped.options);
  const least = data.quantities.map((_, figure) => settle(problem, alone(problem, figure)).figures[figure]);
  const spent = shipped ? shipped.figures[last] : 0;
  const top = data.metric.factor === 100 ? 1 : Infinity; // no more than all points can be lost
  const most = curve
    ? Math.min(top, Math.max(2 * data.goal.max_drop, 1.25 * curve.most, 1.25 * curve.drop(spent)))
    : 4 * spent || Math.max(1e-6, settle(problem, alone(problem, 0)).figures[last]);
  const loss = curve || { drop: value => value, divergence: value => value };
  const words = lossWords(data.metric, curve);
  return { data, problem, last, curve, loss, words, whole, shipped, least, most, fronts: new Map() };
}

/** How a loss is written: in the metric's own unit where attempts tell it, else as divergence. */
function lossWords({ name, factor, worse }, told) {
  const plain = value => digits(value, 3);
  if (!told) {
    const about = value => `a divergence of ${plain(value)}`;
    return { title: "Divergence", least: "the least divergence", factor: 1, unit: "", show: plain, about };
  }
  const points = factor === 100, tiny = value => points && value > 0 && factor * value < 0.005;
  const exact = value => (points ? `${(factor * value).toFixed(2)} points` : plain(value));
  const show = value => (tiny(value) ? "under 0.01 points" : exact(value));
  const near = value => (tiny(value) ? show(value) : `about ${show(value)}`);
  const title = name === name.toLowerCase() ? name[0].toUpperCase() + name.slice(1) : name;
  return {
    title: `${title} ${worse}`,
    least: `the least ${name} ${worse}`,
    factor,
    unit: points ? "points" : "",
    show,
    about: value => `${near(value)} of ${name} ${worse}`,
  };
}

function startOf(facts) {
  const { data, last, loss, shipped } = facts, limits = new Array(last + 1).fill(Infinity);
  data.quantities.forEach((quantity, at) => {
    if (quantity in data.goal.limits) limits[at] = data.goal.limits[quantity];
  });
  limits[last] = shipped ? shipped.figures[last] : loss.divergence(facts.curve ? data.goal.max_drop : facts.most);
  return { objective: Math.max(0, data.quantities.indexOf(data.goal.minimize)), limits, drop: loss.drop(limits[last]) };
}

/** The plan for a state: the shipped one where nothing better is found. */
function planFor({ problem, last, shipped }, { objective, limits }) {
  const asked = limits.map((limit, figure) => (figure === last && objective === last ? Infinity : limit));
  const found = allocate(problem, objective, asked);
  const asGood = shipped && excess(shipped.figures, asked) <= excess(found.figures, asked)
    && within(shipped.figures[objective], found.figures[objective]);
  return { plan: asGood ? shipped : found, missed: excess(found.figures, asked) > 0, asked };
}

/** A slider with its field: one limit. `scale` is {place, value} between a slider's 0…1 and the limit. */
function limitRow(id, title, unit, factor, scale, changed) {
  const slider = make("input", { type: "range", id: `explore-${id}`, min: 0, max: STEPS, step: 1 });
  const spoken = `${title}, at most${unit && `, in ${unit}`}`;
  const field = make("input", { type: "number", min: 0, step: "any", "aria-label": spoken, placeholder: "any" });
  slider.addEventListener("input", () => changed(scale.value(slider.value / STEPS), slider));
  const typed = () => (field.value === "" || !(field.value >= 0) ? Infinity : field.value * factor);
  field.addEventListener("input", () => changed(typed(), field));
  const row = make("div", { class: "limit-row" },
    make("label", { for: slider.id }, title), slider, make("span", { class: "field" }, field, make("span", {}, unit)));
  const show = (limit, from) => {
    const words = limit < Infinity ? Number((limit / factor).toPrecision(4)) : "";
    if (from !== slider) slider.value = Math.round(STEPS * Math.min(1, Math.max(0, scale.place(limit))));
    if (from !== field) field.value = words;
    slider.setAttribute("aria-valuetext", words === "" ? "no limit" : `at most ${words} ${unit}`);
  };
  return { row, show };
}

/** A limit from the least in reach to what the original takes, in equal ratios; the far end is no limit. */
const ratioScale = (low, high) => ({
  value: place => (place >= 1 ? Infinity : low * (high / low) ** place),
  place: limit => (limit < Infinity ? Math.log(limit / low) / Math.log(high / low) : 1),
});
const evenScale = high => ({ value: place => place * high, place: limit => (limit < Infinity ? limit / high : 1) });

function controls(facts, state, redraw) {
  const { data, problem, last, whole, least, most, loss, words } = facts;
  const select = make("select", { id: "explore-find" },
    ...data.quantities.map((quantity, at) => make("option", { value: at }, WORDS[quantity].find)),
    make("option", { value: last }, words.least));
  select.addEventListener("change", () => { state.objective = Number(select.value); redraw(select); });
  const rows = data.quantities.map((quantity, at) => {
    const { factor, name } = fieldOf(quantity, whole.figures[at]);
    const low = Math.max(least[at], 1e-9), high = Math.max(whole.figures[at], low * 1.001);
    return limitRow(quantity, WORDS[quantity].name, name, factor, ratioScale(low, high),
      (limit, from) => { state.limits[at] = limit; redraw(from); });
  });
  const drop = limitRow("drop", words.title, words.unit, 1 / words.factor, evenScale(most), (limit, from) => {
    state.drop = limit;
    state.limits[last] = limit < Infinity ? loss.divergence(limit) : Infinity;
    redraw(from);
  });
  rows.push(drop);
  const origin = facts.shipped ? "Back to the shipped plan" : "Start again";
  const back = make("button", { type: "button", class: "quiet" }, origin);
  back.addEventListener("click", () => { Object.assign(state, startOf(facts)); redraw(back); });
  const show = from => {
    select.value = state.objective;
    rows.forEach(({ row, show }, at) => {
      row.hidden = at === state.objective;
      show(at === last ? state.drop : state.limits[at], from);
    });
  };
  const node = make("div", { class: "controls", role: "group", "aria-label": "The goal" },
    make("label", { for: select.id, class: "find" }, "Find"), select,
    make("p", { class: "note" }, "with at most"), ...[drop, ...rows.slice(0, -1)].map(one => one.row), back);
  return { node, show };
}

function pairBar(before, after, largest) {
  const scale = largest > 0 ? 100 / largest : 0, bar = value => (value > 0 ? Math.max(1.2, value * scale) : 0);
  return draw("svg", { viewBox: "0 0 100 9", preserveAspectRatio: "none", "aria-hidden": "true", class: "pair" },
    draw("rect", { width: bar(before), height: 4, y: 0, class: "was" }),
    draw("rect", { width: bar(after), height: 4, y: 5, class: "is" }));
}

function framedTable(caption, heads, rows, kind) {
  const head = make("tr", {}, ...heads.map(([words, number]) =>
    make("th", { scope: "col", class: number ? "number" : undefined }, words)));
  return make("div", { class: `scroll ${kind}`, tabindex: 0, role: "region", "aria-label": caption },
    make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...rows)));
}
const numberCell = words => make("td", { class: "number" }, words);
const headed = (words, ...cells) => make("tr", {}, make("th", { scope: "row" }, words), ...cells);

function figuresTable(facts, plan) {
  const { data, whole, shipped, last, loss, words } = facts;
  const lost = value => words.show(loss.drop(value));
  const now = (name, value, text) => numberCell(make("b", { "data-figure": name, "data-value": value }, text));
  const rows = data.quantities.map((quantity, at) => {
    const before = whole.figures[at], after = plan.figures[at];
    return headed(WORDS[quantity].name, numberCell(shown(quantity, before)),
      numberCell(shipped ? shown(quantity, shipped.figures[at]) : "–"), now(quantity, after, shown(quantity, after)),
      make("td", {}, change(quantity, before, after)), make("td", {}, pairBar(before, after, Math.max(before, after))));
  });
  rows.push(headed(facts.curve ? `${words.title}, about` : words.title, numberCell("–"),
    numberCell(shipped ? lost(shipped.figures[last]) : "–"),
    now("divergence", plan.figures[last], lost(plan.figures[last])), make("td", { colspan: 2 })));
  const heads = [["Predicted"], ["Original", 1], ["Shipped", 1], ["This plan", 1], ["Change"], [""]];
  return framedTable("Predicted figures of this plan", heads, rows, "figures");
}

/** A layer's steps in words, its unit's pruning before them. */
function stepsOf({ data }, plan, layer) {
  const unit = data.units.findIndex(one => one.name === data.layers[layer].name);
  const pruning = unit < 0 ? [] : data.units[unit].steps[plan.keeps[unit]];
  return [...pruning, ...data.layers[layer].steps[plan.options[layer]]].map(at => data.steps[at][0]);
}

/** Steps as lines, each with its settings; below them those of the shipped plan where they differ. */
function stepsCell(steps, before) {
  const lines = steps.map(step => step.match(/^([^(]*)\(?(.*?)\)?$/s)).map(([, name, inside]) =>
    make("span", {}, make("b", {}, name), make("small", {}, inside)));
  const kept = make("span", { class: "soft" }, "kept as it is");
  const told = before && `shipped: ${before.join(" > ") || "kept as it is"}`;
  const was = before ? make("small", { class: "was-steps" }, told) : null;
  return make("td", {}, steps.length ? make("span", { class: "steps" }, ...lines) : kept, was);
}

/** What a layer's option and the pruning of the unit that is named for it do to the outputs, as predicted. */
function divergenceAt({ data, problem, last }, plan, layer) {
  const unit = data.units.findIndex(one => one.name === data.layers[layer].name);
  const pruned = unit < 0 ? 0 : extra(problem, unit, plan.keeps[unit], last);
  return pruned + problem.layers[layer].divergence[plan.options[layer]];
}

function layersTable(facts, plan) {
  const { data, problem, whole, shipped } = facts, size = data.quantities.indexOf("size");
  const full = widthsOf(problem, whole.keeps), now = widthsOf(problem, plan.keeps);
  const bytes = data.layers.map((_, at) =>
    [share(problem, at, 0, size, full[at]), share(problem, at, plan.options[at], size, now[at])]);
  const largest = Math.max(...bytes.flat());
  let different = 0;
  const rows = data.layers.map((layer, at) => {
    const steps = stepsOf(facts, plan, at), before = shipped ? stepsOf(facts, shipped, at) : steps;
    const differs = String(steps) !== String(before);
    different += differs;
    const row = headed(layer.name, stepsCell(steps, differs && before), numberCell(grouped(bytes[at][1])),
      make("td", {}, pairBar(...bytes[at], largest)),
      numberCell(digits(divergenceAt(facts, plan, at), 3)));
    if (differs) row.className = "differs";
    return row;
  });
  const compared = different ? `${different} of ${rows.length} differ from the shipped plan` : "as in the shipped plan";
  const heads = [["Layer"], ["Chosen"], ["Bytes", 1], [""], ["Divergence", 1]];
  return {
    summary: shipped ? `Layer by layer: ${compared}` : "Layer by layer",
    node: framedTable("Every layer of this plan", heads, rows, "layers tall"),
  };
}

/** Attempts as measured, where they are, and the plan that is shown. */
function dotsOf(facts, plan, at) {
  const { data, last, loss, curve, words } = facts, quantity = data.quantities[at];
  const hint = (x, y) => `${shown(quantity, x)}, ${words.show(y)}`;
  const tried = data.attempts.filter(one => quantity in one.measured && (curve || one.predicted !== null)).map(one => {
    const x = one.measured[quantity], y = curve ? one.drop : one.predicted;
    const kind = one.shipped ? "tried shipped" : "tried";
    return { x, y, name: String(one.number), kind, hint: `attempt ${one.number}, measured: ${hint(x, y)}` };
  });
  const x = plan.figures[at], y = loss.drop(plan.figures[last]);
  return [...tried, { x, y, name: "", kind: "pick", hint: `this plan, predicted: ${hint(x, y)}` }];
}

function frontPicture(facts, state, plan, asked) {
  const { data, problem, last, loss, most, whole, words } = facts;
  const limited = data.quantities.findIndex((_, at) => state.limits[at] < Infinity);
  const at = state.objective !== last ? state.objective : Math.max(0, limited), quantity = data.quantities[at];
  if (!facts.fronts.has(at)) facts.fronts.set(at, front(problem, at, loss.divergence(most)));
  const path = facts.fronts.get(at).map(one => [one.figures[at], loss.drop(one.figures[last])]);
  const dots = dotsOf(facts, plan, at), least = Math.min(...path.map(([x]) => x), ...dots.map(dot => dot.x));
  const limits = [{ at: asked[at] }, { at: asked[last] < Infinity ? state.drop : Infinity, level: true }];
  const image = picture({
    across: {
      range: [Math.max(0.93 * least, 1e-9), 1.03 * Math.max(whole.figures[at], ...dots.map(dot => dot.x), 1e-8)],
      title: WORDS[quantity].axis,
      show: value => shown(quantity, value).replace(".0 ", " "),
    },
    upwards: {
      high: 1.04 * most,
      title: (facts.curve ? `${words.title}, about` : words.title) + (words.unit && ` (${words.unit})`),
      show: value => digits(value * words.factor, 3),
    },
    path,
    limits: limits.filter(limit => limit.at < Infinity),
    dots,
    label: `${WORDS[quantity].name} against ${words.title.toLowerCase()}: the best plans, and this one`,
  });
  const told = dots.length > 1 ? " Numbered: this run's attempts as measured; the filled one was shipped." : "";
  const source = facts.curve ? " Losses are read off the attempts; a certificate proves a bound above them." : "";
  const caption = `The line joins the best plans, as predicted. The large dot: this plan. Dashed: limits.${told}`;
  return make("figure", {}, image, make("figcaption", {}, caption + source));
}

function sentence(facts, objective, { plan, missed, asked }) {
  const { data, whole, last, loss, words } = facts, lost = words.about(loss.drop(plan.figures[last]));
  const parts = data.quantities.filter((quantity, at) => quantity === "size" || at === objective).map(quantity => {
    const at = data.quantities.indexOf(quantity), compared = change(quantity, whole.figures[at], plan.figures[at]);
    return `${WORDS[quantity].name} ${shown(quantity, plan.figures[at])} (${compared})`;
  });
  const told = `${parts.join(", ")}, ${lost}.`;
  if (!missed) return [make("strong", {}, "Predicted: "), told];
  const titles = [...data.quantities.map(quantity => WORDS[quantity].name), words.title];
  const passed = titles.filter((_, at) => !within(plan.figures[at], asked[at])).join(", ");
  const rule = make("strong", {}, "No plan was found within all of these limits. ");
  return [rule, `The nearest goes beyond: ${passed}. ${told}`];
}

function outcome() {
  const words = make("p", { class: "told", "aria-live": "polite", id: "explore-told" });
  const code = make("code", { id: "explore-command" }), copied = make("span", { class: "note", role: "status" });
  const copy = make("button", { type: "button" }, "Copy command");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copied.textContent = "Copied.";
    } catch (error) {
      getSelection().selectAllChildren(code);
      copied.textContent = "Selected: copy it with Ctrl+C.";
    }
  });
  const file = make("a", { class: "button", download: "plan.yaml", id: "explore-plan" }, "Download plan.yaml");
  const buttons = make("div", { class: "buttons" }, file, copy, copied);
  const next = make("div", { class: "next" }, make("pre", { tabindex: 0 }, code), buttons);
  return { words, code, file, next, copied };
}

function start(data, room) {
  const facts = known(data), state = startOf(facts), told = outcome();
  const table = make("div"), image = make("div", { class: "trade" });
  const layers = make("details", { class: "every", open: "" });
  const summary = make("summary");
  let waiting;
  const redraw = from => {
    clearTimeout(waiting); // of several moves at once, the last counts
    waiting = setTimeout(refresh, 0, from);
  };
  const goal = controls(facts, state, redraw);
  const refresh = from => {
    goal.show(from);
    const found = planFor(facts, state), { plan, missed, asked } = found, every = layersTable(facts, plan);
    const drop = facts.curve && asked[facts.last] < Infinity ? state.drop : 0;
    told.words.classList.toggle("missed", missed);
    told.words.replaceChildren(...sentence(facts, state.objective, found));
    told.code.textContent = commandText(data, asked, drop);
    told.copied.textContent = "";
    told.file.href = `data:application/yaml;charset=utf-8,${encodeURIComponent(planText(data, facts.problem, plan))}`;
    table.replaceChildren(figuresTable(facts, plan));
    image.replaceChildren(frontPicture(facts, state, plan, asked));
    summary.textContent = every.summary;
    const top = layers.lastChild && layers.lastChild.scrollTop;
    layers.replaceChildren(summary, every.node);
    if (top) every.node.scrollTop = top;
  };
  refresh(null);
  const hand = make("div", {}, goal.node, told.words);
  const below = [table, make("h3", {}, "Make this plan"), told.next, layers];
  room.replaceChildren(make("div", { class: "explore" }, hand, image), ...below);
}

start(JSON.parse(document.getElementById("explore-data").textContent), document.getElementById("explore-room"));
document.getElementById("explore-off").hidden = true;
