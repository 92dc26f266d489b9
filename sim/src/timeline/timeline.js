// What the reader does.
const byId = (id) => document.getElementById(id);
const SPAN_MIN = 200;
let waiting = false;

function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
}

function resize() {
  const scale = window.devicePixelRatio || 1;
  view.width = byId("stage").clientWidth;
  view.height = Math.min(contentHeight, Math.max(360, window.innerHeight * 0.66));
  canvas.style.height = `${view.height}px`;
  canvas.width = Math.round(view.width * scale);
  canvas.height = Math.round(view.height * scale);
  scrollTo(view.top);
  draw();
}

function scrollTo(top) { view.top = Math.max(0, Math.min(top, contentHeight - view.height)); }

// Shows this span, kept within the simulation and a little beyond it.
function show(from, to) {
  const edge = data.end * 0.02, span = Math.min(Math.max(to - from, SPAN_MIN), data.end + 2 * edge);
  const room = Math.max(edge, span * 0.5);
  from = Math.max(-room, Math.min((from + to - span) / 2, data.end + room - span));
  view.from = from;
  view.to = from + span;
  redraw();
}
const showAll = () => show(-data.end * 0.01, data.end * 1.01);

function zoom(factor, x) {
  const at = timeAt(x ?? (GUTTER + view.width) / 2);
  show(at - (at - view.from) * factor, at + (view.to - at) * factor);
}
function pan(share) {
  const by = (view.to - view.from) * share;
  show(view.from + by, view.to + by);
}

function showViolation() {
  const near = data.chain.slice(-7).map((place) => data.events[place][AT]);
  const from = near.length ? near[0] : data.end * 0.9, span = Math.max(data.end - from, 20000);
  show(data.end - span * 1.15, data.end + span * 0.1);
}

function jump(place) {
  const at = data.events[place][AT], span = Math.min(view.to - view.from, 1e6);
  select(place);
  show(at - span / 2, at + span / 2);
  const lane = laneOf.get(data.events[place][LANE]);
  if (lane && (lane.y < view.top + RULER || lane.y + STRIP > view.top + view.height)) scrollTo(lane.y - 80);
}

function element(tag, words, name) {
  const made = document.createElement(tag);
  if (words !== undefined) made.textContent = words;
  if (name) made.className = name;
  return made;
}
const sentence = (event) => (event[WHO] ? `${event[WHO]} ${event[TEXT]}` : event[TEXT]);

function rowOf(place, cells) {
  const row = element("tr");
  row.tabIndex = 0;
  row.dataset.place = place;
  for (const cell of cells) row.append(element("td", cell));
  row.onclick = () => { jump(place); byId("stage").scrollIntoView({ block: "nearest", behavior: "smooth" }); };
  row.onkeydown = (key) => { if (key.key === "Enter") row.onclick(); };
  return row;
}

function select(place) {
  shown.selected = place;
  byId("selected").hidden = place === null;
  for (const row of byId("chain-body").rows) row.classList.toggle("on", Number(row.dataset.place) === place);
  const body = byId("selected-body");
  body.replaceChildren();
  if (place !== null) {
    const table = element("table"), rows = element("tbody");
    for (const at of ancestors(place)) {
      const event = data.events[at];
      rows.append(rowOf(at, [at === place ? "" : "after", clock(event[AT], true), event[WHO] ?? "", event[TEXT], ""]));
    }
    table.append(rows);
    body.append(table);
  }
  redraw();
}

// What is at this point: an event, a run, a lease or a fault.
function hit(x, y) {
  if (x < GUTTER || y < RULER) return null;
  const lane = lanes.find((lane) => y + view.top >= lane.y && y + view.top < lane.y + lane.h);
  if (!lane) return null;
  const inLane = y + view.top - lane.y, time = timeAt(x), slack = timeAt(x + 8) - time;
  if (inLane < STRIP + 2) {
    let best = null;
    for (let nth = firstFrom(lane, time - slack); nth < lane.events.length; nth++) {
      const place = lane.events[nth], event = data.events[place];
      if (event[AT] > time + slack) break;
      if ((event[QUIET] && !shown.quiet && !chainNumber.has(place)) || !eventMatches(event)) continue;
      const rank = Math.abs(event[AT] - time) / slack - (chainNumber.has(place) ? 1 : 0) - (MAJOR.has(kindOf(event)) ? 0.5 : 0);
      if (!best || rank < best.rank) best = { place, rank };
    }
    if (best) return { place: best.place, near: nearby(lane, time, slack) };
  }
  const row = Math.floor((inLane - STRIP - 2) / ROW);
  const item = lane.items.find((item) => item.row === row && item.from - slack / 3 <= time && item.to + slack / 3 >= time);
  if (item) return { item, place: item.run?.place };
  const world = laneOf.get(WORLD).faults.filter((fault) => fault.worker === null);
  const fault = [...lane.faults, ...world].find((fault) => fault.from - slack <= time && fault.to + slack >= time);
  return fault ? { fault } : null;
}

