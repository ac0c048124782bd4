/* The server: the one place that talks to it. Refusals are `Problem`s, silence is `Away`. */

import * as key from "./key.js";
import { hasEnded, pathOf } from "./words.js";

const RETRY_SECONDS = [0.5, 1, 2, 4, 8];
const PAGE = 200;
const FULL = ["too_many_bytes", "disk_full"]; // told to come back, but only somebody's hand makes room

/** A refusal in the server's own words (RFC 9457). */
export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || `The server answered with status ${status}.`);
    this.status = status;
    this.code = document.code || "unknown";
    this.errors = document.errors || [];
    this.retryAfterSeconds = document.retry_after ?? null;
  }
}

/** Nobody answered. */
export class Away extends Error {}

/** Says `away` and `back`, and `refused` when the key does not open anything. */
export const connection = new EventTarget();
let isAway = false;
let returned = null;

function tell(what, detail) {
  connection.dispatchEvent(new CustomEvent(what, { detail }));
}

/** Until the server answers again: at once where it does. */
export function presence() {
  return isAway ? returned : Promise.resolve();
}

function noteAway() {
  if (isAway) return;
  isAway = true;
  tell("away");
  returned = (async () => {
    for (let turn = 0; ; turn += 1) {
      await pause(RETRY_SECONDS[Math.min(turn, RETRY_SECONDS.length - 1)]);
      const answer = await fetch("/healthz").catch(() => null);
      if (answer?.ok) break;
    }
    isAway = false;
    tell("back");
  })();
}

export function pause(seconds, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, seconds * 1000);
    signal?.addEventListener("abort", end);
  });
}

/** Waits until what failed may be asked again, where waiting helps; whether it does. */
export async function comeBack(error, signal) {
  if (error instanceof Away) await presence();
  else if (!error.retryAfterSeconds || FULL.includes(error.code)) return false;
  else await pause(error.retryAfterSeconds, signal);
  return true;
}

/** 128 random bits; `crypto.randomUUID` is not there on plain HTTP beyond loopback. */
function nonce() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((each) => each.toString(16).padStart(2, "0")).join("");
}

async function send(path, { headers = {}, ...rest } = {}) {
  const token = key.current();
  if (token) headers = { ...headers, Authorization: `Bearer ${token}` };
  let answer;
  try {
    answer = await fetch(path, { ...rest, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    noteAway();
    throw new Away("The server does not answer.", { cause: error });
  }
  if (answer.ok) return answer;
  throw await problemOf(answer.status, await answer.text(), token);
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false; // a proxy's own words
  }
}

async function problemOf(status, text, token) {
  const problem = new Problem(status, isJson(text) ? JSON.parse(text) : {});
  if (status === 401 && token === key.current()) tell("refused", token ? problem.message : "");
  return problem;
}

function asked(path, query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(given).toString();
  return text ? `${path}?${text}` : path;
}

export async function get(path, query = {}, signal = null) {
  return (await send(asked(path, query), { signal })).json();
}

const answers = new Map();

/** Of what does not change while the page is open; asked once. */
export function getOnce(path) {
  if (!answers.has(path)) {
    answers.set(path, get(path));
    answers.get(path).catch(() => answers.delete(path));
  }
  return answers.get(path);
}

async function sendBody(method, path, body, { headers = {}, signal = null } = {}) {
  const answer = await send(path, {
    method, signal, body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers },
  });
  return answer.status === 204 ? null : answer.json();
}

/** Makes something once, however often it has to be sent until an answer comes. */
export async function post(path, body = {}) {
  const headers = { "Idempotency-Key": nonce() };
  for (;;) {
    try {
      return await sendBody("POST", path, body, { headers });
    } catch (error) {
      if (!(error instanceof Away)) throw error;
      await presence();
    }
  }
}

/** All checks of a job and what it would take. */
export function rehearse(job, signal) {
  return sendBody("POST", "/v1/jobs?dry_run=true", job, { signal });
}

export function patch(path, body) {
  return sendBody("PATCH", path, body);
}

export async function remove(path) {
  await send(path, { method: "DELETE" });
}

/** Every row of a list, up to `most`. */
export async function all(path, query = {}, { most = Infinity, signal = null } = {}) {
  const rows = [];
  let cursor = null;
  do {
    const limit = Math.min(PAGE, most - rows.length);
    const page = await get(path, { ...query, limit, cursor }, signal);
    rows.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && rows.length < most);
  return rows;
}

export async function blob(path, signal) {
  return (await send(path, { signal })).blob();
}

/** Lets the browser save a file by itself, however large: by a link that lives for a minute. */
export async function download(artifact) {
  const { url } = await sendBody("POST", `/v1/artifacts/${artifact}/link`, { expires_in: 60 });
  const { pathname, search } = new URL(url); // this server's, whatever others call it
  const anchor = document.createElement("a");
  anchor.href = pathname + search;
  anchor.download = "";
  anchor.click();
}

/** Sends files as a form. `tell` gets the share of bytes that are out, 0 to 1: what `fetch` cannot
 *  say of a body that it sends. */
export function upload(path, field, files, tell) {
  const form = new FormData();
  for (const file of files) form.append(field, file, pathOf(file));
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const token = key.current();
    request.open("POST", path);
    request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.onprogress = (event) => tell(event.loaded / event.total);
    request.onload = async () => {
      const { status, responseText: text } = request;
      if (status < 400 && isJson(text)) resolve(JSON.parse(text));
      else reject(await problemOf(status, text, token));
    };
    request.onerror = () => {
      noteAway();
      reject(new Away("The server went away during the upload: send the file again."));
    };
    request.send(form);
  });
}

/** What happens to a job, from event `after` to its end. Where the stream breaks it is taken up
 *  again after the last event that came; a hidden tab holds none of the host's few connections. */
export async function* events(job, after, signal) {
  let seen = after;
  for (let turn = 0; !signal.aborted; turn += 1) {
    await shown(signal);
    try {
      const answer = await send(`/v1/jobs/${job}/events`, {
        signal: AbortSignal.any([signal, hiding()]),
          headers: { Accept: "text/event-stream", "Last-Event-ID": String(seen) },
      });
      for await (const event of messages(answer.body)) {
        seen = event.seq;
        turn = 0;
        yield event;
        if (isLast(event)) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status < 500 && error.status !== 429) throw error;
    }
    const { state } = await get(`/v1/jobs/${job}`, {}, signal).catch(() => ({}));
    if (hasEnded({ state })) {
      yield* rest(job, seen, signal);
      return;
    }
    await pause(RETRY_SECONDS[Math.min(turn, RETRY_SECONDS.length - 1)], signal);
    await presence();
  }
}

/** Until the tab is looked at. */
function shown(signal) {
  if (!document.hidden || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/** A signal for when the tab is hidden. */
function hiding() {
  const hidden = new AbortController();
  document.addEventListener("visibilitychange", () => hidden.abort(), { once: true });
  return hidden.signal;
}

function isLast({ type, data }) {
  return type === "state" && hasEnded(data);
}

async function* rest(job, after, signal) {
  for (;;) {
    const page = await get(`/v1/jobs/${job}/events`, { after, limit: PAGE }, signal);
    yield* page.items;
    if (page.items.length < PAGE) return;
    after = page.next_after;
  }
}

/** The events of a `text/event-stream`, as their data. */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (text + value.replaceAll("\r", "")).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:"));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"));
    }
  }
}
