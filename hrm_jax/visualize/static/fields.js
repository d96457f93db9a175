// The digit-field model in the page: the same arithmetic as hrm_jax/model, one puzzle at a time.
// States are Float32Array [digit][cell][channel].
'use strict';

class Fields {
  // facts: sizes and schedule; tensors: name -> Float32Array (row-major, as in JAX).
  constructor(facts, tensors) {
    Object.assign(this, facts);
    this.tensors = tensors;
    this.cells = this.side * this.side;
    this.size = this.digits * this.cells * this.dim;
    const rows = this.side / this.boxHeight, columns = this.side / this.boxWidth;
    this.groups = [
      { name: 'rows', of: (r, c) => r, count: this.side },
      { name: 'columns', of: (r, c) => c, count: this.side },
      { name: 'boxes',
        of: (r, c) => Math.floor(r / this.boxHeight) * columns + Math.floor(c / this.boxWidth),
        count: rows * columns },
    ].map(({ name, of, count }) => {
      const owner = new Int32Array(this.cells);
      for (let cell = 0; cell < this.cells; cell++) {
        owner[cell] = of(Math.floor(cell / this.side), cell % this.side);
      }
      return { name, owner, count };
    });
  }

  // What the updates are given of a puzzle: digits 0 (empty) to side, one per cell.
  embed(puzzle) {
    const { dim, cells } = this, table = this.tensors['embed_symbols/roles'];
    const x = new Float32Array(this.size), scale = Math.sqrt(dim);
    for (let d = 0; d < this.digits; d++) {
      for (let cell = 0; cell < cells; cell++) {
        const role = puzzle[cell] === 0 ? 0 : puzzle[cell] === d + 1 ? 1 : 2;
        for (let k = 0; k < dim; k++) x[(d * cells + cell) * dim + k] = scale * table[role * dim + k];
      }
    }
    return x;
  }

  // The state of a puzzle just begun: the trained constants, or normal draws from random().
  start(random) {
    const state = {};
    for (const [name, constant] of [['high', 'H_init'], ['low', 'L_init']]) {
      const x = new Float32Array(this.size), fixed = this.tensors[constant];
      for (let i = 0; i < x.length; i++) {
        x[i] = random
          ? Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
          : fixed[i % this.dim];
      }
      state[name] = x;
    }
    return state;
  }

  // One ACT step, in place. Yields after every update, so that the page stays alive.
  * step(state, x) {
    const injected = new Float32Array(this.size);
    for (let h = 0; h < this.H_cycles; h++) {
      for (let i = 0; i < this.size; i++) injected[i] = state.high[i] + x[i];
      for (let l = 0; l < this.L_cycles; l++) {
        this.update(state.low, injected);
        yield;
      }
      this.update(state.high, state.low);
      yield;
    }
  }

  update(state, injection) {
    for (let i = 0; i < this.size; i++) state[i] += injection[i];
    for (let layer = 0; layer < this.layers; layer++) {
      const at = `L_level/layers_${layer}/`;
      this.hear(state, at);
      this.exchange(state, at);
      this.gatedUnit(state, at);
    }
  }

  // Row, column and box of every cell: the mean of each, mapped, added; then the norm.
  hear(x, at) {
    const { dim, cells } = this;
    for (let d = 0; d < this.digits; d++) {
      const first = d * cells * dim, heard = new Float32Array(cells * dim);
      for (const { name, owner, count } of this.groups) {
        const kernel = this.tensors[`${at}groups/${name}/kernel`];
        const means = new Float32Array(count * dim), mapped = new Float32Array(count * dim);
        for (let cell = 0; cell < cells; cell++) {
          const to = owner[cell] * dim, from = first + cell * dim;
          for (let k = 0; k < dim; k++) means[to + k] += x[from + k];
        }
        const share = count / cells;
        for (let i = 0; i < means.length; i++) means[i] *= share;
        multiply(means, kernel, mapped, count, dim, dim);
        for (let cell = 0; cell < cells; cell++) {
          const from = owner[cell] * dim;
          for (let k = 0; k < dim; k++) heard[cell * dim + k] += mapped[from + k];
        }
      }
      for (let i = 0; i < heard.length; i++) x[first + i] += heard[i];
    }
    this.norm(x);
  }

  // Every digit of a cell hears the mean of the others.
  exchange(x, at) {
    const plane = this.cells * this.dim, others = new Float32Array(this.size);
    const sum = new Float32Array(plane);
    for (let i = 0; i < this.size; i++) sum[i % plane] += x[i];
    const share = 1 / (this.digits - 1);
    for (let i = 0; i < this.size; i++) others[i] = (sum[i % plane] - x[i]) * share;
    const message = new Float32Array(this.size);
    const kernel = this.tensors[`${at}symbol_exchange/v_proj/kernel`];
    multiply(others, kernel, message, this.digits * this.cells, this.dim, this.dim);
    for (let i = 0; i < this.size; i++) x[i] += message[i];
    this.norm(x);
  }

  gatedUnit(x, at) {
    const { dim, inner } = this, rows = this.digits * this.cells;
    const both = new Float32Array(rows * 2 * inner), hidden = new Float32Array(rows * inner);
    multiply(x, this.tensors[`${at}mlp/gate_up_proj/kernel`], both, rows, dim, 2 * inner);
    for (let row = 0; row < rows; row++) {
      for (let k = 0; k < inner; k++) {
        const gate = both[row * 2 * inner + k];
        hidden[row * inner + k] = gate / (1 + Math.exp(-gate)) * both[row * 2 * inner + inner + k];
      }
    }
    const change = new Float32Array(this.size);
    multiply(hidden, this.tensors[`${at}mlp/down_proj/kernel`], change, rows, inner, dim);
    for (let i = 0; i < this.size; i++) x[i] += change[i];
    this.norm(x);
  }

  norm(x) {
    const { dim } = this;
    for (let at = 0; at < this.size; at += dim) {
      let sum = 0;
      for (let k = 0; k < dim; k++) sum += x[at + k] * x[at + k];
      const factor = 1 / Math.sqrt(sum / dim + this.epsilon);
      for (let k = 0; k < dim; k++) x[at + k] *= factor;
    }
  }

  // Logits [cell][digit], and the halting logit.
  read(state) {
    const { dim, cells, digits } = this, high = state.high;
    const vector = this.tensors['lm_head/each/kernel'], q = this.tensors['q_head/kernel'];
    const logits = new Float32Array(cells * digits), mean = new Float64Array(dim);
    for (let d = 0; d < digits; d++) {
      for (let cell = 0; cell < cells; cell++) {
        const from = (d * cells + cell) * dim;
        let sum = 0;
        for (let k = 0; k < dim; k++) {
          sum += high[from + k] * vector[k];
          mean[k] += high[from + k];
        }
        logits[cell * digits + d] = sum;
      }
    }
    let halt = this.tensors['q_head/bias'][0];
    for (let k = 0; k < dim; k++) halt += mean[k] / (digits * cells) * q[k * 2];
    return { logits, halt };
  }
}

// out [rows, outputs] = x [rows, inputs] times kernel [inputs, outputs].
function multiply(x, kernel, out, rows, inputs, outputs) {
  for (let row = 0; row < rows; row++) {
    const to = row * outputs;
    for (let k = 0; k < inputs; k++) {
      const value = x[row * inputs + k], from = k * outputs;
      for (let j = 0; j < outputs; j++) out[to + j] += value * kernel[from + j];
    }
  }
}

if (typeof module !== 'undefined') module.exports = { Fields };
