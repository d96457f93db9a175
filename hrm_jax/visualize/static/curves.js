'use strict';
// Draws the table and one panel of curves for every metric. All texts become text nodes.
const facts = JSON.parse(document.getElementById('facts').textContent);
const hidden = new Set();
const SVG = 'http://www.w3.org/2000/svg';
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [560, 300, 58, 14, 10, 38];

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function number(value) {
  const size = Math.abs(value);
  if (value === 0) return '0';
  return size >= 1e6 || size < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

// Round steps of 1, 2 or 5 times a power of ten.
function ticks(low, high, wanted) {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw);
  const found = [];
  for (let tick = Math.ceil(low / step); tick * step <= high + step * 1e-9; tick += 1)
    found.push(tick * step);
  return found;
}

function drawTable() {
  const cells = (line, kind) => element('tr', {}, ...line.map((text) => element(kind, {}, text)));
  document.getElementById('table').append(element('table', {},
    element('thead', {}, cells(facts.header, 'th')),
    element('tbody', {}, ...facts.lines.map((line) => cells(line, 'td')))));
}

function drawLegend() {
  facts.rows.forEach((row, index) => {
    const box = element('input', { type: 'checkbox' });
    box.checked = true;
    box.addEventListener('change', () => {
      if (box.checked) hidden.delete(index); else hidden.add(index);
      drawPanels();
    });
    const key = shape('svg', { width: 26, height: 10 });
    key.append(shape('line', { x1: 0, x2: 26, y1: 5, y2: 5, stroke: row.colour,
      'stroke-width': 2.5, 'stroke-dasharray': row.dash }));
    document.getElementById('legend').append(element('label', {}, box, key, row.label));
  });
}

function drawPanel(name, byFlops, everySeed) {
  const rows = facts.rows.filter((row, index) =>
    !hidden.has(index) && row.mean[name].length && !(byFlops && row.flops === null));
  const place = (row, step) => (byFlops ? step * row.flops : step);
  const values = rows.flatMap((row) => [
    ...row.mean[name].flatMap(([, mean, spread]) => [mean - spread, mean + spread]),
    ...(everySeed ? row.seeds[name].flat().map((point) => point[1]) : [])]);
  const value = element('span', { class: 'value' });
  const figure = element('figure', {}, element('figcaption', {}, name + ' ', value));
  const svg = shape('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT,
    role: 'img', 'aria-label': name });
  figure.append(svg);
  if (!rows.length) {
    svg.append(shape('text', { x: LEFT, y: 40 }, 'nothing to show'));
    return figure;
  }
  const end = Math.max(...rows.flatMap((row) => row.mean[name].map(([s]) => place(row, s)))) || 1;
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = (high - low || Math.abs(high) || 1) * 0.05;
  [low, high] = [low - margin, high + margin];
  const x = (at) => LEFT + at / end * (WIDTH - LEFT - RIGHT);
  const y = (at) => HEIGHT - BOTTOM - (at - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
  for (const tick of ticks(low, high, 5)) {
    svg.append(shape('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick),
      stroke: '#e7eaf2' }));
    svg.append(shape('text', { x: LEFT - 6, y: y(tick) + 4, 'text-anchor': 'end' }, number(tick)));
  }
  for (const tick of ticks(0, end, 6))
    svg.append(shape('text', { x: x(tick), y: HEIGHT - BOTTOM + 16, 'text-anchor': 'middle' },
      number(tick)));
  svg.append(shape('line', { x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM,
    y2: HEIGHT - BOTTOM, stroke: '#9aa0ab' }));
  svg.append(shape('text', { x: WIDTH - RIGHT, y: HEIGHT - 6, 'text-anchor': 'end' },
    byFlops ? 'FLOPs' : 'train steps'));
  const points = [];
  const path = (list) => list.map(([at, v]) => `${x(at)},${y(v)}`).join(' ');
  for (const row of rows) {
    const curve = row.mean[name].map(([s, mean, spread]) => [place(row, s), mean, spread]);
    const band = [...curve.map(([at, m, d]) => [at, m + d]),
      ...curve.map(([at, m, d]) => [at, m - d]).reverse()];
    svg.append(shape('polygon', { points: path(band), fill: row.colour, opacity: 0.14 }));
    if (everySeed)
      for (const seed of row.seeds[name])
        svg.append(shape('polyline', { points: path(seed.map(([s, v]) => [place(row, s), v])),
          fill: 'none', stroke: row.colour, 'stroke-width': 0.8, opacity: 0.6 }));
    svg.append(shape('polyline', { points: path(curve), fill: 'none', stroke: row.colour,
      'stroke-width': 2, 'stroke-dasharray': row.dash, class: 'mean' }));
    for (const [at, mean, spread] of curve) {
      if (curve.length === 1) {
        svg.append(shape('circle', { cx: x(at), cy: y(mean), r: 3, fill: row.colour }));
        svg.append(shape('line', { x1: x(at), x2: x(at), y1: y(mean - spread),
          y2: y(mean + spread), stroke: row.colour }));
      }
      points.push({ x: x(at), y: y(mean), text:
        `${row.label} at ${number(at)}: ${number(mean)}` + (spread ? ` \u00b1 ${number(spread)}` : '') });
    }
  }
  const mark = shape('circle', { r: 4, fill: 'none', stroke: '#1d2430', visibility: 'hidden' });
  svg.append(mark);
  svg.addEventListener('pointermove', (event) => {
    const frame = svg.getBoundingClientRect();
    const [px, py] = [(event.clientX - frame.left) * WIDTH / frame.width,
      (event.clientY - frame.top) * HEIGHT / frame.height];
    const distance = (point) => (point.x - px) ** 2 + (point.y - py) ** 2;
    const near = points.reduce((one, other) => (distance(other) < distance(one) ? other : one));
    mark.setAttribute('cx', near.x);
    mark.setAttribute('cy', near.y);
    mark.setAttribute('visibility', 'visible');
    value.textContent = near.text;
  });
  return figure;
}

function drawPanels() {
  const byFlops = document.getElementById('axis').value === 'flops';
  const everySeed = document.getElementById('seeds').checked;
  document.getElementById('panels').replaceChildren(
    ...facts.metrics.map((name) => drawPanel(name, byFlops, everySeed)));
}

try {
  drawTable();
  drawLegend();
  for (const id of ['axis', 'seeds'])
    document.getElementById(id).addEventListener('change', drawPanels);
  drawPanels();
  document.body.dataset.ready = '1';
} catch (error) {
  document.getElementById('error').textContent = String(error);
}
