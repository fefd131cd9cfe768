// Makes the charts interactive. Each <figure data-chart> holds its picture as SVG, which stays where
// JavaScript is off; it is replaced once the figure comes into view.
"use strict";
const specs = JSON.parse(document.getElementById("specs").textContent);
const shown = new Map();

// How many of a legend's names stand side by side.
function columns(spec, width) {
  const parts = [spec, ...(spec.layer ?? [])];
  const field = parts.map((part) => part.encoding?.color?.field).find(Boolean);
  const names = parts.flatMap((part) => part.data?.values ?? []).map((value) => String(value[field] ?? ""));
  const longest = Math.max(0, ...names.map((name) => name.length));
  return Math.max(1, Math.min(4, Math.floor((width - 130) / (40 + 6.5 * longest))));
}

function changed(spec, width) {
  const made = structuredClone(spec);
  if (made.data && Array.isArray(made.layer) && made.usermeta?.curves) {
    const log = document.getElementById("log").checked;
    const each = document.getElementById("each").checked;
    const counts = new Map();
    for (const { row } of made.data.values) counts.set(row, (counts.get(row) ?? 0) + 1);
    const reports = Math.max(...counts.values());
    const smooth = Math.round((Number(document.getElementById("smooth").value) / 10) * Math.max(1, reports / 10));
    document.getElementById("smoothed").textContent = smooth ? `± ${smooth} reports` : "";
    const average = (field) => ({ op: "mean", field, as: `${field}_mean` });
    if (smooth)
      made.transform.unshift({
        window: [average("train"), average("val")], frame: [-smooth, smooth], groupby: ["row"],
        sort: [{ field: "update" }],
      }, { calculate: "datum.train_mean", as: "train" }, { calculate: "datum.val_mean", as: "val" });
    for (const layer of made.layer)
      if (log && layer.encoding.y)
        Object.assign(layer.encoding.y, {
          scale: { type: "symlog", constant: 0.5, domainMin: 0, domainMax: 100 },
          axis: { values: [0, 1, 2, 5, 10, 20, 50, 100] },
        });
    if (each) {
      made.transform.find((step) => step.aggregate).groupby.push("row");
      made.encoding.detail = { field: "row" };
    }
  }
  made.config.legend.columns = columns(made, width);
  made.config.title.limit = width - 50;
  const square = made.width === made.height;
  made.width = square ? Math.min(width - 90, made.width) : "container";
  if (square) made.height = made.width;
  return made;
}

// A legend's names as checkboxes: what a click picks out in the legend, the keyboard picks out here.
function choices(figure, { view }, spec) {
  const picks = [spec, ...(spec.layer ?? [])].flatMap((part) => part.params ?? []).find((one) => one.bind === "legend");
  if (!picks) return;
  let names = figure.querySelector(".names");
  if (!names) {
    names = document.createElement("details");
    names.className = "names";
    names.innerHTML = "<summary>pick out</summary>";
    const labels = view.scale("color").domain().map((name) => {
      const label = document.createElement("label");
      const box = Object.assign(document.createElement("input"), { type: "checkbox", value: name });
      label.append(box, ` ${name}`);
      return label;
    });
    names.append(...labels);
    figure.querySelector(".chart").after(names);
  }
  const boxes = [...names.querySelectorAll("input")];
  const store = `${picks.name}_store`, fields = view.signal(`${picks.name}_tuple_fields`);
  names.onchange = () => {
    const rows = boxes.filter((box) => box.checked).map((box) => ({ fields, values: [box.value] }));
    view.data(store, rows).runAsync();
  };
  if (boxes.some((box) => box.checked)) names.onchange(); // in the chart that this one replaces
  view.addDataListener(store, (_, rows) => {
    for (const box of boxes) box.checked = rows.some(({ values }) => values[0] === box.value);
  });
}

async function draw(figure) {
  const place = figure.querySelector(".chart");
  const spec = changed(specs[figure.dataset.chart], place.clientWidth);
  try {
    const holder = document.createElement("div");
    holder.className = "drawn";
    place.style.minHeight = `${place.clientHeight}px`;
    const still = place.querySelector("svg");
    place.append(holder);
    const view = await vegaEmbed(holder, spec, {
      renderer: "svg", tooltip: true, downloadFileName: figure.dataset.chart,
      actions: { export: true, source: false, compiled: false, editor: false },
    });
    still?.remove();
    holder.querySelector("summary")?.setAttribute("aria-label", "save this chart");
    for (const old of place.querySelectorAll(".drawn")) if (old !== holder) old.remove();
    shown.get(figure)?.finalize();
    shown.set(figure, view);
    choices(figure, view, spec);
    place.style.minHeight = "";
    figure.dataset.ready = "yes";
  } catch (error) {
    console.error(error);
  }
}

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries)
      if (entry.isIntersecting) {
        seen.unobserve(entry.target);
        draw(entry.target);
      }
  },
  { rootMargin: "300px" },
);
for (const figure of document.querySelectorAll("figure[data-chart]")) seen.observe(figure);

for (const control of document.querySelectorAll(".controls input"))
  control.addEventListener("change", () => {
    for (const figure of document.querySelectorAll('figure[data-chart^="curves-"]')) draw(figure);
  });

// On paper nothing can be opened.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of opened) one.open = false;
});
