"use strict";
// On a served page: shows which studies run, and loads the page anew once what it shows has changed.
(() => {
  const EVERY = 2000; // milliseconds between questions
  const CALM = 3000; // milliseconds without a touch before the page may be replaced under its reader
  const bar = document.getElementById("live");
  const address = new URL("live.json", document.currentScript.src);
  const { page, version } = bar.dataset;
  const top = page.startsWith("runs/") ? "../" : "";
  let paused = sessionStorage.getItem("paused") === "yes";
  let touched = -Infinity;
  let seen;

  function element(tag, parent, properties = {}) {
    const made = Object.assign(document.createElement(tag), properties);
    parent.append(made);
    return made;
  }

  const said = element("p", bar);
  const state = element("span", said);
  const button = element("button", said, { type: "button" });
  const list = element("ul", bar);
  bar.hidden = false;

  function tell(text) {
    if (state.textContent !== text) state.textContent = text;
    button.textContent = paused ? "Go on" : "Pause";
  }

  const ago = (seconds) =>
    seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;

  function show(running) {
    const now = JSON.stringify(running);
    if (now === seen) return;
    seen = now;
    list.replaceChildren();
    for (const { id, done, total, begun, silent } of running) {
      const item = element("li", list);
      element("a", item, { href: `${top}${id}.html`, textContent: id });
      const meter = element("progress", item, { max: total || 1 });
      if (total) meter.value = done;
      meter.setAttribute("aria-label", `Progress of ${id}`);
      const count = total ? `${done} of ${total} cells` : "starting";
      const told = silent > 60 ? `, last sign ${ago(silent)} ago` : "";
      element("span", item, { textContent: `${count}, begun ${ago(begun)} ago${told}` });
    }
  }

  function change(versions) {
    if ((versions[page] ?? "") === version) return tell(paused ? "Paused." : "Live: this page follows what changes.");
    if (paused) return tell("Paused; there is something new.");
    tell("There is something new: the page is being loaded again.");
    const now = performance.now();
    if (now > CALM && now - touched > CALM && !document.hidden) location.reload();
  }

  async function ask() {
    try {
      const answer = await fetch(address, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.statusText);
      const { versions, running } = await answer.json();
      show(running);
      change(versions);
    } catch {
      tell("The server does not answer: this is the last state.");
    }
    setTimeout(ask, document.hidden ? 5 * EVERY : EVERY);
  }

  button.addEventListener("click", () => {
    paused = !paused;
    sessionStorage.setItem("paused", paused ? "yes" : "no");
    tell(paused ? "Paused." : "Live: this page follows what changes.");
  });
  for (const kind of ["pointerdown", "pointermove", "keydown", "wheel", "touchmove"]) {
    addEventListener(kind, (event) => { if (!button.contains(event.target)) touched = performance.now(); }, { passive: true });
  }
  tell(paused ? "Paused." : "Live: this page follows what changes.");
  ask();
})();
