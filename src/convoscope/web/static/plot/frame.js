"use strict";
// Draws what the page sends, and tells the page what was pointed at. It has no network, no storage, no other window.
(() => {
  const map = document.getElementById("map");
  const tell = (message) => parent.postMessage(message, "*");
  let drawn = null;
  let last = null;
  // above so many points a canvas draws them; without WebGL each point is an element of the page, and as many are drawn
  const FEW = 4000;
  const canvas = Boolean(document.createElement("canvas").getContext("webgl"));
  const type = (given) => (given.ids.length > FEW && canvas ? "scattergl" : "scatter");
  const every = (given) => (canvas ? 1 : Math.ceil(given.ids.length / FEW));
  /** The more points, the smaller: those that lie over one another hide each other. */
  const size = (given) => (given.thumbs || given.ids.length > 20000 ? 4 : given.ids.length > 2000 ? 6 : 8);

  function traces(given) {
    const { colour, style } = given;
    if (colour === "trust") {
      const some = given.ids.map((_, i) => i).filter((i) => i % every(given) === 0);
      return [trace(given, some, "", { color: some.map((i) => given.trust[i]), colorscale: "Cividis", cmin: 0, cmax: 1, colorbar: { title: { text: given.words.trust }, thickness: 10, outlinewidth: 0, tickfont: { color: style.soft } } })];
    }
    // the page chose the groups and their colours, and shows them beside the map
    const place = new Map();
    given.groups.forEach((group, number) => { for (const key of group.rest ?? [group.key]) place.set(key, number); });
    const group = (i) => {
      const key = colour === "error" ? String(given.wrong[i]) : (colour === "label" ? given.label[i] : given.prediction[i]) ?? "–";
      return given.groups[place.get(key) ?? given.groups.length - 1];
    };
    // no group lies on top of the others: points are drawn in an order that mixes them, and mistakes last
    const turn = (i) => (i * 0.618033988749895) % 1 + (colour === "error" && given.wrong[i] === true ? 1 : 0);
    const order = given.ids.map((_, i) => i).filter((i) => i % every(given) === 0).sort((a, b) => turn(a) - turn(b));
    const wrong = (i) => colour === "error" && group(i).key === "true";
    return [trace(given, order, "", { color: order.map((i) => group(i).colour), ...(colour === "error" ? { symbol: order.map((i) => (wrong(i) ? "x" : "circle")), size: order.map((i) => size(given) + (wrong(i) ? 2 : 0)) } : {}) })];
  }

  function trace(given, which, name, marker) {
    return {
      type: type(given), mode: "markers", name, x: which.map((i) => given.x[i]), y: which.map((i) => given.y[i]),
      customdata: which.map((i) => given.ids[i]), hoverinfo: "none",
      marker: { size: size(given), opacity: given.ids.length > 20000 ? 0.6 : 0.85, line: { width: given.ids.length > FEW ? 0 : 0.5, color: given.style.page }, ...marker },
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
    const step = Math.max(1, Math.ceil(x.length / 48));
    return x.map((one, i) => [one, y[i]]).filter((_, i) => i % step === 0);
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
      data.push({ type: type(given), mode: "markers", name: "found", x: given.hits.map((i) => given.x[i]), y: given.hits.map((i) => given.y[i]), customdata: given.hits.map((i) => given.ids[i]), hoverinfo: "none",
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
    last = given;
    Plotly.react(map, data, layout, { displaylogo: false, showSendToCloud: false, plotlyServerURL: "", responsive: true, scrollZoom: true, modeBarButtonsToRemove: ["sendChartToCloud", "toImage", "autoScale2d"] }).then(() => {
      tell({ kind: "drawn", turn: given.turn, shown: Math.ceil(given.ids.length / every(given)) });
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
        const at = corners(event);
        // where not every point is drawn, those between are gathered, too
        const ids = every(last) > 1 && at ? last.ids.filter((_, i) => within(at, last.x[i], last.y[i])) : event?.points.map((one) => one.customdata).filter(Boolean);
        tell({ kind: "select", ids: ids ?? [], at });
      });
      map.on("plotly_deselect", () => { tell({ kind: "select", ids: [], at: null }); });
      map.on("plotly_relayout", (event) => { if (event.dragmode) drawn.dragmode = event.dragmode; });
    });
  }

  addEventListener("message", (event) => {
    if (event.source !== parent || event.data?.kind !== "draw") return;
    if (down) waiting = event.data; else draw(event.data);
  });
  // drawing anew would end a lasso under the hand that draws it
  let down = false, waiting = null;
  addEventListener("pointerdown", () => { down = true; }, true);
  for (const kind of ["pointerup", "pointercancel"]) {
    addEventListener(kind, () => setTimeout(() => {
      down = false;
      const given = waiting;
      waiting = null;
      if (given) draw(given);
    }), true);
  }
  tell({ kind: "ready" });
})();