function nearby(lane, time, slack) {
  let count = 0;
  for (let nth = firstFrom(lane, time - slack); nth < lane.events.length; nth++) {
    const event = data.events[lane.events[nth]];
    if (event[AT] > time + slack) break;
    if (!event[QUIET] || shown.quiet) count++;
  }
  return count;
}

function describe(found) {
  const lines = [];
  if (found.item) {
    const { run, leases, job, fence } = found.item;
    lines.push(["strong", `run ${job}#${fence}`]);
    if (run) {
      lines.push(["div", `${clock(run.from, true)} to ${clock(run.to, true)} in w${run.worker}.${run.incarnation}: ${run.end}`]);
      for (const [from, to] of run.lost) lines.push(["div", `without a lease from ${clock(from, true)} to ${clock(to, true)}`]);
    } else lines.push(["div", "no runner started"]);
    for (const lease of leases.slice(0, 6)) {
      const times = lease.renewed.length, renewed = ["", ", renewed once"][times] ?? `, renewed ${times} times`;
      lines.push(["div", `lease from ${clock(lease.from, true)} to ${clock(lease.to, true)}${renewed}: ${lease.end}`]);
    }
  } else if (found.fault) {
    lines.push(["strong", found.fault.text], ["div", `${clock(found.fault.from)} to ${clock(found.fault.to)}`]);
  } else {
    const event = data.events[found.place], number = chainNumber.get(found.place);
    lines.push(["div", clock(event[AT], true) + (number ? `, number ${number} of what led to it` : ""), "time"]);
    lines.push(["strong", sentence(event)]);
    if (event[RUN]) lines.push(["div", `run ${event[RUN][0]}#${event[RUN][1]}`]);
    else if (event[JOBS].length) lines.push(["div", `jobs ${event[JOBS].slice(0, 12).join(", ")}`]);
    if (event[CAUSE] !== null) {
      const cause = data.events[event[CAUSE]];
      lines.push(["div", `after ${clock(cause[AT], true)} ${sentence(cause)}`, "time"]);
    }
    if (found.near > 1) lines.push(["div", `and ${found.near - 1} more here: zoom in`, "time"]);
  }
  return lines.map(([tag, words, name]) => element(tag, words, name));
}

function hover(x, y) {
  const tip = byId("tip"), found = hit(x, y);
  tip.hidden = !found;
  if (!found) return;
  tip.replaceChildren(...describe(found));
  const width = tip.offsetWidth, height = tip.offsetHeight;
  tip.style.left = `${Math.max(4, Math.min(x + 14, view.width - width - 4))}px`;
  tip.style.top = `${y + 18 + height > view.height ? Math.max(2, y - height - 12) : y + 18}px`;
}

let drag = null;
canvas.onpointerdown = (event) => {
  drag = { x: event.offsetX, y: event.offsetY, from: view.from, to: view.to, top: view.top, moved: false };
  canvas.setPointerCapture(event.pointerId);
};
canvas.onpointermove = (event) => {
  if (!drag) return hover(event.offsetX, event.offsetY);
  const dx = event.offsetX - drag.x, dy = event.offsetY - drag.y;
  if (!drag.moved && Math.hypot(dx, dy) < 4) return;
  drag.moved = true;
  canvas.classList.add("dragging");
  byId("tip").hidden = true;
  const by = (-dx / plot()) * (drag.to - drag.from);
  scrollTo(drag.top - dy);
  show(drag.from + by, drag.to + by);
};
canvas.onpointerup = (event) => {
  if (drag && !drag.moved) select(hit(event.offsetX, event.offsetY)?.place ?? null);
  drag = null;
  canvas.classList.remove("dragging");
};
canvas.onpointercancel = () => { drag = null; };
canvas.onpointerleave = () => { byId("tip").hidden = true; };
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
  if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) pan(sideways / 900);
  else zoom(Math.exp(Math.max(-120, Math.min(120, event.deltaY)) / 350), event.offsetX);
}, { passive: false });
document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, tr") || event.ctrlKey || event.metaKey || event.altKey) return;
  const onCanvas = event.target === canvas;
  const keys = { "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.6), "0": showAll, "v": showViolation, "Escape": () => select(null) };
  const arrows = {
    ArrowLeft: () => pan(-0.15), ArrowRight: () => pan(0.15),
    ArrowUp: () => { scrollTo(view.top - 40); redraw(); }, ArrowDown: () => { scrollTo(view.top + 40); redraw(); },
  };
  const act = keys[event.key] ?? (onCanvas ? arrows[event.key] : undefined);
  if (act) { act(); event.preventDefault(); }
});

