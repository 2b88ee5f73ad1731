// Draws what live.py sends. Its height never changes, so that no notebook scrolls Stop out of sight.
const STYLE = `
.gp-dashboard { height: 424px; min-width: 780px; max-width: 1180px; overflow: hidden;
  display: grid; grid-template-rows: 30px 20px 8px 228px 138px; position: relative;
  font: 12px/1.3 system-ui, sans-serif; color: var(--jp-content-font-color1, inherit); }
.gp-dashboard div, .gp-dashboard span { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.gp-head { display: grid; grid-template-columns: 1fr auto auto; gap: 14px; align-items: center; }
.gp-head b { font-size: 14px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.gp-head button { font: inherit; padding: 3px 10px; cursor: pointer; border-radius: 4px;
  border: 1px solid currentColor; background: transparent; color: inherit; }
.gp-head button:disabled { opacity: 0.5; cursor: default; }
.gp-done { height: 3px; background: #7f7f7f40; border-radius: 2px; }
.gp-done i { display: block; height: 3px; background: #0072b2; }
.gp-plots { display: grid; grid-template-columns: 1fr 1fr 290px; gap: 16px; }
.gp-plot { position: relative; }
.gp-plot > * { position: absolute; }
.gp-plot svg { left: 40px; overflow: visible !important; }
.gp-plot path { fill: none; stroke-width: 1.8; vector-effect: non-scaling-stroke; }
.gp-plot path.ghost { opacity: 0.7; stroke-width: 1.2; }
.gp-plot path.dashed { stroke-dasharray: 5 3; }
.gp-plot path.grid { stroke: currentColor; opacity: 0.2; stroke-width: 0.7; }
.gp-plot .gp-y { left: 0; width: 34px; text-align: right; font-size: 10px; }
.gp-plot .gp-x { font-size: 10px; width: 70px; margin-left: -35px; text-align: center; }
.gp-dot { display: inline-block; width: 9px; height: 9px; border-radius: 3px; margin-right: 5px; }
.gp-row { display: grid; grid-template-columns: 92px 1fr; height: 17px; align-items: center; }
.gp-row > div { display: flex; align-items: center; }
.gp-row i { display: inline-block; height: 10px; flex: none; }
.gp-row span { margin-left: 4px; font-size: 11px; flex: none; }
.gp-sizes { display: grid; grid-template-columns: 1fr 1fr; font-size: 11px; }
.gp-chips > div:first-child { display: grid; grid-template-columns: repeat(5, 1fr); gap: 12px; height: 116px; }
.gp-chips img { width: 100%; max-width: 212px; height: 70px; object-fit: contain;
  object-position: left; image-rendering: pixelated; display: block; }
.gp-legend { height: 18px; } .gp-legend span { margin-right: 14px; }`;
const LABELS = 112; // pixels at the right of a plot, for the names of its curves
const escaped = (text) => String(text).replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const dot = (colour) => `<i class="gp-dot" style="background:${escaped(colour)}"></i>`;

/** Round numbers that cover low to high, so few that their words do not touch. */
function ticks(low, high, most) {
  if (!(high > low)) [low, high] = [low - 0.05 * (Math.abs(low) || 1), high + 0.05 * (Math.abs(high) || 1)];
  const rough = (high - low) / 3;
  const unit = 10 ** Math.floor(Math.log10(rough));
  for (const step of [1, 2, 5, 10, 20, 50, 100].map((m) => unit * m)) {
    const [first, last] = [Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9)];
    if (step < rough * 0.999 || last - first >= most) continue;
    const marks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
    return { marks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  }
}

/** Move heights apart, so that no label covers another, and all of them back into the plot. */
function apart(labels, height) {
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => { if (i) label.y = Math.max(label.y, labels[i - 1].y + 16); });
  const over = Math.max(0, (labels.at(-1)?.y ?? 0) - (height - 14));
  labels.forEach((label) => { label.y -= over; });
  return labels;
}

