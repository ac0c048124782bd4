/* The key: kept by this tab, or by this computer where its person says so. */

const NAME = "stillroom.key";

/** Takes a key out of the address, where `stillroom serve` put it, before anybody sees it there;
 *  whether there was one. */
export function takeFromAddress() {
  const [, found] = location.hash.match(/^#key=(.+)$/) || [];
  if (!found) return false;
  history.replaceState(null, "", `${location.pathname}#/jobs`);
  keep(decodeURIComponent(found), false);
  return true;
}

/** Whether a header can carry it: a browser sends no request with one that it cannot. */
export function isSendable(key) {
  return /^[\x21-\x7e]+$/.test(key);
}

export function current() {
  return [sessionStorage.getItem(NAME), localStorage.getItem(NAME)].find((each) => each && isSendable(each)) ?? null;
}

/** `always`: past the end of this tab. */
export function keep(key, always) {
  forget();
  (always ? localStorage : sessionStorage).setItem(NAME, key);
}

export function signOut() {
  forget();
  location.reload();
}

function forget() {
  sessionStorage.removeItem(NAME);
  localStorage.removeItem(NAME);
}
