// The network as a drawing: operators in columns by how many run before them, tensors as the lines between them.
// An operator that was cut into tiles is one box, and what its tiles make one line.
const BOX = 134, TALL = 40, GAP = 50, SPACE = 16, LANE = 12;
// Lines across more columns than this get no lane of their own, which keeps the drawing of training steps small.
const LONGEST = 16;
// From so many operators on, chains are folded, up to so many into one box.
const MANY = 150, FOLDED = 6;

// The operators and values of a plan, as they were before tiles.
function networkOf(data) {
  const nodes = data.owners.map((name, owner) => ({ name, owner, type: "", steps: [], from: new Set(), to: new Set() }));
  data.steps.forEach((step, i) => { nodes[step[7]].type = step[1]; nodes[step[7]].steps.push(i); });
  const values = new Map();
  data.tensors.forEach((tensor, i) => {
    const [name, bytes, kind, producer, uses, cost, , root] = tensor;
    if (kind === "weight") return;
    const maker = producer >= 0 ? data.steps[producer][7] : -1, key = `${maker} ${root || name}`;
    if (!values.has(key)) values.set(key, { name: root || name, kind, maker, bytes: 0, cost: 0, tensors: [], readers: new Set() });
    const value = values.get(key);
    value.bytes += bytes; value.cost += cost; value.tensors.push(i);
    for (const use of uses) if (data.steps[use][7] !== maker) value.readers.add(data.steps[use][7]);
  });
  const kept = [...values.values()].filter(v => v.maker >= 0 || v.readers.size);
  for (const value of kept) for (const reader of value.readers) if (value.maker >= 0) {
    nodes[value.maker].to.add(reader); nodes[reader].from.add(value.maker);
  }
  return { nodes, values: kept };
}

// Boxes of the drawing: operators, or chains of them, and what comes from outside or leaves.
function boxesOf(network, fold) {
  const boxOf = new Map(), boxes = [];
  const order = network.nodes.map((_, i) => i);
  for (const i of order) {
    const node = network.nodes[i], [before] = node.from;
    const open = fold && node.from.size === 1 && network.nodes[before].to.size === 1 ? boxOf.get(before) : undefined;
    if (open && open.members.length < FOLDED && open.members.at(-1) === before) { open.members.push(i); boxOf.set(i, open); continue; }
    const box = { kind: "operator", members: [i], values: [], from: [] };
    boxes.push(box); boxOf.set(i, box);
  }
  const lines = [];
  for (const value of network.values) {
    let source = boxOf.get(value.maker);
    const targets = [...new Set([...value.readers].map(r => boxOf.get(r)))].filter(b => b !== source);
    if (!source) { source = { kind: "input", value, members: [], values: [], from: [] }; boxes.push(source); }
    if (value.kind === "output") {
      const end = { kind: "output", value, members: [], values: [], from: [] };
      boxes.push(end); targets.push(end);
    }
    if (!targets.length && value.readers.size) continue;  // inside a folded chain
    const line = { value, source, targets, ways: [] };
    source.values.push(line); lines.push(line);
    for (const target of targets) target.from.push(source);
  }
  return { boxes, lines };
}

// Columns: one more than the largest of what is read; but what makes more lines than it reads stands right before its first reader.
function rank(boxes) {
  const waiting = new Map(boxes.map(b => [b, b.from.length])), ready = boxes.filter(b => !b.from.length);
  boxes.forEach(b => { b.column = 0; });
  for (let k = 0; k < ready.length; k++) for (const line of ready[k].values) for (const target of line.targets) {
    target.column = Math.max(target.column, ready[k].column + 1);
    waiting.set(target, waiting.get(target) - 1);
    if (waiting.get(target) === 0) ready.push(target);
  }
  for (const box of ready.reverse()) {
    const next = box.values.flatMap(line => line.targets.map(target => target.column));
    if (next.length && box.values.length >= box.from.length) box.column = Math.max(box.column, Math.min(...next) - 1);
  }
}

// Least squares with the order kept: neighbours that would overlap move as one block.
function settle(items) {
  const blocks = [];
  let below = 0, last = null;
  for (const item of items) {
    if (last) below += (last.tall + item.tall) / 2 + SPACE;
    last = item; item.below = below;
    blocks.push({ sum: (item.wish - below) * item.weight, weight: item.weight, items: [item] });
    while (blocks.length > 1) {
      const [a, b] = blocks.slice(-2);
      if (a.sum / a.weight <= b.sum / b.weight) break;
      blocks.splice(-2, 2, { sum: a.sum + b.sum, weight: a.weight + b.weight, items: a.items.concat(b.items) });
    }
  }
  for (const block of blocks) for (const item of block.items) item.y = block.sum / block.weight + item.below;
}

