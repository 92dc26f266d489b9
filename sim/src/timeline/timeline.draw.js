// Draws what the view shows.
const canvas = document.getElementById("canvas");
const pen = canvas.getContext("2d");
const view = { from: 0, to: data.end, top: 0, width: 0, height: 0 };
const shown = { quiet: false, filter: null, selected: null };
let theme = {};

function readTheme() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["bg", "fg", "dim", "line", "lane", "lane2", "accent", "bad", "completed", "rescheduled",
    "failed", "lost", "aborted", "crashed", "running", "lease", "fault"]) {
    theme[name] = style.getPropertyValue(`--${name}`).trim();
  }
  theme.hatch = hatch(theme.bg, theme.fg);
}

function hatch(back, front) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const brush = tile.getContext("2d");
  brush.fillStyle = back;
  brush.fillRect(0, 0, 8, 8);
  brush.strokeStyle = front;
  brush.lineWidth = 1.6;
  for (const shift of [-8, 0, 8]) {
    brush.beginPath();
    brush.moveTo(shift - 1, 9);
    brush.lineTo(shift + 9, -1);
    brush.stroke();
  }
  return pen.createPattern(tile, "repeat");
}

const plot = () => view.width - GUTTER - 14;
const xOf = (time) => GUTTER + ((time - view.from) / (view.to - view.from)) * plot();
const timeAt = (x) => view.from + ((x - GUTTER) / plot()) * (view.to - view.from);
const font = (px, weight) => `${weight || 400} ${px}px system-ui, -apple-system, "Segoe UI", sans-serif`;
const marksAt = (lane) => lane.y + STRIP / 2 + 2;

function matches(worker, jobs, text) {
  const filter = shown.filter;
  if (!filter) return true;
  if (filter.worker !== undefined) return worker === filter.worker;
  if (filter.job !== undefined) return jobs.includes(filter.job);
  return text !== null && text.toLowerCase().includes(filter.word);
}
const eventMatches = (event) => matches(event[LANE], event[JOBS], event[TEXT]);

function draw() {
  const scale = window.devicePixelRatio || 1;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.fillStyle = theme.bg;
  pen.fillRect(0, 0, view.width, view.height);
  pen.save();
  pen.translate(0, -view.top);
  lanes.forEach((lane, nth) => {
    pen.fillStyle = nth % 2 ? theme.lane2 : theme.lane;
    pen.fillRect(0, lane.y, view.width, lane.h);
  });
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER, RULER, view.width - GUTTER, contentHeight);
  pen.clip();
  for (const lane of lanes) drawFaults(lane);
  drawGrid();
  for (const lane of lanes) drawProcesses(lane);
  for (const lane of lanes) lane.items.forEach((item) => drawItem(lane, item));
  drawArrows();
  for (const lane of lanes) drawEvents(lane);
  drawChainMarks();
  pen.restore();
  drawGutter();
  pen.restore();
  drawRuler();
}

function ticks() {
  const target = (view.to - view.from) / Math.max(2, plot() / 120);
  const power = 10 ** Math.floor(Math.log10(target));
  const step = Math.max(1, [1, 2, 5, 10].map((m) => m * power).find((s) => s >= target));
  const times = [];
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) times.push(at);
  return { times, micros: step < 1000 };
}

function drawGrid() {
  pen.strokeStyle = theme.line;
  pen.lineWidth = 1;
  pen.globalAlpha = 0.7;
  for (const time of ticks().times) line(xOf(time), RULER, xOf(time), contentHeight);
  pen.globalAlpha = 1;
  if (data.calm <= data.end) {
    pen.setLineDash([2, 4]);
    pen.strokeStyle = theme.dim;
    line(xOf(data.calm), RULER, xOf(data.calm), contentHeight);
    pen.setLineDash([]);
    text("calm from here", xOf(data.calm) + 4, RULER + 11, theme.dim, font(12));
  }
  if (data.violation) {
    pen.strokeStyle = theme.bad;
    pen.lineWidth = 2;
    line(xOf(data.end), RULER, xOf(data.end), contentHeight);
  }
}

