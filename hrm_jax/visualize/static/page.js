'use strict';
// The page: a source of puzzles, a list beside it, cards with boards.

const PAGE = 50;
const $ = id => document.getElementById(id);
const facts = JSON.parse($('facts').textContent);
const state = {source: null, group: 0, groupPage: 0, page: 0, filter: ''};

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;  // never markup: names come from data
  return node;
}

function picture(source, grid, options, caption) {
  const figure = element('figure');
  figure.append(element('figcaption', '', caption));
  const isBoard = (TASKS[source.task] && (TASKS[source.task].symbols || TASKS[source.task].colours.length)) || (grid.h > 1 && !source.vocabulary.length);
  figure.append(isBoard ? drawBoard(source.task, grid, options) : drawText(grid, source.vocabulary, source.padId, options));
  return figure;
}

function shapeOf(source, ...rows) {  // [h, w] that rows of tokens are shown in
  const side = Math.round(Math.sqrt(rows[0].length));
  if (source.task === 'arc') return arcSize(...rows);
  return side * side === rows[0].length && source.task !== 'lisp' ? [side, side] : [1, rows[0].length];
}

function gridOf(source, tokens, size) {
  return size[0] === 1 && size[1] === tokens.length ? {w: tokens.length, h: 1, cells: tokens} : crop(tokens, ...size);
}

const blankOf = task => TASKS[task] && TASKS[task].blank !== null ? TASKS[task].blank : undefined;
const sigmoid = x => 1 / (1 + Math.exp(-x));

// A built data set: groups of puzzles; a puzzle is a map over stored examples.
class DatasetSource {
  constructor(arrays, about) {
    Object.assign(this, {a: arrays, task: about.task || '', padId: about.pad_id || 0, vocabulary: about.vocabulary || [],
      transform: about.transform || 'none', names: about.names || [], puzzleNames: about.puzzle_names || [], note: about.note || ''});
    this.count = arrays.group_indices.data.length - 1;
    this.title = about.title; this.kind = 'dataset';
  }
  name(group) { return this.names[group] || (this.puzzleNames.length && this.puzzleNames[this.a.puzzle_identifiers.data[this.a.group_indices.data[group]]]) || `group ${group + 1}`; }
  items(group) { return this.a.group_indices.data[group + 1] - this.a.group_indices.data[group]; }
  card(group, item) {
    const {a} = this, puzzle = a.group_indices.data[group] + item;
    const map = a.maps ? row(a.maps, puzzle) : null, first = a.puzzle_first.data[puzzle];
    const card = element('div', 'card'), id = a.puzzle_identifiers.data[puzzle];
    const label = this.puzzleNames[id] || (map ? `augmentation ${item}: ${this.describe(map)}` : `puzzle ${puzzle + 1}`);
    card.append(element('h2', '', `${label} · identifier ${id}`));
    const count = a.puzzle_indices.data[puzzle + 1] - a.puzzle_indices.data[puzzle];
    for (let k = 0; k < count; k++) {
      const boards = element('div', 'boards'), rows = [row(a.inputs, first + k), row(a.labels, first + k)];
      if (rows[0].length === 0) { card.append(element('p', 'note', 'not in this page (see the note above)')); break; }
      const grids = rows.map((tokens, side) => {
        const size = a.extents ? row(a.extents, first + k).slice(2 * side, 2 * side + 2) : shapeOf(this, tokens);
        return augment(gridOf(this, tokens, size), this.transform, map);
      });
      const blank = blankOf(this.task), given = blank === undefined ? null : grids[0].cells.map(t => t !== blank);
      boards.append(picture(this, grids[0], {given}, `question ${k + 1}`), picture(this, grids[1], {given}, 'answer'));
      card.append(boards);
    }
    return card;
  }
  describe(map) {
    if (this.transform === 'arc') return map[0] === 0 && map.slice(1).every((c, k) => c === k) ? 'none' : `t${map[0]} ${map.slice(1).join('')}`;
    return this.transform === 'dihedral' ? `t${map[0]}` : map.slice(0, 1 + this.a.inputs.shape[1] ** .5).join(' ');
  }
}

