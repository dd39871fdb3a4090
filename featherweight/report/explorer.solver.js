// Allocation in the browser, by the prices of planning/widths.py. A figure is one of the table's quantities in their
// order, and the last one is the divergence. A plan is {keeps, options, figures}: the number of every unit's keep and
// of every layer's option, and what they cost in all.
//
// With a price for every figure, units and layers in turn take what is best beside the present choice of the others,
// until nothing changes (coordinate descent). A limit is met by raising the price of its figure: two plans, one within
// the limit and one beyond, give the next price, that at which both are worth the same, until no plan lies between
// them. What room is left then goes to single changes.

const ROUNDS = 8; // of the descent, as in planning/widths.py
const SPLITS = 60; // of the search for one price
const TURNS = 4; // over the prices of several limits
const POINTS = 96; // of the front, at most
const TRIED = 8; // plans whose room is filled up
const CHANGES = 500; // of one plan, at most
const TINY = 1e-200; // stands in for a limit of zero, so that what passes it by less is still nearer
const SLACK = 1e-9; // relative: sums in another order must not lose a plan that fits exactly

/** The table as arrays, with every option's a, b, c, d of a·rows·columns + b·rows + c·columns + d in a row. */
function compiled(table) {
  const layers = table.layers.map(layer => ({
    widths: layer.widths,
    divergence: Float64Array.from(layer.divergence),
    terms: layer.forms.map(column => Float64Array.from(column.flatMap(number => table.forms[number]))),
  }));
  const units = table.units.map(unit => {
    const count = unit.divergence.length, lost = new Map();
    for (const [side, losses] of [unit.rows, unit.columns].entries()) {
      for (const [layer, gone] of losses) {
        if (!lost.has(layer)) lost.set(layer, { layer, gone: [new Array(count).fill(0), new Array(count).fill(0)] });
        lost.get(layer).gone[side] = gone;
      }
    }
    return { saved: unit.saved, divergence: unit.divergence, losses: [...lost.values()] };
  });
  return { fixed: table.fixed, layers, units, last: table.quantities.length };
}

const formed = (terms, at, rows, columns) =>
  terms[at] * rows * columns + terms[at + 1] * rows + terms[at + 2] * columns + terms[at + 3];

/** What an option of a layer adds to a figure. */
const share = (problem, layer, option, figure, [rows, columns]) =>
  figure === problem.last
    ? problem.layers[layer].divergence[option]
    : formed(problem.layers[layer].terms[figure], 4 * option, rows, columns);

/** What a keep of a unit adds to a figure, beside what its layers lose. */
const extra = (problem, unit, keep, figure) =>
  figure === problem.last ? problem.units[unit].divergence[keep] : -problem.units[unit].saved[figure][keep];

/** Rows and columns of every layer that these keeps leave. */
function widthsOf(problem, keeps) {
  const widths = problem.layers.map(layer => [...layer.widths]);
  problem.units.forEach((unit, number) => {
    for (const { layer, gone } of unit.losses) {
      for (const side of [0, 1]) widths[layer][side] -= gone[side][keeps[number]];
    }
  });
  return widths;
}

/** All figures of a plan, with the cost of everything that no option touches. */
function figuresOf(problem, keeps, options) {
  const widths = widthsOf(problem, keeps);
  return [...problem.fixed, 0].map((fixed, figure) =>
    keeps.reduce((sum, keep, unit) => sum + extra(problem, unit, keep, figure),
      options.reduce((sum, option, layer) => sum + share(problem, layer, option, figure, widths[layer]), fixed)));
}

/** A layer's terms weighed by the prices, with the divergence in what doesn't depend on widths. */
function weighed(problem, layer, prices) {
  const total = new Float64Array(4 * layer.divergence.length);
  layer.terms.forEach((terms, figure) => {
    const price = prices[figure];
    if (price) for (let at = 0; at < terms.length; at++) total[at] += price * terms[at];
  });
  const error = prices[problem.last];
  for (let at = 0; at < layer.divergence.length; at++) total[4 * at + 3] += error * layer.divergence[at];
  return total;
}

