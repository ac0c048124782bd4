/* Work that is done again and again for as long as somebody looks. */

import { Away, Problem, connection, pause } from "./api.js";
import { fail, toast } from "./elements/toast.js";

/** Does `work` now, then `seconds` after each end, but not in a hidden tab; at once when the tab is
 *  looked at again and when the server is back. */
export async function every(seconds, work, signal) {
  let wake = () => {};
  const look = () => document.visibilityState === "visible" && wake();
  document.addEventListener("visibilitychange", look, { signal });
  connection.addEventListener("back", () => wake(), { signal });
  while (!signal.aborted) {
    if (document.visibilityState === "visible") await work().catch((error) => tolerate(error, signal));
    if (signal.aborted) return;
    const rest = new AbortController();
    wake = () => rest.abort();
    await pause(seconds, AbortSignal.any([rest.signal, signal]));
  }
}

/** A listener that does `work`, and says it where that fails. */
export function guarded(work, signal) {
  return async () => {
    try {
      await work();
    } catch (error) {
      tolerate(error, signal);
    }
  };
}

/** Like `guarded`, and deaf while the work is under way and to a second click of a double one. */
export function once(work, signal) {
  let isUnderWay = false;
  return async (event) => {
    if (isUnderWay || event?.detail > 1) return;
    isUnderWay = true;
    await guarded(() => work(event), signal)();
    isUnderWay = false;
  };
}

/** Goes on to another view; who has left this one meanwhile is told `text` instead. */
export function goOn(hash, signal, text) {
  if (signal.aborted) toast(text);
  else location.hash = hash;
}

/** A server that is away has a banner of its own, and a key that is refused a dialog. */
export function tolerate(error, signal) {
  if (signal?.aborted || error instanceof Away || (error instanceof Problem && error.status === 401)) return;
  fail(error);
}
