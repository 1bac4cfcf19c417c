// Keeps a page as it is in the database: when the server says that something changed, the page is fetched
// again and what differs is put in its place. Focus, selection, scrolling and open details stay.
"use strict";
(() => {
  const status = document.getElementById("live");
  const main = document.getElementById("main");
  const refresh = document.getElementById("refresh");
  if (!status || !main || !window.EventSource) return;
  if (refresh) refresh.hidden = true;

  // What was done stands in the address once; a reload does not say it again.
  const address = new URL(location.href);
  if (address.searchParams.has("did")) {
    address.searchParams.delete("did");
    history.replaceState(null, "", address);
  }

  const SHORTEST = 1000;
  const LONGEST = 30000;
  let source = null;
  let lost = null;
  let reason = "";
  let delay = SHORTEST;
  let retry = 0;
  let wanted = false;
  let fetching = false;
  let notBefore = 0;

  function say(text, bad) {
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("lost", bad);
  }

  function show() {
    if (!lost) return say("live", false);
    const time = lost.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    say(`${reason} since ${time}`, true);
  }

  function fail(why) {
    lost = lost || new Date();
    reason = why;
    show();
  }

  function connect() {
    clearTimeout(retry);
    retry = 0;
    if (document.hidden || source) return;
    source = new EventSource("/events");
    // What was missed meanwhile.
    source.addEventListener("open", () => { delay = SHORTEST; want(); });
    source.addEventListener("change", want);
    source.addEventListener("error", () => {
      disconnect();
      fail("not connected");
      again();
    });
  }

  function disconnect() {
    if (source) source.close();
    source = null;
  }

  function again() {
    if (retry || document.hidden) return;
    retry = setTimeout(() => { retry = 0; connect(); }, delay * (0.75 + Math.random() / 2));
    delay = Math.min(delay * 2, LONGEST);
  }

  // The page is wanted anew, at once or as soon as the last one is shown and a pause has passed.
  function want() {
    wanted = true;
    if (fetching) return;
    fetching = true;
    setTimeout(update, Math.max(0, notBefore - performance.now()));
  }

  async function update() {
    wanted = false;
    const began = performance.now();
    try {
      const response = await fetch(location.href, {
        headers: { "X-Live": "1", Accept: "text/html" },
        credentials: "same-origin",
        signal: AbortSignal.timeout(60000),
      });
      if (response.ok) {
        place(new DOMParser().parseFromString(await response.text(), "text/html"));
        lost = null;
        show();
      } else if (response.status === 401) {
        fail("logged out");
        if (refresh) refresh.hidden = false;
      } else if (response.status === 404) {
        fail("no longer there");
      } else {
        fail(response.status === 503 ? "the database is away" : `the server answers ${response.status}`);
        setTimeout(want, 5000);
      }
    } catch {
      fail("not connected");
      disconnect();
      again();
    }
    // A large page takes at most a fifth of the time.
    notBefore = performance.now() + Math.max(SHORTEST, 4 * (performance.now() - began));
    fetching = false;
    if (wanted && !document.hidden) want();
  }

  function place(fresh) {
    const now = fresh.getElementById("main");
    if (!now) return;
    if (document.title !== fresh.title) document.title = fresh.title;
    children(main, now);
  }

  const keyOf = (node) => node.nodeType === 1 ? (node.dataset.key || node.id || "") : "";
  const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);
  const kept = (node) => node.nodeType === 1 && node.hasAttribute("data-keep");

  // Makes the children of `old` those of `now`, with as many of its own nodes as fit.
  function children(old, now) {
    const keyed = new Map();
    for (const child of old.children) if (keyOf(child)) keyed.set(keyOf(child), child);
    let at = old.firstChild;
    for (const next of Array.from(now.childNodes)) {
      while (at && kept(at)) at = at.nextSibling;
      const key = keyOf(next);
      const mine = key ? keyed.get(key) : null;
      if (mine && alike(mine, next)) {
        if (mine === at) at = at.nextSibling;
        else old.insertBefore(mine, at);
        node(mine, next);
      } else if (at && alike(at, next)) {
        const place = at;
        at = at.nextSibling;
        node(place, next);
      } else {
        old.insertBefore(document.importNode(next, true), at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      if (!kept(gone)) gone.remove();
    }
  }

  function node(old, now) {
    if (old.nodeType !== 1) {
      if (old.nodeValue !== now.nodeValue) old.nodeValue = now.nodeValue;
      return;
    }
    if (old.isEqualNode(now)) return;
    attributes(old, now);
    // What somebody types stays until it is sent.
    if (old.tagName === "TEXTAREA" || old.tagName === "SELECT") return;
    children(old, now);
  }

  function attributes(old, now) {
    for (const { name, value } of Array.from(now.attributes)) {
      if (keeps(old, name)) continue;
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of Array.from(old.attributes)) {
      if (!now.hasAttribute(name) && !keeps(old, name)) old.removeAttribute(name);
    }
  }

  // What belongs to the reader, not to the server.
  function keeps(element, name) {
    if (name === "open") return element.tagName === "DETAILS" || element.tagName === "DIALOG";
    if (name === "value" || name === "checked") return element.tagName === "INPUT" && element === document.activeElement;
    return false;
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) { delay = SHORTEST; connect(); return; }
    clearTimeout(retry);
    retry = 0;
    disconnect();
  });
  addEventListener("online", () => { delay = SHORTEST; connect(); });
  // A page that comes back from the browser's memory connects again.
  addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
  addEventListener("pagehide", disconnect);
  connect();
})();
