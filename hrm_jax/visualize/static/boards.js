'use strict';
// Tokens to pictures. Nothing here knows where tokens come from.

// What the tasks define: task -> look, and the colours of cells by what is known of them.
// A look: {name, symbols, colours, blank, boxes, shape, pad, crops}. `symbols` are the texts of the tokens, `shape` is [rows, columns] or null (square),
// `boxes` [rows, columns] of a box by the side of the board, `crops` states that cells of padding
// around a grid are left out.
const {tasks: TASKS, colours: COLOURS} = JSON.parse(document.getElementById('facts').textContent);
const INK = COLOURS.given_ink, FRAME = '#c62828';
const GAP = 18;  // between boards, as in page.css

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

// The look of a task by name, for data that state no more; unknown ones show token ids.
function lookOf(name) {
  return TASKS[name] || {name, symbols: [], colours: [], blank: null, boxes: {}, shape: null, pad: 0, crops: false};
}

// [rows, columns] of a puzzle of so many cells; one row: it is a text.
function sizeOf(look, length) {
  if (look.shape && look.shape[0] * look.shape[1] === length) return look.shape;
  const side = Math.round(Math.sqrt(length));
  return side * side === length && look.name !== 'lisp' ? [side, side] : [1, length];
}

// [rows, columns] of the part of a puzzle that is worth drawing.
function extentOf(look, tokens) {
  const [h, w] = sizeOf(look, tokens.length);
  if (look.name === 'arc') {  // the largest rectangle of colours from the corner, as Arc.decode
    let best = [1, 1], area = 0, width = w;
    for (let r = 0; r < h; r++) {
      let run = 0;
      while (run < width && tokens[r * w + run] >= 2) run++;
      width = run;
      if ((r + 1) * width > area) { area = (r + 1) * width; best = [r + 1, width]; }
    }
    return best;
  }
  if (!look.crops) return [h, w];
  let rows = 1, columns = 1;
  tokens.forEach((t, k) => {
    if (t !== look.pad) { rows = Math.max(rows, Math.floor(k / w) + 1); columns = Math.max(columns, k % w + 1); }
  });
  return [rows, columns];
}

const larger = (...sizes) => [Math.max(...sizes.map(s => s[0])), Math.max(...sizes.map(s => s[1]))];

function cut(look, values, [h, w]) {  // values of a whole puzzle -> {w, h, cells}
  const columns = sizeOf(look, values.length)[1], cells = [];
  for (let r = 0; r < h; r++) for (let c = 0; c < w; c++) cells.push(values[r * columns + c]);
  return {w, h, cells};
}

const isText = (look, grid) => grid.h === 1 && (look.shape === null || look.shape[0] === 1);

// Pixels of a cell such that boards of these sizes fill the room; `rows` lines of boards are wanted.
function fit(grids, room, most = 96) {
  const wide = grids.reduce((sum, g) => sum + g.w, 0), high = Math.max(...grids.map(g => g.h));
  const beside = Math.min((room.width - GAP * grids.length) / wide, room.height / high);
  const below = Math.min((room.width - 4) / Math.max(...grids.map(g => g.w)), room.height / high);
  // Side by side where the cells stay legible, else one below the other.
  return Math.max(3, Math.min(most, Math.floor(beside >= Math.min(below, 12) ? beside : below)));
}

