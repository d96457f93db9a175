'use strict';
// The page: a source of puzzles, a list beside it, cards with boards.

const PAGE = 50;
const $ = id => document.getElementById(id);
const facts = JSON.parse($('facts').textContent);
const state = {source: null, group: 0, groupPage: 0, page: 0, filter: '', wrongOnly: false};

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;  // never markup: names come from data
  return node;
}

const plural = (count, one, many = one + 's') => `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
const sigmoid = x => 1 / (1 + Math.exp(-x));

// The room for the boards of one card; `cards` of them are to be seen at once.
function room(cards = 1) {
  const width = $('cards').clientWidth - 2 * 12 - 34, left = window.innerHeight - 230;
  return {width: Math.max(120, width), height: Math.max(cards > 1 ? 200 : 260, left / cards)};
}

// Boards of one line: [grid, options, caption] each, as large as the room allows.
function boards(look, entries, space) {
  const line = element('div', 'boards'), grids = entries.map(e => e[0]);
  const size = fit(grids, space);
  for (const [grid, options, caption] of entries) {
    const figure = element('figure');
    figure.append(typeof caption === 'string' ? element('figcaption', '', caption) : caption);
    figure.append(isText(look, grid) ? drawText(look, grid, options) : drawBoard(look, grid, {...options, size}));
    line.append(figure);
  }
  return line;
}

// Of a source's puzzles: the [rows, columns] that hold all of these tokens, and a part of one.
const shapeOf = (source, ...rows) => larger(...rows.map(tokens => extentOf(source.look, tokens)));
const gridOf = (source, tokens, size) => cut(source.look, tokens, size);
const givenOf = (look, tokens) => look.blank === null || look.blank === undefined ? null : tokens.map(t => t !== look.blank);

function unsureCaption() {
  const caption = element('figcaption', '', 'answer ');
  caption.append(element('span', 'key'), 'unsure');
  return caption;
}

// Question, answer and label of one puzzle: what is not scored in the label is left out.
function answerBoards(source, question, answer, truth, {confidence = null, caption = 'answer', space = room()} = {}) {
  const {look} = source, known = truth && truth.some(t => t >= 0);
  const wrong = known && answer.map((t, k) => truth[k] >= 0 && t !== truth[k]);
  const shown = known && truth.map(t => t < 0 ? look.pad : t);
  const cleaned = known ? answer.map((t, k) => truth[k] < 0 && !wrong[k] ? look.pad : t) : answer;
  const size = larger(extentOf(look, cleaned), known ? extentOf(look, shown) : [1, 1]);
  const part = values => cut(look, values, size), entries = [];
  const given = question && givenOf(look, question);
  if (question) {
    const own = extentOf(look, question);
    entries.push([cut(look, question, own), {given: given && cut(look, given, own).cells}, 'question']);
  }
  const cells = values => values && part(values).cells;
  entries.push([part(cleaned), {given: cells(given), wrong: cells(wrong), confidence: cells(confidence)}, caption]);
  if (known) entries.push([part(shown), {given: cells(given)}, 'solution']);
  return boards(look, entries, space);
}

class Source {
  constructor(arrays, about, kind) {
    const look = about.look || {...lookOf(about.task || ''), ...(about.vocabulary && about.vocabulary.length ? {symbols: about.vocabulary, crops: true, pad: about.pad_id || 0} : {})};
    Object.assign(this, {a: arrays, about, kind, look, task: look.name, note: about.note || '', title: about.title, marks: null});
  }
  name(index) { return `puzzle ${index + 1}`; }
  items() { return 1; }
  cardsAtOnce() { return 1; }
}

// A built data set: groups of puzzles; a puzzle is a map over stored examples.
class DatasetSource extends Source {
  constructor(arrays, about) {
    super(arrays, about, 'dataset');
    Object.assign(this, {transform: about.transform || 'none', names: about.names || [], puzzleNames: about.puzzle_names || []});
    this.count = arrays.group_indices.data.length - 1;
    this.about = `${plural(this.count, 'group')}, ${plural(arrays.puzzle_first.data.length, 'puzzle')}`;
    this.entries = ['group', 'groups'];
  }
  name(group) { return this.names[group] || (this.puzzleNames.length && this.puzzleNames[this.a.puzzle_identifiers.data[this.a.group_indices.data[group]]]) || `group ${group + 1}`; }
  items(group) { return this.a.group_indices.data[group + 1] - this.a.group_indices.data[group]; }
  cardsAtOnce() { return 10; }
  card(group, item) {
    const {a, look} = this, puzzle = a.group_indices.data[group] + item;
    const map = a.maps ? row(a.maps, puzzle) : null, first = a.puzzle_first.data[puzzle];
    const card = element('div', 'card'), id = a.puzzle_identifiers.data[puzzle];
    const label = this.puzzleNames[id] || (map ? `augmentation ${item}: ${this.describe(map)}` : `puzzle ${puzzle + 1}`);
    card.append(element('h2', '', `${label} · identifier ${id}`));
    const count = a.puzzle_indices.data[puzzle + 1] - a.puzzle_indices.data[puzzle];
    const alone = count === 1 && this.items(group) === 1, space = alone ? room() : {...room(2), height: 240};
    for (let k = 0; k < count; k++) {
      const rows = [row(a.inputs, first + k), row(a.labels, first + k).map(t => t < 0 ? look.pad : t)];
      if (rows[0].length === 0) { card.append(element('p', 'note', 'not in this page (see the note above)')); break; }
      const grids = rows.map((tokens, side) => {
        const size = a.extents ? row(a.extents, first + k).slice(2 * side, 2 * side + 2) : shapeOf(this, tokens);
        return augment(gridOf(this, tokens, size), this.transform, map);
      });
      const given = givenOf(look, grids[0].cells), same = grids[0].w === grids[1].w && grids[0].h === grids[1].h;
      card.append(boards(look, [[grids[0], {given}, count > 1 ? `question ${k + 1}` : 'question'], [grids[1], {given: same ? given : null}, 'answer']], space));
    }
    return card;
  }
  describe(map) {
    if (this.transform === 'arc') return map[0] === 0 && map.slice(1).every((c, k) => c === k) ? 'none' : `t${map[0]} ${map.slice(1).join('')}`;
    return this.transform === 'dihedral' ? `t${map[0]}` : map.slice(0, 1 + this.a.inputs.shape[1] ** .5).join(' ');
  }
}

// Wrong cells of each of `count` answers; null where no label is known.
function wrongCells(predictions, labels, count, offset = 0) {
  if (!labels) return null;
  const width = labels.shape[labels.shape.length - 1], found = new Int32Array(count);
  let known = false;
  for (let index = 0; index < count; index++) {
    for (let k = 0; k < width; k++) {
      const label = labels.data[index * width + k];
      if (label >= 0) { known = true; if (predictions.data[(offset + index) * width + k] !== label) found[index]++; }
    }
  }
  return known ? found : null;
}

const verdict = errors => element('span', errors ? 'wrong' : 'right', errors ? `${errors} wrong` : 'right');

// Predictions, one row per puzzle.
class PredictionSource extends Source {
  constructor(arrays, about) {
    super(arrays, about, 'predictions');
    this.count = arrays.predictions.shape[0];
    this.marks = wrongCells(arrays.predictions, arrays.labels, this.count);
    this.about = plural(this.count, 'prediction') + (this.marks ? `, ${this.marks.filter(n => !n).length.toLocaleString('en')} right` : '');
    this.entries = ['prediction', 'predictions'];
  }
  name(index) { return `example ${this.a.example ? this.a.example.data[index] : index}`; }
  card(index) {
    const {a} = this, part = array => array ? row(array, index) : null;
    const card = element('div', 'card'), head = element('h2', '', this.name(index));
    if (this.marks) head.append(' · ', verdict(this.marks[index]));
    if (a.q_halt) head.append(` · thinks it is right: ${(100 * sigmoid(a.q_halt.data[index])).toFixed(1)} %`);
    if (a.steps) head.append(` · ${plural(a.steps.data[index], 'step')}`);
    card.append(head, answerBoards(this, part(a.inputs), part(a.predictions), part(a.labels), {caption: 'prediction'}));
    return card;
  }
}

// Reasoning step by step.
class TraceSource extends Source {
  constructor(arrays, about) {
    super(arrays, about, 'trace');
    [this.steps, this.count] = arrays.predictions.shape;
    this.step = 0; this.timer = null; this.first = about.first || 0; this.hasQ = about.has_q !== false && Boolean(arrays.q_halt);
    this.marks = wrongCells(arrays.predictions, arrays.labels, this.count, (this.steps - 1) * this.count);
    this.about = `${plural(this.count, 'puzzle')}, ${plural(this.steps, 'ACT step')}`;
    this.entries = ['puzzle', 'puzzles'];
  }
  card(index) {
    const card = element('div', 'card'), player = element('div', 'player'), place = element('div');
    const back = element('button', '', '◀'), play = element('button', '', '▶ play'), forth = element('button', '', '▶'), slider = element('input'), says = element('span', 'says'), bar = element('div', 'bar'), fill = element('div');
    play.id = 'play'; slider.type = 'range'; slider.min = 1; slider.max = this.steps; slider.id = 'step'; says.id = 'says';
    back.title = 'one step back'; forth.title = 'one step on'; slider.setAttribute('aria-label', 'step'); bar.hidden = !this.hasQ;
    bar.append(fill); player.append(back, play, forth, slider, says, bar); card.append(player, place);
    const show = step => {
      this.step = Math.max(0, Math.min(this.steps - 1, step)); slider.value = this.step + 1;
      const at = this.step * this.count + index, {a} = this, truth = row(a.labels, index), answer = row(a.predictions, at);
      const parts = [`step ${this.step + 1} of ${this.steps}`], errors = answer.filter((t, k) => truth[k] >= 0 && t !== truth[k]).length;
      if (this.hasQ) {
        const halt = 100 * sigmoid(a.q_halt.data[at]);
        parts.push(`thinks it is right: ${halt.toFixed(1)} %`); fill.style.width = halt + '%';
      }
      if (this.marks) parts.push(`${errors} wrong`);
      says.textContent = parts.join(' · ');
      place.replaceChildren(answerBoards(this, row(a.inputs, index), answer, truth, {confidence: a.confidence ? row(a.confidence, at) : null, caption: a.confidence ? unsureCaption() : 'answer'}));
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
    show(this.keep ? this.step : 0);
    return card;
  }
}

// One ARC task: demonstrations, and the tests with a model's attempts.
class ArcTaskSource extends Source {
  constructor(arrays, about) {
    super(arrays, {...about, task: 'arc'}, 'arc_task');
    this.lines = [...about.tests.map((boards, k) => [`test ${k + 1}`, boards]), ...about.pairs.map((boards, k) => [`demonstration ${k + 1}`, boards])];
    this.count = this.lines.length;
    this.about = `${plural(about.tests.length, 'test')}, ${plural(about.pairs.length, 'demonstration')}`;
    this.entries = ['pair', 'pairs'];
  }
  name(index) { return this.lines[index][0]; }
  card(index) {
    const card = element('div', 'card');
    card.append(element('h2', '', this.name(index)), arcBoards(this.look, this.lines[index][1], room()));
    return card;
  }
}

// Rows of colours with their captions, in one line.
function arcBoards(look, captioned, space) {
  const grid = rows => ({h: rows.length, w: rows[0].length, cells: rows.flat().map(c => c + 2)});
  return boards(look, captioned.map(([caption, rows]) => [grid(rows), {}, caption]), space);
}

// Many ARC tasks: each with its tests, what was voted for, and its demonstrations.
class ArcTasksSource extends Source {
  constructor(arrays, about) {
    super(arrays, {...about, task: 'arc'}, 'arc_tasks');
    this.shown = about.tasks_shown;
    this.count = this.shown.length;
    this.about = plural(this.count, 'task');
    this.entries = ['task', 'tasks'];
  }
  name(index) { return this.shown[index].name; }
  card(index) {
    const card = element('div', 'card'), {tests, pairs} = this.shown[index];
    tests.forEach(({boards: captioned, about}, k) => {
      card.append(element('h2', '', `test ${k + 1} · ${about}`), arcBoards(this.look, captioned, {...room(), height: 300}));
    });
    pairs.forEach((captioned, k) => card.append(element('h2', '', `demonstration ${k + 1}`), arcBoards(this.look, captioned, {...room(), height: 180})));
    return card;
  }
}

function pager(page, pages, go, text) {
  const node = element('div', 'pager');
  const button = (sign, to, title) => { const b = element('button', '', sign); b.title = title; b.disabled = to < 0 || to >= pages || to === page; b.onclick = () => go(to); return b; };
  node.append(button('«', 0, 'first'), button('‹', page - 1, 'previous'), element('span', '', `${page + 1} / ${pages}`), button('›', page + 1, 'next'), button('»', pages - 1, 'last'), element('span', '', text));
  return node;
}

function matching() {
  const {source, filter, wrongOnly} = state;
  if (!filter && !wrongOnly) return null;
  const found = [];
  for (let g = 0; g < source.count; g++) {
    if (wrongOnly && source.marks && !source.marks[g]) continue;
    if (source.name(g).toLowerCase().includes(filter)) found.push(g);
  }
  return found;
}

function select(group) {
  state.group = group; state.page = 0;
  if (state.source) state.source.keep = false;
  showList(); showCards();
}

function showList() {
  const {source} = state, found = matching(), total = found ? found.length : source.count, pages = Math.max(1, Math.ceil(total / PAGE));
  state.groupPage = Math.min(state.groupPage, pages - 1);
  const list = $('groups'); list.replaceChildren();
  for (let k = state.groupPage * PAGE; k < Math.min(total, (state.groupPage + 1) * PAGE); k++) {
    const group = found ? found[k] : k, li = element('li'), count = source.items(group), button = element('button');
    if (source.marks) button.append(source.marks[group] ? element('span', 'mark wrong', '✗') : element('span', 'mark right', '✓'));
    button.append(source.name(group) + (count > 1 ? ` (${count})` : ''));
    button.title = source.name(group) + (source.marks ? source.marks[group] ? `: ${plural(source.marks[group], 'cell')} wrong` : ': right' : '');
    button.setAttribute('aria-current', group === state.group);
    button.onclick = () => select(group);
    li.append(button); list.append(li);
  }
  $('group-pager').replaceChildren(pager(state.groupPage, pages, p => { state.groupPage = p; showList(); }, plural(total, ...source.entries)));
}

function showCards() {
  const {source, group} = state, cards = $('cards'), total = source.count ? source.items(group) : 0;
  const size = source.cardsAtOnce(), pages = Math.max(1, Math.ceil(total / size));
  if (source.timer) clearInterval(source.timer);
  cards.replaceChildren();
  if (source.note) cards.append(element('p', 'note', source.note));
  if (source.kind === 'dataset') {
    if (total > 1) cards.append(pager(state.page, pages, p => { state.page = p; showCards(); window.scrollTo(0, 0); }, `${plural(total, 'puzzle')} in this group`));
  } else {
    const found = matching() || [...Array(source.count).keys()], at = found.indexOf(group), node = element('div', 'pager');
    const step = (sign, to) => { const b = element('button', '', sign); b.disabled = !(to in found); b.onclick = () => { state.groupPage = Math.floor(to / PAGE); select(found[to]); }; return b; };
    const before = at < 0 ? found.findLastIndex(g => g < group) : at - 1, after = at < 0 ? found.findIndex(g => g > group) : at + 1;
    node.append(step('‹ previous', before), element('strong', '', source.name(group)), step('next ›', after));
    cards.append(node);
  }
  for (let item = state.page * size; item < Math.min(total, (state.page + 1) * size); item++) cards.append(source.card(group, item));
}

function show(source) {
  if (state.source && state.source.timer) clearInterval(state.source.timer);
  const group = source.first || 0;
  Object.assign(state, {source, group, groupPage: Math.floor(group / PAGE), page: 0, filter: '', wrongOnly: false});
  $('filter').value = ''; $('wrong-only').checked = false; $('title').textContent = source.title; $('error').textContent = '';
  $('wrong-only').parentElement.hidden = !source.marks;
  $('about').textContent = source.about;
  showList(); showCards();
}

const sources = {dataset: DatasetSource, predictions: PredictionSource, trace: TraceSource, arc_task: ArcTaskSource, arc_tasks: ArcTasksSource};
const ALIASES = {q_halt_logits: 'q_halt', q_continue_logits: 'q_continue', preds: 'predictions', pred_ids: 'predictions'};

// As in hrm_jax/tasks: from sizes and content. `highest`: largest token, or the vocabulary less one.
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
  const names = by('identifiers.json') ? JSON.parse(await by('identifiers.json').text()) : [], words = by('vocab.json') ? JSON.parse(await by('vocab.json').text()) : null;
  const vocabulary = [];
  for (const word in words || {}) vocabulary[words[word]] = word;
  const task = about.task || (words ? 'lisp' : guessTask(about.vocab_size - 1, row(a.inputs, 0), row(a.labels, 0)));
  const source = new DatasetSource(a, {task, pad_id: about.pad_id, title: `picked folder, ${split}`, vocabulary: Array.from(vocabulary, w => w || ''), puzzle_names: task === 'lisp' || names.length < 2 ? [] : names});
  if (about.grid) source.look.shape = about.grid;
  show(source);
}

async function openFile(file) {
  const found = await parseNpz(await file.arrayBuffer()), a = {};
  for (const name in found) a[ALIASES[name] || name] = found[name];
  if (!a.predictions) throw new Error('the file has no predictions');
  const flat = a.predictions, cells = flat.shape[flat.shape.length - 1], known = state.source;
  const questions = a.inputs || flat;
  let highest = 0;
  for (const token of questions.data) if (token > highest) highest = token;
  const same = known && known.a.inputs && row(known.a.inputs, 0).length === cells;
  const task = same ? known.task : guessTask(highest, row(questions, 0), a.labels ? row(a.labels, 0) : null);
  const about = {task, title: file.name, ...(same ? {look: known.look} : {})};
  show(flat.shape.length === 3 ? new TraceSource(a, about) : new PredictionSource(a, about));
}

function guarded(open) { return async event => { try { await open([...event.target.files]); } catch (error) { $('error').textContent = `This cannot be shown: ${error.message}`; } }; }

async function start() {
  $('pick-folder').onchange = guarded(openFolder);
  $('pick-file').onchange = guarded(files => openFile(files[0]));
  $('filter').oninput = () => { state.filter = $('filter').value.toLowerCase(); state.groupPage = 0; showList(); };
  $('wrong-only').onchange = () => {
    state.wrongOnly = $('wrong-only').checked; state.groupPage = 0;
    const found = matching();
    if (found && found.length && !found.includes(state.group)) select(found[0]); else { showList(); showCards(); }
  };
  let waiting = null;
  window.onresize = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (state.source && !state.source.timer) { state.source.keep = true; showCards(); } }, 150);
  };
  if (!sources[facts.kind]) return;
  const a = {};
  for (const name of facts.arrays) a[name] = await embedded(`array-${name}`);
  show(new sources[facts.kind](a, facts));
  document.body.dataset.ready = Math.round(performance.now());
}

start().catch(error => { $('error').textContent = `This page is damaged: ${error.message}`; });