// Predictions, one row per puzzle.
class PredictionSource {
  constructor(arrays, about) {
    Object.assign(this, {a: arrays, task: about.task || '', padId: about.pad_id || 0, vocabulary: about.vocabulary || [], note: about.note || '', title: about.title, kind: 'predictions'});
    this.rows = arrays.predictions.shape[0];
    this.count = Math.ceil(this.rows / PAGE);
  }
  name(group) { return `rows ${group * PAGE + 1} to ${Math.min(this.rows, (group + 1) * PAGE)}`; }
  items(group) { return Math.min(PAGE, this.rows - group * PAGE); }
  card(group, item) {
    const {a} = this, index = group * PAGE + item, answer = row(a.predictions, index);
    const question = a.inputs ? row(a.inputs, index) : null, truth = a.labels ? row(a.labels, index) : null;
    const wrong = truth && answer.map((t, k) => truth[k] >= 0 && t !== truth[k]);
    const shown = truth && truth.map((t, k) => t < 0 ? this.padId : t);
    const size = shapeOf(this, ...[answer, question, shown].filter(x => x));
    const card = element('div', 'card'), head = element('h2', '', `example ${a.example ? a.example.data[index] : index}`);
    if (wrong) {
      const errors = wrong.filter(x => x).length;
      head.append(' · ', element('span', errors ? 'verdict-wrong' : 'verdict-right', errors ? `${errors} wrong` : 'right'));
    }
    if (a.q_halt) head.append(` · thinks it is right: ${(100 * sigmoid(a.q_halt.data[index])).toFixed(1)} %`);
    if (a.steps) head.append(` · ${a.steps.data[index]} steps`);
    const boards = element('div', 'boards'), blank = blankOf(this.task);
    const given = question && blank !== undefined ? gridOf(this, question.map(t => t !== blank), size).cells : null;
    if (question) boards.append(picture(this, gridOf(this, question, size), {given}, 'question'));
    const bad = wrong && gridOf(this, wrong, size).cells;
    boards.append(picture(this, gridOf(this, answer, size), {given, wrong: bad}, 'prediction'));
    if (shown) boards.append(picture(this, gridOf(this, shown, size), {given}, 'label'));
    card.append(head, boards);
    return card;
  }
}

// Reasoning step by step.
class TraceSource {
  constructor(arrays, about) {
    Object.assign(this, {a: arrays, task: about.task || '', padId: about.pad_id || 0, vocabulary: about.vocabulary || [], note: about.note || '', title: about.title, kind: 'trace'});
    [this.steps, this.count] = arrays.predictions.shape;
    this.step = 0; this.timer = null; this.known = row(arrays.labels, 0).some(t => t >= 0);
  }
  name(index) { return `puzzle ${index + 1}`; }
  items() { return 1; }
  card(index) {
    const card = element('div', 'card'), player = element('div', 'player'), boards = element('div', 'boards');
    const back = element('button', '', '◀'), play = element('button', '', '▶ play'), forth = element('button', '', '▶'), slider = element('input'), says = element('span'), bar = element('div', 'bar'), fill = element('div');
    play.id = 'play'; slider.type = 'range'; slider.min = 1; slider.max = this.steps; slider.id = 'step'; says.id = 'says';
    bar.append(fill); player.append(back, play, forth, slider, says, bar); card.append(player, boards);
    const show = step => {
      this.step = Math.max(0, Math.min(this.steps - 1, step)); slider.value = this.step + 1;
      const at = this.step * this.count + index, {a} = this, question = row(a.inputs, index), truth = row(a.labels, index), answer = row(a.predictions, at);
      const wrong = answer.map((t, k) => truth[k] >= 0 && t !== truth[k]), shown = truth.map(t => t < 0 ? this.padId : t);
      const size = shapeOf(this, question, answer, shown), blank = blankOf(this.task), part = x => gridOf(this, x, size).cells;
      const given = blank === undefined ? null : part(question.map(t => t !== blank)), halt = sigmoid(a.q_halt.data[at]);
      says.textContent = `step ${this.step + 1} of ${this.steps} · thinks it is right: ${(100 * halt).toFixed(1)} %` + (this.known ? ` · ${wrong.filter(x => x).length} wrong` : '');
      fill.style.width = 100 * halt + '%';
      boards.replaceChildren(picture(this, gridOf(this, question, size), {given}, 'question'),
        picture(this, gridOf(this, answer, size), {given, wrong: part(wrong), confidence: a.confidence ? part(row(a.confidence, at)) : null}, 'answer (orange: unsure)'));
      if (this.known) boards.append(picture(this, gridOf(this, shown, size), {given}, 'label'));
    };
    const stop = () => { clearInterval(this.timer); this.timer = null; play.textContent = '▶ play'; };
    stop();
    back.onclick = () => { stop(); show(this.step - 1); };
    forth.onclick = () => { stop(); show(this.step + 1); };
    slider.oninput = () => { stop(); show(slider.value - 1); };
    play.onclick = () => {
      if (this.timer) return stop();
      if (this.step === this.steps - 1) show(0);
      play.textContent = '❚❚ pause';
      this.timer = setInterval(() => { show(this.step + 1); if (this.step === this.steps - 1) stop(); }, 600);
    };
    show(0);
    return card;
  }
}

