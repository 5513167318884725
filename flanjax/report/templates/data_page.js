"use strict";
// Draws the data that stands in the page. Everything goes through textContent.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const FILTERS = ["collection", "task", "template_id", "prompt_type"];
  const HUES = [212, 28, 150, 330, 262, 88, 188, 8, 46, 300];
  const PAGE = 24;
  const at = (id) => document.getElementById(id);
  let view = "text";
  let shown = PAGE;

  function make(tag, style, ...children) {
    const element = document.createElement(tag);
    if (style) element.className = style;
    element.append(...children);
    return element;
  }
  const percent = (x) => (100 * x).toFixed(x > 0 && x < 0.01 ? 2 : 1) + " %";
  const plural = (n, noun) => n.toLocaleString("en") + " " + noun + (n === 1 ? "" : "s");
  const hue = (n) => HUES[n % HUES.length];

  // Text with its line ends, tabs, and spaces that would not be seen marked.
  function visible(text) {
    const parts = make("span");
    for (const part of text.split(/(\n|\t| {2,}|^ | $| (?=\n))/m)) {
      if (part === "") continue;
      const mark = part === "\n" ? "nl" : part === "\t" ? "tab" : /^ +$/.test(part) ? "sp" : "";
      if (mark === "") parts.append(part);
      else if (mark === "nl") parts.append(make("span", mark), "\n");
      else parts.append(make("span", mark, part));
    }
    return parts;
  }

  function piece(id) {
    const text = data.pieces[id];
    return text === undefined || text === "" ? "⟨" + id + "⟩" : text;
  }

  // One token: tinted, its id in the tooltip or, in the view of ids, below it.
  function token(id, number, loss) {
    const text = piece(id);
    const element = make("span", (view === "ids" ? "id" : "t") + (loss ? " loss" : ""));
    element.style.setProperty("--h", hue(number));
    element.title = "id " + id + (loss ? ", loss weight 1" : "");
    if (view === "ids") {
      const shownText = text.replace(/ /g, "·").replace(/\n/g, "↵").replace(/\t/g, "→");
      element.append(make("span", "", shownText), make("small", "", String(id)));
    } else element.append(visible(text));
    return element;
  }

  function tokens(ids) {
    const parts = make("span");
    ids.forEach((id, i) => parts.append(token(id, i, false)));
    return parts;
  }

  function written(text, ids, start) {
    const box = make("div", "written");
    if (view !== "text") box.append(tokens(ids));
    else {
      if (start > 0) box.append(make("span", "shots", visible(text.slice(0, start))));
      box.append(visible(text.slice(start)));
    }
    return box;
  }

  function entry(list, label, count, value) {
    const term = make("dt", "", label);
    if (count !== null) term.append(make("small", "", plural(count, "token")));
    list.append(term, make("dd", "", value));
  }

  function options(texts, right) {
    const box = make("div");
    for (const text of texts) {
      const style = text.trim() === right.trim() ? "option right" : "option";
      box.append(make("span", style, text));
    }
    return box;
  }

  function card(index) {
    const e = data.examples[index];
    const element = make("article", "example");
    element.id = "example-" + index;
    const head = make("header", "", make("span", "task", e.task));
    for (const text of [e.collection, e.prompt_type, e.template_id]) {
      if (text) head.append(make("span", "chip", text));
    }
    if (e.share !== null) {
      head.append(make("span", "share", percent(e.share) + " of the mixture"));
    }
    const list = make("dl");
    entry(list, "Inputs", e.input_ids.length, written(e.inputs, e.input_ids, e.query_start));
    const target = written(e.targets, e.target_ids, 0);
    target.classList.add("target");
    entry(list, "Targets", e.target_ids.length, target);
    if (e.choices.length) entry(list, "Choices", null, options(e.choices, e.targets));
    if (e.references.length) entry(list, "Also right", null, options(e.references, ""));
    entry(list, "From", null, make("div", "provenance", provenance(e)));
    element.append(head, list);
    return element;
  }

  function provenance(e) {
    const parts = [e.split + " row " + (e.row_id || "?")];
    if (e.shot_ids.length) {
      parts.push(plural(e.shot_ids.length, "exemplar") + ": " + e.shot_ids.join(", "));
    }
    return parts.join(" · ");
  }

  // --- Filters: each offers what the others leave, with how many examples it would show.
  const chosen = { find: "" };
  for (const name of FILTERS) chosen[name] = "";

  function matches(e, except) {
    if (FILTERS.some((n) => n !== except && chosen[n] !== "" && e[n] !== chosen[n])) return false;
    if (chosen.find === "") return true;
    return [e.inputs, e.targets, e.row_id].some((t) => t.toLowerCase().includes(chosen.find));
  }

  function fill(name) {
    const counts = new Map();
    for (const e of data.examples) {
      if (matches(e, name)) counts.set(e[name], (counts.get(e[name]) || 0) + 1);
    }
    if (chosen[name] !== "" && !counts.has(chosen[name])) counts.set(chosen[name], 0);
    const select = at("by-" + name);
    const all = new Option("all (" + counts.size + ")", "");
    const found = [...counts].sort((a, b) => a[0].localeCompare(b[0], "en", { numeric: true }));
    select.replaceChildren(
      all,
      ...found.map(([value, n]) => new Option((value || "none") + " (" + n + ")", value)),
    );
    select.value = chosen[name];
    select.classList.toggle("on", chosen[name] !== "");
  }

  function drawCards() {
    const found = data.examples.flatMap((e, i) => (matches(e, "") ? [i] : []));
    at("cards").replaceChildren(...found.slice(0, shown).map(card));
    const total = data.examples.length;
    at("tally").textContent = found.length === total
      ? plural(total, "example")
      : found.length + " of " + plural(total, "example");
    at("clear").hidden = found.length === total;
    at("find").classList.toggle("on", chosen.find !== "");
    at("more").hidden = found.length <= shown;
    at("more").textContent = "Show " + Math.min(PAGE, found.length - shown) + " more";
    return found;
  }

  function filter() {
    shown = PAGE;
    FILTERS.forEach(fill);
    drawCards();
  }

  function clear() {
    at("find").value = "";
    for (const name in chosen) chosen[name] = "";
    filter();
  }

  // --- Packed rows
  function bar(row, stack, hot) {
    const used = stack.runs.reduce((sum, [segment, , n]) => sum + (segment ? n : 0), 0);
    const blocks = make("div", "blocks");
    let before = 0;
    for (const [segment, loss, count] of stack.runs) {
      const block = make("span", segment ? "block" : "block pad");
      block.style.flex = count + " 0 0";
      block.dataset.segment = segment;
      if (segment) {
        block.style.setProperty("--h", hue(segment - 1));
        block.classList.toggle("loss", loss);
        block.classList.toggle("first", segment !== before);
        const e = data.examples[row.examples[segment - 1]];
        const weight = loss ? ", loss weight 1" : ", no loss";
        block.title = segment + ": " + e.task + ", " + plural(count, "token") + weight;
        if (segment !== before && count / stack.length > 0.025) block.append(String(segment));
        block.addEventListener("pointerenter", () => hot(segment));
        block.addEventListener("pointerleave", () => hot(0));
      } else block.title = plural(count, "token") + " of padding";
      blocks.append(block);
      before = segment;
    }
    const fillText = percent(used / stack.length);
    return make("div", "bar-line", make("span", "", stack.name), blocks, make("span", "", fillText));
  }

  function segmentText(stack, segment) {
    const box = make("div", "written");
    let place = 0;
    let number = 0;
    for (const [owner, loss, count] of stack.runs) {
      if (owner === segment) {
        const ids = stack.ids.slice(place, place + count);
        ids.forEach((id) => box.append(token(id, number++, loss)));
      }
      place += count;
    }
    return [number, box];
  }

  function segments(row) {
    const box = make("div", "segments");
    row.examples.forEach((index, i) => {
      const e = data.examples[index];
      const link = make("a", "", "see the example");
      link.href = "#example-" + index;
      link.addEventListener("click", () => reveal(index));
      const part = make("div", "segment");
      part.style.setProperty("--h", hue(i));
      const facts = [e.collection, e.prompt_type, e.template_id, provenance(e)];
      part.append(
        make("p", "", make("b", "", i + 1 + " " + e.task), " ", link),
        make("p", "provenance", facts.filter(Boolean).join(" · ")),
      );
      for (const stack of row.stacks) {
        const [count, text] = segmentText(stack, i + 1);
        const taken = row.stacks.length === 1
          ? e.input_ids.length + e.target_ids.length
          : (stack.name === "encoder" ? e.input_ids : e.target_ids).length;
        // Whole segments have EOS besides.
        const cut = taken >= count ? ", " + plural(taken, "token") + " before cutting" : "";
        part.append(make("div", "side", stack.name + ", " + plural(count, "token") + cut), text);
      }
      box.append(part);
    });
    return box;
  }

  function drawRow(row) {
    const details = make("details", "row");
    const bars = row.stacks.map((stack) => bar(row, stack, hot));
    function hot(segment) {
      for (const line of bars) {
        const blocks = line.children[1];
        blocks.classList.toggle("dim", segment > 0);
        for (const block of blocks.children) {
          block.classList.toggle("hot", block.dataset.segment === String(segment));
        }
      }
    }
    const loss = row.stacks.flatMap((s) => s.runs).reduce((n, [, l, c]) => n + (l ? c : 0), 0);
    const head = make(
      "h3", "", make("b", "", "row " + row.number),
      make("span", "", plural(row.examples.length, "example")),
      make("span", "", plural(loss, "token") + " with loss"),
    );
    details.append(make("summary", "", head, ...bars));
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(segments(row));
    });
    return details;
  }

  // Rows are written as tokens in the view of texts, too: loss belongs to tokens.
  function redrawSegments() {
    document.querySelectorAll(".row").forEach((details, i) => {
      if (details.children.length > 1) details.children[1].remove();
      if (details.open) details.append(segments(data.rows[i]));
    });
  }

  function reveal(index) {
    if (!matches(data.examples[index], "")) clear();
    const found = data.examples.flatMap((e, i) => (matches(e, "") ? [i] : []));
    shown = Math.max(shown, found.indexOf(index) + 1);
    drawCards();
  }

  for (const name of FILTERS) {
    at("by-" + name).addEventListener("change", (event) => {
      chosen[name] = event.target.value;
      filter();
    });
  }
  at("find").addEventListener("input", (event) => {
    chosen.find = event.target.value.toLowerCase();
    filter();
  });
  at("clear").addEventListener("click", clear);
  at("more").addEventListener("click", () => {
    shown += PAGE;
    drawCards();
  });
  document.querySelectorAll("[data-view]").forEach((button) => {
    button.addEventListener("click", () => {
      view = button.dataset.view;
      document.querySelectorAll("[data-view]").forEach((other) => {
        other.setAttribute("aria-pressed", String(other === button));
      });
      drawCards();
      redrawSegments();
    });
  });
  if (at("row-list")) at("row-list").append(...data.rows.map(drawRow));
  filter();
})();
