"use strict";
// Draws what the page sends, and tells the page what was pointed at. It has no network, no storage, no other window.
(() => {
  // Okabe and Ito's colours, told apart by colour-blind eyes; further classes get another symbol
  const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a900", "#7f7f7f"];
  const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "cross", "x", "star", "triangle-down"];
  const map = document.getElementById("map");
  const tell = (message) => parent.postMessage(message, "*");
  let drawn = null;

  function traces(given) {
    const { colour, style } = given;
    const groups = new Map();
    if (colour === "trust") {
      return [trace(given, given.ids.map((_, i) => i), "", { color: given.trust, colorscale: "Cividis", cmin: 0, cmax: 1, colorbar: { title: { text: given.words.trust }, thickness: 10, outlinewidth: 0, tickfont: { color: style.soft } } })];
    }
    given.ids.forEach((_, i) => {
      const name = colour === "error" ? (given.wrong[i] === null ? given.words.none : given.wrong[i] ? given.words.wrong : given.words.right)
        : (colour === "label" ? given.label[i] : null) ?? given.prediction[i] ?? given.words.none;
      if (!groups.has(name)) groups.set(name, []);
      groups.get(name).push(i);
    });
    const names = [...groups.keys()].sort();
    return names.map((name, number) => {
      let marker = { color: COLOURS[number % COLOURS.length], symbol: SYMBOLS[Math.floor(number / COLOURS.length) % SYMBOLS.length] };
      if (colour === "error") marker = name === given.words.wrong ? { color: "#d55e00", symbol: "x", size: 10 } : { color: name === given.words.right ? "#56b4e9" : style.soft, symbol: "circle" };
      return trace(given, groups.get(name), name, marker);
    });
  }

  function trace(given, which, name, marker) {
    return {
      type: given.ids.length > 4000 ? "scattergl" : "scatter", mode: "markers", name, x: which.map((i) => given.x[i]), y: which.map((i) => given.y[i]),
      customdata: which.map((i) => given.ids[i]), hoverinfo: "none",
      marker: { size: given.thumbs ? 4 : 8, opacity: 0.85, line: { width: 0.5, color: given.style.page }, ...marker },
      selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 0.18 } },
    };
  }

  function draw(given) {
    const { style } = given;
    document.documentElement.style.background = style.page;
    const data = traces(given);
    const spot = given.here >= 0 ? [given.x[given.here], given.y[given.here]] : given.placed ? [given.placed.x, given.placed.y] : null;
    if (spot) {
      data.push({ type: "scatter", mode: "markers+text", name: given.words.here, x: [spot[0]], y: [spot[1]], text: [given.words.here], textposition: "top center", textfont: { color: style.ink, size: 12 }, hoverinfo: "skip", showlegend: false, selected: { marker: { opacity: 1 }, textfont: { color: style.ink } }, unselected: { marker: { opacity: 1 }, textfont: { color: style.ink } },
        marker: { size: 17, symbol: "circle-open", color: style.ink, line: { width: 2 } } });
    }
    const range = (values) => Math.max(...values) - Math.min(...values) || 1;
    const side = Math.max(range(given.x), range(given.y)) / 26;
    const images = given.thumbs ? given.ids.flatMap((id, i) => given.thumbs[id] ? [{ source: given.thumbs[id], x: given.x[i], y: given.y[i], sizex: side, sizey: side, xanchor: "center", yanchor: "middle", xref: "x", yref: "y", layer: "below" }] : []) : [];
    const axis = { showgrid: false, zeroline: false, showticklabels: false, fixedrange: false };
    const narrow = innerWidth < 500;
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: style.ink, family: "system-ui, sans-serif", size: 12 }, margin: { l: 8, r: 8, t: 8, b: 8 },
      xaxis: axis, yaxis: { ...axis, scaleanchor: "x" }, dragmode: drawn?.dragmode ?? "lasso", hovermode: "closest", images, uirevision: `${given.ids.length}-${given.x[0]}`,
      legend: narrow ? { orientation: "h", y: -0.02 } : { x: 1, xanchor: "right", y: 0.94, bgcolor: "rgba(0,0,0,0)" }, showlegend: given.colour !== "trust", modebar: { color: style.soft, activecolor: style.accent, bgcolor: "rgba(0,0,0,0)" },
    };
    Plotly.react(map, data, layout, { displaylogo: false, showSendToCloud: false, plotlyServerURL: "", responsive: true, scrollZoom: true, modeBarButtonsToRemove: ["sendChartToCloud", "toImage", "autoScale2d"] }).then(() => {
      if (drawn) return;
      drawn = { dragmode: "lasso" };
      map.on("plotly_hover", (event) => {
        const one = event.points[0];
        tell({ kind: "hover", ids: [one.customdata], at: { x: event.event.offsetX ?? event.event.clientX, y: event.event.clientY } });
      });
      map.on("plotly_unhover", () => tell({ kind: "hover", ids: [] }));
      map.on("plotly_click", (event) => tell({ kind: "choose", ids: [event.points[0].customdata] }));
      map.on("plotly_selected", (event) => tell({ kind: "select", ids: event ? event.points.map((one) => one.customdata).filter(Boolean) : [] }));
      map.on("plotly_deselect", () => tell({ kind: "select", ids: [] }));
      map.on("plotly_relayout", (event) => { if (event.dragmode) drawn.dragmode = event.dragmode; });
      tell({ kind: "drawn" });
    });
  }

  addEventListener("message", (event) => {
    if (event.source === parent && event.data && event.data.kind === "draw") draw(event.data);
  });
  tell({ kind: "ready" });
})();
