"use strict";
// Enlarged images: a click or Enter opens one, the arrow keys go to its neighbours, Esc closes.
const large = document.getElementById("large");
const frames = [...document.querySelectorAll("button.frame")];
let at = 0;

function show(index) {
  at = (index + frames.length) % frames.length;
  const image = frames[at].querySelector("img");
  large.querySelector("img").src = image.src;
  large.querySelector("img").alt = image.alt;
  large.querySelector("strong").textContent = image.alt;
  large.querySelector("span").textContent = frames[at].dataset.more;
  if (!large.open) large.showModal();
}

function close() {
  large.close();
  frames[at].focus();
}

frames.forEach((frame, index) => frame.addEventListener("click", () => show(index)));
large.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button && button.value !== "0") show(at + Number(button.value));
  else if (button || event.target === large) close();
});
large.addEventListener("cancel", (event) => {
  event.preventDefault();
  close();
});
large.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) show(at + step);
});

// Tables: a click on a heading sorts by it, a second one the other way round.
function value(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.order ?? cell.textContent.trim();
  const number = Number(text);
  return text === "" || Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a === typeof b) return a.localeCompare(b);
  return typeof a === "number" ? 1 : -1; // what is not known is below every number
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) =>
    head.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : head.classList.contains("words");
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (up ? 1 : -1) * compare(value(a, column), value(b, column)));
      table.tBodies[0].append(...rows);
    }),
  );
}

// Light and dark: as the system has it, until the button is pressed.
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
