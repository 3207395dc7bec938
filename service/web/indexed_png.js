// Class ids out of an indexed PNG. A canvas would give colours, and two classes may share one; the indices are the ids.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/**
 * @param {Uint8Array} png of colour type 3, not interlaced
 * @returns {Promise<{width: number, height: number, ids: Uint8Array}>} ids row by row
 */
export async function idsOf(png) {
  const { width, height, depth, data } = read(png);
  const stride = Math.ceil((width * depth) / 8);
  const rows = unfilter(await inflate(data), stride, height);
  return { width, height, ids: unpack(rows, width, height, depth, stride) };
}

function read(png) {
  if (SIGNATURE.some((byte, i) => png[i] !== byte)) throw new Error("not a PNG");
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const found = { data: [] };
  for (let at = 8; at < png.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...png.subarray(at + 4, at + 8));
    if (kind === "IHDR") Object.assign(found, header(view, at + 8));
    if (kind === "IDAT") found.data.push(png.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  return found;
}

function header(view, at) {
  const [depth, colourType, , , interlace] = [8, 9, 10, 11, 12].map((i) => view.getUint8(at + i));
  if (colourType !== 3 || interlace !== 0) throw new Error("not a plain indexed PNG");
  return { width: view.getUint32(at), height: view.getUint32(at + 4), depth };
}

async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Undo each row's filter (PNG specification, section 9): a pixel is at most one byte, so its left neighbour is one byte away. */
function unfilter(raw, stride, height) {
  const out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const kind = raw[y * (stride + 1)];
    const from = y * (stride + 1) + 1;
    const to = y * stride;
    if (kind === 0) {
      out.set(raw.subarray(from, from + stride), to);
      continue;
    }
    for (let x = 0; x < stride; x++) {
      const left = x ? out[to + x - 1] : 0;
      const up = y ? out[to + x - stride] : 0;
      const corner = x && y ? out[to + x - stride - 1] : 0;
      out[to + x] = raw[from + x] + predict(kind, left, up, corner);
    }
  }
  return out;
}

function predict(kind, left, up, corner) {
  if (kind === 1) return left;
  if (kind === 2) return up;
  if (kind === 3) return (left + up) >> 1;
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/** A byte a pixel, whatever the depth: few classes are packed 2, 4 or 8 to a byte, the first in the high bits. */
function unpack(rows, width, height, depth, stride) {
  if (depth === 8) return rows;
  const ids = new Uint8Array(width * height);
  const perByte = 8 / depth;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const byte = rows[y * stride + Math.floor(x / perByte)];
      ids[y * width + x] = (byte >> (8 - depth * ((x % perByte) + 1))) & ((1 << depth) - 1);
    }
  }
  return ids;
}