function pager(page, pages, go, total, what) {
  const node = element('div', 'pager');
  const button = (text, to) => { const b = element('button', '', text); b.disabled = to < 0 || to >= pages || to === page; b.onclick = () => go(to); return b; };
  node.append(button('«', 0), button('‹', page - 1), element('span', '', `${page + 1} / ${pages}`), button('›', page + 1), button('»', pages - 1), element('span', '', `${total.toLocaleString('en')} ${what}`));
  return node;
}

function matching() {
  const {source, filter} = state;
  if (!filter) return null;
  const found = [];
  for (let g = 0; g < source.count; g++) if (source.name(g).toLowerCase().includes(filter)) found.push(g);
  return found;
}

function showList() {
  const {source} = state, found = matching(), total = found ? found.length : source.count, pages = Math.max(1, Math.ceil(total / PAGE));
  state.groupPage = Math.min(state.groupPage, pages - 1);
  const list = $('groups'); list.replaceChildren();
  for (let k = state.groupPage * PAGE; k < Math.min(total, (state.groupPage + 1) * PAGE); k++) {
    const group = found ? found[k] : k, li = element('li'), count = source.items(group);
    const button = element('button', '', source.name(group) + (source.kind === 'dataset' && count > 1 ? ` (${count})` : ''));
    button.setAttribute('aria-current', group === state.group);
    button.onclick = () => { state.group = group; state.page = 0; showList(); showCards(); };
    li.append(button); list.append(li);
  }
  $('group-pager').replaceChildren(pager(state.groupPage, pages, p => { state.groupPage = p; showList(); }, total, 'entries'));
}

function showCards() {
  const {source, group} = state, cards = $('cards'), total = source.count ? source.items(group) : 0;
  const size = source.kind === 'dataset' ? 10 : PAGE, pages = Math.max(1, Math.ceil(total / size));
  cards.replaceChildren();
  if (source.note) cards.append(element('p', 'note', source.note));
  if (source.kind === 'dataset') cards.append(pager(state.page, pages, p => { state.page = p; showCards(); window.scrollTo(0, 0); }, total, 'puzzles in this group'));
  for (let item = state.page * size; item < Math.min(total, (state.page + 1) * size); item++) cards.append(source.card(group, item));
}

function show(source) {
  if (state.source && state.source.timer) clearInterval(state.source.timer);
  Object.assign(state, {source, group: 0, groupPage: 0, page: 0, filter: ''});
  $('filter').value = ''; $('title').textContent = source.title; $('error').textContent = '';
  $('about').textContent = source.kind === 'dataset' ? `${source.count.toLocaleString('en')} groups, ${source.a.puzzle_first.data.length.toLocaleString('en')} puzzles` : source.kind === 'trace' ? `${source.steps} ACT steps` : `${source.rows.toLocaleString('en')} predictions`;
  showList(); showCards();
}