function line(x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

function text(words, x, y, colour, how) {
  pen.fillStyle = colour;
  pen.font = how;
  pen.textBaseline = "middle";
  pen.fillText(words, x, y);
}

const isOut = (from, to) => to < view.from || from > view.to;

function drawFaults(lane) {
  for (const fault of lane.faults) {
    const to = Math.max(fault.to, fault.from);
    const label = `${fault.text}`;
    const x = xOf(fault.from), width = Math.max(xOf(to) - x, 1.5);
    const [y, h] = fault.worker === null ? [RULER, contentHeight] : [lane.y, lane.h];
    pen.font = font(12);
    if (x + Math.max(width, 320) < GUTTER || x > view.width) continue;
    pen.globalAlpha = 0.13;
    pen.fillStyle = theme.fault;
    pen.fillRect(x, y, width, h);
    pen.globalAlpha = 0.8;
    pen.strokeStyle = theme.fault;
    pen.lineWidth = 1.5;
    pen.setLineDash([4, 3]);
    line(x, y, x, y + h);
    if (fault.to > fault.from) line(x + width, y, x + width, y + h);
    pen.setLineDash([]);
    pen.globalAlpha = 1;
    if (fault.row < 4) {
      const labelY = lane.y + lane.h - 4 - (lane.notes - fault.row - 0.5) * NOTE;
      const labelX = Math.max(x + 4, Math.min(GUTTER + 4, x + width - 60));
      text(`▼ ${label}`, labelX, labelY, theme.dim, font(12));
    }
  }
}

function drawProcesses(lane) {
  const y = marksAt(lane);
  for (const span of lane.processes) {
    if (isOut(span.from, span.to)) continue;
    const x = xOf(span.from), to = xOf(span.to);
    pen.strokeStyle = span.state === "up" ? theme.dim : theme.fault;
    pen.lineWidth = span.state === "up" ? 3 : 4;
    pen.globalAlpha = span.state === "up" ? 0.55 : 1;
    pen.setLineDash({ up: [], paused: [2, 6], draining: [10, 4] }[span.state]);
    line(x, y, to, y);
    pen.setLineDash([]);
    pen.globalAlpha = 1;
    if (span.state !== "up" && to - x > 110) {
      const words = span.state === "paused" ? "stands still" : "shuts down";
      pen.font = font(12);
      const width = pen.measureText(words).width + 8;
      pen.fillStyle = theme.lane;
      pen.fillRect((x + to - width) / 2, y - 8, width, 16);
      text(words, (x + to - width) / 2 + 4, y, theme.fg, font(12));
    }
  }
}

function drawItem(lane, item) {
  if (isOut(item.from, item.to)) return;
  const y = lane.y + STRIP + 2 + item.row * ROW;
  pen.globalAlpha = matches(lane.id, [item.job], null) ? 1 : 0.15;
  const run = item.run;
  if (run) {
    const [name, glyph] = ENDS[run.end];
    const x = xOf(run.from), width = Math.max(xOf(run.to) - x, 2);
    pen.fillStyle = theme[name];
    pen.fillRect(x, y, width, BAR);
    for (const [from, to] of run.lost) {
      const lostX = xOf(from), lostWidth = Math.max(xOf(to) - lostX, 1.5);
      pen.fillStyle = theme.hatch;
      pen.fillRect(lostX, y, lostWidth, BAR);
      pen.strokeStyle = theme[name];
      pen.lineWidth = 2;
      pen.strokeRect(lostX + 1, y + 1, Math.max(lostWidth - 2, 0.5), BAR - 2);
    }
    const left = Math.max(x, GUTTER), right = Math.min(x + width, view.width);
    const label = `${run.job}#${run.fence}`;
    if (right - left > 17) {
      pen.font = font(12, 600);
      const room = right - left - 8;
      const words = pen.measureText(`${label} ${glyph}`).width < room ? `${label} ${glyph}` : glyph;
      const wide = pen.measureText(words).width;
      if (wide < right - left - 2) {
        pen.fillStyle = theme[name];
        if (run.lost.length) pen.fillRect(left + 2, y, wide + 5, BAR);
        text(words, left + 4, y + BAR / 2 + 0.5, theme.bg, font(12, 600));
      }
    }
  }
  for (const lease of item.leases) {
    const x = xOf(lease.from), to = Math.max(xOf(lease.to), x + 1.5), at = y + BAR + 1;
    pen.fillStyle = theme.lease;
    pen.fillRect(x, at, to - x, LEASE);
    pen.fillStyle = theme.bg;
    if (lease.renewed.length * 3 < plot()) {
      for (const renewed of lease.renewed) pen.fillRect(xOf(renewed), at, 1.2, LEASE);
    }
    if (lease.end === "expired" || lease.end === "reclaimed") {
      pen.fillStyle = theme.bad;
      pen.fillRect(to - 1, at - 2, 2.5, LEASE + 4);
    }
  }
  pen.globalAlpha = 1;
}

function drawEvents(lane) {
  const y = marksAt(lane), slack = (view.to - view.from) / plot() * 10;
  let last = -1e9, lastMajor = -1e9;
  pen.textAlign = "center";
  for (let nth = firstFrom(lane, view.from - slack); nth < lane.events.length; nth++) {
    const place = lane.events[nth], event = data.events[place];
    if (event[AT] > view.to + slack) break;
    if (event[QUIET] && !shown.quiet && !chainNumber.has(place)) continue;
    if (!eventMatches(event)) continue;
    const x = xOf(event[AT]), kind = kindOf(event), major = MAJOR.has(kind);
    if (major ? x - lastMajor < 3 : x - last < 7) continue;
    last = x;
    if (major) lastMajor = x;
    const bad = kind === "Crashed" || kind === "Failed" || kind === "failed";
    const colour = bad ? theme.bad : kind === "Fault" || kind === "Paused" || kind === "ShutdownAsked" ? theme.failed : theme.fg;
    pen.globalAlpha = event[QUIET] ? 0.5 : 1;
    text(glyphOf(kind), x, y, colour, font(major ? 15 : 12, major ? 700 : 400));
    pen.globalAlpha = 1;
  }
  pen.textAlign = "left";
}

function arrow(from, to, colour, dashed) {
  const [a, b] = [data.events[from], data.events[to]];
  if (a[LANE] === b[LANE] || isOut(a[AT], b[AT])) return;
  const [laneA, laneB] = [laneOf.get(a[LANE]), laneOf.get(b[LANE])];
  if (!laneA || !laneB) return;
  const x1 = xOf(a[AT]), x2 = xOf(b[AT]), y1 = marksAt(laneA), y2 = marksAt(laneB);
  const angle = Math.atan2(y2 - y1, x2 - x1), stop = 9;
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 1.6;
  pen.setLineDash(dashed ? [5, 3] : []);
  const [tipX, tipY] = [x2 - Math.cos(angle) * stop, y2 - Math.sin(angle) * stop];
  line(x1, y1, tipX, tipY);
  pen.setLineDash([]);
  pen.beginPath();
  pen.moveTo(tipX, tipY);
  for (const turn of [-0.45, 0.45]) pen.lineTo(tipX - Math.cos(angle + turn) * 9, tipY - Math.sin(angle + turn) * 9);
  pen.fill();
}

function drawArrows() {
  for (const place of data.chain) {
    const cause = data.events[place][CAUSE];
    if (cause !== null && chainNumber.has(cause)) arrow(cause, place, theme.accent, kindOf(data.events[cause]) === "Fault");
  }
  if (shown.selected === null) return;
  const line = ancestors(shown.selected);
  for (let nth = 1; nth < line.length; nth++) arrow(line[nth], line[nth - 1], theme.bad, true);
}

function drawChainMarks() {
  const last = new Map();
  pen.textAlign = "center";
  for (const place of data.chain) {
    const event = data.events[place], lane = laneOf.get(event[LANE]);
    if (!lane || isOut(event[AT], event[AT])) continue;
    const x = xOf(event[AT]), y = marksAt(lane);
    if (x - (last.get(lane) ?? -1e9) < 17) continue;
    last.set(lane, x);
    pen.fillStyle = theme.accent;
    pen.beginPath();
    pen.arc(x, y, 9, 0, 7);
    pen.fill();
    text(String(chainNumber.get(place)), x, y + 0.5, theme.bg, font(11, 700));
  }
  if (shown.selected !== null) {
    const event = data.events[shown.selected], lane = laneOf.get(event[LANE]);
    if (lane) {
      pen.strokeStyle = theme.bad;
      pen.lineWidth = 2.5;
      pen.beginPath();
      pen.arc(xOf(event[AT]), marksAt(lane), 12, 0, 7);
      pen.stroke();
    }
  }
  pen.textAlign = "left";
}

function drawGutter() {
  for (const [nth, lane] of lanes.entries()) {
    pen.fillStyle = nth % 2 ? theme.lane2 : theme.lane;
    pen.fillRect(0, lane.y, GUTTER, lane.h);
    pen.strokeStyle = theme.line;
    pen.lineWidth = 1;
    line(0, lane.y + 0.5, view.width, lane.y + 0.5);
    text(lane.label, 12, lane.y + 15, theme.fg, font(15, 600));
    const parts = lane.note.split(", ");
    if (lane.h >= 30 + parts.length * 14) parts.forEach((part, row) => text(part, 12, lane.y + 32 + row * 14, theme.dim, font(12)));
  }
  line(GUTTER + 0.5, RULER, GUTTER + 0.5, contentHeight);
}

function drawRuler() {
  pen.fillStyle = theme.bg;
  pen.fillRect(0, 0, view.width, RULER);
  const { times, micros } = ticks();
  pen.textAlign = "center";
  for (const time of times) {
    const x = xOf(time);
    if (x > GUTTER + 20 && x < view.width - 34) text(clock(time, micros), x, RULER / 2, theme.dim, font(12.5));
  }
  pen.textAlign = "left";
  if (data.violation && !isOut(data.end, data.end)) {
    const words = `✗ ${data.violation.check}`;
    pen.font = font(13, 700);
    const wide = pen.measureText(words).width + 14;
    const x = Math.min(xOf(data.end) - 4, view.width - wide - 4);
    pen.fillStyle = theme.bad;
    pen.fillRect(x, 4, wide, RULER - 6);
    text(words, x + 7, RULER / 2 + 1, theme.bg, font(13, 700));
  }
  pen.strokeStyle = theme.line;
  line(0, RULER - 0.5, view.width, RULER - 0.5);
}
