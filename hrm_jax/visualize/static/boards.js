'use strict';
// Tokens to pictures. Nothing here knows where tokens come from.

// What tasks.py defines: task -> {symbols, colours, blank, boxes, ends}.
const TASKS = JSON.parse(document.getElementById('facts').textContent).tasks;
const ARC_FRAME = '#555';

// Where cell (r, c) of a turned h x w grid comes from; ids as in hrm_jax/data/augment.py.
const SOURCE = [
  (r, c, h, w) => [r, c], (r, c, h, w) => [c, w - 1 - r], (r, c, h, w) => [h - 1 - r, w - 1 - c],
  (r, c, h, w) => [h - 1 - c, r], (r, c, h, w) => [r, w - 1 - c], (r, c, h, w) => [h - 1 - r, c],
  (r, c, h, w) => [c, r], (r, c, h, w) => [h - 1 - c, w - 1 - r],
];
const SWAPS = [0, 1, 0, 1, 0, 0, 1, 1];

function turn(grid, id) {  // grid: {w, h, cells}
  const w = SWAPS[id] ? grid.h : grid.w, h = SWAPS[id] ? grid.w : grid.h, cells = [];
  for (let r = 0; r < h; r++) for (let c = 0; c < w; c++) {
    const [i, j] = SOURCE[id](r, c, grid.h, grid.w);
    cells.push(grid.cells[i * grid.w + j]);
  }
  return {w, h, cells};
}

function augment(grid, transform, map) {
  if (!map || transform === 'none') return grid;
  if (transform === 'dihedral') return turn(grid, map[0]);
  if (transform === 'arc') {
    const colours = grid.cells.map(t => t >= 2 ? map[1 + t - 2] + 2 : t);
    return turn({w: grid.w, h: grid.h, cells: colours}, map[0]);
  }
  const n = grid.w, cells = [];
  for (let r = 0; r < n; r++) for (let c = 0; c < n; c++) {
    const i = map[1 + n + r], j = map[1 + 2 * n + c];
    const t = grid.cells[map[0] ? j * n + i : i * n + j];
    cells.push(t >= 2 ? map[1 + t - 2] + 2 : t);
  }
  return {w: n, h: n, cells};
}

// The part of a square canvas that an ARC grid uses, at least what `also` uses.
function arcSize(...canvases) {
  let h = 1, w = 1;
  for (const tokens of canvases) {
    const side = Math.round(Math.sqrt(tokens.length));
    tokens.forEach((t, k) => {
      if (t >= 2) { h = Math.max(h, Math.floor(k / side) + 1); w = Math.max(w, k % side + 1); }
    });
  }
  return [h, w];
}

function crop(tokens, h, w) {
  const side = Math.round(Math.sqrt(tokens.length)), cells = [];
  for (let r = 0; r < h; r++) for (let c = 0; c < w; c++) cells.push(tokens[r * side + c]);
  return {w, h, cells};
}

function drawBoard(task, grid, {given = null, wrong = null, confidence = null} = {}) {
  const size = task === 'sudoku' ? Math.min(34, 300 / grid.w) : Math.max(6, Math.min(26, Math.floor(300 / Math.max(grid.w, grid.h))));
  const scale = window.devicePixelRatio || 1, canvas = document.createElement('canvas');
  canvas.width = (grid.w * size + 2) * scale; canvas.height = (grid.h * size + 2) * scale;
  canvas.style.width = grid.w * size + 2 + 'px'; canvas.style.height = grid.h * size + 2 + 'px';
  const ctx = canvas.getContext('2d');
  ctx.scale(scale, scale); ctx.translate(1, 1);
  ctx.textAlign = 'center'; ctx.textBaseline = 'middle';
  grid.cells.forEach((token, k) => {
    const x = (k % grid.w) * size, y = Math.floor(k / grid.w) * size, bad = wrong && wrong[k];
    const known = TASKS[task];
    let face = '#fff', text = '', ink = '#1d2430';
    if (!known) text = String(token);
    else if (known.colours.length) {
      face = known.colours[token] || '#f6c';
      // Letters say where a path begins and ends; the other colours speak for themselves.
      if (known.symbols && /[A-Z?]/.test(known.symbols[token] || '?')) text = known.symbols[token] || '?';
    } else if (known.symbols) {
      text = token === known.blank ? '' : known.symbols[token] || '?';
      face = given && given[k] ? '#eceff4' : '#fff';
      if (!(given && given[k])) ink = '#2f5fd0';
    } else text = String(token);
    ctx.fillStyle = face; ctx.fillRect(x, y, size, size);
    if (confidence && !(given && given[k])) {
      ctx.fillStyle = `rgba(255, 170, 0, ${(1 - confidence[k]).toFixed(3)})`; ctx.fillRect(x, y, size, size);
    }
    if (bad && task !== 'arc') { ctx.fillStyle = 'rgba(198, 40, 40, .35)'; ctx.fillRect(x, y, size, size); ink = '#b00020'; }
    ctx.strokeStyle = task === 'arc' ? '#555' : '#c9ced8'; ctx.lineWidth = .6; ctx.strokeRect(x, y, size, size);
    if (bad && task === 'arc') {
      ctx.strokeStyle = '#fff'; ctx.lineWidth = 3; ctx.strokeRect(x + 2, y + 2, size - 4, size - 4);
      ctx.strokeStyle = '#c62828'; ctx.lineWidth = 1.5; ctx.strokeRect(x + 2, y + 2, size - 4, size - 4);
    }
    if (text) {
      ctx.fillStyle = ink; ctx.font = `${given && given[k] ? 'bold ' : ''}${Math.round(size * .58)}px system-ui, sans-serif`;
      ctx.fillText(text, x + size / 2, y + size / 2 + 1);
    }
  });
  const boxes = TASKS[task] && TASKS[task].boxes[grid.w];
  if (boxes) {  // [rows, columns] of a box
    ctx.strokeStyle = '#1d2430'; ctx.lineWidth = 1.6; ctx.beginPath();
    for (let y = 0; y <= grid.h; y += boxes[0]) { ctx.moveTo(0, y * size); ctx.lineTo(grid.w * size, y * size); }
    for (let x = 0; x <= grid.w; x += boxes[1]) { ctx.moveTo(x * size, 0); ctx.lineTo(x * size, grid.h * size); }
    ctx.stroke();
  }
  return canvas;
}

function drawText(grid, vocabulary, padId, {wrong = null} = {}) {
  const pre = document.createElement('pre');
  grid.cells.forEach((token, k) => {
    if (token === padId && !(wrong && wrong[k])) return;
    const span = document.createElement('span');
    span.textContent = vocabulary[token] === undefined ? String(token) : vocabulary[token];
    if (wrong && wrong[k]) span.className = 'bad';
    pre.append(span, ' ');
  });
  return pre;
}