/** A plot as HTML: curves are stretched to the width there is, words are not. */
function plot({ title, lines }, end, height, named = LABELS) {
  const inner = height - 46;
  const values = lines.flatMap((line) => line.points.map((p) => p[1])).filter((y) => y !== null);
  const { marks, digits } = values.length
    ? ticks(Math.min(...values), Math.max(...values), 1 + Math.floor(inner / 16)) : { marks: [0, 1], digits: 0 };
  const [low, high] = [marks[0], marks.at(-1)];
  const y = (value) => inner * (1 - (value - low) / (high - low));
  const x = (step) => (1000 * step) / end;
  const width = `calc(100% - ${40 + named}px)`;
  const paths = marks.map((m) => `<path class="grid" d="M0 ${y(m)}H1000"/>`);
  const labels = [];
  for (const line of lines) {
    let path = "", down = false, last = null;
    for (const [step, value] of line.points) {
      if (value !== null) path += `${down ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
      if (value !== null && line.points.length === 1) path += "h4";
      down = value !== null;
      if (down) last = value;
    }
    if (path) paths.push(`<path class="${line.style}" stroke="${line.colour}" d="${path}"/>`);
    if (path && line.name) labels.push({ y: Math.max(0, y(last) - 7), line });
  }
  const steps = [0, 0.5, 1].map((share) => `<div class="gp-x" style="top:${inner + 32}px;
    left:calc(40px + (100% - ${40 + named}px) * ${share})">${Math.round(end * share).toLocaleString()}</div>`);
  return `<div class="gp-plot" style="height:${height}px"><b style="top:0">${escaped(title)}</b>
    <svg style="top:24px;width:${width}" height="${inner}" viewBox="0 0 1000 ${inner}"
      preserveAspectRatio="none">${paths.join("")}</svg>
    ${marks.map((m) => `<div class="gp-y" style="top:${17 + y(m)}px">${m.toFixed(digits)}</div>`).join("")}
    ${steps.join("")}
    ${apart(labels, inner).map(({ y: top, line }) => `<div class="gp-label" title="${escaped(line.name)}"
      style="top:${top + 24}px;right:0;width:${named - 8}px">${dot(line.colour)}${escaped(line.name)}</div>`).join("")}
    ${values.length ? "" : '<i style="top:45%;left:60px">nothing yet</i>'}</div>`;
}

/** Memory: what a step keeps, to one scale with the earlier methods; the process is one line. */
function memory(view) {
  const total = (row) => Object.keys(view.palette).reduce((sum, part) => sum + (row.parts[part] ?? 0), 0);
  const most = Math.max(1, ...view.memory.map(total));
  const rows = view.memory.map((row) => {
    const parts = Object.entries(view.palette).map(([part, colour]) => `<i title="${part}"
      style="background:${colour};width:${(66 * (row.parts[part] ?? 0)) / most}%"></i>`);
    return `<div class="gp-row"><span>${escaped(row.name)}</span><div>${parts.join("")}<span>${row.words}</span></div></div>`;
  });
  const sizes = Object.entries(view.sizes).map(([part, size]) => `<span>${dot(view.palette[part])}${part} ${size}</span>`);
  return `<div><b>memory of one step</b><div style="height:70px">${rows.join("") || "measured when training starts"}</div>
    <div class="gp-sizes">${sizes.join("")}</div><div>${escaped(view.process)}</div>
    ${plot(view.trace, view.end, 88, 24)}</div>`;
}

function chips({ chips = [], legend = [] }) {
  const blocks = chips.map(({ image, caption, words }) => `<div><img alt="${escaped(words)}" src="${image}"/>
    ${caption.map((line) => `<div title="${escaped(line)}">${escaped(line)}</div>`).join("")}</div>`);
  const names = legend.map(([name, colour]) => `<span>${dot(colour)}${escaped(name)}</span>`);
  return `<div>${blocks.join("")}</div><div class="gp-legend">${chips.length ? "image, label, prediction: " : ""}${names.join("")}</div>`;
}

function render({ model, el }) {
  el.innerHTML = `<style>${STYLE}</style><div style="overflow-x:auto"><div class="gp-dashboard">
    <div class="gp-head"><b></b><span role="status" aria-live="polite"></span><button>■ Stop and keep best</button></div>
    <div class="gp-facts"></div><div class="gp-done"><i></i></div>
    <div class="gp-plots"></div><div class="gp-chips"></div></div></div>`;
  const find = (selector) => el.querySelector(selector);
  const button = find("button");
  button.title = "Ends training after this step and keeps the best weights so far. Interrupting the kernel ends it at once, and keeps them too.";
  button.onclick = () => {
    button.disabled = true;
    button.textContent = "Stopping…";
    find("[role=status]").textContent = "stopping after this step";
    model.send({ event: "stop" });
  };
  const draw = () => {
    const view = model.get("view");
    Object.assign(find(".gp-dashboard").dataset, { state: view.state, step: view.step });
    find("b").textContent = view.title;
    find(".gp-facts").textContent = view.facts.join(" · ");
    find(".gp-done i").style.width = `${100 * view.done}%`;
    find(".gp-plots").innerHTML = view.panels.map((p) => plot(p, view.end, 224)).join("") + memory(view);
  };
  const drawChips = () => { find(".gp-chips").innerHTML = chips(model.get("chips")); };
  model.on("change:view", draw);
  model.on("change:chips", drawChips);
  draw();
  drawChips();
}

export default { render };
