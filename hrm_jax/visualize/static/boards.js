'use strict';
// Tokens to pictures. Nothing here knows where tokens come from.

const ARC = ['#000000', '#0074d9', '#ff4136', '#2ecc40', '#ffdc00', '#aaaaaa', '#f012be', '#ff851b', '#7fdbff', '#870c25'];
const CELLS = {  // task -> token -> [background, text]
  maze: [['#ddd', '?'], ['#2b2f38', ''], ['#fff', ''], ['#2ecc40', 'S'], ['#e0483d', 'G'], ['#8fb4ff', '']],
  pathfinding: [['#fff', ''], ['#2b2f38', ''], ['#2ecc40', 'S'], ['#e0483d', 'E'], ['#8fb4ff', '']],
};

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

function boxSide(n) { const root = Math.round(Math.sqrt(n)); return root * root === n ? root : 0; }

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
    let face = '#fff', text = '', ink = '#1d2430';
    if (task === 'arc') face = token >= 2 && token < 12 ? ARC[token - 2] : token === 1 ? '#f3f3f3' : '#fff';
    else if (task === 'sudoku') text = token > 1 ? String(token - 1) : token === 1 ? '' : '?';
    else if (CELLS[task]) [face, text] = CELLS[task][token] || ['#f6c', '?'];
    else text = String(token);
    if (task === 'sudoku') { face = given && given[k] ? '#eceff4' : '#fff'; if (!(given && given[k])) ink = '#2f5fd0'; }
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
  if (task === 'sudoku') {
    const box = boxSide(grid.w) || grid.w;
    ctx.strokeStyle = '#1d2430'; ctx.lineWidth = 1.6;
    for (let k = 0; k <= grid.w; k += box) {
      ctx.beginPath(); ctx.moveTo(k * size, 0); ctx.lineTo(k * size, grid.h * size);
      ctx.moveTo(0, k * size); ctx.lineTo(grid.w * size, k * size); ctx.stroke();
    }
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
