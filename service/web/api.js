// Calls of the server's API. A response becomes a value; any failure becomes a Problem. Addresses are relative, so that
// the page also works below a path prefix.

/** A failed request: title and detail of the server's RFC 9457 problem, or our own where no server responded. */
export class Problem extends Error {
  constructor({ title, detail, status = 0, retryAfterS = null, requestId = null }) {
    super(detail);
    Object.assign(this, { title, detail, status, retryAfterS, requestId });
  }

  /** Whether repeating the same request would fail in the same way. */
  get isPermanent() {
    return [400, 413, 415, 422].includes(this.status);
  }
}

/** {model, version, classes: [{id, name, color}]}: every class of the served model. */
export async function fetchClasses() {
  return (await request("classes")).json();
}

/**
 * Segment an image.
 * @param {Blob} image
 * @param {Record<string, string | boolean>} options query parameters of POST /segment, such as {tile: true}
 * @param {AbortSignal} signal
 * @returns {Promise<{body: object, elapsedMs: number}>} the JSON of POST /segment, and the time until it had arrived
 */
export async function segment(image, options, signal) {
  const start = performance.now();
  // Sent as bytes without a type: the server detects the format itself, and the operating system's guess may be wrong.
  const headers = { "Content-Type": "application/octet-stream", Accept: "application/json" };
  const query = new URLSearchParams(options);
  const response = await request(query.size ? `segment?${query}` : "segment", { method: "POST", body: image, headers, signal });
  const body = await response.json();
  return { body, elapsedMs: performance.now() - start };
}

async function request(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "The server could not be reached",
      detail: "It may be restarting, or the upload may exceed its size limit. Try again, or try a smaller image.",
    });
  }
  if (!response.ok) throw await problemFrom(response);
  return response;
}

async function problemFrom(response) {
  const body = await response.json().catch(() => ({}));
  return new Problem({
    status: response.status,
    title: body.title ?? `The server responded with status ${response.status}`,
    detail: body.detail ?? "The response contains no explanation. Try again in a moment.",
    retryAfterS: body.retry_after_s ?? (Number(response.headers.get("Retry-After")) || null),
    requestId: body.request_id ?? response.headers.get("X-Request-Id"),
  });
}
