"use strict";
(() => {
  // Tables: a click on a heading sorts, fields above a long table choose rows.
  const number = (text) => (text === "" ? NaN : Number(text));
  const compare = (isNumber) => (a, b) => {
    if (isNumber) {
      const [x, y] = [number(a), number(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return 0;
      return x - y;
    }
    return a.localeCompare(b, "en", { numeric: true });
  };

  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => {
        const isNumber = heading.classList.contains("n");
        const before = heading.getAttribute("aria-sort");
        // Numbers are mostly sought at their large end, texts from A to Z.
        const order = before ? (before === "ascending" ? "descending" : "ascending") : isNumber ? "descending" : "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const by = compare(isNumber);
        const rows = [...body.rows].map((row) => [row.cells[column].textContent.trim(), row]);
        const isEmpty = ([text]) => text === "";
        // Cells without a value stay at the end in both orders.
        rows.sort((a, b) => isEmpty(a) - isEmpty(b) || sign * by(a[0], b[0]));
        body.append(...rows.map((each) => each[1]));
      });
    });
  }

  for (const form of document.querySelectorAll("form.tools")) {
    const table = document.getElementById(form.dataset.for);
    const text = form.querySelector("input");
    const state = form.querySelector("select");
    const output = form.querySelector("output");
    const stateColumn = [...table.tHead.rows[0].cells].findIndex((each) => "state" in each.dataset);
    const rows = [...table.tBodies[0].rows];
    const words = new Map();
    const choose = () => {
      const typed = text.value.trim().toLowerCase();
      // A text in quotation marks has to be a whole cell.
      const wanted = typed.replace(/^"(.*)"$/s, "\n$1\n");
      let count = 0;
      for (const row of rows) {
        if (!words.has(row)) words.set(row, ["", ...[...row.cells].map((cell) => cell.textContent.trim()), ""].join("\n").toLowerCase());
        const isState = !state || !state.value || row.cells[stateColumn].textContent.trim() === state.value;
        row.hidden = !(isState && words.get(row).includes(wanted));
        count += !row.hidden;
      }
      output.textContent = `${count} of ${rows.length} rows`;
    };
    text.addEventListener("input", choose);
    if (state) state.addEventListener("change", choose);
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  // Charts are drawn when they come near the window, so that a page with many opens at once.
  const data = document.getElementById("charts");
  if (!data) return;
  const charts = JSON.parse(data.textContent);
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = (index) => css(`--c${index % 6}`);

  const axis = (found) => ({
    title: { text: found.title, standoff: 8 },
    type: found.log ? "log" : "linear",
    gridcolor: css("--line"),
    linecolor: css("--faint"),
    zeroline: false,
    automargin: true,
    ...(found.range && { range: found.range }),
    ...(found.ticks && { tickvals: found.ticks.map((each) => each[0]), ticktext: found.ticks.map((each) => each[1]) }),
  });

  const trace = (found, chart, many) => {
    const own = colour(found.colour);
    const hover = `${found.labels ? "<b>%{text}</b><br>" : ""}${chart.x.title}: %{x:.5~g}<br>${chart.y.title}: %{y:.5~g}<extra>${found.name}</extra>`;
    return {
      type: found.mode === "bars" ? "bar" : "scatter",
      mode: found.mode === "bars" ? undefined : found.mode,
      name: found.name,
      x: found.x,
      y: found.y,
      ...(found.width && { width: found.width }),
      text: found.labels,
      textposition: "none",
      hovertemplate: hover,
      opacity: found.mode === "bars" && many ? 0.65 : 1,
      marker: { color: own, size: found.emphasised ? 13 : found.x.length > 500 ? 5 : 8, symbol: found.emphasised ? "star" : "circle", opacity: found.emphasised ? 1 : 0.7 },
      line: { color: own, width: found.emphasised ? 2.4 : 1.4 },
    };
  };

  const draw = (place) => {
    const chart = charts[Number(place.dataset.chart)];
    const many = chart.traces.length > 1;
    const traces = chart.traces.map((each) => trace(each, chart, many));
    const shapes = chart.diagonal
      ? [{ type: "line", x0: chart.diagonal[0], y0: chart.diagonal[0], x1: chart.diagonal[1], y1: chart.diagonal[1], layer: "below", line: { color: css("--faint"), width: 1, dash: "dash" } }]
      : [];
    for (const each of chart.x.ticks || []) shapes.push({ type: "line", x0: each[0], x1: each[0], yref: "paper", y0: 0, y1: 1, layer: "below", line: { color: css("--line"), width: 1 } });
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), size: 12, family: "system-ui, Liberation Sans, Arial, sans-serif" },
      margin: { l: 56, r: 12, t: 30, b: 48 },
      xaxis: axis(chart.x),
      yaxis: axis(chart.y),
      shapes,
      barmode: "overlay",
      hovermode: "closest",
      hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--faint"), font: { color: css("--ink") } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--faint"), activecolor: css("--link") },
      showlegend: chart.legend,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    };
    const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
    Plotly.react(place, traces, layout, config);
    if (place.dataset.drawn) return;
    place.dataset.drawn = "yes";
    // A click on a named point chooses its row in the table of members.
    place.on("plotly_click", (event) => {
      const label = event.points[0].text;
      const field = document.querySelector("form[data-members] input");
      if (!label || !field) return;
      // Names are escaped for Plotly, which reads entities and %{...}.
      const name = label.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&").replaceAll("%\u200c{", "%{");
      field.value = `"${name.split(" · ")[0]}"`;
      field.dispatchEvent(new Event("input"));
    });
  };

  const places = [...document.querySelectorAll(".chart")];
  const redraw = () => places.filter((place) => place.dataset.drawn).forEach(draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => places.filter((place) => !place.dataset.drawn).forEach(draw));
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        watcher.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  places.forEach((place) => watcher.observe(place));
})();
