
"use strict";
(() => {
  // The choice of light or dark, which a browser may not let a local file remember.
  const theme = document.getElementById("theme");
  const themes = ["", "light", "dark"];
  const names = { "": "as the system", light: "light", dark: "dark" };
  const show = (value) => {
    if (value) document.documentElement.dataset.theme = value;
    else delete document.documentElement.dataset.theme;
    theme.textContent = "Theme: " + names[value];
    theme.dataset.value = value;
  };
  let kept = "";
  try { kept = localStorage.getItem("vogcore-theme") || ""; } catch { /* not allowed here */ }
  show(themes.includes(kept) ? kept : "");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(theme.dataset.value) + 1) % themes.length];
    show(next);
    try { localStorage.setItem("vogcore-theme", next); } catch { /* not allowed here */ }
  });

  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  const key = (row, column) => {
    const cell = row.cells[column];
    if (!("value" in cell.dataset)) return cell.textContent;
    return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const status = document.getElementById(table.id + "-status");
    const shown = () => rows.filter((row) => !row.hidden).length.toLocaleString("en") + " rows";
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        const sign = up ? 1 : -1;
        const keyed = rows.map((row, index) => [key(row, column), index, row]);
        keyed.sort(([a, i], [b, j]) => {
          // What has no value stands at the end, whichever way the rest goes.
          if (a !== a || b !== b) return (a !== a) - (b !== b) || i - j;
          return sign * (typeof a === "string" ? compare(a, b) : a - b) || i - j;
        });
        body.append(...keyed.map((entry) => entry[2]));
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        status.textContent = shown() + ", sorted by " + head.textContent + (up ? ", lowest first" : ", highest first");
      });
    });
    const filter = document.querySelector('[data-filter="' + table.id + '"]');
    filter.addEventListener("input", () => {
      const wanted = filter.value.trim().toLowerCase();
      for (const row of rows) row.hidden = wanted !== "" && !row.cells[0].textContent.toLowerCase().includes(wanted);
      status.textContent = shown();
    });
  }
})();
