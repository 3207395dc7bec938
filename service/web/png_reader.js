// Reads the values of a PNG with one channel: class ids from an indexed PNG, confidences from a grey one. A canvas would
// only give colors, and two classes may share one.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0;
const INDEXED = 3;

/**
 * @param {Uint8Array} png of color type 0 or 3, up to 8 bits a pixel, not interlaced
 * @returns {Promise<{width: number, height: number, values: Uint8Array}>} one value a pixel, row by row
 */
export async function readPng(png) {
  const { width, height, depth, data } = parseChunks(png);
  const stride = Math.ceil((width * depth) / 8);
  const rows = unfilter(await inflate(data), stride, height);
  return { width, height, values: unpack(rows, width, height, depth, stride) };
}

function parseChunks(png) {
  if (SIGNATURE.some((byte, i) => png[i] !== byte)) throw new Error("not a PNG");
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const contents = { data: [] };
  for (let offset = 8; offset < png.length; ) {
    const length = view.getUint32(offset);
    const type = String.fromCharCode(...png.subarray(offset + 4, offset + 8));
    if (type === "IHDR") Object.assign(contents, parseHeader(view, offset + 8));
    if (type === "IDAT") contents.data.push(png.subarray(offset + 8, offset + 8 + length));
    offset += 12 + length; // 4 bytes each of length, type and checksum
  }
  return contents;
}

function parseHeader(view, offset) {
  const [depth, colorType, , , interlace] = [8, 9, 10, 11, 12].map((i) => view.getUint8(offset + i));
  if (![GREY, INDEXED].includes(colorType) || depth > 8 || interlace !== 0) {
    throw new Error(`PNG of color type ${colorType} with ${depth} bits; expected grey or indexed, up to 8 bits, not interlaced`);
  }
  return { width: view.getUint32(offset), height: view.getUint32(offset + 4), depth };
}

async function inflate(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Undo each row's filter (PNG specification, section 9). A pixel is at most one byte: its left neighbour is one byte away. */
function unfilter(raw, stride, height) {
  const out = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)];
    const from = y * (stride + 1) + 1;
    const to = y * stride;
    if (filter === 0) {
      out.set(raw.subarray(from, from + stride), to);
      continue;
    }
    for (let x = 0; x < stride; x++) {
      const left = x ? out[to + x - 1] : 0;
      const up = y ? out[to + x - stride] : 0;
      const upperLeft = x && y ? out[to + x - stride - 1] : 0;
      out[to + x] = raw[from + x] + predict(filter, left, up, upperLeft);
    }
  }
  return out;
}

function predict(filter, left, up, upperLeft) {
  if (filter === 1) return left;
  if (filter === 2) return up;
  if (filter === 3) return (left + up) >> 1;
  const estimate = left + up - upperLeft; // Paeth
  const [a, b, c] = [Math.abs(estimate - left), Math.abs(estimate - up), Math.abs(estimate - upperLeft)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : upperLeft;
}

/** One byte a pixel at any depth: with few classes 2, 4 or 8 pixels share a byte, the first in the high bits. */
function unpack(rows, width, height, depth, stride) {
  if (depth === 8) return rows;
  const values = new Uint8Array(width * height);
  const perByte = 8 / depth;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const byte = rows[y * stride + Math.floor(x / perByte)];
      values[y * width + x] = (byte >> (8 - depth * ((x % perByte) + 1))) & ((1 << depth) - 1);
    }
  }
  return values;
}
