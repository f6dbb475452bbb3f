"use strict";
// Draws what the page sends, and tells the page what was pointed at. It has no network, no storage, no other window.
(() => {
  const map = document.getElementById("map");
  const tell = (message) => parent.postMessage(message, "*");
  let drawn = null;

  function traces(given) {
    const { colour, style } = given;
    const groups = new Map();
    if (colour === "trust") {
      return [trace(given, given.ids.map((_, i) => i), "", { color: given.trust, colorscale: "Cividis", cmin: 0, cmax: 1, colorbar: { title: { text: given.words.trust }, thickness: 10, outlinewidth: 0, tickfont: { color: style.soft } } })];
    }
    // the page chose the groups and their colours, and shows them beside the map
    const place = new Map();
    given.groups.forEach((group, number) => { for (const key of group.rest ?? [group.key]) place.set(key, number); });
    given.ids.forEach((_, i) => {
      const key = colour === "error" ? String(given.wrong[i]) : (colour === "label" ? given.label[i] : given.prediction[i]) ?? "–";
      const number = place.get(key) ?? given.groups.length - 1;
      if (!groups.has(number)) groups.set(number, []);
      groups.get(number).push(i);
    });
    return [...groups.keys()].sort((a, b) => b - a).map((number) => {
      const group = given.groups[number];
      const wrong = colour === "error" && group.key === "true";
      return trace(given, groups.get(number), group.name, { color: group.colour, symbol: wrong ? "x" : "circle", ...(wrong ? { size: 10 } : {}) });
    });
  }

  function trace(given, which, name, marker) {
    return {
      type: given.ids.length > 8000 ? "scattergl" : "scatter", mode: "markers", name, x: which.map((i) => given.x[i]), y: which.map((i) => given.y[i]),
      customdata: which.map((i) => given.ids[i]), hoverinfo: "none",
      marker: { size: given.thumbs ? 4 : 8, opacity: 0.85, line: { width: 0.5, color: given.style.page }, ...marker },
      selected: { marker: { opacity: 1 } }, unselected: { marker: { opacity: 0.18 } },
    };
  }

  /** At most 48 corners of what was drawn: a lasso's, or a box's four. */
  function corners(event) {
    if (event?.range) {
      const { x, y } = event.range;
      return [[x[0], y[0]], [x[1], y[0]], [x[1], y[1]], [x[0], y[1]]];
    }
    if (!event?.lassoPoints) return null;
    const { x, y } = event.lassoPoints;
    const every = Math.max(1, Math.ceil(x.length / 48));
    return x.map((one, i) => [one, y[i]]).filter((_, i) => i % every === 0);
  }

  /** Whether a point lies in a polygon (even-odd rule). */
  function within(points, x, y) {
    let inside = false;
    for (let i = 0, j = points.length - 1; i < points.length; j = i, i += 1) {
      const [ax, ay] = points[i], [bx, by] = points[j];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) inside = !inside;
    }
    return inside;
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
    // the true neighbours of the chosen picture, wherever the plane has put them
    if (spot && given.near?.length) {
      const ends = given.near.flatMap((i) => [[spot[0], spot[1]], [given.x[i], given.y[i]], [null, null]]);
      data.unshift({ type: "scatter", mode: "lines", name: "near", x: ends.map((one) => one[0]), y: ends.map((one) => one[1]), hoverinfo: "skip", line: { color: style.accent, width: 1 }, selectedpoints: null });
    }
    if (given.hits) {
      data.push({ type: given.ids.length > 8000 ? "scattergl" : "scatter", mode: "markers", name: "found", x: given.hits.map((i) => given.x[i]), y: given.hits.map((i) => given.y[i]), customdata: given.hits.map((i) => given.ids[i]), hoverinfo: "none",
        marker: { size: 13, symbol: "circle-open", color: style.ink, line: { width: 1.5 } } });
    }
    const annotations = (given.names ?? []).map((one) => ({ x: one.x, y: one.y, text: one.text.replace(/[<>&]/g, " "), showarrow: false, font: { color: style.ink, size: 12 }, bgcolor: style.page, opacity: 0.8, borderpad: 1, captureevents: false }));
    // thousands of numbers cannot be handed over as arguments
    const range = (values) => values.reduce((most, one) => Math.max(most, one), -Infinity) - values.reduce((least, one) => Math.min(least, one), Infinity) || 1;
    const side = Math.max(range(given.x), range(given.y)) / 26;
    const images = given.thumbs ? given.ids.flatMap((id, i) => given.thumbs[id] ? [{ source: given.thumbs[id], x: given.x[i], y: given.y[i], sizex: side, sizey: side, xanchor: "center", yanchor: "middle", xref: "x", yref: "y", layer: "below" }] : []) : [];
    const axis = { showgrid: false, zeroline: false, showticklabels: false, fixedrange: false };
    if (given.lasso && drawn === null) {
      for (const one of data) one.selectedpoints = one.x.map((x, i) => (within(given.lasso, x, one.y[i]) ? i : -1)).filter((i) => i >= 0);
    }
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: style.ink, family: "system-ui, sans-serif", size: 12 }, margin: { l: 8, r: 8, t: 8, b: 8 },
      xaxis: axis, yaxis: { ...axis, scaleanchor: "x" }, dragmode: drawn?.dragmode ?? "lasso", hovermode: "closest", images, annotations, uirevision: `${given.ids.length}-${given.x[0]}`,
      showlegend: false, modebar: { color: style.soft, activecolor: style.accent, bgcolor: "rgba(0,0,0,0)" },
    };
    Plotly.react(map, data, layout, { displaylogo: false, showSendToCloud: false, plotlyServerURL: "", responsive: true, scrollZoom: true, modeBarButtonsToRemove: ["sendChartToCloud", "toImage", "autoScale2d"] }).then(() => {
      if (drawn) return;
      drawn = { dragmode: "lasso" };
      if (given.lasso) tell({ kind: "select", ids: given.ids.filter((_, i) => within(given.lasso, given.x[i], given.y[i])) });
      map.on("plotly_hover", (event) => {
        const one = event.points[0];
        tell({ kind: "hover", ids: [one.customdata], at: { x: event.event.offsetX ?? event.event.clientX, y: event.event.clientY } });
      });
      map.on("plotly_unhover", () => tell({ kind: "hover", ids: [] }));
      map.on("plotly_click", (event) => tell({ kind: "choose", ids: [event.points[0].customdata] }));
      map.on("plotly_selected", (event) => {
        tell({ kind: "select", ids: event ? event.points.map((one) => one.customdata).filter(Boolean) : [], at: corners(event) });
      });
      map.on("plotly_deselect", () => { tell({ kind: "select", ids: [], at: null }); });
      map.on("plotly_relayout", (event) => { if (event.dragmode) drawn.dragmode = event.dragmode; });
      tell({ kind: "drawn" });
    });
  }

  addEventListener("message", (event) => {
    if (event.source === parent && event.data && event.data.kind === "draw") draw(event.data);
  });
  tell({ kind: "ready" });
})();
