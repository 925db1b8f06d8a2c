// Attention maps with their controls: lines between words, a matrix, or all heads. attentionView(element) fills the
// element; its show(data) draws weights, and keeps what the reader has chosen.

const AXES = [
  ["source (query)", "source (key)"],
  ["translation (query)", "translation (key)"],
  ["translation (query)", "source (key)"],
];
const HINT = "Point at a word or a cell, or move with the arrow keys, to see its weights.";
const LABEL = "Drawing of attention weights. Arrow keys move, Escape leaves; the table below says the same.";

function attentionView(root) {
  const chosen = { use: 2, layer: null, view: "lines", merge: true, step: "predicts", heads: new Set() };
  let data, rows, columns; // words of the queries and of the keys
  let numHeads = 0;
  let place = null; // [row, column] of the drawing
  let isPinned = false;
  let drawnWidth = 0;
  // Of each drawing: shows the weights of a place, or of none; what Enter and a click do there; how many there are.
  let pointAt, open, numPlaces;

  // Controls

  const controls = add(root, "form", { class: "controls" });
  function select(label, options, name) {
    const element = add(add(controls, "label", {}, `${label} `), "select", { name });
    for (const [value, text] of options) add(element, "option", { value }, text);
    element.addEventListener("change", () => choose({ [name]: element.value }));
    return element;
  }
  function box(parent, type, label, attributes, change) {
    const wrapper = add(parent, "label");
    const input = add(wrapper, "input", { type, ...attributes });
    wrapper.append(` ${label}`);
    input.addEventListener("change", () => choose(change(input)));
    return input;
  }
  function choose(changes) {
    Object.assign(chosen, changes);
    draw();
  }

  const useSelect = select("attention", [[0, "encoder"], [1, "decoder"], [2, "encoder-decoder"]], "use");
  const layerSelect = select("layer", [], "layer");
  const stepSelect = select("of the step that", [["predicts", "predicts a word"], ["reads", "reads a word"]], "step");
  const views = add(controls, "fieldset");
  add(views, "legend", {}, "as");
  const viewBoxes = [["lines", "lines"], ["matrix", "matrix"], ["all", "all heads"]].map(([value, label]) =>
    box(views, "radio", label, { name: "view", value }, () => ({ view: value })));
  const mergeBox = box(controls, "checkbox", "whole words", {}, (input) => ({ merge: input.checked }));
  const heads = add(controls, "fieldset");
  let headBoxes = []; // all, and each

  function makeHeads() {
    heads.replaceChildren();
    add(heads, "legend", {}, "heads");
    const every = Array.from({ length: numHeads }, (_, head) => head);
    chosen.heads = new Set(every);
    const all = box(heads, "checkbox", "all", {}, (input) => ({ heads: new Set(input.checked ? every : []) }));
    headBoxes = [all, ...every.map((head) => {
      const input = box(heads, "checkbox", head + 1, {}, () => {
        chosen.heads[input.checked ? "add" : "delete"](head);
      });
      add(input.parentNode, "span", { class: "chip", style: `background: ${headColour(head)}` });
      return input;
    })];
  }

  function setControls(use) {
    [useSelect.value, layerSelect.value, stepSelect.value] = [chosen.use, chosen.layer, chosen.step];
    mergeBox.checked = chosen.merge;
    for (const input of viewBoxes) input.checked = input.value === chosen.view;
    headBoxes.forEach((input, i) => (input.checked = i ? chosen.heads.has(i - 1) : chosen.heads.size === numHeads));
    layerSelect.parentNode.hidden = heads.hidden = chosen.view === "all";
    stepSelect.parentNode.hidden = use !== data.uses[2];
  }

  add(controls, "button", { type: "button" }, "Download SVG").addEventListener("click", () => saveSvg(svg, "attention.svg"));
  const readout = add(root, "p", { class: "readout", "aria-live": "polite" });
  const stage = add(root, "div", { class: "stage", tabindex: 0, role: "application", "aria-label": LABEL });
  // It stands in the page, which has the name of its namespace so.
  const svg = stage.appendChild(root.querySelector("svg"));
  const details = add(root, "details", { class: "as-table" });
  add(details, "summary", {}, "As a table");
  const table = add(details, "table");

  // Weights

  // Of words: a query has the mean of its pieces, a key the sum.
  function weightsOf(layer, head) {
    const weights = data.uses[chosen.use].weights[layer][head];
    return rows.map((row) => columns.map((column) => {
      let sum = 0;
      for (let i = row.first; i < row.end; i++)
        for (let j = column.first; j < column.end; j++) sum += weights[i][j];
      return sum / (row.end - row.first) / data.unit;
    }));
  }

  const shownHeads = () => [...chosen.heads].sort((a, b) => a - b);
  function meanOf(tables) {
    const at = (i, j) => tables.reduce((sum, one) => sum + one[i][j], 0) / Math.max(1, tables.length);
    return rows.map((_, i) => columns.map((_, j) => at(i, j)));
  }
  const inWords = (pairs, number = 4) => pairs
    .sort((a, b) => b[1] - a[1])
    .slice(0, number)
    .map(([text, weight]) => `${text} ${weight.toFixed(2)}`)
    .join(", ");
  const keysOf = (weights, i) => inWords(columns.map((word, j) => [word.text, weights[i][j]]));
  const queriesOf = (weights, j) => inWords(rows.map((word, i) => [word.text, weights[i][j]]));

  // Drawings

  function drawLines(space) {
    const [size, header, gap] = [22, 26, 6]; // the gap is between words, where pieces are shown
    const axes = AXES[chosen.use];
    const swatch = Math.min(14, Math.floor((0.2 * space) / numHeads));
    const [left, keyWidth] = [rows, columns].map((words, i) => Math.max(widest(words), textWidth(axes[i])) + 12);
    const right = left + clamp(space - left - keyWidth - swatch * numHeads - 4, 70, 380);
    const boxes = right + keyWidth;
    const [queryYs, keyYs] = [rows, columns].map((words) => {
      let y = header - size / 2;
      return words.map((word) => (y += size + (word.starts && !chosen.merge ? gap : 0)));
    });
    clear(svg, boxes + swatch * numHeads, Math.max(queryYs.at(-1), keyYs.at(-1)) + size);
    add(svg, "text", { class: "title", x: left - 6, y: 14, "text-anchor": "end" }, axes[0]);
    add(svg, "text", { class: "title", x: right + 6, y: 14 }, axes[1]);
    const lines = add(svg, "g");
    const write = (words, ys, side, position) => words.map((word, i) => {
      const element = add(svg, "text", { class: "word", ...position, y: ys[i] + 4 }, word.label);
      listen(element, () => [i, side]);
      return element;
    });
    const names = [
      write(rows, queryYs, 0, { x: left - 6, "text-anchor": "end" }),
      write(columns, keyYs, 1, { x: right + 6, "text-anchor": "start" }),
    ];
    const tables = shownHeads().map((head) => [head, weightsOf(chosen.layer, head)]);
    const mean = meanOf(tables.map(([, weights]) => weights));
    function connect(head, weight, i, j, withBox) {
      const opacity = round(weight);
      const look = { style: `stroke: ${headColour(head)}`, "stroke-dasharray": headDash(head), "stroke-opacity": opacity };
      add(lines, "line", { class: "link", x1: left, y1: queryYs[i], x2: right, y2: keyYs[j], ...look });
      const box = { x: boxes + head * swatch, y: keyYs[j] - size / 2 + 2, width: swatch - 1, height: size - 4 };
      if (withBox) add(lines, "rect", { ...box, style: `fill: ${headColour(head)}`, "fill-opacity": opacity });
    }
    // As in the paper, all lines; or those of one word, with a box for each head beside what it looks at.
    pointAt = (at) => {
      const [index, side] = at ?? [null, null];
      lines.replaceChildren();
      names.forEach((words, s) => words.forEach((word, i) => word.classList.toggle("picked", s === side && i === index)));
      for (const [head, weights] of tables) weights.forEach((row, i) => row.forEach((weight, j) => {
        const isShown = side === null || index === (side ? j : i);
        if (isShown && weight >= 0.01) connect(head, weight, i, j, side === 0 && swatch > 3);
      }));
      if (side === 0) readout.textContent = `${rows[index].text} looks at ${keysOf(mean, index)}`;
      else if (side === 1) readout.textContent = `${columns[index].text} is looked at by ${queriesOf(mean, index)}`;
      else readout.textContent = HINT;
    };
    numPlaces = (column) => [column ? columns.length : rows.length, 2];
  }

  function drawMatrix(space) {
    const axes = AXES[chosen.use];
    const [left, top] = [widest(rows) + 34, widest(columns) + 34];
    const size = clamp(Math.floor((space - left - 4) / columns.length), 12, 28);
    const [width, height] = [size * columns.length, size * rows.length];
    clear(svg, Math.max(left + width + 4, left + 160), top + height + 30);
    const [x, y] = [Math.max(left + width / 2, left + 40), Math.max(top + height / 2, textWidth(axes[0]) / 2)];
    add(svg, "text", { class: "title", x: 12, y, "text-anchor": "middle", transform: `rotate(-90 12 ${y})` }, axes[0]);
    add(svg, "text", { class: "title", x, y: 12, "text-anchor": "middle" }, axes[1]);
    const style = `font-size: ${Math.min(12, size - 1)}px`;
    const names = rows.map((word, i) =>
      add(svg, "text", { x: left - 6, y: top + (i + 0.5) * size + 4, "text-anchor": "end", style }, word.label));
    const others = columns.map((word, j) => {
      const [x, y] = [left + (j + 0.5) * size + 4, top - 6];
      return add(svg, "text", { x, y, transform: `rotate(-90 ${x} ${y})`, style }, word.label);
    });
    const weights = meanOf(shownHeads().map((head) => weightsOf(chosen.layer, head)));
    shade(svg, weights, left, top, size, size);
    const area = { class: "frame", x: left, y: top, width, height };
    add(svg, "rect", area);
    const isBoundary = (word, i) => i > 0 && (chosen.merge || word.starts);
    const line = (x1, y1, dx, dy) => add(svg, "line", { class: "boundary", x1, y1, x2: x1 + dx, y2: y1 + dy });
    rows.forEach((word, i) => isBoundary(word, i) && line(left, top + i * size, width, 0));
    columns.forEach((word, j) => isBoundary(word, j) && line(left + j * size, top, 0, height));
    const mark = add(svg, "rect", { class: "mark", width: size, height: size });
    legend(svg, left, top + height + 12);
    const target = add(svg, "rect", { ...area, class: "target" });
    listen(target, (event) => {
      const corner = target.getBoundingClientRect();
      const index = (distance, words) => clamp(Math.floor(distance / size), 0, words.length - 1);
      return [index(event.clientY - corner.top, rows), index(event.clientX - corner.left, columns)];
    });
    pointAt = (at) => {
      const [i, j] = at ?? [-1, -1];
      names.forEach((name, index) => name.classList.toggle("picked", index === i));
      others.forEach((name, index) => name.classList.toggle("picked", index === j));
      const cell = { x: left + j * size, y: top + i * size, visibility: at ? "visible" : "hidden" };
      for (const [name, value] of Object.entries(cell)) mark.setAttribute(name, value);
      readout.textContent = at ? `${rows[i].text} looks at ${columns[j].text}: ${weights[i][j].toFixed(4)}` : HINT;
    };
    numPlaces = () => [rows.length, columns.length];
  }

  function drawAll(space) {
    const [layers, axes] = [data.uses[chosen.use].weights, AXES[chosen.use]];
    const [left, top, gap] = [56, 24, 5];
    const width = clamp((space - left) / numHeads - gap, 24, 150);
    const height = clamp((width * rows.length) / columns.length, 0.5 * width, 1.6 * width);
    const bottom = top + layers.length * (height + gap);
    const title = `rows: ${axes[0]}, columns: ${axes[1]}`;
    clear(svg, Math.max(left + numHeads * (width + gap), left + textWidth(title)), bottom + 48);
    const isNarrow = width < 48;
    if (isNarrow) add(svg, "text", { x: 0, y: 14 }, "head");
    const panels = layers.map((_, layer) => {
      const y = top + layer * (height + gap);
      add(svg, "text", { x: 0, y: y + height / 2 + 4 }, `layer ${layer + 1}`);
      return Array.from({ length: numHeads }, (_, head) => {
        const x = left + head * (width + gap);
        const name = { x: x + width / 2, y: 14, "text-anchor": "middle" };
        if (layer === 0) add(svg, "text", name, isNarrow ? head + 1 : `head ${head + 1}`);
        const weights = weightsOf(layer, head);
        shade(svg, weights, x, y, width / columns.length, height / rows.length);
        const panel = add(svg, "rect", { class: "frame", x, y, width, height });
        listen(add(svg, "rect", { class: "target", x, y, width, height }), () => [layer, head]);
        return { panel, weights };
      });
    });
    add(svg, "text", { class: "title", x: left, y: bottom + 12 }, title);
    legend(svg, left, bottom + 28);
    pointAt = (at) => {
      for (const { panel } of panels.flat()) panel.setAttribute("class", "frame");
      if (at) {
        const { panel, weights } = panels[at[0]][at[1]];
        panel.setAttribute("class", "mark");
        const pairs = weights.flatMap((row, i) =>
          row.map((weight, j) => [`${rows[i].text} \u2192 ${columns[j].text}`, weight]));
        readout.textContent = `layer ${at[0] + 1}, head ${at[1] + 1}: ${inWords(pairs, 3)}`;
      } else readout.textContent = "Point at a head; click it, or press Enter, to see it alone.";
    };
    open = ([layer, head]) => choose({ layer, heads: new Set([head]), view: "matrix" });
    numPlaces = () => [layers.length, numHeads];
  }

  function fillTable() {
    const weights = meanOf(shownHeads().map((head) => weightsOf(chosen.layer, head)));
    const which = chosen.heads.size === 1 ? `head ${shownHeads()[0] + 1}` : `mean of ${chosen.heads.size} heads`;
    table.replaceChildren();
    add(table, "caption", {}, `Layer ${chosen.layer + 1}, ${which}`);
    const names = add(add(table, "thead"), "tr");
    add(names, "th", { scope: "col" }, AXES[chosen.use][0]);
    add(names, "th", { scope: "col" }, `looks most at: ${AXES[chosen.use][1]}`);
    const body = add(table, "tbody");
    rows.forEach((word, i) => {
      const row = add(body, "tr");
      add(row, "th", { scope: "row" }, word.text);
      add(row, "td", {}, keysOf(weights, i));
    });
  }

  function draw() {
    if (!data) return;
    const use = data.uses[chosen.use];
    // A decoder input is a position: what is read there is a piece, what is predicted from it the next one.
    const isPrediction = use === data.uses[2] && chosen.step === "predicts";
    const queries = isPrediction ? [...use.queries.slice(1), "</s>"] : use.queries;
    [rows, columns] = [wordsOf(queries, chosen.merge), wordsOf(use.keys, chosen.merge)];
    chosen.layer = clamp(Number(chosen.layer ?? use.weights.length), 0, use.weights.length - 1);
    setControls(use);
    [place, isPinned, open, drawnWidth] = [null, false, () => {}, stage.clientWidth];
    ({ lines: drawLines, matrix: drawMatrix, all: drawAll })[chosen.view](Math.max(240, stage.clientWidth));
    pointAt(null);
    fillTable();
  }

  // Pointer and keyboard

  function go(at) {
    if (String(at) === String(place)) return;
    place = at;
    pointAt(at);
  }

  // A click or a tap keeps a place, until the next one.
  function listen(element, find) {
    element.addEventListener("pointermove", (event) => isPinned || go(find(event)));
    element.addEventListener("pointerleave", () => isPinned || go(null));
    element.addEventListener("click", (event) => {
      event.stopPropagation();
      go(find(event));
      isPinned = true;
      open(place);
    });
  }
  function leave() {
    isPinned = false;
    go(null);
  }

  svg.addEventListener("click", leave);
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!data || !(step || ["Enter", "Escape"].includes(event.key))) return;
    event.preventDefault();
    if (event.key === "Escape") leave();
    else if (event.key === "Enter") place && open(place);
    else {
      const column = place ? clamp(place[1] + step[1], 0, numPlaces(0)[1] - 1) : 0;
      go([place ? clamp(place[0] + step[0], 0, numPlaces(column)[0] - 1) : 0, column]);
      isPinned = true;
    }
  });
  controls.addEventListener("submit", (event) => event.preventDefault());

  new ResizeObserver(() => {
    if (stage.clientWidth === drawnWidth) return;
    const [kept, wasPinned] = [place, isPinned];
    draw();
    if (data) go(kept);
    isPinned = wasPinned;
  }).observe(stage);

  return {
    show(found) {
      data = found;
      const { weights } = data.uses[0];
      if (weights[0].length !== numHeads) {
        numHeads = weights[0].length;
        makeHeads();
      }
      const numLayers = Math.max(...data.uses.map((use) => use.weights.length));
      if (layerSelect.length !== numLayers) {
        layerSelect.replaceChildren();
        for (let layer = 0; layer < numLayers; layer++) add(layerSelect, "option", { value: layer }, layer + 1);
        chosen.layer = null;
      }
      draw();
    },
  };
}
