"use strict";
// Filters and orders the outputs, and shows them thirty at a time; without it the page shows all of them.
const form = document.getElementById("filter");
const box = document.getElementById("outputs");
const more = document.getElementById("more");
const all = [...box.children].map((article, place) => ({
  article, place, ...article.dataset,
  prompt: article.querySelector(".prompt").textContent,
  text: [...article.querySelectorAll("div")].map((part) => part.textContent).join("\n").toLowerCase(),
}));
let limit = 30;

// What was not scored comes last in either order.
const byReward = (sign) => (a, b) =>
  (a.reward === "") - (b.reward === "") || sign * (Number(a.reward) - Number(b.reward)) || a.place - b.place;
const orders = {
  place: (a, b) => a.place - b.place,
  prompt: (a, b) => (a.prompt < b.prompt ? -1 : a.prompt > b.prompt ? 1 : a.place - b.place),
  high: byReward(-1),
  low: byReward(1),
};

function show() {
  const wanted = Object.fromEntries(new FormData(form));
  const words = wanted.text.toLowerCase();
  const found = all
    .filter((row) => ["run", "step", "kind"].every((key) => !wanted[key] || row[key] === wanted[key]))
    .filter((row) => row.text.includes(words))
    .sort(orders[wanted.order]);
  box.replaceChildren(...found.slice(0, limit).map((row) => row.article));
  form.elements.count.value = `${Math.min(limit, found.length)} of ${found.length} shown`;
  more.hidden = found.length <= limit;
}

form.addEventListener("input", () => { limit = 30; show(); });
form.addEventListener("submit", (event) => event.preventDefault());
more.addEventListener("click", () => { limit += 30; show(); });
form.hidden = false;
show();
