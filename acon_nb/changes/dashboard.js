// Compares any two nights of the values that the page holds; what is measured is text, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const [before, after] = ["before", "after"].map((id) => document.getElementById(id));
const shown = document.getElementById("compared");

const add = (parent, name, text) => {
  const node = parent.appendChild(document.createElement(name));
  if (text !== undefined) node.textContent = text;
  return node;
};

function number(value, series) {
  if (value === null) return "none";
  const options = { maximumFractionDigits: series.scale === 1 ? 4 : 3 };
  return `${(value / series.scale).toLocaleString("en", options)} ${series.unit}`.trim();
}

function difference(old, now, series) {
  if (old === null || now === null) return "one night has no value";
  if (old === now) return "equal";
  const share = old ? ` (${now > old ? "+" : ""}${((100 * (now - old)) / old).toFixed(3)} %)` : "";
  const note = series.exact ? "" : ", medians of a measure that is not exact";
  return `${now > old ? "+" : "-"}${number(Math.abs(now - old), series)}${share}${note}`;
}

function table(heads, rows) {
  const made = add(shown, "table");
  const head = add(add(made, "thead"), "tr");
  for (const text of heads) add(head, "th", text).scope = "col";
  const body = add(made, "tbody");
  for (const row of rows) {
    const line = add(body, "tr");
    row.forEach((text, place) => {
      add(line, "td", text).dataset.head = heads[place];
    });
  }
}

function compare() {
  const [old, now] = [before, after].map((field) => data.nights.indexOf(field.value));
  shown.replaceChildren();
  const names = [data.nights[old], data.nights[now]];
  const rows = data.series.map((one) => {
    const values = [one.values[old], one.values[now]];
    return [one.cell, one.label, ...values.map((value) => number(value, one)), difference(...values, one)];
  });
  table(["cell", "measure", ...names, "difference"], rows);
  const facts = [data.facts[old], data.facts[now]];
  const labels = [...new Set(facts.flatMap((one) => Object.keys(one)))].filter((label) => facts[0][label] !== facts[1][label]);
  add(shown, "p", labels.length ? "What else differs:" : "Nothing else that is recorded differs.");
  if (labels.length) {
    table(["what", ...names], labels.map((label) => [label, ...facts.map((one) => data.texts[one[label]] ?? "none")]));
  }
}

const chosen = new URLSearchParams(location.hash.slice(1));
const last = data.nights.length - 1;
before.value = chosen.get("before") ?? data.nights[Math.max(0, last - 1)];
after.value = chosen.get("after") ?? data.nights[last];
for (const field of [before, after]) field.addEventListener("change", compare);
compare();
