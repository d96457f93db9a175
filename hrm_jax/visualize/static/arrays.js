'use strict';
// Arrays: those in the page (base64 of zlib), .npy files, .npz files.

const TYPES = {u1: Uint8Array, i1: Int8Array, b1: Uint8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array, f8: Float64Array, i8: BigInt64Array, u8: BigUint64Array};

async function inflate(bytes, format) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function typed(bytes, kind, shape) {
  const Type = TYPES[kind];
  if (!Type) throw new Error(`arrays of type ${kind} cannot be shown`);
  const count = shape.reduce((a, b) => a * b, 1), need = count * Type.BYTES_PER_ELEMENT;
  if (bytes.length < need) throw new Error('an array is truncated');
  let data = new Type(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + need));
  if (kind === 'i8' || kind === 'u8') data = Float64Array.from(data, Number);
  return {data, shape};
}

async function embedded(id) {
  const element = document.getElementById(id);
  if (!element) return null;
  const text = atob(element.textContent.trim()), bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) bytes[k] = text.charCodeAt(k);
  element.textContent = '';
  return typed(await inflate(bytes, 'deflate'), element.dataset.type, JSON.parse(element.dataset.shape));
}

function parseNpy(bytes) {
  if (bytes[0] !== 0x93 || String.fromCharCode(...bytes.slice(1, 6)) !== 'NUMPY') throw new Error('no .npy file');
  const view = new DataView(bytes.buffer, bytes.byteOffset), long = bytes[6] >= 2;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true), start = (long ? 12 : 10) + length;
  const header = new TextDecoder().decode(bytes.slice(long ? 12 : 10, start));
  const kind = /'descr':\s*'[<|=]?(\w+)'/.exec(header), shape = /'shape':\s*\(([^)]*)\)/.exec(header);
  if (!kind || !shape || /'fortran_order':\s*True/.test(header)) throw new Error('an .npy header that cannot be read');
  return typed(bytes.slice(start), kind[1], shape[1].split(',').filter(s => s.trim()).map(Number));
}

async function parseNpz(buffer) {
  const bytes = new Uint8Array(buffer), view = new DataView(buffer), arrays = {};
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error('no .npz file');
  let at = view.getUint32(end + 16, true);
  for (let n = view.getUint16(end + 10, true); n > 0; n--) {
    if (view.getUint32(at, true) !== 0x02014b50) throw new Error('a damaged .npz file');
    const method = view.getUint16(at + 10, true), name = view.getUint16(at + 28, true);
    let size = view.getUint32(at + 20, true);
    const extra = view.getUint16(at + 30, true), comment = view.getUint16(at + 32, true);
    const local = view.getUint32(at + 42, true), label = new TextDecoder().decode(bytes.slice(at + 46, at + 46 + name));
    if (size === 0xffffffff) throw new Error('an .npz file with entries over 4 GB cannot be shown');
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    let data = bytes.slice(start, start + size);
    if (method === 8) data = await inflate(data, 'deflate-raw');
    if (label.endsWith('.npy')) arrays[label.slice(0, -4)] = parseNpy(data);
    at += 46 + name + extra + comment;
  }
  return arrays;
}

function row(array, index) {  // the index-th row of the last axis, as a plain array
  const width = array.shape.length < 2 ? 1 : array.shape[array.shape.length - 1];
  return Array.from(array.data.subarray(index * width, (index + 1) * width));
}
