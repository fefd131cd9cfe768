// Opens a page of the report in headless Chromium and prints, as JSON, what a reader would find there.
//   node look.mjs <index.html> <width in px> <light|dark>
import chromium from "@sparticuz/chromium";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import puppeteer from "puppeteer-core";

const [file, width, scheme] = process.argv.slice(2);
const address = pathToFileURL(file).href;
const browser = await puppeteer.launch({
  args: [...chromium.args, "--no-sandbox"], executablePath: await chromium.executablePath(), headless: "shell",
});
try {
  const tab = await browser.newPage();
  await tab.setViewport({ width: Number(width), height: 900 });
  await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  const console_ = [], requests = [];
  tab.on("console", (message) => console_.push(`${message.type()}: ${message.text()}`));
  tab.on("pageerror", (error) => console_.push(error.message));
  tab.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url()) && request.url() !== address) requests.push(request.url());
  });
  const began = performance.now();
  let interactive_ms = 0;
  await tab.goto(address);
  const still = await tab.$$eval("figure[data-chart] .chart > svg", (found) => found.length);
  for (const figure of await tab.$$("figure[data-chart]")) {
    await figure.scrollIntoView();
    await tab.waitForFunction((one) => one.dataset.ready, { timeout: 60_000 }, figure);
    interactive_ms ||= performance.now() - began;
  }
  const axes = (chart) => [...document.querySelectorAll(`figure[data-chart="${chart}"] .role-axis-label text`)]
    .map((label) => label.textContent + label.getAttribute("transform")).join(" ");
  const changes = async (chart, act) => { // the labels of the axes, or where they stand
    const before = await tab.evaluate(axes, chart);
    await act();
    const other = `(${axes})(${JSON.stringify(chart)}) !== ${JSON.stringify(before)}`;
    return tab.waitForFunction(other, { timeout: 60_000 }).then(() => true, () => false);
  };
  const faint = () => tab.$$eval('figure[data-chart="curves-residual"] .mark-line path', (lines) =>
    lines.map((line) => line.getAttribute("opacity")).join(" "));
  const picks = async () => { // the first network, by the keyboard alone, and no more
    const [all, names] = [await faint(), await tab.$('figure[data-chart="curves-residual"] .names summary')];
    await names.focus();
    for (const key of ["Enter", "Tab", "Space"]) await tab.keyboard.press(key);
    await tab.waitForFunction((one) => one.matches(":checked"), { timeout: 60_000 }, await tab.$(".names input:focus"));
    return (await faint()) !== all && tab.keyboard.press("Space").then(() => true);
  };
  const answers = {
    "a network": await picks(),
    "logarithmic curves": await changes("curves-residual", () => tab.click("#log")),
    "a price": await changes("time", async () => {
      await tab.click('figure[data-chart="time"] input', { clickCount: 3 });
      await tab.keyboard.type("2000");
    }),
  };
  await tab.evaluate(await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const violations = await tab.evaluate(async () => (await axe.run()).violations.map(
    (one) => `${one.impact} ${one.id}: ${one.nodes[0].html.slice(0, 200)}`,
  ));
  const sizes = await tab.evaluate(() => ({ page: document.documentElement.scrollWidth, window: innerWidth }));
  const cut = await tab.$$eval("figure[data-chart] .chart svg", (found) => found.flatMap((svg) => {
    const box = svg.getBoundingClientRect();
    const out = (text) => {
      const { left, right, top, bottom, width } = text.getBoundingClientRect();
      return width && (left < box.left - 1 || right > box.right + 1 || top < box.top - 1 || bottom > box.bottom + 1);
    };
    const chart = svg.closest("figure").dataset.chart;
    return [...svg.querySelectorAll("text")].filter(out).map((text) => `${chart}: ${text.textContent}`);
  }));
  const charts = await tab.$$eval("figure[data-chart]", (found) => found.length);
  process.stdout.write(JSON.stringify({ interactive_ms, charts, still, answers, violations, sizes, cut, requests, console: console_ }));
} finally {
  await browser.close();
}
