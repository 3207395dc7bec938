// Shows why a request failed and what to do about it.

import { Problem } from "./api.js";

export class ProblemCard {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.retryButton = root.querySelector("[data-retry]");
    this.retryButton.addEventListener("click", () => {
      this.hide();
      this.retry();
    });
    root.querySelector("[data-dismiss]").addEventListener("click", () => this.hide());
  }

  /**
   * @param {Error} error a Problem, or an error of this page
   * @param {() => void} retry repeats the request
   * @param {boolean} hasResult whether an earlier result stays on the page
   */
  show(error, retry, hasResult) {
    const problem = error instanceof Problem ? error : new Problem({ title: "This page failed", detail: String(error) });
    this.retry = retry;
    this.root.querySelector("h2").textContent = problem.title;
    this.root.querySelector(".detail").textContent = capitalize(problem.detail);
    this.root.querySelector(".request-id").textContent = problem.requestId ? `Request ${problem.requestId}` : "";
    for (const button of this.root.querySelectorAll("[data-pick], [data-dismiss]")) button.hidden = !hasResult;
    this.retryButton.hidden = problem.isPermanent;
    this.#countDown(problem.retryAfterS ?? 0);
    this.root.hidden = false;
    this.root.scrollIntoView({ block: "nearest" });
  }

  hide() {
    clearTimeout(this.timer);
    this.root.hidden = true;
  }

  /** Enable the retry button only after the time that the server asked for in Retry-After. */
  #countDown(seconds) {
    clearTimeout(this.timer);
    this.retryButton.disabled = seconds > 0;
    this.retryButton.textContent = seconds > 0 ? `Try again in ${Math.ceil(seconds)} s` : "Try again";
    if (seconds > 0) this.timer = setTimeout(() => this.#countDown(seconds - 1), 1000 * Math.min(1, seconds));
  }
}

function capitalize(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
