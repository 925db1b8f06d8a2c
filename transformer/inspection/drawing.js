"use strict";
// What drawings of attention are made of: words, elements of SVG, shades, files.

const MARK = "\u2581"; // SentencePiece's, where a word starts
const UNSPACED = /^[\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Thai}\p{sc=Lao}\p{sc=Khmer}\p{sc=Myanmar}]/u;
const SHADES = 25;
const LONGEST_LABEL = 24;

const isSpecial = (piece) => piece === "<s>" || piece === "</s>";
const isStart = (piece, before) => piece[0] === MARK || isSpecial(piece) || isSpecial(before) || UNSPACED.test(piece);
const shownText = (text) => (text.length > 1 && text[0] === MARK ? text.slice(1) : text);
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const round = (x) => Number(x.toFixed(2));

// Pieces as words, or each alone: its text and label, and its pieces, from first to before end.
function wordsOf(pieces, merge) {
  const words = [];
  pieces.forEach((piece, i) => {
    const last = words.at(-1);
    const follows = i > 0 && (!isStart(piece, pieces[i - 1]) || (last.text === MARK && UNSPACED.test(piece)));
    if (merge && follows) {
      last.text += piece;
      last.end = i + 1;
    } else words.push({ text: piece, first: i, end: i + 1, starts: i > 0 && !follows });
  });
  for (const word of words) {
    word.text = shownText(word.text);
    const characters = Array.from(word.text);
    word.label = characters.length > LONGEST_LABEL ? `${characters.slice(0, LONGEST_LABEL - 1).join("")}\u2026` : word.text;
  }
  return words;
}

const pen = document.createElement("canvas").getContext("2d");
pen.font = "bold 12px system-ui, sans-serif";
const textWidth = (text) => pen.measureText(text).width;
const widest = (words) => Math.ceil(Math.max(...words.map((word) => textWidth(word.label))));

let numColours = 0;
while (getComputedStyle(document.documentElement).getPropertyValue(`--colour-${numColours}`)) numColours++;
const headColour = (head) => `var(--colour-${head % numColours})`;
// Where the colours come round again, lines are dashed.
const headDash = (head) => (head < numColours ? "none" : "4 3");

function add(parent, tag, attributes = {}, text = "") {
  const element = document.createElementNS(parent.namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return parent.appendChild(element);
}

function clear(svg, width, height) {
  svg.replaceChildren();
  svg.setAttribute("width", Math.ceil(width));
  svg.setAttribute("height", Math.ceil(height));
}

// A path for each shade: a rectangle for each cell of all heads would be a hundred thousand elements.
function shade(svg, weights, x, y, width, height) {
  const paths = new Map();
  weights.forEach((row, i) => row.forEach((weight, j) => {
    const level = Math.min(SHADES, Math.round(weight * SHADES));
    if (!level) return;
    const cell = `M${round(x + j * width)} ${round(y + i * height)}h${round(width)}v${round(height)}h${round(-width)}z`;
    paths.set(level, `${paths.get(level) ?? ""}${cell}`);
  }));
  for (const [level, d] of paths) add(svg, "path", { class: "shade", d, "fill-opacity": level / SHADES });
}

function legend(svg, x, y) {
  const [start, step, number] = [x + 58, 14, 6];
  add(svg, "text", { x, y: y + 10 }, "weight 0");
  for (let i = 0; i < number; i++) {
    const box = { x: start + step * i, y, width: step, height: 12 };
    add(svg, "rect", { class: "shade", ...box, "fill-opacity": i / (number - 1) });
  }
  add(svg, "rect", { class: "frame", x: start, y, width: step * number, height: 12 });
  add(svg, "text", { x: start + step * number + 6, y: y + 10 }, "1");
}

// A file of its own: the rules and colours of the page go with it.
function saveSvg(svg, name) {
  const copy = svg.cloneNode(true);
  copy.removeAttribute("aria-hidden");
  const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText));
  const paper = add(copy, "rect", { width: "100%", height: "100%", fill: "var(--background)" });
  const style = add(copy, "style", {}, rules.filter((rule) => rule.startsWith(".drawing")).join("\n"));
  copy.prepend(style, paper);
  const values = getComputedStyle(document.documentElement);
  const text = new XMLSerializer()
    .serializeToString(copy)
    .replace(/var\((--[\w-]+)\)/g, (_, variable) => values.getPropertyValue(variable).trim());
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
