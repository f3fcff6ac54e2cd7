const KINDS = ["load", "store", "stream in", "stream out"];
const byId = id => document.getElementById(id);
const story = byId("story");
// Characters that must fit of a name that is shortened: fewer tell nothing.
const LEAST_ROOM = 6;

function size(bytes) {
  if (bytes < 10 * 2 ** 10) return `${bytes} B`;
  const [factor, unit] = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]].find(([least]) => bytes >= least);
  return `${(bytes / factor).toFixed(bytes % factor ? 2 : 0)} ${unit}`;
}
const exact = bytes => `${bytes.toLocaleString("en")} B`;
function element(tag, content, name) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...[content ?? ""].flat());
  return made;
}
// A part's name ends in its region, of which only the axes that were cut say anything.
const brief = name => name.replace(/\[([^\]]*)\]$/, (_, axes) => ` ${axes.split(", ").filter(axis => axis !== ":").join(" ")}`);

class View {
  constructor(data, doc, suffix) {
    this.data = data;
    this.doc = doc;
    this.suffix = suffix;
    this.axis = "steps";
    this.colour = data.groups.length || Object.keys(data.tiles).length ? "operator" : "origin";
    this.needle = "";
    this.steps = this.model("steps");
    this.map = this.model("map");
    this.figures = ["lane", "map", "streams", "occupancy", "traffic"].map(name => this.model(name)).filter(f => f);
    this.low = this.map.y_range.start;
    this.high = this.map.y_range.end;
    this.made = data.steps.map(() => []);
    this.read = data.steps.map(() => []);
    this.moved = data.steps.map(() => []);
    data.tensors.forEach((tensor, i) => {
      if (tensor[3] >= 0) this.made[tensor[3]].push(i);
      for (const use of tensor[4]) this.read[use].push(i);
    });
    for (const transfer of data.transfers) this.moved[transfer[2]].push(transfer);
    this.staysOf = data.tensors.map(() => []);
    data.stays.forEach((stay, i) => this.staysOf[stay[0]].push(i));
    this.transfersOf = data.tensors.map(() => []);
    for (const transfer of data.transfers) this.transfersOf[transfer[0]].push(transfer);
    this.drawing = null;
    this.fill();
    this.listen();
  }
  model(name) { return this.doc.get_model_by_name(name + this.suffix); }
  source(name) {
    const full = name + this.suffix;
    for (const figure of this.figures)
      for (const renderer of figure.renderers)
        if (renderer.data_source && renderer.data_source.name === full) return renderer.data_source;
    return null;
  }
  x(step) {
    if (this.axis === "steps") return step;
    const time = this.data.time, low = Math.floor(step), part = step - low;
    return 1e3 * (part ? time[low] + part * (time[low + 1] - time[low]) : time[low]);
  }
  end() { return this.x(Math.max(1, this.data.steps.length)); }
  shade(tensor, origin) {
    const owner = this.data.tensors[tensor][6];
    if (this.colour === "origin" || owner < 0) return fills[origin];
    return this.data.hues[owner];
  }
  alpha(name, strong) {
    return this.needle === "" ? strong : name.toLowerCase().includes(this.needle) ? 1 : 0.12;
  }
  fill() {
    const { data } = this, { factor } = data, name = i => data.tensors[i][0];
    const stays = data.stays;
    this.source("stays").data = {
      left: stays.map(s => this.x(s[3])), right: stays.map(s => this.x(s[4])),
      bottom: stays.map(s => s[1] / factor), top: stays.map(s => (s[1] + s[2]) / factor),
      fill: stays.map(s => this.shade(s[0], s[5])), alpha: stays.map(s => this.alpha(name(s[0]), 0.85)),
      tensor: stays.map(s => name(s[0])),
      size: stays.map(s => `${exact(data.tensors[s[0]][1])} ${data.tensors[s[0]][2]}`),
      address: stays.map(s => `[${s[1].toLocaleString("en")}, ${(s[1] + s[2]).toLocaleString("en")})`),
      steps: stays.map(s => `[${s[3]}, ${s[4]})`),
      came: stays.map(s => s[7] >= 0 ? `in place of ${name(s[7])}` : s[5]), left_by: stays.map(s => s[6]),
      producer: stays.map(s => data.tensors[s[0]][3] >= 0 ? data.steps[data.tensors[s[0]][3]][0] : "-"),
      cost: stays.map(s => data.tensors[s[0]][5] ? `${size(data.tensors[s[0]][5])} beyond compulsory`
        : "none beyond compulsory"),
    };
    const spills = stays.filter(s => s[6] === "spilled");
    this.source("spills").data = {
      left: spills.map(s => this.x(s[3])), right: spills.map(s => this.x(s[4])),
      bottom: spills.map(s => s[1] / factor), top: spills.map(s => (s[1] + s[2]) / factor),
    };
    const rows = data.steps, at = rows.map((_, i) => i);
    this.source("occupied").data = {
      left: at.map(i => this.x(i)), right: at.map(i => this.x(i + 1)), top: rows.map(r => r[2] / factor), step: at,
      operator: rows.map(r => r[0]), type: rows.map(r => r[1]), occupied: rows.map(r => exact(r[2])),
    };
    this.fillTraffic(rows, at);
    if (this.source("stream_boxes")) this.fillStreams();
    if (this.source("tiles")) this.fillLane(rows, at);
    this.label();
    if (this.drawing) this.drawing.draw();
  }
  fillTraffic(rows, at) {
    const scale = this.model("traffic").tags[0];
    const amounts = rows.map(r => ({ compulsory: r[6], loaded: r[3], stored: r[4], streamed: r[5] }));
    const moved = {
      left: at.map(i => this.x(i + (this.axis === "steps" ? 0.08 : 0))),
      right: at.map(i => this.x(i + (this.axis === "steps" ? 0.92 : 1))), step: at,
      operator: rows.map(r => r[0]), zero: rows.map(() => 0),
      moved: at.map(i => {
        const what = this.moved[i].map(t => `${KINDS[t[1]]} ${this.data.tensors[t[0]][0]} (${size(this.data.tensors[t[0]][1])})`);
        return what.slice(0, 6).join("; ") + (what.length > 6 ? "; ..." : "");
      }),
    };
    const below = rows.map(() => 0);
    for (const kind of Object.keys(traffics)) {
      moved[kind] = below.map((value, i) => (below[i] = value + amounts[i][kind] / scale));
      moved[`${kind}_text`] = amounts.map(a => size(a[kind]));
    }
    this.source("moved").data = moved;
  }
  fillStreams() {
    const { data } = this, scale = this.model("streams").tags[0];
    const boxes = { left: [], right: [], bottom: [], top: [], fill: [], alpha: [], tensor: [], size: [], what: [], operator: [] };
    data.steps.forEach((step, i) => {
      let up = 0, down = 0;
      for (const [t, kind, , compulsory] of this.moved[i]) {
        if (kind < 2) continue;
        const [name, bytes] = data.tensors[t], height = bytes / scale;
        boxes.left.push(this.x(i)); boxes.right.push(this.x(i + 1));
        boxes.bottom.push(kind === 2 ? up : down - height); boxes.top.push(kind === 2 ? up + height : down);
        if (kind === 2) up += height; else down -= height;
        boxes.fill.push(compulsory ? "#b98fa8" : "#b0467f"); boxes.tensor.push(name);
        boxes.alpha.push(this.alpha(name, compulsory ? 0.6 : 1));
        boxes.size.push(`${exact(bytes)} ${data.tensors[t][2]}`); boxes.operator.push(step[0]);
        boxes.what.push(`${kind === 2 ? "read" : "written"}, ${compulsory ? "compulsory" : "beyond the compulsory"}`);
      }
    });
    this.source("stream_boxes").data = boxes;
  }
  fillLane(rows, at) {
    const { data } = this;
    this.source("tiles").data = {
      left: at.map(i => this.x(i)), right: at.map(i => this.x(i + 1)), bottom: at.map(() => 0), top: at.map(() => 0.95),
      fill: rows.map(r => data.hues[r[7]]), alpha: rows.map(r => this.alpha(r[0], 0.95)), tensor: rows.map(r => r[0]),
      type: rows.map(r => r[1]), of: rows.map(r => data.owners[r[7]]),
    };
    const groups = data.groups;
    this.source("groups").data = {
      left: groups.map(g => this.x(g[0])), right: groups.map(g => this.x(g[1])), bottom: groups.map(() => 1.1),
      top: groups.map(() => 1.9), fill: groups.map(() => "#6b7280"), alpha: groups.map(() => 0.9),
      tensor: groups.map(g => `${g[2][0]} .. ${g[2].at(-1)}: ${g[2].length} operators, ${g[3]} tiles`),
      members: groups.map(g => g[2].slice(0, 12).join(", ") + (g[2].length > 12 ? ", ..." : "")),
    };
  }
  // Names go where there is room for them, along the rectangle or upright.
  label() {
    const pairs = [["map", "stays", "names"], ["streams", "stream_boxes", "stream_names"], ["lane", "groups", "lane_names"]];
    for (const [figureName, boxes, names] of pairs) {
      const figure = this.model(figureName), source = this.source(boxes);
      if (!figure || !source) continue;
      const wide = figure.inner_width / (this.steps.end - this.steps.start);
      const tall = figure.inner_height / (figure.y_range.end - figure.y_range.start);
      // Edges in the colour of the paper part what is wide, and would cover what is narrow.
      for (const { glyph, name } of figure.renderers) {
        const least = { "stay glyph": 0.7, "tile glyph": 4, "stream glyph": 4 }[name];
        if (least) glyph.line_alpha = { value: wide < least ? 0 : 0.5 };
      }
      const out = { x: [], y: [], text: [], angle: [], ink: [], fill: [], backed: [], tensor: [], alpha: [] }, from = source.data;
      for (let i = 0; i < from.left.length; i++) {
        // The last step of what is taken over is drawn over by who takes it.
        const taken = from.left_by && from.left_by[i] === "taken over";
        const last = taken ? this.x(this.data.stays[i][4] - 1) : from.right[i];
        const left = Math.max(from.left[i], this.steps.start), right = Math.min(last, this.steps.end);
        const bottom = Math.max(from.bottom[i], figure.y_range.start), top = Math.min(from.top[i], figure.y_range.end);
        const width = (right - left) * wide, height = (top - bottom) * tall;
        if (width < 11 || height < 11 || from.alpha[i] < 0.3) continue;
        const whole = brief(from.tensor[i]), upright = height > width && width < 6.5 * whole.length;
        const room = Math.floor(((upright ? height : width) - 4) / 6.4);
        // Of a group the count of its tiles says more than the end of its name, and of a part its tensor more than its region.
        const group = figureName === "lane" ? this.data.groups[i] : null;
        const name = group && whole.length > room
          ? [`${group[2].length} operators, ${group[3]} tiles`, `${group[3]} tiles`].find(one => one.length <= room)
          : whole.length > room ? from.tensor[i].replace(/\[[^\]]*\]$/, "") : whole;
        if (name === undefined || (room < LEAST_ROOM && name.length > room)) continue;
        const text = name.length <= room ? name : room < 8 ? "\u2026" + name.slice(1 - room)
          : name.slice(0, Math.ceil(room / 2) - 1) + "\u2026" + name.slice(-(Math.floor(room / 2)));
        out.x.push((left + right) / 2); out.y.push((bottom + top) / 2); out.text.push(text);
        out.angle.push(upright ? Math.PI / 2 : 0); out.tensor.push(from.tensor[i]); out.alpha.push(from.alpha[i]);
        const pale = from.fill[i] === "#b98fa8", hatched = from.left_by && from.left_by[i] === "spilled";
        // On hatching, and on what the paper shines through, a name needs a ground of its own.
        out.fill.push(from.fill[i]); out.backed.push(pale || hatched ? 1 : 0);
        out.ink.push(from.fill[i] === fills.loaded || pale ? "#111111" : "#ffffff");
      }
      this.source(names).data = out;
    }
  }
  listen() {
    let timer = 0;
    const later = () => { clearTimeout(timer); timer = setTimeout(() => this.label(), 60); };
    for (const range of [this.steps, this.map.y_range]) range.change.connect(later);
    for (const figure of this.figures) {
      figure.properties.inner_width.change.connect(later);
      figure.properties.inner_height.change.connect(later);
    }
    const picked = (name, tell) => {
      const source = this.source(name);
      if (!source) return;
      source.selected.properties.indices.change.connect(() => {
        const [index] = source.selected.indices;
        if (index !== undefined) { tell(index, source); source.selected.indices = []; }
      });
    };
    const byName = (index, source) => this.tell("tensor", this.tensorIndex(source.data.tensor[index]));
    picked("stays", index => this.tell("tensor", this.data.stays[index][0]));
    picked("stream_boxes", byName);
    for (const name of ["occupied", "moved", "tiles"]) picked(name, index => this.tell("operator", index));
  }
  // A tensor by its name; of one that was cut, the part that costs most.
  tensorIndex(name) {
    const { tensors } = this.data, parts = tensors.map((_, i) => i).filter(i => tensors[i][0] === name || tensors[i][7] === name);
    return parts.length ? parts.reduce((best, i) => tensors[i][5] > tensors[best][5] ? i : best) : -1;
  }
  show(start, end, low, high) {
    const first = this.x(0), last = this.end();
    const from = this.x(Math.max(0, start)), span = Math.max(end - start, 4);
    this.steps.start = Math.max(first, from);
    this.steps.end = this.x(Math.min(Math.max(1, this.data.steps.length), Math.max(end, start + span)));
    if (!(this.steps.end > this.steps.start)) { this.steps.start = first; this.steps.end = last; }
    if (low !== undefined && high > low) {
      const room = Math.max((high - low) * 1.5, (this.high - this.low) * 0.15);
      this.map.y_range.start = Math.max(this.low, low - room);
      this.map.y_range.end = Math.min(this.high, high + room);
    }
  }
  reset() {
    this.steps.start = this.x(0); this.steps.end = this.end();
    this.map.y_range.start = this.low; this.map.y_range.end = this.high;
  }
  visit(kind, index) {
    if (kind === "operator") this.show(index - 8, index + 9);
    else {
      const stays = this.staysOf[index].map(i => this.data.stays[i]);
      const steps = [...stays.flatMap(s => [s[3], s[4]]), ...this.transfersOf[index].flatMap(t => [t[2], t[2] + 1])];
      if (!steps.length) return;
      const start = Math.min(...steps), end = Math.max(...steps), margin = Math.max(2, Math.ceil((end - start) * 0.25));
      const low = Math.min(...stays.map(s => s[1])) / this.data.factor;
      const high = Math.max(...stays.map(s => s[1] + s[2])) / this.data.factor;
      this.show(start - margin, end + margin, stays.length ? low : undefined, high);
    }
    byId((document.body.dataset.view === "graph" ? "graph" : "figures") + this.suffix).scrollIntoView({ block: "nearest" });
    this.tell(kind, index);
  }
  setAxis(axis) {
    if (axis === "time" && !this.data.time) return;
    this.axis = axis;
    const end = this.end(), step = axis === "steps";
    this.steps.bounds = null;
    this.steps.min_interval = step ? 1 : end / 1e5;
    this.steps.start = 0; this.steps.end = end;
    this.steps.bounds = step ? [-0.5, end + 0.5] : [0, end];
    this.figures.at(-1).below[0].axis_label = step ? "step" : "estimated time (ms)";
    for (const figure of this.figures) figure.below[0].ticker.min_interval = step ? 1 : 0;
    this.fill();
  }
  paint(dark) {
    const ink = dark ? "#d8d8d8" : "#333333", paper = dark ? "#17191c" : "#ffffff", line = dark ? "#4a4d52" : "#e5e5e5";
    for (const figure of this.figures) {
      figure.background_fill_color = paper; figure.border_fill_color = paper; figure.outline_line_color = line;
      figure.title.text_color = ink;
      // Edges of rectangles in the colour of the paper: white ones would cover what is narrow in the dark.
      for (const { glyph, name } of figure.renderers)
        if (/^(stay|tile|group|stream) glyph$/.test(name ?? "")) glyph.line_color = { value: paper };
      for (const axis of [...figure.left, ...figure.below]) {
        axis.axis_label_text_color = ink; axis.major_label_text_color = ink; axis.axis_line_color = ink;
        axis.major_tick_line_color = ink;
      }
      for (const part of figure.center) if (part.grid_line_color !== undefined) part.grid_line_color = line;
      for (const part of [...figure.above, ...figure.below, ...figure.center]) {
        if (part.label_text_color !== undefined) { part.label_text_color = ink; part.background_fill_color = paper; }
        if (part.name === "capacity") part.line_color = ink;
      }
    }
  }
  // -- stories ---------------------------------------------------------------------------------------------
  link(kind, index, text = (kind === "tensor" ? this.data.tensors : this.data.steps)[index][0]) {
    const made = element("a", text);
    made.addEventListener("click", () => this.visit(kind, index));
    return made;
  }
  list(items) { return element("ul", items.map(item => element("li", item))); }
  tell(kind, index) {
    this.say(kind === "tensor" ? this.tensorStory(index) : this.operatorStory(index));
    if (this.drawing) this.drawing.show(kind, index);
  }
  say(parts) {
    story.replaceChildren(...parts);
    story.scrollTop = 0;
  }
  // -- stories of the graph: what was cut, as one ------------------------------------------------------------
  chainStory(nodes) {
    return [element("h3", `${nodes.length} operators`), element("p", "One after the other, folded into one box."),
      this.list(nodes.map(node => [`${node.type} `, this.link("operator", node.steps[0])]))];
  }
  cutStory(node) {
    const sum = column => node.steps.reduce((all, i) => all + this.data.steps[i][column], 0);
    const parts = [element("h3", node.name), element("p", `${node.type}, cut into ${node.steps.length} tiles, steps ${node.steps[0]} to ${node.steps.at(-1)}`)];
    parts.push(element("p", `Off-chip: ${size(sum(6))} compulsory, ${size(sum(3) + sum(4) + sum(5))} beyond.`));
    parts.push(element("p", "Tiles"), this.list(node.steps.slice(0, 24).map(i => [this.link("operator", i), ` at step ${i}`])));
    if (node.steps.length > 24) parts.push(element("p", `and ${node.steps.length - 24} more`, "more"));
    return parts;
  }
  partsStory(value, network) {
    const { data } = this, parts = [element("h3", value.name)];
    parts.push(element("p", `${value.kind} of ${exact(value.bytes)}, in ${value.tensors.length} parts`));
    const operator = owner => this.link("operator", network.nodes[owner].steps[0], network.nodes[owner].name);
    if (value.maker >= 0) parts.push(element("p", ["Made by ", operator(value.maker), "."]));
    if (value.readers.size) parts.push(element("p", "Read by"), this.list([...value.readers].map(owner => [operator(owner)])));
    parts.push(element("p", value.cost ? `It costs ${size(value.cost)} beyond the compulsory traffic.` : "It costs nothing beyond the compulsory traffic."));
    const costly = [...value.tensors].sort((a, b) => data.tensors[b][5] - data.tensors[a][5]);
    parts.push(element("p", "Parts"), this.list(costly.slice(0, 24).map(i =>
      [this.link("tensor", i), `, ${size(data.tensors[i][1])}${data.tensors[i][5] ? `, costs ${size(data.tensors[i][5])}` : ""}`])));
    if (costly.length > 24) parts.push(element("p", `and ${costly.length - 24} more`, "more"));
    return parts;
  }
  tensorStory(i) {
    const { data } = this, [name, bytes, kind, producer, uses, cost, , root] = data.tensors[i], parts = [];
    parts.push(element("h3", name), element("p", `${kind} of ${exact(bytes)}${root ? `, a part of ${root}` : ""}`));
    const made = producer >= 0 ? ["Made by ", this.link("operator", producer), ` at step ${producer}.`]
      : [kind === "weight" ? "A constant, off-chip from the start." : "An input, off-chip from the start."];
    parts.push(element("p", made));
    if (uses.length) {
      parts.push(element("p", "Read by"));
      parts.push(this.list(uses.slice(0, 12).map(u => [this.link("operator", u), ` at step ${u}`])));
      if (uses.length > 12) parts.push(element("p", `and ${uses.length - 12} more`, "more"));
    } else parts.push(element("p", "Read by nobody."));
    const stays = this.staysOf[i].map(k => data.stays[k]);
    if (stays.length) parts.push(element("p", "In the scratchpad"), this.list(stays.slice(0, 12).map(s =>
      `steps [${s[3]}, ${s[4]}) at ${s[1].toLocaleString("en")}: ${s[7] >= 0 ? `in place of ${data.tensors[s[7]][0]}` : s[5]}, then ${s[6]}`)));
    else parts.push(element("p", "Never in the scratchpad: it is streamed."));
    const moves = this.transfersOf[i];
    if (moves.length) parts.push(element("p", "Moved off-chip"), this.list(moves.slice(0, 12).map(t =>
      `${KINDS[t[1]]} at step ${t[2]}${t[3] ? ", compulsory" : ""}`)));
    parts.push(element("p", cost ? `It costs ${size(cost)} beyond the compulsory traffic.` : "It costs nothing beyond the compulsory traffic."));
    for (const [text, holders] of data.stories[i] ?? []) {
      const away = element("div", element("p", text), "away");
      if (holders.length) away.append(element("p", "Who had the space then:", "more"),
        this.list(holders.map(h => `${h[0]}, ${h[1]}: ${h[2]}`)));
      parts.push(away);
    }
    return parts;
  }
  operatorStory(i) {
    const { data } = this, [name, type, occupied, loaded, stored, streamed, compulsory, owner] = data.steps[i], parts = [];
    parts.push(element("h3", name), element("p", `${type}, step ${i}`));
    if (data.tiles[i] !== undefined) {
      const tiles = data.steps.flatMap((s, k) => s[7] === owner ? [k] : []);
      parts.push(element("p", `Tile ${tiles.indexOf(i) + 1} of ${tiles.length} of ${data.owners[owner]}: ${data.tiles[i]}`));
      const near = [tiles[tiles.indexOf(i) - 1], tiles[tiles.indexOf(i) + 1]].filter(k => k !== undefined);
      if (near.length) parts.push(element("p", ["Neighbours: ", ...near.flatMap(k => [this.link("operator", k), " "])]));
    }
    const group = data.groups.find(g => g[0] <= i && i < g[1]);
    if (group) parts.push(element("p", `In a fused group of ${group[2].length} operators, steps [${group[0]}, ${group[1]}).`));
    parts.push(element("p", `${size(occupied)} of ${size(data.capacity)} taken, ${size(data.capacity - occupied)} free.`));
    const here = new Map(data.stays.filter(s => s[3] <= i && i < s[4]).map(s => [s[0], s]));
    const where = t => here.has(t) ? `at ${here.get(t)[1].toLocaleString("en")}` : "streamed";
    const row = t => [this.link("tensor", t), `, ${size(data.tensors[t][1])}, ${where(t)}`];
    if (this.read[i].length) parts.push(element("p", "Reads"), this.list(this.read[i].map(row)));
    if (this.made[i].length) parts.push(element("p", "Makes"), this.list(this.made[i].map(row)));
    const own = new Set([...this.read[i], ...this.made[i]]);
    const others = [...here.values()].filter(s => !own.has(s[0])).sort((a, b) => b[2] - a[2]);
    if (others.length) parts.push(element("p", "Also in the scratchpad"), this.list(others.slice(0, 8).map(s => {
      const next = data.tensors[s[0]][4].find(u => u > i);
      return [this.link("tensor", s[0]), `, ${size(s[2])}, ${next === undefined ? "not used again" : `kept for step ${next}`}`];
    })));
    const beyond = loaded + stored + streamed;
    parts.push(element("p", `Off-chip: ${size(compulsory)} compulsory, ${size(beyond)} beyond.`));
    if (this.moved[i].length) parts.push(this.list(this.moved[i].slice(0, 12).map(t =>
      [`${KINDS[t[1]]} `, this.link("tensor", t[0]), t[3] ? ", compulsory" : ""])));
    return parts;
  }
}