function layOut(network, fold) {
  const { boxes, lines } = boxesOf(network, fold);
  rank(boxes);
  const width = Math.max(0, ...boxes.map(b => b.column)) + 1, columns = Array.from({ length: width }, () => []);
  for (const box of boxes) { box.tall = box.kind === "operator" ? TALL : 24; box.near = []; columns[box.column].push(box); }
  for (const line of lines) {
    // One lane for all readers of a value, as far as the farthest that is near enough.
    const near = line.targets.filter(t => t.column - line.source.column <= LONGEST);
    const far = Math.max(0, ...near.map(t => t.column)), lanes = [line.source];
    for (let c = line.source.column + 1; c < far; c++) {
      const lane = { kind: "lane", column: c, tall: LANE, near: [] };
      columns[c].push(lane); lane.near.push(lanes.at(-1)); lanes.at(-1).near.push(lane); lanes.push(lane);
    }
    for (const target of line.targets) {
      const reach = target.column - line.source.column, direct = reach > LONGEST;
      line.ways.push({ target, through: direct ? [line.source] : lanes.slice(0, reach), direct });
      const before = direct ? line.source : lanes[reach - 1];
      before.near.push(target); target.near.push(before);
    }
  }
  columns.forEach(column => column.forEach((item, k) => { item.at = k; item.y = k * (TALL + SPACE); }));
  for (let round = 0; round < 8; round++) {
    const forward = round % 2 === 0;
    for (const column of forward ? columns : [...columns].reverse()) {
      for (const item of column) {
        const seen = item.near.filter(o => forward ? o.column < item.column : o.column > item.column);
        item.key = seen.length ? seen.reduce((sum, o) => sum + (o.at + 0.5) / columns[o.column].length, 0) / seen.length
          : (item.at + 0.5) / column.length;
      }
      column.sort((a, b) => a.key - b.key || a.at - b.at);
      column.forEach((item, k) => { item.at = k; });
    }
  }
  for (let round = 0; round < (boxes.length > 400 ? 12 : 40); round++)
    for (const column of round % 2 ? [...columns].reverse() : columns) {
      for (const item of column) {
        const near = round > 1 ? item.near : item.near.filter(o => o.column < item.column);
        // Boxes line up with boxes and lanes with lanes; where they would meet, lanes give way.
        const pull = other => (other.kind === "lane") === (item.kind === "lane") ? 5 : 1, sum = near.reduce((all, o) => all + pull(o), 0);
        item.wish = near.length ? near.reduce((all, o) => all + pull(o) * o.y, 0) / sum : item.y;
        item.weight = item.kind === "lane" ? 1 : 5;
      }
      settle(column);
    }
  const low = Math.min(...boxes.map(b => b.y - b.tall / 2), ...columns.flat().map(i => i.y)) - 12;
  for (const item of columns.flat()) { item.y -= low; item.x = item.column * (BOX + GAP) + BOX / 2 + 12; }
  const tall = Math.max(...columns.flat().map(i => i.y + i.tall / 2)) + 12;
  for (const box of boxes) box.values.forEach((line, k) => {
    line.x = box.x + BOX / 2; line.y = box.y + box.tall * ((k + 1) / (box.values.length + 1) - 0.5);
  });
  return { boxes, lines, columns, wide: width * (BOX + GAP) - GAP + 24, tall };
}

