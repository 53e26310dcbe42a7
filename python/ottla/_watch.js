// The page's side of a watch (_watching.py): shows `state`, and says that it is there.
// Texts of records only ever become text nodes.

function node(name, text, style) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (style) made.setAttribute("style", style);
  return made;
}

const number = (value) =>
  value === null || value === undefined ? "–" : Number(value).toLocaleString();

function table(names, rows) {
  const made = node("table", null, "border-collapse:collapse;margin:4px 0");
  const cell = "padding:1px 8px;text-align:left;font-family:monospace;white-space:pre;max-width:40em;overflow:hidden;text-overflow:ellipsis";
  const head = node("tr");
  for (const name of names) head.appendChild(node("th", name, cell));
  made.appendChild(head);
  for (const row of rows) {
    const line = node("tr");
    for (const value of row) line.appendChild(node("td", value, cell));
    made.appendChild(line);
  }
  return made;
}

function curve(history) {
  const width = 240, height = 36, most = Math.max(...history, 1e-9);
  const name = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(name, "svg");
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  picture.setAttribute("width", width);
  picture.setAttribute("height", height);
  const line = document.createElementNS(name, "polyline");
  const step = width / Math.max(history.length - 1, 1);
  const points = history.map((rate, at) =>
    `${(at * step).toFixed(1)},${(height - 2 - (rate / most) * (height - 4)).toFixed(1)}`);
  line.setAttribute("points", points.join(" "));
  line.setAttribute("fill", "none");
  line.setAttribute("stroke", "currentColor");
  picture.appendChild(line);
  return picture;
}

function draw(el, state) {
  const parts = [];
  const rate = state.rate === null || state.rate === undefined ? "" : `, ${number(Math.round(state.rate * 10) / 10)} per second`;
  parts.push(node("div", `Topic ${state.topic}: ${number(state.records)} records${rate} · ${state.at}`, "font-weight:bold"));
  if (state.error) parts.push(node("div", state.error, "color:#b00020"));
  if ((state.history ?? []).length > 1) parts.push(curve(state.history));
  if (state.tail?.columns.length) parts.push(table(state.tail.columns, state.tail.rows));
  if (state.partitions) {
    const more = node("details");
    more.appendChild(node("summary", `${number(state.num_partitions)} partitions`));
    more.appendChild(table(["partition", "start", "end", "per second"], state.partitions));
    more.open = el.querySelector?.("details")?.open ?? false;
    parts.push(more);
  }
  if (state.groups?.length) {
    const rows = state.groups.map(([name, is, members, lag]) => [name, is, members, number(lag)]);
    parts.push(table(["group", "state", "members", "lag"], rows));
  }
  if (state.groups_not_asked) {
    parts.push(node("div", `${number(state.groups_not_asked)} more groups were not asked for`));
  }
  el.replaceChildren(...parts);
}

function render({ model, el }) {
  const show = () => draw(el, model.get("state"));
  const here = () => {
    if (!document.hidden) model.send({ here: true });
  };
  model.on("change:state", show);
  const timer = setInterval(here, model.get("here_ms"));
  show();
  here();
  return () => {
    clearInterval(timer);
    model.off("change:state", show);
  };
}

export default { render };
