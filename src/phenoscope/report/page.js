"use strict";
// Draws a page's figures when they come near the window, in the page's colours, with menus and legends as plain HTML.
(() => {
  const NARROW = 620; // pixels of width under which the columns of a figure stand below one another
  const METHODS = { relayout: Plotly.relayout, restyle: Plotly.restyle, update: Plotly.update };
  const TOOLS = ["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"];
  const COLORS = ["#2e7cc4", "#d1603d", "#3a9a72", "#a06cc0", "#c0922a", "#3f9fb0", "#c4577f", "#7d8790"];
  const MARGIN = { l: 60, r: 20, t: 50, b: 50 };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)");
  const drawn = new Set();

  // Labels come escaped for plotly; as textContent they must not be.
  const plain = (label) =>
    String(label ?? "").replace(/<br>/g, " ").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");

  function element(tag, parent, properties = {}) {
    const made = Object.assign(document.createElement(tag), properties);
    parent.append(made);
    return made;
  }

  function template() {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const axis = {
      gridcolor: color("--grid"), linecolor: color("--line"), zerolinecolor: color("--line"), tickcolor: color("--line"),
      automargin: true, exponentformat: "power", tickfont: { color: color("--muted"), size: 11 }, title: { standoff: 8, font: { color: color("--muted") } },
    };
    const axis3d = { gridcolor: color("--line"), color: color("--muted"), backgroundcolor: "rgba(0,0,0,0)" };
    const bar = { tickfont: { color: color("--muted"), size: 11 }, title: { font: { color: color("--muted") } } };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, color: color("--text"), size: 12 },
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
        xaxis: axis, yaxis: axis, polar: { bgcolor: "rgba(0,0,0,0)", radialaxis: axis, angularaxis: axis },
        scene: { xaxis: axis3d, yaxis: axis3d, zaxis: axis3d }, coloraxis: { colorbar: bar }, colorway: COLORS,
        annotationdefaults: { font: { color: color("--text"), size: 13 } },
        hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--line"), font: { color: color("--text") } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--muted"), activecolor: color("--accent") },
      },
      data: { heatmap: [{ colorbar: bar }] },
    };
  }

  // What the layout becomes at this width: the figure's own changes, and a height where it keeps its aspect.
  function fitted(layout, width) {
    const mode = width < NARROW ? "narrow" : "wide";
    const meta = layout.meta ?? {};
    const change = { ...meta[mode], width };
    if (meta.aspect) {
      const { l, r, t, b } = layout.margin;
      change.height = Math.round(meta.aspect[mode] * (width - l - r)) + t + b;
    }
    return change;
  }

  function controls(figure, drawing, menus) {
    const box = figure.querySelector(".controls");
    for (const menu of menus) {
      const name = plain(menu.name);
      const labels = menu.buttons.map(({ label }) => plain(label).slice(name ? name.length + 2 : 0));
      const run = (index) => METHODS[menu.buttons[index].method](drawing, ...structuredClone(menu.buttons[index].args));
      const control = element(labels.length > 4 ? "label" : "fieldset", box, { className: "control" });
      element("span", control, { textContent: name });
      if (labels.length > 4) {
        const select = element("select", control);
        labels.forEach((label, index) => element("option", select, { textContent: label, value: index }));
        select.selectedIndex = menu.active ?? 0;
        select.addEventListener("change", () => run(select.selectedIndex));
        continue;
      }
      control.setAttribute("aria-label", name);
      const choices = element("span", control, { className: "choices" });
      const buttons = labels.map((label) => element("button", choices, { type: "button", textContent: label }));
      const press = (chosen) => buttons.forEach((button, index) => button.setAttribute("aria-pressed", index === chosen));
      buttons.forEach((button, index) => button.addEventListener("click", () => { press(index); run(index); }));
      press(menu.active ?? 0);
    }
  }

  function legend(figure, drawing, spec) {
    const box = figure.querySelector(".legend");
    let row;
    spec.data.forEach((trace, index) => {
      if (trace.showlegend === false || !trace.name) return;
      const title = trace.legendgrouptitle?.text;
      if (!row || title) {
        row = element("div", box);
        if (title) element("b", row, { textContent: plain(title) });
      }
      const same = (other, at) => (trace.legendgroup ? other.legendgroup === trace.legendgroup : at === index);
      const members = spec.data.flatMap((other, at) => (same(other, at) ? [at] : []));
      let shown = trace.visible !== "legendonly";
      const button = element("button", row, { type: "button" });
      const full = drawing._fullData[index];
      const swatch = element("i", button, { className: full.mode === "markers" || full.type === "bar" ? "mark" : "" });
      const colors = [trace, full].flatMap((each) => [each.line?.color, each.marker?.color]);
      swatch.style.background = colors.find((color) => typeof color === "string") ?? "currentColor";
      element("span", button, { textContent: plain(trace.name) });
      button.setAttribute("aria-pressed", shown);
      button.addEventListener("click", () => {
        shown = !shown;
        button.setAttribute("aria-pressed", shown);
        Plotly.restyle(drawing, { visible: shown ? true : "legendonly" }, members);
      });
    });
  }

  async function draw(figure) {
    if (drawn.has(figure)) return;
    drawn.add(figure);
    const drawing = figure.querySelector(".drawing");
    try {
      const spec = JSON.parse(document.getElementById(figure.dataset.figure).textContent);
      const menus = spec.layout.updatemenus ?? [];
      delete spec.layout.updatemenus;
      spec.layout.margin = { ...MARGIN, ...spec.layout.margin };
      if (menus.length) spec.layout.margin.t = Math.max(spec.layout.margin.t - 40, 0); // the room of the menus
      const named = spec.layout.showlegend !== false;
      Object.assign(spec.layout, { template: template(), showlegend: false, width: drawing.clientWidth });
      if (touch.matches) {
        spec.layout.dragmode = false; // so that a finger scrolls the page
        spec.layout.margin.t = Math.max(spec.layout.margin.t, 38); // the tool bar is always there
      }
      await Plotly.newPlot(drawing, spec.data, spec.layout, {
        displaylogo: false, plotlyServerURL: "", modeBarButtons: [TOOLS], // plotly's own bar offers to upload the figure
      });
      if (named) legend(figure, drawing, spec);
      await Plotly.relayout(drawing, fitted(drawing.layout, drawing.clientWidth));
      drawing.style.minHeight = "";
      controls(figure, drawing, menus);
      watch(drawing);
      figure.dataset.drawn = "";
    } catch (error) {
      drawing.replaceChildren();
      element("p", drawing, { className: "note", textContent: `This figure could not be drawn: ${error.message}` });
      throw error;
    }
  }

  function watch(drawing) {
    let width = drawing.clientWidth;
    new ResizeObserver(() => {
      if (!drawing.clientWidth || drawing.clientWidth === width) return;
      width = drawing.clientWidth;
      requestAnimationFrame(() => Plotly.relayout(drawing, fitted(drawing.layout, width)));
    }).observe(drawing);
  }

  const figures = [...document.querySelectorAll("figure.plot")];
  const near = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
      near.unobserve(entry.target);
      draw(entry.target);
    }),
    { rootMargin: "800px" },
  );
  figures.forEach((figure) => near.observe(figure));
  addEventListener("beforeprint", () => figures.forEach(draw));
  dark.addEventListener("change", () => drawn.forEach((figure) => {
    const drawing = figure.querySelector(".drawing");
    if (drawing.layout) Plotly.relayout(drawing, { template: template() });
  }));
})();