class Drawing {
  constructor(view, place) {
    this.view = view;
    this.network = networkOf(view.data);
    this.folds = this.network.nodes.length > MANY;
    this.scale = 0; this.left = 0; this.top = 0; this.picked = null;
    place.replaceChildren(...this.parts());
    place.drawing = this;
    this.lay();
    new ResizeObserver(() => this.fit()).observe(this.canvas);
    this.listen();
  }
  parts() {
    const button = (text, title, act) => {
      const made = element("button", text);
      made.type = "button"; made.title = title; made.addEventListener("click", act);
      return made;
    };
    const fold = element("input", "");
    fold.type = "checkbox"; fold.checked = this.folds;
    fold.addEventListener("change", () => { this.folds = fold.checked; this.lay(); this.start(); });
    this.canvas = element("canvas", "", "network");
    this.canvas.tabIndex = 0;
    this.strip = element("canvas", "", "strip");
    this.canvas.setAttribute("aria-label", "The network: operators as boxes, tensors as lines");
    this.tip = element("div", "", "tip");
    return [element("div", [
      button("Whole network", "Show all of it", () => this.whole()), button("+", "Nearer", () => this.zoom(1.4)),
      button("\u2212", "Farther", () => this.zoom(1 / 1.4)), element("label", [fold, " fold chains"]), this.tip,
    ], "tools"), this.strip, this.canvas];
  }
  lay() {
    Object.assign(this, layOut(this.network, this.folds));
    // A mere chain needs no tall window.
    this.canvas.style.maxHeight = `${Math.max(220, 1.1 * this.tall + 40)}px`;
    this.most = Math.max(1, ...this.network.values.map(v => v.bytes));
  }
  // -- where one looks ----------------------------------------------------------------------------------
  fit() {
    const ratio = window.devicePixelRatio || 1;
    this.width = this.canvas.clientWidth; this.height = this.canvas.clientHeight;
    if (!this.width) return;
    for (const canvas of [this.canvas, this.strip]) {
      canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    if (!this.scale) this.start();
    this.draw();
  }
  least() { return Math.min(1, this.width / this.wide, this.height / this.tall); }
  start() {
    if (!this.width) { this.scale = 0; return; }
    this.scale = Math.max(this.least(), 0.62);
    this.left = 0;
    const first = this.boxes.find(box => box.members.some(i => this.network.nodes[i].steps.includes(0)));
    if (first) { this.left = first.x - 2.2 * BOX; this.top = first.y - this.height / this.scale / 2; }
    this.keep();
  }
  whole() { this.scale = this.least(); this.left = this.top = 0; this.keep(); }
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const before = this.scale;
    this.scale = Math.min(3, Math.max(this.least(), before * factor));
    this.left += x / before - x / this.scale; this.top += y / before - y / this.scale;
    this.keep();
  }
  keep() {
    const within = (at, seen, all) => seen >= all ? (all - seen) / 2 : Math.min(Math.max(at, 0), all - seen);
    this.left = within(this.left, this.width / this.scale, this.wide);
    this.top = within(this.top, this.height / this.scale, this.tall);
    this.draw();
  }
  centre(x, y) {
    this.scale = Math.max(this.scale, 0.62);
    this.left = x - this.width / this.scale / 2; this.top = y - this.height / this.scale / 2;
    this.keep();
  }
  listen() {
    let from = null, moved = false;
    const at = (event, canvas) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    const { canvas, strip } = this;
    canvas.addEventListener("pointerdown", event => {
      from = [event.clientX, event.clientY, this.left, this.top]; moved = false; canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
      if (!from) { this.point(this.find(...at(event, canvas))); return; }
      const [dx, dy] = [event.clientX - from[0], event.clientY - from[1]];
      if (Math.abs(dx) + Math.abs(dy) > 4) moved = true;
      if (moved) { this.left = from[2] - dx / this.scale; this.top = from[3] - dy / this.scale; this.keep(); }
    });
    canvas.addEventListener("pointerup", event => { if (from && !moved) this.choose(this.find(...at(event, canvas))); from = null; });
    canvas.addEventListener("pointercancel", () => { from = null; });
    canvas.addEventListener("wheel", event => { event.preventDefault(); this.zoom(Math.exp(-event.deltaY / 500), ...at(event, canvas)); }, { passive: false });
    canvas.addEventListener("keydown", event => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (by) { this.left += by[0] * 0.3 * this.width / this.scale; this.top += by[1] * 0.3 * this.height / this.scale; this.keep(); }
      else if (event.key === "+" || event.key === "-") this.zoom(event.key === "+" ? 1.4 : 1 / 1.4);
      else return;
      event.preventDefault();
    });
    const slide = event => {
      if (event.type === "pointermove" && !event.buttons) return;
      const [x] = at(event, strip);
      this.left = x / strip.clientWidth * this.wide - this.width / this.scale / 2;
      this.keep();
    };
    strip.addEventListener("pointerdown", slide); strip.addEventListener("pointermove", slide);
  }
  // -- what is there ------------------------------------------------------------------------------------
  find(px, py) {
    const x = this.left + px / this.scale, y = this.top + py / this.scale, room = 7 / Math.max(this.scale, 0.5);
    for (const line of this.lines) if (Math.hypot(line.x - x, line.y - y) < room) return { line };
    for (const box of this.boxes) if (Math.abs(box.x - x) < BOX / 2 && Math.abs(box.y - y) < box.tall / 2)
      return box.kind === "operator" ? { box } : { line: this.lines.find(l => l.value === box.value) };
    for (const line of this.lines) for (const way of line.ways) {
      const bends = this.bends(line, way);
      for (let k = 1; k < bends.length; k++) {
        const [a, b] = [bends[k - 1], bends[k]];
        if (x < a[0] - room || x > b[0] + room) continue;
        const part = Math.min(1, Math.max(0, (x - a[0]) / (b[0] - a[0] || 1))), ease = part * part * (3 - 2 * part);
        if (Math.abs(a[1] + (b[1] - a[1]) * ease - y) < room) return { line };
      }
    }
    return null;
  }
  // Points that a line goes through, left to right; between two of them it swings.
  bends(line, way) {
    const found = [[line.x, line.y]];
    for (const lane of way.through.slice(1)) found.push([lane.x - BOX / 2, lane.y], [lane.x + BOX / 2, lane.y]);
    const end = [way.target.x - BOX / 2, way.target.y];
    if (way.direct) {  // far: along the lower edge, so that it is not taken for something near
      const y = this.tall - 4;
      found.push([line.x + GAP, y], [end[0] - GAP, y]);
    }
    return [...found, end];
  }
  label(box) {
    if (box.kind !== "operator") return [box.value.name, ""];
    const nodes = box.members.map(i => this.network.nodes[i]);
    if (nodes.length > 1) return [`${nodes.length} operators`, `${nodes[0].name} \u2026 ${nodes.at(-1).name}`];
    const [node] = nodes, cut = node.steps.length > 1 ? ` \u00d7${node.steps.length}` : "";
    return [node.type + cut, node.name];
  }
  point(found) {
    this.canvas.style.cursor = found ? "pointer" : "grab";
    const text = !found ? "" : found.box ? this.label(found.box).join("  ")
      : `${found.line.value.name}  ${size(found.line.value.bytes)}${found.line.value.cost ? `, ${size(found.line.value.cost)} beyond the compulsory` : ""}`;
    if (this.tip.textContent !== text) this.tip.textContent = text;
  }
  choose(found) {
    const { view } = this;
    if (!found) return;
    if (found.box) {
      const nodes = found.box.members.map(i => this.network.nodes[i]);
      if (nodes.length > 1) view.say(view.chainStory(nodes));
      else if (nodes[0].steps.length > 1) view.say(view.cutStory(nodes[0]));
      else view.tell("operator", nodes[0].steps[0]);
    } else if (found.line.value.tensors.length > 1) view.say(view.partsStory(found.line.value, this.network));
    else view.tell("tensor", found.line.value.tensors[0]);
    this.picked = found;
    this.draw();
  }
  // Mark what a story is about, and move there if it is out of sight.
  show(kind, index) {
    const owner = kind === "operator" ? this.view.data.steps[index][7] : -1;
    const box = this.boxes.find(b => b.members.includes(owner));
    const line = this.lines.find(l => kind === "tensor" && l.value.tensors.includes(index));
    this.picked = box ? { box } : line ? { line } : null;
    if (!this.picked || !this.width) return;
    const { x, y } = box ?? line, px = (x - this.left) * this.scale, py = (y - this.top) * this.scale;
    if (px < 20 || px > this.width - 20 || py < 20 || py > this.height - 20) this.centre(x, y); else this.draw();
  }
  // -- paint --------------------------------------------------------------------------------------------
  colours() {
    const style = getComputedStyle(document.documentElement), of = name => style.getPropertyValue(name).trim();
    return { ink: of("--ink"), soft: of("--soft"), line: of("--line"), paper: of("--paper"), card: of("--card"), link: of("--link") };
  }
  shade(value) {
    const { data } = this.view, stays = value.tensors.flatMap(i => this.view.staysOf[i]);
    if (!stays.length) return traffics.streamed;
    if (this.view.colour === "operator" && value.maker >= 0) return data.hues[value.maker];
    return fills[data.stays[stays[0]][5]];
  }
  draw() {
    if (!this.width || this.due) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.paint(); });
  }
  paint() {
    const pen = this.canvas.getContext("2d"), colours = this.colours(), { scale, left, top } = this;
    pen.clearRect(0, 0, this.width, this.height);
    pen.save();
    pen.scale(scale, scale); pen.translate(-left, -top);
    const right = left + this.width / scale, hit = name => this.view.alpha(name, 1);
    const picked = this.picked ?? {};
    for (const marked of [false, true]) for (const line of this.lines) {
      if ((picked.line === line) !== marked) continue;
      pen.globalAlpha = hit(line.value.name) * (marked ? 1 : 0.75);
      pen.strokeStyle = line.value.cost ? fills["loaded again"] : marked ? colours.link : colours.soft;
      pen.lineWidth = (marked ? 2 : 0.8) + 3 * Math.sqrt(line.value.bytes / this.most);
      const gone = line.value.tensors.every(i => !this.view.staysOf[i].length);
      pen.setLineDash(gone ? [6, 4] : []);
      const strong = pen.globalAlpha;
      for (const way of line.ways) {
        const bends = this.bends(line, way);
        if (bends.at(-1)[0] < left || bends[0][0] > right) continue;
        pen.globalAlpha = way.direct && !marked ? 0.35 * strong : strong;
        pen.beginPath(); pen.moveTo(...bends[0]);
        for (let k = 1; k < bends.length; k++) {
          const [[ax, ay], [bx, by]] = [bends[k - 1], bends[k]], middle = (ax + bx) / 2;
          pen.bezierCurveTo(middle, ay, middle, by, bx, by);
        }
        pen.stroke();
      }
    }
    pen.setLineDash([]);
    for (const box of this.boxes) if (box.x + BOX / 2 > left && box.x - BOX / 2 < right) this.box(pen, colours, box, picked.box === box);
    for (const line of this.lines) if (line.x > left && line.x < right && line.source.kind === "operator") {
      pen.globalAlpha = hit(line.value.name);
      pen.beginPath(); pen.arc(line.x, line.y, 5, 0, 7);
      pen.fillStyle = this.shade(line.value); pen.fill();
      pen.strokeStyle = picked.line === line ? colours.link : colours.paper; pen.lineWidth = 1.5; pen.stroke();
    }
    pen.restore();
    this.overview(colours);
  }
  box(pen, colours, box, marked) {
    const outside = box.kind !== "operator", owner = box.members[0], x = box.x - BOX / 2, y = box.y - box.tall / 2;
    const names = outside ? [box.value.name] : box.members.map(i => this.network.nodes[i].name);
    pen.globalAlpha = Math.max(...names.map(name => this.view.alpha(name, 1)));
    const coloured = !outside && this.view.colour === "operator";
    pen.fillStyle = coloured ? this.view.data.hues[owner] : colours.card;
    pen.strokeStyle = marked ? colours.link : outside ? colours.soft : coloured ? colours.paper : colours.soft;
    pen.lineWidth = marked ? 3 : 1;
    pen.beginPath(); pen.roundRect(x, y, BOX, box.tall, outside ? box.tall / 2 : 5); pen.fill(); pen.stroke();
    if (this.scale < 0.45) return;
    const [first, second] = this.label(box);
    pen.fillStyle = coloured ? "#ffffff" : colours.ink; pen.textBaseline = "middle"; pen.textAlign = "center";
    const write = (text, at, font) => {
      pen.font = font;
      let short = text;
      for (let room = text.length; pen.measureText(short).width > BOX - 14 && room > 4;) {
        room -= 1;
        short = text.slice(0, Math.ceil(room / 2)) + "\u2026" + text.slice(text.length - Math.floor(room / 2));
      }
      pen.fillText(short, box.x, at);
    };
    if (second) { write(first, box.y - 8, "600 12px system-ui, sans-serif"); write(second, box.y + 8, "11px system-ui, sans-serif"); }
    else write(first, box.y, "11px system-ui, sans-serif");
  }
  overview(colours) {
    const pen = this.strip.getContext("2d"), wide = this.strip.clientWidth, tall = this.strip.clientHeight;
    const across = wide / this.wide, down = Math.min(across, tall / this.tall), middle = (tall - this.tall * down) / 2;
    pen.clearRect(0, 0, wide, tall);
    for (const box of this.boxes) {
      if (box.kind !== "operator") continue;
      const coloured = this.view.colour === "operator";
      pen.globalAlpha = Math.max(...box.members.map(i => this.view.alpha(this.network.nodes[i].name, 1)));
      pen.fillStyle = coloured ? this.view.data.hues[box.members[0]] : colours.soft;
      pen.fillRect((box.x - BOX / 2) * across, middle + (box.y - box.tall / 2) * down, Math.max(1, BOX * across), Math.max(1, box.tall * down));
    }
    pen.globalAlpha = 1; pen.strokeStyle = colours.link; pen.lineWidth = 2;
    const from = Math.max(0, this.left), to = Math.min(this.wide, this.left + this.width / this.scale);
    pen.strokeRect(from * across + 1, 1, Math.max(4, (to - from) * across - 2), tall - 2);
  }
}