function drawBoard(look, grid, {given = null, wrong = null, confidence = null, size = 26} = {}) {
  const scale = window.devicePixelRatio || 1, canvas = document.createElement('canvas');
  canvas.width = (grid.w * size + 2) * scale; canvas.height = (grid.h * size + 2) * scale;
  canvas.style.width = grid.w * size + 2 + 'px'; canvas.style.height = grid.h * size + 2 + 'px';
  const ctx = canvas.getContext('2d'), isArc = look.name === 'arc';
  ctx.scale(scale, scale); ctx.translate(1, 1);
  ctx.textAlign = 'center'; ctx.textBaseline = 'middle';
  const longest = Math.max(1, ...grid.cells.map(t => (look.symbols[t] || String(t)).length));
  grid.cells.forEach((token, k) => {
    const x = (k % grid.w) * size, y = Math.floor(k / grid.w) * size, bad = wrong && wrong[k];
    let face = COLOURS.answered, text = '', ink = INK;
    if (look.colours.length) {
      face = look.colours[token] || '#f6c';
      // Letters show where a path begins and ends; the other colours need no letters.
      if (look.symbols.length && /[A-Z?]/.test(look.symbols[token] || '?')) text = look.symbols[token] || '?';
    } else if (look.symbols.length) {
      const padding = look.crops && token === look.pad;
      text = token === look.blank ? '' : look.symbols[token] === undefined ? '?' : look.symbols[token];
      if (padding) { text = ''; face = '#e3e5ea'; }
      else if (given && given[k]) face = COLOURS.given;
      else if (given) ink = COLOURS.answered_ink;
    } else text = String(token);
    ctx.fillStyle = face; ctx.fillRect(x, y, size, size);
    if (confidence && !(given && given[k]) && confidence[k] < .995) {
      ctx.globalAlpha = .85 * (1 - confidence[k]); ctx.fillStyle = COLOURS.unsure;
      if (look.colours.length) ctx.fillRect(x + size / 4, y + size / 4, size / 2, size / 2);
      else ctx.fillRect(x, y, size, size);
      ctx.globalAlpha = 1;
    }
    if (bad && !isArc) { ctx.globalAlpha = look.colours.length ? .6 : 1; ctx.fillStyle = COLOURS.wrong; ctx.fillRect(x, y, size, size); ctx.globalAlpha = 1; ink = COLOURS.wrong_ink; }
    ctx.strokeStyle = isArc ? '#555' : '#c9ced8'; ctx.lineWidth = .6; ctx.strokeRect(x, y, size, size);
    if (bad && isArc) {
      ctx.strokeStyle = '#fff'; ctx.lineWidth = 3; ctx.strokeRect(x + 2, y + 2, size - 4, size - 4);
      ctx.strokeStyle = FRAME; ctx.lineWidth = 1.5; ctx.strokeRect(x + 2, y + 2, size - 4, size - 4);
    }
    if (text) {
      ctx.fillStyle = ink;
      ctx.font = `${given && given[k] ? 'bold ' : ''}${Math.max(4, Math.round(size * Math.min(.58, 1.5 / longest)))}px system-ui, sans-serif`;
      ctx.fillText(text, x + size / 2, y + size / 2 + 1);
    }
  });
  const boxes = grid.w === grid.h && look.boxes[grid.w];
  if (boxes) {  // [rows, columns] of a box
    ctx.strokeStyle = INK; ctx.lineWidth = Math.max(1.6, size / 18); ctx.beginPath();
    for (let y = 0; y <= grid.h; y += boxes[0]) { ctx.moveTo(0, y * size); ctx.lineTo(grid.w * size, y * size); }
    for (let x = 0; x <= grid.w; x += boxes[1]) { ctx.moveTo(x * size, 0); ctx.lineTo(x * size, grid.h * size); }
    ctx.stroke();
  }
  return canvas;
}

function drawText(look, grid, {wrong = null, confidence = null} = {}) {
  const pre = document.createElement('pre');
  // Words need blanks between them, characters do not.
  const gap = look.symbols.some((word, token) => token !== look.pad && word.length > 1) || !look.symbols.length ? ' ' : '';
  grid.cells.forEach((token, k) => {
    if (token === look.pad && !(wrong && wrong[k])) return;
    const span = document.createElement('span');
    span.textContent = look.symbols[token] === undefined ? String(token) : look.symbols[token];
    if (wrong && wrong[k]) span.className = 'bad';
    else if (confidence && confidence[k] < .9) span.className = 'unsure';
    pre.append(span, gap);
  });
  return pre;
}
