"use strict";
// Everything that is data is written by textContent: names are never markup.
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const tip = document.getElementById("tip");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  function make(tag, text, ...children) {
    const node = document.createElement(tag);
    if (text != null) node.textContent = text;
    node.append(...children);
    return node;
  }
  function draw(tag, attributes) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }
  function list(pairs) {
    const dl = make("dl");
    for (const [name, value] of pairs) dl.append(make("dt", name), make("dd", value));
    return dl;
  }

  // --- tables: sort and filter

  const collator = new Intl.Collator(undefined, { numeric: true });
  function sortBy(th) {
    const table = th.closest("table"), body = table.tBodies[0], column = th.cellIndex;
    const isNumber = th.classList.contains("num");
    const before = th.getAttribute("aria-sort");
    // figures: the largest first; names: from the front
    const down = before === "none" ? isNumber : before === "ascending";
    const rows = [...body.rows].map((row) => {
      const cell = row.cells[column];
      return { row, value: "v" in cell.dataset ? Number(cell.dataset.v) : null, text: cell.textContent };
    });
    rows.sort((a, b) => {
      if (a.value !== null && b.value !== null) return down ? b.value - a.value : a.value - b.value;
      if (a.value !== null || b.value !== null) return a.value === null ? 1 : -1; // unknown ones last
      return (down ? -1 : 1) * collator.compare(a.text, b.text);
    });
    for (const other of all("[aria-sort]", table)) other.setAttribute("aria-sort", "none");
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows.map((item) => item.row));
  }
  for (const button of all(".sort")) button.addEventListener("click", () => sortBy(button.closest("th")));

  for (const field of all(".filter")) {
    const body = document.getElementById(field.dataset.table).tBodies[0];
    // names only: digits of a score would match too much
    const texts = [...body.rows].map((row) => [
      row, [...row.cells].filter((cell) => !cell.classList.contains("num")).map((cell) => cell.textContent).join(" ").toLowerCase(),
    ]);
    const count = field.closest("p").querySelector(".count");
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const [row, text] of texts) {
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      count.textContent = words.length ? `${shown} of ${texts.length}` : "";
    });
  }

  // --- choices of what is drawn

  for (const box of all(".choices")) {
    const views = all(`.view[data-of="${box.dataset.for}"]`);
    box.addEventListener("change", () => {
      const parts = all("input", box).filter((i) => i.type === "hidden" || i.checked).map((i) => i.value);
      for (const view of views) view.hidden = view.dataset.view !== parts.join(" ");
      box.dispatchEvent(new CustomEvent("shown", { bubbles: true }));
    });
  }

  // --- what a mark stands for

  function cellOf(node) {
    const holder = node.closest && node.closest("[data-cell]");
    if (!holder) return null;
    const name = holder.dataset.cell;
    const chart = holder.closest("[data-task]");
    const [task, number] = name.includes(".") ? name.split(".") : [chart && chart.dataset.task, name];
    return (data.cells[task] || [])[number] || null;
  }
  function place(x, y) {
    const gap = 14, box = tip.getBoundingClientRect();
    let left = x + gap, top = y + gap;
    if (left + box.width > innerWidth - 8) left = x - gap - box.width;
    if (top + box.height > innerHeight - 8) top = y - gap - box.height;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, top)}px`;
  }
  function show(cell, x, y) {
    tip.replaceChildren(make("strong", cell[0]), list(cell[1]));
    tip.hidden = false;
    place(x, y);
  }
  function hide() {
    tip.hidden = true;
    for (const hot of all(".is-hot")) hot.classList.remove("is-hot");
  }
  let pointer = null;
  function look() {
    const target = pointer && document.elementFromPoint(...pointer);
    const inTable = target && target.closest("table");
    const cell = target && (!inTable || inTable.classList.contains("glance")) && cellOf(target);
    if (cell) show(cell, ...pointer); else hide();
  }
  document.addEventListener("pointerover", (event) => { pointer = [event.clientX, event.clientY]; look(); });
  document.documentElement.addEventListener("pointerleave", () => { pointer = null; hide(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  document.addEventListener("scroll", look, { passive: true, capture: true });

  for (const chart of all(".chart[data-task]")) {
    const marks = all("[data-cell]", chart);
    let at = -1;
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || !marks.length) return;
      event.preventDefault();
      at = (at + step + marks.length) % marks.length;
      hide();
      marks[at].classList.add("is-hot");
      const box = marks[at].getBoundingClientRect(), cell = cellOf(marks[at]);
      if (cell) show(cell, box.right, box.bottom);
    });
    chart.addEventListener("blur", hide);
  }

  // --- maps of tracks

  for (const article of all(".map-of")) {
    const map = data.maps[Number(article.dataset.map)], n = map.id.length;
    const found = article.querySelector(".found");
    let picked = -1;

    const shownView = () => article.querySelector(".view:not([hidden])");
    const points = () => map.points[shownView().querySelector(".chart").dataset.projection];

    function mark() {
      for (const old of all(".overlay", article)) old.remove();
      if (picked < 0) return;
      const xy = points(), svg = shownView().querySelector("svg");
      const group = draw("g", { class: "overlay" });
      const [x, y] = [xy[2 * picked], xy[2 * picked + 1]];
      for (const other of map.near[picked]) {
        const [u, v] = [xy[2 * other], xy[2 * other + 1]];
        group.append(draw("line", { class: "near-line", x1: x, y1: y, x2: u, y2: v }));
        group.append(draw("circle", { class: "near-dot", cx: u, cy: v, r: 6 }));
      }
      group.append(draw("circle", { class: "picked", cx: x, cy: y, r: 8 }));
      svg.append(group);
    }
    function pick(number) {
      picked = number;
      mark();
      const pairs = [["split", map.split[number]], ["label", map.truth[number]], ["predicted", map.prediction[number]]];
      if (map.error[number] != null) pairs.push(["error", String(map.error[number])]);
      pairs.push(["segments", String(map.segments[number])], ["length", `${map.seconds[number]} s`]);
      const near = make("ol");
      map.near[number].forEach((other, rank) => {
        const button = make("button", map.id[other]);
        button.type = "button";
        button.addEventListener("click", () => pick(other));
        const more = [map.truth[other], map.split[other], `cosine ${map.cosine[number][rank]}`].filter(Boolean);
        near.append(make("li", null, button, make("span", ` ${more.join(", ")}`)));
      });
      const parts = [make("h4", map.id[number]), list(pairs.filter((pair) => pair[1]))];
      const weights = map.weights && map.weights[number];
      if (weights && weights.length) parts.push(...attention(weights));
      parts.push(make("p", "Nearest tracks, in all dimensions:"), near);
      found.replaceChildren(...parts);
    }
    function attention(weights) {
      const most = Math.max(...weights), width = 300 / weights.length;
      const svg = draw("svg", { class: "weights", viewBox: "0 0 300 64", role: "img" });
      svg.setAttribute("aria-label", `Attention: ${weights.map((w, i) => `segment ${i + 1} ${w}`).join(", ")}`);
      weights.forEach((weight, index) => {
        const height = most > 0 ? (60 * weight) / most : 0;
        const bar = draw("rect", { class: "fill k0", x: index * width + 0.5, y: 62 - height, width: Math.max(width - 1, 0.5), height });
        bar.append(draw("title", {}));
        bar.lastChild.textContent = `segment ${index + 1}: ${weight}`;
        svg.append(bar);
      });
      return [make("p", `Attention over ${weights.length} segments, from the first to the last (${map.weights_from || "attention"}):`), svg];
    }

    for (const chart of all(".chart", article)) {
      const svg = chart.querySelector("svg");
      svg.addEventListener("click", (event) => {
        const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal;
        const x = ((event.clientX - box.left) * view.width) / box.width;
        const y = ((event.clientY - box.top) * view.height) / box.height;
        const xy = points();
        let best = -1, least = 26 * 26;
        for (let i = 0; i < n; i++) {
          const away = (xy[2 * i] - x) ** 2 + (xy[2 * i + 1] - y) ** 2;
          if (away < least) [best, least] = [i, away];
        }
        if (best >= 0) pick(best);
      });
      chart.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!step || !n) return;
        event.preventDefault();
        pick((picked + step + n) % n);
      });
    }
    article.querySelector(".find").addEventListener("submit", (event) => {
      event.preventDefault();
      const wanted = event.target.querySelector("input").value.toLowerCase();
      if (!wanted) return;
      for (let step = 1; step <= n; step++) {
        const number = (picked + step) % n; // again: the next one
        if (map.id[number].toLowerCase().includes(wanted)) return pick(number);
      }
      found.replaceChildren(make("p", `No track has ${JSON.stringify(wanted)} in its name.`));
    });
    for (const view of all(".view", article)) {
      for (const button of all(".keys button", view)) {
        button.addEventListener("click", () => {
          const on = button.getAttribute("aria-pressed") !== "true";
          for (const other of all(".keys button", view)) other.setAttribute("aria-pressed", String(on && other === button));
          for (const path of all("path[data-key]", view.querySelector(".chart"))) {
            path.classList.toggle("dim", on && path.dataset.key !== button.dataset.key);
          }
        });
      }
    }
    article.addEventListener("shown", mark);
  }
})();
