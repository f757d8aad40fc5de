"use strict";
// Choices of sites: what is shown for each was computed before; nothing is computed here. In a block, as pages have a script.
{
  const board = JSON.parse(document.getElementById("board").textContent);
  const table = document.querySelector(".board table");
  const rows = [...table.tBodies[0].rows]; // in the order of the agents
  const heads = [...table.tHead.rows[0].cells];
  const charts = [...document.querySelectorAll(".curves figure")].map((figure) => [...figure.querySelectorAll("path.line")]);
  const films = [...document.querySelectorAll(".site")];
  const toggles = [...document.querySelectorAll(".toggles li:not(.both) button")];
  const selects = ["track", "sites", "held"].map((id) => document.getElementById(id));
  const first = 6; // curves that are on at the beginning: more cannot be told apart

  function chosen() {
    const [track, sites, held] = selects.map((select, at) => select?.value ?? ["0", "all", "all"][at]);
    return board.choices[`${track}/${sites}/${sites.startsWith("site:") ? "all" : held}`];
  }

  function fill(cell, [text, note, order]) {
    cell.textContent = text;
    if (note) {
      const small = document.createElement("small");
      small.textContent = note;
      cell.append(" ", small);
    }
    if (order === null) delete cell.dataset.order;
    else cell.dataset.order = order;
  }

  function key(row, column) {
    const cell = row.cells[column];
    const text = cell.dataset.order ?? cell.textContent.trim();
    return text === "" || Number.isNaN(Number(text)) ? text : Number(text);
  }

  function sort(rank) {
    const column = heads.findIndex((head) => head.hasAttribute("aria-sort"));
    const ordered = rank.map((agent) => rows[agent]);
    if (column >= 0) {
      const up = heads[column].getAttribute("aria-sort") === "ascending" ? 1 : -1;
      ordered.sort((a, b) => {
        const [x, y] = [key(a, column), key(b, column)];
        if (typeof x === typeof y) return up * (typeof x === "number" ? x - y : x.localeCompare(y));
        return up * (typeof x === "number" ? 1 : -1);
      });
    }
    table.tBodies[0].append(...ordered);
  }

  function curve(shares) {
    return shares ? "M" + shares.map((share, at) => `${((1000 * at) / (shares.length - 1)).toFixed(1)} ${1000 - share}`).join("L") : "";
  }

  function show() {
    const at = chosen();
    const view = at === null ? null : board.views[at];
    const track = selects[0]?.value ?? "0";
    const alone = selects[1]?.value.startsWith("site:");
    if (selects[2]) selects[2].disabled = alone;
    const sites = view ? view.sites : [];
    document.getElementById("status").textContent = view ? `${sites.length} ${sites.length === 1 ? "site" : "sites"}` : "no site is both";
    document.querySelector(".board").hidden = document.querySelector(".curves").hidden = !view;
    for (const site of films) site.hidden = site.dataset.track !== track || !sites.includes(Number(site.dataset.site));
    const shown = films.filter((site) => !site.hidden);
    if (shown.length && !shown.some((site) => site.open)) shown[0].open = true;
    if (!view) return;
    rows.forEach((row, agent) => {
      [...row.cells].forEach((cell, column) => column !== board.agent && fill(cell, view.rows[agent][column]));
    });
    sort(view.rank);
    charts.forEach((lines, chart) => lines.forEach((line, agent) => line.setAttribute("d", curve(view.curves[chart][agent]))));
  }

  function turn(agent, on) {
    toggles[agent].setAttribute("aria-pressed", on);
    for (const lines of charts) lines[agent].classList.toggle("off", !on);
  }

  toggles.forEach((button, agent) => {
    button.addEventListener("click", () => turn(agent, button.getAttribute("aria-pressed") === "false"));
    for (const [event, strong] of [["mouseenter", true], ["mouseleave", false], ["focus", true], ["blur", false]])
      button.addEventListener(event, () => charts.forEach((lines) => lines[agent].classList.toggle("strong", strong)));
    if (agent >= first) turn(agent, false);
  });
  document.getElementById("every").addEventListener("click", () => toggles.forEach((_, agent) => turn(agent, true)));
  document.getElementById("nobody").addEventListener("click", () => toggles.forEach((_, agent) => turn(agent, false)));
  selects.forEach((select) => select?.addEventListener("change", show));
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());

  function open() {
    const entry = location.hash.startsWith("#entry-") && document.getElementById(location.hash.slice(1));
    if (entry) entry.open = true;
  }
  addEventListener("hashchange", open);
  open();

  document.querySelector(".filters").hidden = false;
  show();
}
