"use strict";
(() => {
  const root = document.documentElement, all = (query, within) => [...(within || document).querySelectorAll(query)];
  const data = JSON.parse(document.getElementById("data").textContent);
  const detail = document.getElementById("detail");
  root.classList.add("js");

  // One block at a time is shown, on every map and in the table.
  const show = (row) => {
    for (const each of all(".now")) each.classList.remove("now");
    for (const each of all(`[data-row="${row}"]`)) each.classList.add("now");
    if (!detail) return;
    const values = detail.querySelectorAll("dd");
    data.rows[row].forEach((text, at) => { values[at].textContent = text; });
    detail.querySelector(".hint").firstChild.textContent = row === data.first ? "The best measured. " : "";
  };
  const rowOf = (event) => {
    const found = event.target.closest && event.target.closest("[data-row]");
    if (found) show(Number(found.dataset.row));
  };
  for (const part of all(".heat, #front, .sortable tbody"))
    for (const kind of ["pointerover", "focusin", "click"]) part.addEventListener(kind, rowOf);

  // One tab stop a map; arrows go to the next block in that direction.
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  for (const map of all(".heat")) {
    const cells = all(".cell", map), place = (cell) => cell.dataset.at.split(":").map(Number);
    const outlined = map.querySelector(".best"), at = (each) => each.getAttribute("x") + " " + each.getAttribute("y");
    const start = cells.find((cell) => outlined && at(cell) === at(outlined)) || cells[0];
    for (const cell of cells) {
      const title = cell.querySelector("title");
      cell.setAttribute("tabindex", cell === start ? "0" : "-1");
      cell.setAttribute("role", "img");
      cell.setAttribute("aria-label", title.textContent);
      title.remove(); // the panel says it; a second, late tooltip would cover the map
    }
    map.addEventListener("keydown", (event) => {
      const step = steps[event.key], [x, y] = event.target.dataset.at ? place(event.target) : [];
      if (!step || x === undefined) return;
      event.preventDefault();
      const ahead = cells
        .map((cell) => { const [a, b] = place(cell); return [cell, (a - x) * step[0] + (b - y) * step[1], Math.abs((a - x) * step[1]) + Math.abs((b - y) * step[0])]; })
        .filter((each) => each[1] > 0)
        .sort((a, b) => a[1] + 3 * a[2] - b[1] - 3 * b[2]);
      if (!ahead.length) return;
      event.target.setAttribute("tabindex", "-1");
      ahead[0][0].setAttribute("tabindex", "0");
      ahead[0][0].focus();
      show(Number(ahead[0][0].dataset.row));
    });
  }

  const choose = (quantity) => { for (const each of all("figure[data-quantity]")) each.hidden = each.dataset.quantity !== quantity; };
  const radios = all("input[name=quantity]");
  for (const radio of radios) radio.addEventListener("change", () => choose(radio.value));
  if (radios.length) choose((radios.find((radio) => radio.checked) || radios[0]).value);

  const scorer = document.getElementById("scorer");
  const mark = () => {
    for (const each of all(".heat .mark, li[data-key]")) {
      const own = each.dataset.mark || each.dataset.key;
      each.classList.toggle("off", scorer.value !== "all" && scorer.value !== own);
    }
  };
  if (scorer) { scorer.addEventListener("change", mark); mark(); }

  // Sorting: numbers by their value, what was not measured always last.
  for (const table of all(".sortable")) {
    const body = table.tBodies[0];
    all("thead th", table).forEach((head, column) => {
      if (!head.hasAttribute("aria-sort")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") === "descending";
        for (const each of all("[aria-sort]", table)) each.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => { const cell = row.cells[column]; return "value" in cell.dataset ? cell.dataset.value : cell.textContent; };
        const compare = (a, b) => (column ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
        const rows = [...body.rows].sort((left, right) => {
          const a = key(left), b = key(right);
          if (a === "" || b === "") return (a === "") - (b === "");
          return up ? compare(a, b) : compare(b, a);
        });
        body.append(...rows);
      });
    });
  }
  if (data.rows.length) show(data.first);
})();