function cheapestOption(terms, [rows, columns]) {
  let best = 0, least = Infinity;
  for (let at = 0; at < terms.length; at += 4) {
    const cost = formed(terms, at, rows, columns);
    if (cost < least) {
      best = at / 4;
      least = cost;
    }
  }
  return best;
}

/** The plan that coordinate descent settles on at these prices, from all channels on. */
function settle(problem, prices) {
  const terms = problem.layers.map(layer => weighed(problem, layer, prices));
  const widths = problem.layers.map(layer => [...layer.widths]);
  const keeps = problem.units.map(() => 0);
  let options = terms.map((one, layer) => cheapestOption(one, widths[layer]));
  for (let round = 0; problem.units.length && round < ROUNDS; round++) {
    const before = `${keeps}|${options}`;
    problem.units.forEach((unit, number) => {
      const totals = unit.divergence.map((_, keep) =>
        prices.reduce((sum, price, figure) => price ? sum + price * extra(problem, number, keep, figure) : sum, 0));
      for (const { layer, gone: [rows, columns] } of unit.losses) {
        const high = widths[layer][0] + rows[keeps[number]], wide = widths[layer][1] + columns[keeps[number]];
        widths[layer] = [high, wide];
        for (let keep = 0; keep < totals.length; keep++) {
          totals[keep] += formed(terms[layer], 4 * options[layer], high - rows[keep], wide - columns[keep]);
        }
      }
      keeps[number] = totals.indexOf(Math.min(...totals));
      for (const { layer, gone } of unit.losses) {
        for (const side of [0, 1]) widths[layer][side] -= gone[side][keeps[number]];
      }
    });
    options = terms.map((one, layer) => cheapestOption(one, widths[layer]));
    if (`${keeps}|${options}` === before) break;
  }
  return { keeps, options, figures: figuresOf(problem, keeps, options) };
}

const priced = (prices, figure, price) => prices.map((old, at) => (at === figure ? price : old));
const alone = (problem, figure) => priced(new Array(problem.last + 1).fill(0), figure, 1);
const worth = (prices, figures) => figures.reduce((sum, value, at) => sum + prices[at] * value, 0);
const within = (value, limit) => value <= limit + SLACK * Math.abs(limit);

/** The price of a figure at which its limit is met, the other prices given; every plan on the way is seen. */
function priceFor(problem, prices, figure, limit, seen) {
  const free = priced(prices, figure, 0);
  let beyond = seen(free);
  if (within(beyond.figures[figure], limit)) return 0;
  let inside = seen(alone(problem, figure)), price = 0;
  for (let split = 0; split < SPLITS; split++) {
    const room = beyond.figures[figure] - inside.figures[figure];
    if (!(room > 0)) break;
    price = Math.max(0, (worth(free, inside.figures) - worth(free, beyond.figures)) / room);
    const found = seen(priced(prices, figure, price));
    if (String(found.figures) === String(beyond.figures) || String(found.figures) === String(inside.figures)) break;
    if (within(found.figures[figure], limit)) inside = found;
    else beyond = found;
  }
  return price * (1 + SLACK);
}

/** By how much limits are passed, relative to them, summed. */
function excess(figures, limits) {
  let sum = 0;
  for (let at = 0; at < limits.length; at++) {
    if (!within(figures[at], limits[at])) sum += figures[at] / Math.max(limits[at], TINY) - 1;
  }
  return sum;
}

/** What a layer's part of every figure becomes at other widths or with another option, added to a plan's figures. */
function replaced(problem, layer, [was, before], [option, after], figures) {
  for (let figure = 0; figure < figures.length; figure++) {
    figures[figure] += share(problem, layer, option, figure, after) - share(problem, layer, was, figure, before);
  }
}