// The table of steps; its head says whether operators are tiles.
function schedule(view) {
  const { data } = view, table = byId("operators").tBodies[0], tiled = table.rows[0].cells.length > 7;
  return data.steps.map((step, i) => {
    const bytes = [step[2], 0, 0, step[3] + step[4] + step[5]];
    for (const [tensor, kind] of view.moved[i]) bytes[KINDS[kind] === "load" || KINDS[kind] === "stream in" ? 1 : 2] += data.tensors[tensor][1];
    const cells = [`${i}`, step[0], step[1], ...(tiled ? [data.owners[step[7]]] : [])].map(text => element("td", text));
    for (const value of bytes) {
      const cell = element("td", value ? size(value) : "", "number");
      cell.dataset.value = value;
      cells.push(cell);
    }
    const row = element("tr", cells);
    row.dataset.step = i;
    row.addEventListener("click", () => view.visit("operator", i));
    table.append(row);
    return row;
  });
}
function csvCell(cell) {
  let text = cell.dataset.value ?? cell.textContent;
  if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = "'" + text;  // no formulas in spreadsheets
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
function offerCsv(table) {
  const button = element("button", "CSV");
  button.type = "button";
  button.title = "Download this table";
  button.addEventListener("click", () => {
    const text = [...table.rows].map(row => [...row.cells].map(csvCell).join(",")).join("\n") + "\n";
    const link = element("a", "");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `${document.title.replace(/ - cosma$/, "").replace(/[^\w.-]+/g, "_")}_${table.dataset.csv}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  (table.closest(".scroll, .wide") ?? table).before(button);
}

async function unpack(text) {
  if (!("DecompressionStream" in window)) {
    story.textContent = "The figures of this page need a newer browser: Chrome 80, Firefox 113, Safari 16.4 or later.";
    throw new Error("no DecompressionStream");
  }
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}
let views = [];
(async () => {
  const shown = [];
  views = await unpack(packed);
  for (const [i, { item, data }] of views.entries()) {
    const before = new Set(Bokeh.documents);
    await Bokeh.embed.embed_item(item);
    const doc = Bokeh.documents.find(d => !before.has(d));
    shown.push(new View(data, doc, i ? "_b" : ""));
  }
  const [main] = shown;
  if (shown.length > 1) byId("plans").classList.add("two");
  const input = byId("search"), hits = byId("hits"), found = byId("found");
  const rows = schedule(main);
  document.querySelectorAll("#tensors tr").forEach((row, i) => {
    if (i) row.addEventListener("click", () => main.visit("tensor", main.tensorIndex(row.cells[0].textContent)));
  });
  document.querySelectorAll("table[data-csv]").forEach(offerCsv);
  const names = [...main.data.tensors.map((t, i) => ["tensor", t[0], i]), ...main.data.steps.map((s, i) => ["operator", s[0], i])];
  function search() {
    const text = input.value.trim().toLowerCase();
    for (const view of shown) { view.needle = text; view.fill(); }
    const matches = text === "" ? [] : names.filter(([, name]) => name.toLowerCase().includes(text));
    found.textContent = text === "" ? "" : `${matches.length} found`;
    hits.replaceChildren(...matches.slice(0, 60).map(([kind, , i]) => element("li", [`${kind} `, main.link(kind, i)])));
    for (const row of rows) row.classList.toggle("hit", text !== "" && row.cells[1].textContent.toLowerCase().includes(text));
  }
  let timer = 0;
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 120); });
  input.addEventListener("keydown", event => {
    if (event.key !== "Enter") return;
    search();
    const first = hits.querySelector("a");
    if (first) first.click();
  });
  byId("whole").addEventListener("click", () => shown.forEach(view => view.reset()));
  const axis = byId("axis"), colour = byId("colour"), theme = byId("theme");
  if (!main.data.time) {
    axis.options[1].disabled = true;
    axis.title = "Estimated time needs an accelerator's figures when the page is made";
  }
  const looking = byId("view");
  looking.addEventListener("change", () => {
    document.body.dataset.view = looking.value;
    if (looking.value === "graph") for (const view of shown) {
      view.drawing ??= new Drawing(view, byId("graph" + view.suffix));
      view.drawing.fit();
    }
  });
  axis.addEventListener("change", () => shown.forEach(view => view.setAxis(axis.value)));
  for (const view of shown) if (view.colour !== main.colour) { view.colour = main.colour; view.fill(); }
  colour.value = main.colour;
  const legend = () => document.querySelectorAll(".legend .how, .legend .operator").forEach(
    entry => { entry.hidden = (entry.className === "operator") !== (colour.value === "operator"); });
  colour.addEventListener("change", () => { shown.forEach(view => { view.colour = colour.value; view.fill(); }); legend(); });
  legend();
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  function paint() {
    document.documentElement.classList.toggle("dark", dark);
    theme.textContent = dark ? "Light" : "Dark";
    shown.forEach(view => { view.paint(dark); if (view.drawing) view.drawing.draw(); });
  }
  theme.addEventListener("click", () => { dark = !dark; paint(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", event => { dark = event.matches; paint(); });
  if (matchMedia("(max-width: 640px)").matches)  // a finger scrolls the page, not the figure
    for (const view of shown) for (const figure of view.figures) {
      figure.toolbar.active_drag = null; figure.toolbar.active_scroll = null; figure.min_border_left = 48;
      figure.title.text_font_size = "11px";
    }
  paint();
  document.body.dataset.ready = "yes";
})();
