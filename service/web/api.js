// The server's answers, as values or as a Problem. Addresses are relative, so that the page works under any prefix.

/** An error worth reading: RFC 9457's title and detail, or words of our own where no server answered. */
export class Problem extends Error {
  constructor({ title, detail, status = 0, retryAfterS = null, requestId = null }) {
    super(detail);
    Object.assign(this, { title, detail, status, retryAfterS, requestId });
  }

  /** Whether only another picture can help: the server understood, and would say the same again. */
  get isThePictures() {
    return [400, 413, 415, 422].includes(this.status);
  }
}

/** {model, version, classes: [{id, name, color}]}: all that the model knows. */
export async function fetchClasses() {
  return (await request("classes")).json();
}

/**
 * Segment a picture.
 * @param {Blob} picture
 * @param {AbortSignal} signal
 * @returns {Promise<object>} the JSON of POST /segment, with timing_ms.network added: what the server did not see
 */
export async function segment(picture, signal) {
  const began = performance.now();
  // Octets: the server judges the bytes, not the name the system gave them.
  const headers = { "Content-Type": "application/octet-stream", Accept: "application/json" };
  const answer = await (await request("segment", { method: "POST", body: picture, headers, signal })).json();
  const seen = Object.values(answer.timing_ms).reduce((sum, ms) => sum + ms, 0);
  answer.timing_ms.network = Math.max(0, performance.now() - began - seen);
  return answer;
}

async function request(address, options = {}) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      title: "The server can’t be reached",
      detail: "It may be restarting, or it cut off an upload larger than it takes. Try again, or try a smaller picture.",
    });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  const told = await response.json().catch(() => ({}));
  return new Problem({
    status: response.status,
    title: told.title ?? `The server answered ${response.status}`,
    detail: told.detail ?? "It gave no reason. Try again in a moment.",
    retryAfterS: told.retry_after_s ?? (Number(response.headers.get("Retry-After")) || null),
    requestId: told.request_id ?? response.headers.get("X-Request-Id"),
  });
}
