// The page: a board to fill, the model's candidates while it thinks, and the verdict.
'use strict';

const facts = JSON.parse(document.getElementById('facts').textContent);
const side = facts.side, cells = side * side;

function tensorsOf(facts) {
  const bytes = Uint8Array.from(atob(document.getElementById('weights').textContent.trim()),
                                (c) => c.charCodeAt(0));
  const numbers = new Float32Array(bytes.buffer), tensors = {};
  for (const [name, { from, size }] of Object.entries(facts.tensors)) {
    tensors[name] = numbers.subarray(from, from + size);
  }
  return tensors;
}

const model = new Fields(facts, tensorsOf(facts));
const byId = (id) => document.getElementById(id);
let puzzle = new Uint8Array(cells);  // digits, 0 where empty
let frames = [];  // of the run that is shown: {logits, halt, step, chain}
let chosen = 0, running = 0;

// Random numbers in [0, 1) that are the same at every visit (mulberry32).
function randomOf(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// Digits of a text: 0 . _ * - or a blank row mark for empty cells; everything else is left out.
function parse(text) {
  const rows = text.split('\n').filter((line) => !/^\s*[#;]/.test(line) && !/^[\s+|=-]*$/.test(line));
  const digits = [];
  for (const c of rows.join('')) {
    if (/[1-9]/.test(c) && Number(c) <= side) digits.push(Number(c));
    else if (/[0._*xX?-]/.test(c)) digits.push(0);
  }
  return digits.length === cells ? Uint8Array.from(digits) : digits.length;
}

function peersClash(board) {
  const bad = new Set(), boxes = side / model.boxWidth;
  const box = (cell) => Math.floor(Math.floor(cell / side) / model.boxHeight) * boxes
    + Math.floor((cell % side) / model.boxWidth);
  for (let a = 0; a < cells; a++) {
    for (let b = a + 1; b < cells; b++) {
      const sees = Math.floor(a / side) === Math.floor(b / side) || a % side === b % side
        || box(a) === box(b);
      if (sees && board[a] && board[a] === board[b]) bad.add(a).add(b);
    }
  }
  return bad;
}

function answerOf(logits) {
  const board = new Uint8Array(cells);
  for (let cell = 0; cell < cells; cell++) {
    let best = 0;
    for (let d = 1; d < side; d++) if (logits[cell * side + d] > logits[cell * side + best]) best = d;
    board[cell] = puzzle[cell] || best + 1;
  }
  return board;
}

const isSolution = (board) => board.every((digit) => digit) && peersClash(board).size === 0;

function probabilities(logits, cell) {
  const own = Array.from(logits.subarray(cell * side, (cell + 1) * side));
  const top = Math.max(...own), powers = own.map((x) => Math.exp(x - top));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((x) => x / sum);
}

const board = byId('board');
board.style.gridTemplate = `repeat(${side}, 1fr) / repeat(${side}, 1fr)`;
const buttons = Array.from({ length: cells }, (_, cell) => {
  const button = document.createElement('button'), row = Math.floor(cell / side);
  button.className = 'cell';
  button.classList.toggle('edge-right', (cell + 1) % model.boxWidth === 0);
  button.classList.toggle('edge-bottom', (row + 1) % model.boxHeight === 0);
  button.classList.toggle('last-column', cell % side === side - 1);
  button.classList.toggle('last-row', row === side - 1);
  button.addEventListener('click', () => choose(cell));
  board.append(button);
  return button;
});

function draw(frame) {
  const clashes = peersClash(puzzle);
  buttons.forEach((button, cell) => {
    button.replaceChildren();
    button.classList.toggle('given', puzzle[cell] > 0);
    button.classList.toggle('clash', clashes.has(cell));
    const name = `row ${Math.floor(cell / side) + 1}, column ${cell % side + 1}`;
    button.setAttribute('aria-label', `${name}: ${puzzle[cell] || 'empty'}`);
    let digit = puzzle[cell];
    if (!digit && frame) {
      const shares = probabilities(frame.logits, cell), best = shares.indexOf(Math.max(...shares));
      button.setAttribute('aria-label', `${name}: ${best + 1} at ${Math.round(100 * shares[best])} %`);
      if (shares[best] >= 0.9) digit = best + 1;
      else {
        const small = document.createElement('span');
        small.className = 'candidates';
        const columns = Math.ceil(Math.sqrt(side));
        small.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
        shares.forEach((share, d) => {
          const one = document.createElement('span');
          one.textContent = share >= 0.01 ? d + 1 : '';
          one.style.opacity = Math.min(1, 0.15 + 0.85 * Math.sqrt(share));
          one.style.fontWeight = share >= 0.5 ? 700 : 400;
          small.append(one);
        });
        button.append(small);
      }
    }
    if (digit) {
      const large = document.createElement('span');
      large.className = 'digit';
      large.textContent = digit;
      button.append(large);
    }
  });
}

function choose(cell) {
  buttons[chosen].classList.remove('chosen');
  chosen = cell;
  buttons[cell].classList.add('chosen');
  buttons[cell].focus();
}

function verdict(text, kind = '') {
  byId('verdict').textContent = text;
  byId('verdict').className = kind;
}

function load(digits) {
  running++;
  puzzle = Uint8Array.from(digits);
  frames = [];
  byId('steps').max = 0;
  byId('steps').value = 0;
  verdict('');
  byId('state').textContent = '';
  byId('solve').disabled = false;
  draw();
}

function show(number) {
  const frame = frames[number];
  if (!frame) return;
  const sure = 1 / (1 + Math.exp(-frame.halt));
  const start = frame.chain ? `, start ${frame.chain + 1}` : '';
  byId('state').textContent = `step ${frame.step}${start}: ${(100 * sure).toFixed(1)} % sure`;
  draw(frame);
}

const breath = () => new Promise((done) => setTimeout(done));

async function think() {
  const mine = ++running, x = model.embed(puzzle);
  frames = [];
  byId('solve').disabled = true;
  if (peersClash(puzzle).size) {
    verdict('A digit stands twice in a row, column or box: no solution.', 'bad');
  } else {
    await chains(mine, x);
  }
  if (mine === running) byId('solve').disabled = false;
}

async function chains(mine, x) {
  for (let chain = 0; chain < facts.chains; chain++) {
    const state = model.start(chain ? randomOf(chain) : null);
    for (let step = 1; step <= facts.steps; step++) {
      for (const _ of model.step(state, x)) {
        await breath();
        if (mine !== running) return;
      }
      const { logits, halt } = model.read(state);
      frames.push({ logits, halt, step, chain });
      byId('steps').max = frames.length - 1;
      byId('steps').value = frames.length - 1;
      show(frames.length - 1);
      if (isSolution(answerOf(logits))) {
        const taken = chain ? `, after ${frames.length} in ${chain + 1} starts` : '';
        verdict(`Solved: obeys all rules, ${step} step${step > 1 ? 's' : ''}${taken}.`, 'good');
        return;
      }
      verdict(chain ? `Trying start ${chain + 1} of ${facts.chains} ...` : 'Thinking ...');
    }
  }
  verdict(`Unsolved: no answer of ${facts.chains} starts obeys the rules. The puzzle may have no `
    + 'solution, or be too hard for this model.', 'bad');
}

document.addEventListener('keydown', (event) => {
  if (event.target.tagName === 'TEXTAREA' || event.target.type === 'range') return;
  const moves = { ArrowUp: -side, ArrowDown: side, ArrowLeft: -1, ArrowRight: 1 };
  if (event.key in moves) {
    choose((chosen + moves[event.key] + cells) % cells);
    event.preventDefault();
  } else if (/^[0-9]$/.test(event.key) && Number(event.key) <= side
      || ['Backspace', 'Delete', ' ', '.'].includes(event.key)) {
    const digits = puzzle.slice();
    digits[chosen] = Number(event.key) || 0;
    load(digits);
    if (digits[chosen]) choose((chosen + 1) % cells);
    event.preventDefault();
  } else if (event.key === 'Enter' && event.target.tagName !== 'BUTTON') think();
});
byId('solve').addEventListener('click', think);
byId('clear').addEventListener('click', () => load(new Uint8Array(cells)));
byId('steps').addEventListener('input', () => show(Number(byId('steps').value)));
byId('text').addEventListener('input', () => {
  const found = parse(byId('text').value);
  if (typeof found !== 'number') load(found);
  else if (found) verdict(`${found} of ${cells} cells were read.`, 'bad');
});
facts.examples.forEach(({ name, text }) => {
  const button = document.createElement('button');
  button.className = 'act';
  button.textContent = name;
  button.addEventListener('click', () => { byId('text').value = text; load(parse(text)); });
  byId('examples').append(button);
});
load(parse(facts.examples[0].text));
byId('text').value = facts.examples[0].text;
choose(0);
document.body.dataset.ready = '1';
