"use strict";
// Sorting, filtering and settings shown in place. Without it the page is whole: tables, <details> and links remain.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const filters = ["dataset", "head", "paper", "verdict", "mark"];
  const form = byId("controls");
  const search = byId("q");
  // The order of the server is where a third click returns to.
  const bodies = all("#results table.rows > tbody:not(.floor)").map((node, place) => ({ node, place }));
  const placeOf = new Map(bodies.map(({ node, place }) => [node, place]));
  const parts = all("#results details.part").map((node) => ({
    node,
    open: node.open,
    tables: all("table.rows", node).map((table) => ({
      table,
      rows: bodies.filter((body) => table.contains(body.node)),
    })),
  }));
  const total = bodies.length;
  const sorted = new Map(); // table -> [column, direction]

  // --- sorting -------------------------------------------------------------------------------------------------
  const valueOf = (body, column, numeric) => {
    const text = body.rows[0].cells[column].textContent.trim();
    if (text === "-" || text === "") return null;
    if (!numeric) return text;
    const found = /^~?([+-]?[\d.,]+)\s?(M\b)?/.exec(text);
    return found ? parseFloat(found[1].replaceAll(",", "")) * (found[2] ? 1e6 : 1) : null;
  };

  const sort = (table, column, direction) => {
    const headers = all(":scope > thead th", table);
    if (!headers[column]) return;
    const numeric = headers[column].classList.contains("n");
    const rows = all(":scope > tbody:not(.floor)", table);
    const values = new Map(rows.map((body) => [body, valueOf(body, column, numeric)]));
    const sign = direction === "descending" ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [values.get(a), values.get(b)];
      const equal = placeOf.get(a) - placeOf.get(b);
      if (direction === "none") return equal;
      if (x === null || y === null) return (x === null) - (y === null) || equal;
      return sign * (numeric ? x - y : x.localeCompare(y, "en", { numeric: true })) || equal;
    });
    table.append(...rows);
    headers.forEach((header, place) => {
      if (place === column && direction !== "none") header.setAttribute("aria-sort", direction);
      else header.removeAttribute("aria-sort");
    });
    if (direction === "none") sorted.delete(table.id);
    else sorted.set(table.id, [column, direction]);
  };

  for (const table of all("#results table.rows")) {
    all(":scope > thead th", table).forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = header.textContent;
      button.addEventListener("click", () => {
        const now = header.getAttribute("aria-sort");
        sort(table, column, now === "ascending" ? "descending" : now === "descending" ? "none" : "ascending");
        remember();
      });
      header.replaceChildren(button);
    });
  }

  // --- filtering -----------------------------------------------------------------------------------------------
  const text = new Map();
  const textOf = (node) => {
    if (!text.has(node)) text.set(node, node.textContent.toLowerCase());
    return text.get(node);
  };

  const passes = (node, wanted, words) => {
    const data = node.dataset;
    if (wanted.head && data.h !== wanted.head) return false;
    if (wanted.paper && (data.p || "none") !== wanted.paper) return false;
    if (wanted.verdict && (data.v || "none") !== wanted.verdict) return false;
    if (wanted.mark === "unmarked" ? data.m : wanted.mark && !(data.m || "").split(" ").includes(wanted.mark)) return false;
    return words.every((word) => textOf(node).includes(word));
  };

  const filter = () => {
    const wanted = Object.fromEntries(filters.map((name) => [name, byId(name).value]));
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const active = words.length > 0 || filters.some((name) => wanted[name]);
    let shown = 0;
    let tables = 0;
    for (const part of parts) {
      const here = !wanted.dataset || part.node.dataset.d === wanted.dataset;
      // A word of the heading is a word of each of its rows.
      const title = part.node.querySelector("summary").textContent.toLowerCase();
      const rest = words.filter((word) => !title.includes(word));
      let any = false;
      for (const { table, rows } of part.tables) {
        let count = 0;
        for (const { node } of rows) {
          node.hidden = !(here && passes(node, wanted, rest));
          count += !node.hidden;
        }
        table.parentElement.hidden = count === 0;
        any ||= count > 0;
        shown += count;
        tables += count > 0;
      }
      part.node.hidden = !any;
      part.node.open = active ? any : part.open;
    }
    byId("nothing").hidden = shown > 0;
    const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
    byId("count").textContent = active ? `${shown.toLocaleString("en")} of ${plural(total, "row")}, in ${plural(tables, "table")}` : plural(total, "row");
  };

  // --- the state is in the address, so that a view can be sent to somebody ---------------------------------------
  const remember = () => {
    const state = new URLSearchParams();
    if (search.value) state.set("q", search.value);
    for (const name of filters) if (byId(name).value) state.set(name, byId(name).value);
    if (sorted.size) state.set("sort", [...sorted].map(([id, [column, direction]]) => `${id}.${column}.${direction}`).join("_"));
    const hash = state.toString();
    if (hash || location.hash.includes("=")) history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  };

  const recall = () => {
    if (location.hash.length > 1 && !location.hash.includes("=")) {
      // An anchor within the page: open what it lies in.
      const target = byId(location.hash.slice(1));
      for (let node = target; node; node = node.parentElement) if (node.tagName === "DETAILS") node.open = true;
      if (target) target.scrollIntoView();
      return;
    }
    const state = new URLSearchParams(location.hash.slice(1));
    search.value = state.get("q") || "";
    for (const name of filters) {
      const select = byId(name);
      select.value = state.get(name) || "";
      if (select.selectedIndex < 0) select.value = "";
    }
    const wanted = new Map((state.get("sort") || "").split("_").filter(Boolean).map((one) => [one.split(".")[0], one.split(".")]));
    for (const id of new Set([...sorted.keys(), ...wanted.keys()])) {
      const table = byId(id);
      if (!table || !table.matches("#results table.rows")) continue;
      const [, column, direction] = wanted.get(id) || [id, String((sorted.get(id) || [0])[0]), "none"];
      if (["ascending", "descending", "none"].includes(direction)) sort(table, Number(column), direction);
    }
    filter();
  };

  let pending = 0;
  const changed = () => {
    clearTimeout(pending);
    pending = setTimeout(() => { filter(); remember(); }, 60);
  };
  form.addEventListener("input", changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", changed);
  addEventListener("hashchange", recall);

  // --- settings in place, copied from the list at the end once a row is unfolded -------------------------------
  // A block told by another one brings that along, folded.
  const copyOf = (link) => {
    const source = byId(link.getAttribute("href").slice(1));
    if (!source) return null;
    const copy = document.createElement("details");
    copy.className = "setting";
    copy.append(...[...source.children].map((child) => child.cloneNode(true)));
    for (const base of all(":scope > p > a", copy)) {
      const whole = copyOf(base);
      if (whole) copy.append(whole);
    }
    return copy;
  };

  let printing = false;
  document.addEventListener("toggle", (event) => {
    const row = event.target;
    if (printing || !(row instanceof HTMLDetailsElement) || !row.open) return;
    const uses = row.querySelector(":scope > p.uses");
    if (!uses || uses.dataset.filled) return;
    uses.dataset.filled = "yes";
    for (const link of all("a", uses)) {
      const copy = copyOf(link);
      if (copy) uses.before(copy);
    }
    uses.hidden = true;
  }, true);

  // --- paper has no folds ----------------------------------------------------------------------------------------
  let folded = [];
  addEventListener("beforeprint", () => {
    printing = true;
    folded = all("details:not([open])");
    for (const node of folded) node.open = true;
  });
  addEventListener("afterprint", () => {
    for (const node of folded) node.open = false;
    folded = [];
    printing = false;
  });

  form.hidden = false;
  document.documentElement.classList.add("js");
  recall();
  if (byId("count").textContent === "") filter();
})();
