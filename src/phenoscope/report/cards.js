"use strict";
// Shows the cards that match the search, the section and the verdict, and keeps the choice in the address.
(() => {
  const form = document.querySelector("form.filter");
  const cards = [...document.querySelectorAll(".card")];
  const sections = [...document.querySelectorAll(".papers")];
  const nothing = document.getElementById("nothing");
  const count = form.querySelector(".count");

  // Without accents and capitals, so that "Poole" finds "POOLE" and "Szekely" finds "Székely".
  const folded = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
  const words = new Map(cards.map((card) => [card, folded(`${card.dataset.id} ${card.textContent}`)]));

  function show() {
    const wanted = folded(form.text.value).split(/\s+/).filter(Boolean);
    const { value: section } = form.section;
    const { value: verdict } = form.verdict;
    let shown = 0;
    for (const card of cards) {
      const fits =
        (!section || card.closest(".papers").dataset.section === section) &&
        (!verdict || card.dataset.tags.split(" ").includes(verdict)) &&
        wanted.every((word) => words.get(card).includes(word));
      card.hidden = !fits;
      shown += fits;
    }
    for (const each of sections) each.hidden = !each.querySelector(".card:not([hidden])");
    nothing.hidden = shown > 0;
    count.textContent = `${shown} of ${cards.length} papers`;
  }

  function keep() {
    const chosen = new URLSearchParams();
    for (const name of ["text", "section", "verdict"]) if (form[name].value) chosen.set(name, form[name].value);
    history.replaceState(null, "", `${location.pathname}${location.search}${`${chosen}` ? `#${chosen}` : ""}`);
  }

  function restore() {
    const chosen = new URLSearchParams(location.hash.slice(1));
    for (const name of ["text", "section", "verdict"]) form[name].value = chosen.get(name) ?? "";
    for (const select of [form.section, form.verdict]) if (select.selectedIndex < 0) select.selectedIndex = 0;
    show();
  }

  form.addEventListener("input", () => { show(); keep(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { show(); keep(); form.text.focus(); }));
  addEventListener("hashchange", restore);
  form.hidden = false;
  restore();
})();