/** Every plan that differs in one choice: calls back with a unit's or a layer's change and the figures it leads to. */
function eachChange(problem, plan, call) {
  const widths = widthsOf(problem, plan.keeps), figures = [...plan.figures];
  const restart = () => { for (let at = 0; at < figures.length; at++) figures[at] = plan.figures[at]; };
  problem.units.forEach((unit, number) => unit.divergence.forEach((_, keep) => {
    restart();
    const was = plan.keeps[number];
    figures.forEach((_, at) => { figures[at] += extra(problem, number, keep, at) - extra(problem, number, was, at); });
    for (const { layer, gone } of unit.losses) {
      const then = widths[layer].map((width, side) => width + gone[side][was] - gone[side][keep]);
      replaced(problem, layer, [plan.options[layer], widths[layer]], [plan.options[layer], then], figures);
    }
    call("keeps", number, keep, figures);
  }));
  problem.layers.forEach((one, layer) => {
    const now = [plan.options[layer], widths[layer]];
    for (let option = 0; option < one.divergence.length; option++) {
      restart();
      replaced(problem, layer, now, [option, widths[layer]], figures);
      call("options", layer, option, figures);
    }
  });
}

/** Single changes, the best first, until none passes limits by less, or saves what is minimised within them. */
function filled(problem, plan, objective, limits) {
  for (let turn = 0; turn < CHANGES; turn++) {
    let best = null, over = excess(plan.figures, limits), least = plan.figures[objective];
    eachChange(problem, plan, (kind, place, number, figures) => {
      const saves = figures[objective] < least - SLACK * Math.abs(least);
      if (!over && !saves) return;
      const more = excess(figures, limits);
      if (more < over * (1 - SLACK) || (more <= over && saves)) {
        [best, over, least] = [[kind, place, number], more, figures[objective]];
      }
    });
    if (!best) break;
    const next = { keeps: [...plan.keeps], options: [...plan.options] };
    next[best[0]][best[1]] = best[2];
    plan = { ...next, figures: figuresOf(problem, next.keeps, next.options) };
  }
  return plan;
}

/**
 * The plan with the least of one figure under limits on all (Infinity where there is none); where they can't be met
 * together, the one that passes them by least.
 */
function allocate(problem, objective, limits) {
  const pool = new Map();
  const seen = prices => {
    const plan = settle(problem, prices);
    pool.set(`${plan.keeps}|${plan.options}`, plan);
    return plan;
  };
  const limited = limits.map((limit, figure) => figure).filter(at => at !== objective && limits[at] < Infinity);
  let prices = alone(problem, objective);
  seen(prices);
  for (let turn = 0; turn < (limited.length > 1 ? TURNS : 1); turn++) {
    for (const figure of limited) {
      prices = priced(prices, figure, priceFor(problem, prices, figure, limits[figure], seen));
    }
  }
  const better = (a, b) =>
    excess(a.figures, limits) - excess(b.figures, limits) || a.figures[objective] - b.figures[objective];
  const best = [...pool.values()].sort(better).slice(0, TRIED);
  return best.map(plan => filled(problem, plan, objective, limits)).sort(better)[0];
}

/** Plans along the trade of one figure against the divergence, up to a largest divergence; by rising divergence. */
function front(problem, objective, most) {
  const value = alone(problem, objective), error = problem.last;
  const ends = [settle(problem, alone(problem, error))];
  ends.push(settle(problem, priced(value, error, priceFor(problem, value, error, most, at => settle(problem, at)))));
  const points = [...ends];
  for (let queue = [ends]; queue.length && points.length < POINTS;) {
    const next = [];
    for (const [low, high] of queue) {
      const room = high.figures[error] - low.figures[error], saved = low.figures[objective] - high.figures[objective];
      if (!(room > 0 && saved > 0)) continue;
      const prices = priced(value, error, saved / room), found = settle(problem, prices);
      const line = worth(prices, low.figures);
      if (worth(prices, found.figures) >= line - SLACK * Math.abs(line)) continue;
      points.push(found);
      next.push([low, found], [found, high]);
    }
    queue = next;
  }
  points.sort((a, b) => a.figures[error] - b.figures[error] || a.figures[objective] - b.figures[objective]);
  let least = Infinity;
  return points.filter(one => one.figures[objective] < least && ((least = one.figures[objective]), true));
}
