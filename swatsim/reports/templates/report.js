"use strict";
// Tables are sorted by a click on a heading and filtered by words; charts say what is pointed at.
// All of it is added here: without a script the page has the same numbers and no dead buttons.
(() => {
  const FILTERED = 9, PARTS = { ascending: 1, descending: -1 };

  const cell = (row, column) => row.cells[column];
  const value = (row, column) => {
    const known = cell(row, column).dataset.value ?? cell(row, column).textContent;
    return known === "-" || known === "" ? NaN : Number(known.replaceAll(",", ""));
  };

  function compare(column, words, sign) {
    return (a, b) => {
      if (words) return sign * cell(a, column).textContent.localeCompare(cell(b, column).textContent);
      const [x, y] = [value(a, column), value(b, column)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return sign * (x - y);
    };
  }

  function sort(table, heading) {
    const words = heading.classList.contains("text"), first = words ? "ascending" : "descending";
    const other = words ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare(heading.cellIndex, words, PARTS[order])));
  }

  function sortable(table) {
    for (const heading of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sort(table, heading));
      heading.append(button);
    }
  }

  function filterable(table) {
    const rows = [...table.tBodies[0].rows];
    const line = document.createElement("p"), label = document.createElement("label");
    const input = document.createElement("input"), shown = document.createElement("output");
    line.className = "filter";
    input.type = "search";
    label.append("Rows with ", input);
    line.append(label, " ", shown);
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/);
      for (const row of rows) {
        const text = [...row.cells].map((one) => one.textContent).join(" ").toLowerCase();
        row.hidden = !wanted.every((word) => text.includes(word));
      }
      shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    });
    table.closest(".wide").before(line);
  }

  function pointed(chart) {
    const said = document.createElement("p");
    said.className = "said";
    said.textContent = "Point at a bar or a mark for its figures.";
    chart.after(said);
    const show = (event) => {
      const title = event.target.querySelector?.("title");
      if (title) said.textContent = title.textContent;
    };
    for (const kind of ["pointerover", "click"]) chart.addEventListener(kind, show);
  }

  for (const table of document.querySelectorAll("table")) {
    const rows = table.tBodies[0].rows.length;
    if (rows > 1) sortable(table);
    if (rows >= FILTERED) filterable(table);
  }
  for (const spots of document.querySelectorAll(".spots")) pointed(spots.parentElement);

  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const part of folded) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of folded) part.open = false;
  });
})();
