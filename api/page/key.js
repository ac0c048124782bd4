/* The key: kept by this tab, or by this computer where its person says so. */

const NAME = "stillroom.key";

/** Takes a key out of the address, where `stillroom serve` put it, before anybody sees it there;
 *  whether there was one. */
export function takeFromAddress() {
  const [, found] = location.hash.match(/^#key=(.+)$/) || [];
  if (!found) return false;
  keep(decodeURIComponent(found), false);
  history.replaceState(null, "", `${location.pathname}#/jobs`);
  return true;
}

export function current() {
  return sessionStorage.getItem(NAME) || localStorage.getItem(NAME);
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
