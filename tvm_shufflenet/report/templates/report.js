"use strict";
// A column's head sorts its table: numbers first from the largest, words from A; once more turns it round.
const said = document.getElementById("said");
for (const head of document.querySelectorAll("th[aria-sort]")) {
  head.querySelector("button").addEventListener("click", () => sort(head));
}
function sort(head) {
  const row = head.parentElement, body = row.closest("table").tBodies[0];
  const column = [...row.children].indexOf(head), numbers = head.classList.contains("number");
  const before = head.getAttribute("aria-sort");
  const descending = before === "none" ? numbers : before === "ascending";
  for (const other of row.children) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const value = (line) => line.children[column].dataset.sort;
  const compare = (a, b) => numbers ? value(a) - value(b) : value(a).localeCompare(value(b));
  const lines = [...body.rows], empty = lines.filter((line) => value(line) === "");
  const full = lines.filter((line) => value(line) !== "").sort((a, b) => descending ? compare(b, a) : compare(a, b));
  body.append(...full, ...empty); // what has no value stays last
  said.textContent = `sorted by ${head.innerText.trim()}, ${descending ? "descending" : "ascending"}`;
}
