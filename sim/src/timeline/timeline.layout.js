"use strict";
// What there is, and where it goes: lanes from top to bottom, rows in them.
const data = JSON.parse(document.getElementById("data").textContent);
const STORE = -1, WORLD = -2;
const [AT, LANE, WHO, KIND, TEXT, JOBS, RUN, CAUSE, QUIET] = [0, 1, 2, 3, 4, 5, 6, 7, 8];
const GUTTER = 118, RULER = 30, STRIP = 24, ROW = 24, BAR = 15, LEASE = 4, NOTE = 17;

const kindOf = (event) => data.kinds[event[KIND]];
const GLYPHS = {
  Configured: "⚙", Up: "●", Crashed: "✗", ShutdownAsked: "▽", Stopped: "■", Paused: "‖", Resumed: "▷", Disturbed: "≈",
  Sent: "↑", Applied: "◆", Answered: "↓", Failed: "!", Unheard: "?", Started: "▶", Told: "◇", Aborted: "⊗",
  Kept: "▪", Committing: "•", Committed: "•", Woken: "♪", Listening: "♪", Spawning: "+", Spawned: "+",
  Noted: "✎", Logged: "¶", Fault: "▼", Calm: "○",
};
// Drawn however many there are in one place.
const MAJOR = new Set(["Up", "Crashed", "ShutdownAsked", "Stopped", "Paused", "Resumed", "Failed", "Fault", "Calm"]);
// How a run ends: the colour, and the mark.
const ENDS = {
  "completed": ["completed", "✓"], "rescheduled": ["rescheduled", "↻"], "failed": ["failed", "×"],
  "lease lost": ["lost", "⊘"], "aborted": ["aborted", "⊗"], "crashed": ["crashed", "✗"], "running": ["running", "…"],
};
const glyphOf = (kind) => GLYPHS[kind] ?? ENDS[kind]?.[1] ?? "·";

function pad(number, digits) { return String(number).padStart(digits, "0"); }

function clock(us, micros) {
  const s = Math.floor(us / 1e6), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
  const part = micros ? pad(Math.floor(us % 1e6), 6) : pad(Math.floor(us / 1e3) % 1e3, 3);
  const minutes = `${pad(m, 2)}:${pad(s % 60, 2)}.${part}`;
  return h ? `${h}:${minutes}` : minutes;
}

// A run and its lease share a row; a lease that no run began has its own.
function itemsOf(worker) {
  const items = [], byRun = new Map();
  for (const run of data.runs) {
    if (run.worker !== worker) continue;
    const item = { run, leases: [], from: run.from, to: run.to, job: run.job, fence: run.fence };
    items.push(item);
    byRun.set(`${run.job}#${run.fence}`, item);
  }
  for (const lease of data.leases) {
    if (lease.worker !== worker) continue;
    const key = `${lease.job}#${lease.fence}`;
    let item = byRun.get(key);
    if (!item) {
      item = { run: null, leases: [], from: lease.from, to: lease.to, job: lease.job, fence: lease.fence };
      items.push(item);
      byRun.set(key, item);
    }
    item.leases.push(lease);
    item.from = Math.min(item.from, lease.from);
    item.to = Math.max(item.to, lease.to);
  }
  items.sort((a, b) => a.from - b.from);
  const free = [];
  for (const item of items) {
    let row = free.findIndex((until) => until <= item.from);
    if (row < 0) row = free.push(0) - 1;
    free[row] = item.to;
    item.row = row;
  }
  return { items, rows: free.length };
}

// Labels of faults that overlap go below one another.
function stackFaults(faults) {
  const free = [];
  for (const fault of faults) {
    let row = free.findIndex((until) => until <= fault.from);
    if (row < 0) row = free.push(0) - 1;
    // A label of so many characters takes that share of the whole width.
    free[row] = Math.max(fault.to, fault.from + data.end * (fault.text.length + 4) * 0.007);
    fault.row = row;
  }
  return Math.min(free.length, 4);
}

const lanes = [];
function addLane(id, label, note) {
  const worker = id >= 0;
  const faults = data.faults.filter((fault) => (worker ? fault.worker === id : id === WORLD && fault.worker === null));
  faults.sort((a, b) => a.from - b.from);
  const notes = stackFaults(faults);
  const { items, rows } = worker ? itemsOf(id) : { items: [], rows: 0 };
  const previous = lanes[lanes.length - 1];
  const y = previous ? previous.y + previous.h : RULER;
  const h = Math.max(STRIP + rows * ROW + notes * NOTE + 8, worker ? 52 : 34);
  const processes = data.processes.filter((span) => span.worker === id);
  lanes.push({ id, label, note, y, h, items, rows, faults, notes, processes, events: [] });
}
addLane(WORLD, "world", "faults, spawners");
addLane(STORE, "store", "");
for (const [key, note] of data.workers) addLane(key, `w${key}`, note);
const laneOf = new Map(lanes.map((lane) => [lane.id, lane]));
const contentHeight = lanes[lanes.length - 1].y + lanes[lanes.length - 1].h + 4;

data.events.forEach((event, place) => laneOf.get(event[LANE])?.events.push(place));
const chainNumber = new Map(data.chain.map((place, nth) => [place, nth + 1]));

// The places of what led to this event, the latest first.
function ancestors(place) {
  const found = [];
  for (let at = place; at !== null && found.length < 24; at = data.events[at][CAUSE]) found.push(at);
  return found;
}

// The first event of the lane from this time on, as a place in its list.
function firstFrom(lane, time) {
  let low = 0, high = lane.events.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (data.events[lane.events[middle]][AT] < time) low = middle + 1; else high = middle;
  }
  return low;
}
