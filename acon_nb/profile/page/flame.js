"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const isDifference = data.sides.length === 2;
  const SVG = "http://www.w3.org/2000/svg";
  const PRINT_WIDTH = 1050, CHARACTER = 7.3, SHOWN_ROWS = 30, NARROWEST = 0.5;
  const PALETTE = ["#f2a65a", "#8ecae6", "#a7c957", "#e5989b", "#cdb4db", "#ffe066", "#5fb8a8", "#c49a6c",
    "#9aa5f5", "#ff8fc7", "#7fa86a", "#bcd4de"];
  const FIXED = { phase: "#d9d9d9", folder: "#e8dcc8" };
  const element = (id) => document.getElementById(id);
  const number = (value) => value.toLocaleString("en-US");
  const signed = (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "\u00b1") + number(Math.abs(value));
  const share = (part, whole) => (whole ? `${(100 * part / whole).toFixed(part && part / whole < 0.001 ? 4 : 2)} %` : "0 %");

  // --- the tree ---

  const node = (frame, parent) => ({ frame, parent, children: [], own: [0, 0], all: [0, 0], changed: 0 });
  const frames = data.frames.map(([name, file, kind, group]) => ({
    name: data.texts[name], file: data.texts[file], kind: data.texts[kind], group: data.texts[group],
  }));
  const ROOT = { name: "all phases", file: "", kind: "phase", group: "" };

  /** Sum the counts from the leaves up, and order the children by size; phases keep their order. */
  function finish(top) {
    const order = [top];
    for (const one of order) order.push(...one.children);
    for (const one of order.reverse()) {
      one.all[0] += one.own[0];
      one.all[1] += one.own[1];
      one.changed += Math.abs(one.own[1] - one.own[0]);
      if (one.children.some((child) => child.frame.kind !== "phase")) {
        one.children.sort((a, b) => b.all[0] + b.all[1] - a.all[0] - a.all[1]);
      }
      if (one.parent) {
        one.parent.all[0] += one.all[0];
        one.parent.all[1] += one.all[1];
        one.parent.changed += one.changed;
      }
    }
    return top;
  }

  function readTree() {
    const top = node(ROOT, null), path = [top], step = isDifference ? 4 : 3;
    for (let i = 0; i < data.nodes.length; i += step) {
      const [depth, frame, before, after = 0] = data.nodes.slice(i, i + step);
      path.length = depth + 1;
      const one = node(frames[frame], path[depth]);
      one.own = [before, after];
      path[depth].children.push(one);
      path.push(one);
    }
    return finish(top);
  }

  /** The tree without the level of phases. */
  function mergePhases(top) {
    const merged = node({ ...ROOT, name: "all phases together" }, null);
    const add = (from, to) => {
      to.own[0] += from.own[0];
      to.own[1] += from.own[1];
      for (const child of from.children) {
        let same = to.children.find((one) => one.frame === child.frame);
        if (!same) to.children.push(same = node(child.frame, to));
        add(child, same);
      }
    };
    for (const phase of top.children) phase.children.length ? add(phase, merged) : add({ own: [0, 0], children: [phase] }, merged);
    return finish(merged);
  }

  const whole = readTree();
  const views = [["all phases", () => whole], ["all phases together", () => mergePhases(whole)],
    ...whole.children.map((phase) => [phase.frame.name, () => phase])];
  const measures = isDifference
    ? [["difference", (one) => one.changed], [data.sides[1], (one) => one.all[1]], [data.sides[0], (one) => one.all[0]]]
    : [["", (one) => one.all[0]]];
  let base = whole, zoomed = whole, focused = whole, matcher = null, measure = measures[0][1], everyRow = false;

  // --- colours ---

  const groups = [...new Set(frames.filter((one) => one.kind === "function").map((one) => one.group))];
  const sizes = new Map(groups.map((group) => [group, 0]));
  (function addSizes(one) {
    if (one.frame.kind === "function") sizes.set(one.frame.group, sizes.get(one.frame.group) + one.own[0] + one.own[1]);
    one.children.forEach(addSizes);
  })(whole);
  groups.sort((a, b) => sizes.get(b) - sizes.get(a));
  const colours = new Map(groups.map((group, i) => [group, i < PALETTE.length ? PALETTE[i] : "#c9c9c9"]));

  /** Red for more, blue for fewer; the share of the larger count decides how strong, grey is equal. */
  function differenceColour([before, after]) {
    const change = (after - before) / Math.max(before, after, 1);
    if (!change) return "#dcdcdc";
    const rest = Math.round(225 - 115 * Math.sqrt(Math.abs(change)));
    return change > 0 ? `rgb(255,${rest},${rest})` : `rgb(${rest},${rest + 15},255)`;
  }
  const colour = (one) => isDifference ? differenceColour(one.all) : FIXED[one.frame.kind] || colours.get(one.frame.group);

  // --- words ---

  function countsOf(one) {
    const [before, after] = one.all;
    if (isDifference) {
      return `${data.sides[0]}: ${number(before)}\n${data.sides[1]}: ${number(after)}\n` +
        `difference: ${signed(after - before)} instructions` + (before ? ` (${signed(Number((100 * (after - before) / before).toFixed(2)))} %)` : " (added)") +
        (one.children.length && (one.own[0] || one.own[1]) ? `\nitself: ${number(one.own[0])} to ${number(one.own[1])}` : "");
    }
    return `${number(before)} instructions, ${share(before, whole.all[0])} of all` +
      (base === whole ? "" : `, ${share(before, base.all[0])} of ${base.frame.name}`) +
      (one.children.length && one.own[0] ? `\nitself: ${number(one.own[0])}` : "");
  }
  const text = (one) => one.frame.name + (one.frame.file && one.frame.file !== one.frame.name ? `\n${one.frame.file}` : "") + `\n${countsOf(one)}`;
  const detail = (one) => { element("detail").textContent = text(one).replaceAll("\n", " \u00b7 "); };

  // --- search ---

  /** A test of a frame by the text in the search field; null for none. Throws SyntaxError. */
  function matcherOf(query) {
    if (!query) return null;
    const pattern = /^\/(.+)\/$/.exec(query);
    const expression = pattern && new RegExp(pattern[1], "i"), low = query.toLowerCase();
    const test = pattern ? (value) => expression.test(value) : (value) => value.toLowerCase().includes(low);
    return (frame) => test(frame.name) || (frame.kind === "function" && test(frame.file));
  }

  function showMatches() {
    if (!matcher) return void (element("matches").textContent = "");
    const found = new Set(), sum = [0, 0], rest = [zoomed];
    for (let one; (one = rest.pop());) {
      const matched = matcher(one.frame);
      if (matched) { found.add(one.frame); sum[0] += one.all[0]; sum[1] += one.all[1]; }
      const inner = matched ? [...one.children] : null;
      for (let below; inner && (below = inner.pop()); inner.push(...below.children)) if (matcher(below.frame)) found.add(below.frame);
      if (!matched) rest.push(...one.children);
    }
    const names = `${number(found.size)} name${found.size === 1 ? "" : "s"} matched`;
    element("matches").textContent = isDifference
      ? `${names}: ${number(sum[0])} to ${number(sum[1])}, ${signed(sum[1] - sum[0])} instructions`
      : `${names}: ${number(sum[0])} instructions, ${share(sum[0], zoomed.all[0])} of ${zoomed.frame.name}`;
  }

  // --- the graph ---

  const graph = element("graph"), drawn = new Map();

  function drawBox(one, x, row, width, height, className) {
    const group = document.createElementNS(SVG, "g"), box = document.createElementNS(SVG, "rect");
    const values = { x, y: row * height, width: Math.max(width, NARROWEST), height: height - 1, fill: colour(one) };
    for (const [name, value] of Object.entries(values)) box.setAttribute(name, value);
    group.setAttribute("role", "treeitem");
    group.setAttribute("aria-level", row + 1);
    group.setAttribute("aria-label", text(one).replaceAll("\n", ", "));
    group.setAttribute("tabindex", one === focused ? 0 : -1);
    group.setAttribute("class", className + (matcher ? (matcher(one.frame) ? " match" : " dim") : ""));
    group.append(box);
    const fits = Math.floor((width - 6) / CHARACTER);
    if (fits >= 3) {
      const words = isDifference ? `${one.frame.name} ${signed(one.all[1] - one.all[0])}` : one.frame.name;
      const label = document.createElementNS(SVG, "text");
      label.setAttribute("x", x + 3);
      label.setAttribute("y", row * height + height / 2 + 4);
      label.textContent = words.length > fits ? words.slice(0, fits - 1) + "\u2026" : words;
      group.append(label);
    }
    group.node = one;
    drawn.set(one, group);
    graph.append(group);
  }

  function draw(width = graph.clientWidth || PRINT_WIDTH) {
    const height = width < 600 ? 24 : 19, path = [];
    let hidden = 0, rows = 0;
    for (let one = zoomed; one !== base.parent; one = one.parent) path.unshift(one);
    graph.replaceChildren();
    drawn.clear();
    path.forEach((one, row) => drawBox(one, 0, row, width, height, one === zoomed ? "" : "above"));
    const rest = [[zoomed, 0, path.length - 1]], unit = width / (measure(zoomed) || 1);
    for (let i = 0; i < rest.length; i++) {
      let [one, x, row] = rest[i];
      rows = Math.max(rows, row + 1);
      for (const child of one.children) {
        const wide = measure(child) * unit;
        if (wide < NARROWEST) hidden++;
        else {
          drawBox(child, x, row + 1, wide, height, "");
          rest.push([child, x, row + 1]);
        }
        x += wide;
      }
    }
    if (!drawn.has(focused)) drawn.get(focused = zoomed).setAttribute("tabindex", 0);
    graph.setAttribute("viewBox", `0 0 ${width} ${rows * height}`);
    element("hidden").textContent = (measure(zoomed) ? "" : "Nothing differs here. ") +
      (hidden ? `${number(hidden)} boxes, and what is below them, are too narrow to draw: zoom in or search.` : "");
    element("out").disabled = zoomed === base;
    showMatches();
    drawTable();
  }

  function zoom(one) {
    zoomed = focused = one;
    draw();
    detail(one);
  }

  function focus(one) {
    if (!one || !drawn.has(one)) return;
    drawn.get(focused)?.setAttribute("tabindex", -1);
    focused = one;
    drawn.get(one).setAttribute("tabindex", 0);
    drawn.get(one).focus();
  }

  // --- the table ---

  function drawTable() {
    const counts = new Map(), rest = [zoomed];
    for (let one; (one = rest.pop()); rest.push(...one.children)) {
      if (!one.own[0] && !one.own[1]) continue;
      const sum = counts.get(one.frame) || counts.set(one.frame, [0, 0]).get(one.frame);
      sum[0] += one.own[0];
      sum[1] += one.own[1];
    }
    const size = ([before, after]) => isDifference ? Math.abs(after - before) : before;
    const rows = [...counts].filter(([frame, sum]) => size(sum) && (!matcher || matcher(frame))).sort((a, b) => size(b[1]) - size(a[1]));
    const heads = isDifference ? ["difference", ...data.sides, "function", "file"] : ["itself", "share", "function", "file"];
    const columns = heads.length - 2;
    const cell = (kind, words, i) => Object.assign(document.createElement(kind), { textContent: words, className: i < columns ? "number" : "" });
    const head = document.createElement("tr");
    head.append(...heads.map((words, i) => cell("th", words, i)));
    element("table").tHead.replaceChildren(head);
    element("table").tBodies[0].replaceChildren(...rows.slice(0, everyRow ? rows.length : SHOWN_ROWS).map(([frame, sum]) => {
      const numbers = isDifference ? [signed(sum[1] - sum[0]), ...sum.map(number)] : [number(sum[0]), share(sum[0], zoomed.all[0])];
      const row = document.createElement("tr"), name = cell("td", "", columns);
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: frame.name, title: "search" });
      button.addEventListener("click", () => { element("query").value = frame.name; search(); });
      name.append(button);
      row.append(...numbers.map((words, i) => cell("td", words, i)), name, cell("td", frame.file, columns));
      return row;
    }));
    const kind = `function${rows.length === 1 ? "" : "s"} ` + (isDifference ? "that differ" : "by their own instructions");
    element("table-title").textContent = `${number(rows.length)} ${kind}, ${zoomed.frame.name}` +
      (rows.length > SHOWN_ROWS && !everyRow ? `: the first ${SHOWN_ROWS}` : "");
    element("more").hidden = everyRow || rows.length <= SHOWN_ROWS;
  }

  function drawLegend() {
    const entries = isDifference
      ? [["#dcdcdc", "equal"], [differenceColour([10, 9]), "10 % fewer"], [differenceColour([1, 0]), "removed"],
        [differenceColour([10, 11]), "10 % more"], [differenceColour([0, 1]), "added"]]
      : groups.slice(0, PALETTE.length).map((group) => [colours.get(group), `${group} ${share(sizes.get(group), whole.all[0])}`]);
    if (!isDifference && groups.length > PALETTE.length) entries.push(["#c9c9c9", "others"]);
    element("legend").replaceChildren(...entries.map(([fill, words]) => {
      const item = document.createElement("li"), picture = document.createElementNS(SVG, "svg"), box = document.createElementNS(SVG, "rect");
      for (const [name, value] of Object.entries({ width: 12, height: 12, fill })) box.setAttribute(name, value);
      picture.append(box);
      item.append(picture, words);
      return item;
    }));
  }

  // --- what a person does ---

  function search() {
    const field = element("query");
    try {
      matcher = matcherOf(field.value.trim());
      draw();
    } catch (error) {
      matcher = null;
      draw();
      element("matches").textContent = `not a regular expression: ${error.message}`;
    }
  }

  function reset() {
    element("query").value = "";
    matcher = null;
    zoom(base);
  }

  const under = (event) => event.target.closest?.("g")?.node;
  const tip = element("tip");
  graph.addEventListener("click", (event) => {
    if (under(event)) { zoom(under(event)); drawn.get(focused).focus({ preventScroll: true }); }
    tip.hidden = true;
  });
  graph.addEventListener("pointermove", (event) => {
    const one = event.pointerType === "mouse" && under(event);
    tip.hidden = !one;
    if (!one) return;
    tip.textContent = text(one);
    detail(one);
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY + 18 + height > innerHeight ? Math.max(4, event.clientY - height - 12) : event.clientY + 18}px`;
  });
  graph.addEventListener("pointerleave", () => { tip.hidden = true; });
  graph.addEventListener("focusin", (event) => { if (under(event)) detail(under(event)); });
  graph.addEventListener("keydown", (event) => {
    const one = focused, same = (one.parent?.children || [one]).filter((other) => drawn.has(other));
    const moves = {
      ArrowUp: () => focus(one === base ? one : one.parent),
      ArrowDown: () => focus(one.children.find((child) => drawn.has(child))),
      ArrowLeft: () => focus(same[same.indexOf(one) - 1]),
      ArrowRight: () => focus(same[same.indexOf(one) + 1]),
      Enter: () => zoom(one),
      " ": () => zoom(one),
      Home: reset,
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    moves[event.key]();
    drawn.get(focused).focus();
  });
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT"].includes(event.target.tagName);
    if (event.key === "/" && !typing) { event.preventDefault(); element("query").focus(); }
    if (event.key === "Escape" && element("query").value) { element("query").value = ""; search(); }
    else if (event.key === "Escape" && zoomed !== base) { zoom(zoomed.parent); drawn.get(focused).focus(); }
  });
  element("controls").addEventListener("submit", (event) => event.preventDefault());
  element("query").addEventListener("input", search);
  element("out").addEventListener("click", () => { if (zoomed !== base) zoom(zoomed.parent); });
  element("reset").addEventListener("click", reset);
  element("more").addEventListener("click", () => { everyRow = true; drawTable(); });
  for (const [id, options, choose] of [
    ["phase", views, (i) => { base = views[i][1](); zoom(base); }],
    ["width", measures, (i) => { measure = measures[i][1]; draw(); }],
  ]) {
    element(id).append(...options.map(([words], i) => new Option(words, i)));
    element(id).addEventListener("change", (event) => choose(Number(event.target.value)));
  }
  element("width-label").hidden = !isDifference;
  addEventListener("beforeprint", () => draw(PRINT_WIDTH));
  addEventListener("afterprint", () => draw());
  let width = 0;
  new ResizeObserver(() => {
    if (graph.clientWidth !== width && graph.clientWidth && !matchMedia("print").matches) {
      width = graph.clientWidth;
      draw();
    }
  }).observe(graph);
  drawLegend();
  draw();
})();