function filter() {
  const words = byId("filter").value.trim().toLowerCase();
  const worker = /^w(\d+)$/.exec(words), job = /^(?:job\s*)?(\d+)$/.exec(words);
  shown.filter = !words ? null : worker ? { worker: Number(worker[1]) } : job ? { job: Number(job[1]) } : { word: words };
  const count = shown.filter ? data.events.filter(eventMatches).length : 0;
  byId("found").textContent = shown.filter ? `${count} of ${data.events.length} events` : "";
  redraw();
}

function legend() {
  const samples = [
    ...Object.entries(ENDS).map(([end, [name, glyph]]) => [`run: ${end}`, (p) => {
      p.fillStyle = theme[name]; p.fillRect(0, 0, 34, 15);
      p.fillStyle = theme.bg; p.font = font(12, 700); p.fillText(glyph, 12, 12);
    }]),
    ["works without a lease", (p) => { p.fillStyle = theme.hatch; p.fillRect(0, 0, 34, 15); p.strokeStyle = theme.dim; p.strokeRect(0.5, 0.5, 33, 14); }],
    ["lease; thin lines: renewed", (p) => { p.fillStyle = theme.lease; p.fillRect(0, 6, 34, 4); p.fillStyle = theme.bg; p.fillRect(10, 6, 1.2, 4); p.fillRect(22, 6, 1.2, 4); }],
    ["it expires or is taken back", (p) => { p.fillStyle = theme.lease; p.fillRect(0, 6, 22, 4); p.fillStyle = theme.bad; p.fillRect(21, 3, 3, 10); }],
    ["fault", (p) => { p.globalAlpha = 0.25; p.fillStyle = theme.fault; p.fillRect(2, 0, 30, 16); p.globalAlpha = 1; p.strokeStyle = theme.fault; p.setLineDash([4, 3]); p.strokeRect(2, -5, 30, 30); }],
    ["what led to it", (p) => { p.strokeStyle = p.fillStyle = theme.accent; p.beginPath(); p.arc(17, 8, 8, 0, 7); p.fill(); p.fillStyle = theme.bg; p.font = font(11, 700); p.fillText("3", 14, 12); }],
  ];
  const marks = "⚙ is configured  ● starts  ✗ crashes  ‖ stands still  ▷ goes on  ▽ is asked to shut down  ■ has stopped  ↑ sends  ◆ the store acts  "
    + "↓ learns  ! gets no answer  ? nobody hears  ▶ run starts  ◇ told to stop  ⊗ aborted  ▪ keeps state  • commits  + spawned  ♪ announcement";
  byId("legend").replaceChildren(...samples.map(([words, paint]) => {
    const sample = document.createElement("canvas"), scale = window.devicePixelRatio || 1;
    [sample.width, sample.height] = [34 * scale, 16 * scale];
    const brush = sample.getContext("2d");
    brush.scale(scale, scale);
    paint(brush);
    const entry = element("span");
    entry.append(sample, element("span", words));
    return entry;
  }), ...marks.split("  ").map((words) => element("span", words)));
}

function begin() {
  readTheme();
  const found = data.violation;
  byId("to-violation").hidden = !found;
  byId("violation").hidden = !found;
  if (found) {
    byId("check").textContent = found.check;
    byId("violation-text").textContent = `${clock(data.end)} ${found.text}`;
  }
  byId("chain").hidden = !data.chain.length;
  for (const place of data.chain) {
    const event = data.events[place];
    const cause = chainNumber.get(event[CAUSE]) ?? "";
    byId("chain-body").append(rowOf(place, [chainNumber.get(place), clock(event[AT], true), event[WHO] ?? "", event[TEXT], cause]));
  }
  byId("to-violation").onclick = showViolation;
  byId("fit").onclick = showAll;
  byId("in").onclick = () => zoom(0.6);
  byId("out").onclick = () => zoom(1.6);
  byId("filter").oninput = filter;
  byId("quiet").onchange = (event) => { shown.quiet = event.target.checked; redraw(); };
  legend();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readTheme(); legend(); redraw(); });
  new ResizeObserver(() => requestAnimationFrame(resize)).observe(byId("stage"));
  resize();
  showAll();
  if (location.hash === "#zoom-violation") showViolation();
  const place = /^#(\d+)$/.exec(location.hash);
  if (place && data.events[place[1]]) jump(Number(place[1]));
}
begin();