const sources = {dataset: DatasetSource, predictions: PredictionSource, trace: TraceSource};
const ALIASES = {q_halt_logits: 'q_halt', q_continue_logits: 'q_continue', preds: 'predictions', pred_ids: 'predictions'};

// As in hrm_jax/tasks.py: from sizes and content. `highest`: largest token, or the vocabulary less one.
function guessTask(highest, question, answer) {
  const side = Math.round(Math.sqrt(question.length)), times = (tokens, t) => tokens.filter(x => x === t).length;
  if (side * side !== question.length) return '';
  for (const [name, task] of Object.entries(TASKS)) {
    if (task.ends[0] >= 0 && highest < task.symbols.length && task.ends.every(t => times(question, t) === 1)) return name;
  }
  if (side === 30 && highest < TASKS.arc.colours.length) return 'arc';
  const digits = [...Array(side).keys()].every(d => !answer || times(answer, d + 2) === side);
  return highest <= side + 1 && digits ? 'sudoku' : '';
}

async function openFolder(files) {  // a folder of the originals' format, picked by the user
  const by = path => files.find(f => (f.webkitRelativePath || f.name).endsWith(path));
  const read = async path => { const f = by(path); if (!f) throw new Error(`the folder has no ${path}`); return f; };
  const split = by('test/dataset.json') ? 'test' : 'train';
  const about = JSON.parse(await (await read(`${split}/dataset.json`)).text()), set = (about.sets || ['all'])[0], a = {};
  for (const field of ['inputs', 'labels', 'puzzle_identifiers', 'puzzle_indices', 'group_indices']) {
    a[field] = parseNpy(new Uint8Array(await (await read(`${split}/${set}__${field}.npy`)).arrayBuffer()));
  }
  a.puzzle_first = {data: a.puzzle_indices.data.slice(0, -1), shape: [a.puzzle_indices.data.length - 1]};
  const names = by('identifiers.json') ? JSON.parse(await by('identifiers.json').text()) : [], isLisp = Boolean(by('vocab.json'));
  show(new DatasetSource(a, {task: isLisp ? 'lisp' : about.task || guessTask(about.vocab_size - 1, row(a.inputs, 0), row(a.labels, 0)), pad_id: about.pad_id, title: `picked folder, ${split}`, vocabulary: isLisp ? names : [], puzzle_names: isLisp || names.length < 2 ? [] : names}));
}

async function openFile(file) {
  const found = await parseNpz(await file.arrayBuffer()), a = {};
  for (const name in found) a[ALIASES[name] || name] = found[name];
  if (!a.predictions) throw new Error('the file holds no predictions');
  const flat = a.predictions, cells = flat.shape[flat.shape.length - 1], known = state.source;
  const questions = a.inputs || flat;
  let highest = 0;
  for (const token of questions.data) if (token > highest) highest = token;
  const task = known && row(known.a.inputs || known.a.predictions, 0).length === cells ? known.task
    : guessTask(highest, row(questions, 0), a.labels ? row(a.labels, 0) : null);
  const about = {task, title: file.name, vocabulary: known ? known.vocabulary : [], pad_id: 0};
  show(flat.shape.length === 3 ? new TraceSource(a, about) : new PredictionSource(a, about));
}

function guarded(open) { return async event => { try { await open([...event.target.files]); } catch (error) { $('error').textContent = `This cannot be shown: ${error.message}`; } }; }

async function start() {
  $('pick-folder').onchange = guarded(openFolder);
  $('pick-file').onchange = guarded(files => openFile(files[0]));
  $('filter').oninput = () => { state.filter = $('filter').value.toLowerCase(); state.groupPage = 0; showList(); };
  if (!sources[facts.kind]) return;
  const a = {};
  for (const name of facts.arrays) a[name] = await embedded(`array-${name}`);
  show(new sources[facts.kind](a, facts));
  document.body.dataset.ready = Math.round(performance.now());
}

start().catch(error => { $('error').textContent = `This page is damaged: ${error.message}`; });
