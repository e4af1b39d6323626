"use strict";
// Sorting: numbers by data-value, words by their text, what is empty last.
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.querySelectorAll("th").forEach((th, i) => {
    th.tabIndex = 0;
    const sort = () => {
      const down = th.getAttribute("aria-sort") === "ascending";
      table.tHead.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[i].dataset.value ?? row.cells[i].textContent;
      const compare = (a, b) => {
        if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
        const difference = key(a) - key(b);
        const order = Number.isNaN(difference) ? key(a).localeCompare(key(b)) : difference;
        return down ? -order : order;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    };
    th.addEventListener("click", sort);
    th.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}

// A run's details are made when they are first opened.
const data = JSON.parse(document.getElementById("details").textContent);
const made = (name, text) => Object.assign(document.createElement(name), { textContent: text ?? "" });
const listed = (values) => {
  const table = made("table");
  for (const [key, value] of Object.entries(values)) {
    const row = table.insertRow();
    row.append(made("td", key), made("td", typeof value === "string" ? value : JSON.stringify(value)));
  }
  return table;
};
for (const details of document.querySelectorAll("details[data-run]")) {
  details.addEventListener("toggle", () => {
    const run = data.runs[details.dataset.run];
    const settings = Object.entries({ ...data.shared, ...run.settings }).sort(([a], [b]) => a.localeCompare(b));
    const command = run.command ?? "a file of conf/ that it names is not here: see config.yaml in its folder";
    details.append(made("pre", command), listed(run.numbers), made("h4", "config"), listed(Object.fromEntries(settings)));
  }, { once: true });
}

const filter = document.getElementById("filter");
filter?.addEventListener("input", () => {
  for (const row of document.getElementById("run-list").tBodies[0].rows) {
    row.hidden = !row.textContent.toLowerCase().includes(filter.value.toLowerCase());
  }
});
