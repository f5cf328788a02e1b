// The page: what is drawn becomes an image of 8 x 8 pixels, the exported model gives scores, scores become bars.

import { load, inputs, outputs } from "./digits.mjs";

const pad = document.getElementById("pad"), seen = document.getElementById("seen"), status = document.getElementById("status");
const pen = pad.getContext("2d", { willReadFrequently: true }), SIDE = 8, WIDTH = pad.width / 11;

const rows = Array.from({ length: 10 }, (_, digit) => {
  const row = document.createElement("li");
  row.innerHTML = `<span>${digit}</span><span class="bar"></span><span class="chance"></span>`;
  document.getElementById("chances").append(row);
  return { row, bar: row.children[1], chance: row.children[2] };
});

/** Where ink is: left, top, right, bottom; null for none. */
function inkBox(pixels) {
  let box = null;
  for (let y = 0; y < pad.height; y++)
    for (let x = 0; x < pad.width; x++)
      if (pixels[4 * (y * pad.width + x) + 3] > 32) {
        box ??= [x, y, x, y];
        box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x), Math.max(box[3], y)];
      }
  return box;
}

/** The drawing, in the middle of a square and as large as that allows, as the digits are that the network has learnt from; 0 to 1. */
export function image() {
  const box = inkBox(pen.getImageData(0, 0, pad.width, pad.height).data);
  if (box === null) return null;
  const [left, top, right, bottom] = box, side = Math.max(right - left, bottom - top) + 1;
  const fine = new OffscreenCanvas(4 * SIDE, 4 * SIDE).getContext("2d");
  const scale = (4 * SIDE) / side;
  fine.imageSmoothingQuality = "high";
  fine.drawImage(pad, left, top, right - left + 1, bottom - top + 1, (4 * SIDE - (right - left + 1) * scale) / 2,
                 (4 * SIDE - (bottom - top + 1) * scale) / 2, (right - left + 1) * scale, (bottom - top + 1) * scale);
  const alpha = fine.getImageData(0, 0, 4 * SIDE, 4 * SIDE).data, found = new Float32Array(SIDE * SIDE);
  for (let y = 0; y < 4 * SIDE; y++)
    for (let x = 0; x < 4 * SIDE; x++) found[(y >> 2) * SIDE + (x >> 2)] += alpha[4 * (y * 4 * SIDE + x) + 3] / 255 / 16;
  return found;
}

function softmax(scores) {
  const most = Math.max(...scores), powers = Array.from(scores, (s) => Math.exp(s - most)), sum = powers.reduce((a, b) => a + b);
  return powers.map((p) => p / sum);
}

function show(found, chances) {
  const shown = seen.getContext("2d"), pixels = shown.createImageData(SIDE, SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) pixels.data.set([29, 36, 51, found ? 255 * found[i] : 0], 4 * i);
  shown.putImageData(pixels, 0, 0);
  const best = chances ? chances.indexOf(Math.max(...chances)) : -1;
  rows.forEach(({ row, bar, chance }, digit) => {
    row.classList.toggle("best", digit === best);
    bar.style.width = chances ? `${100 * chances[digit]}%` : "0";
    chance.textContent = chances ? `${(100 * chances[digit]).toFixed(1)} %` : "";
  });
}

const model = await load();

/** Recognises what is drawn; the milliseconds of a run are the mean of several, as clocks of browsers are coarse. */
export function recognise() {
  const found = image();
  if (found === null) {
    show(null, null);
    status.textContent = "ready: draw a digit";
    return null;
  }
  const RUNS = 20, given = { [inputs[0].name]: found };
  const start = performance.now();
  let scores;
  for (let i = 0; i < RUNS; i++) scores = model.run(given)[outputs[0].name];
  const milliseconds = (performance.now() - start) / RUNS, chances = softmax(scores);
  show(found, chances);
  status.textContent = `${milliseconds.toFixed(3)} ms a run`;
  return { chances, milliseconds };
}

let last = null;
const place = (event) => {
  const frame = pad.getBoundingClientRect();
  return [((event.clientX - frame.left) * pad.width) / frame.width, ((event.clientY - frame.top) * pad.height) / frame.height];
};
function draw(event) {
  if (last === null) return;
  const next = place(event);
  pen.lineWidth = WIDTH;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...last);
  pen.lineTo(...next);
  pen.stroke();
  last = next;
  recognise();
}
pad.addEventListener("pointerdown", (event) => {
  pad.setPointerCapture(event.pointerId);
  last = place(event);
  draw(event);
});
pad.addEventListener("pointermove", draw);
for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, () => (last = null));
document.getElementById("clear").addEventListener("click", () => {
  pen.clearRect(0, 0, pad.width, pad.height);
  recognise();
});
recognise();
document.body.dataset.ready = model.selftest().toExponential(1);
