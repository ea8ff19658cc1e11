// Draws tokens: a row for each codebook, time from left to right. Either what an edit keeps, or any decoding step.
(() => {
  const app = window.magnetApp;
  const ROW = 22, GAP = 3, LEFT = 26, BOTTOM = 18;

  // States of tokens after steps 0 … last: -2 kept, -1 unknown, 2 masked in the last one, or when it was decided, 0 to 1.
  const replay = (data, last) => {
    const states = data.known.map((runs) => {
      const row = new Float32Array(data.frames).fill(-1);
      for (const [first, end] of runs) row.fill(-2, first, end);
      return row;
    });
    data.steps.slice(0, last + 1).forEach((step, index) => {
      const row = states[step.codebook];
      const value = index === last ? 2 : (step.step + 1) / step.of;
      for (let frame = 0; frame < data.frames; frame++) if (row[frame] === 2) row[frame] = step.step / step.of;
      for (const [first, end] of step.masked) row.fill(value, first, end);
    });
    return states;
  };

  const mix = (share) => `color-mix(in srgb, ${app.colour("late")} ${Math.round(100 * share)}%, ${app.colour("early")})`;

  const draw = (canvas, data, last) => {
    const width = canvas.parentElement.clientWidth;
    if (!width || !data) return;
    const height = data.codebooks * (ROW + GAP) + BOTTOM, ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio; canvas.height = height * ratio;
    canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d"), scale = (width - LEFT) / data.frames;
    pen.scale(ratio, ratio);
    pen.font = "11px system-ui, sans-serif";
    const colours = new Map();
    const fill = (state) => {
      const key = state < 0 || state === 2 ? state : Math.round(state * 16) / 16;
      if (!colours.has(key)) {
        colours.set(key, key === -2 ? app.colour("kept") : key === -1 ? app.colour("unknown")
          : key === 2 ? app.colour("masked") : mix(key));
      }
      return colours.get(key);
    };
    replay(data, last).forEach((row, codebook) => {
      const top = (data.codebooks - 1 - codebook) * (ROW + GAP);
      pen.fillStyle = app.colour("ink");
      pen.fillText(String(codebook + 1), 6, top + ROW / 2 + 4);
      let first = 0;
      for (let frame = 1; frame <= data.frames; frame++) {
        if (frame < data.frames && row[frame] === row[first]) continue;
        pen.fillStyle = fill(row[first]);
        pen.fillRect(LEFT + first * scale, top, (frame - first) * scale + 0.3, ROW);
        first = frame;
      }
    });
    const length = data.frames / data.frame_rate;
    const every = [0.5, 1, 2, 5, 10, 20, 30, 60].find((step) => (step / length) * (width - LEFT) > 40) || 120;
    pen.fillStyle = app.colour("ink");
    pen.textAlign = "center";
    for (let at = 0; at <= length + 1e-6; at += every) {
      const x = LEFT + at * data.frame_rate * scale;
      pen.fillText(`${at} s`, Math.min(Math.max(x, LEFT + 8), width - 14), height - 4);
    }
  };

  const legend = (...entries) => app.make("div", { class: "mg-legend" }, ...entries.map(([name, text]) =>
    app.make("span", {}, app.make("i", { class: `mg-swatch mg-swatch-${name}` }), text)));

  // The mask of an edit, before it runs.
  app.maskView = (node, props, watch) => {
    const canvas = app.make("canvas", { role: "img" }), text = app.make("p", { class: "mg-caption" });
    const box = app.make("div", { class: "mg-panel", hidden: true }, text, app.make("div", { class: "mg-canvas" }, canvas),
      legend(["kept", "kept"], ["unknown", "generated anew"]));
    node.append(box);
    const show = () => {
      const data = props.value;
      box.hidden = !data;
      if (!data) return;
      const kept = data.known.flat().reduce((sum, [first, end]) => sum + end - first, 0);
      const share = Math.round((100 * kept) / (data.codebooks * data.frames));
      text.textContent = `This edit keeps ${share}% of the tokens. Row 1 is the coarsest codebook; the others refine it.`;
      canvas.setAttribute("aria-label", text.textContent);
      draw(canvas, data, -1);
    };
    watch("value", show);
    app.whenLooksChange(node, show);
    show();
  };

  // The decoding steps of a clip, with a slider.
  app.stepsView = (node) => {
    let data = null, timer = null;
    const canvas = app.make("canvas", { role: "img" }), text = app.make("p", { class: "mg-caption", "aria-live": "polite" });
    const slider = app.make("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Decoding step" });
    const play = app.make("button", { type: "button", class: "mg-play", "aria-label": "Play the decoding steps" }, "▶");
    const title = app.make("h3", {});
    const box = app.make("section", { class: "mg-panel mg-steps", hidden: true }, title, text,
      app.make("div", { class: "mg-canvas" }, canvas), app.make("div", { class: "mg-slider" }, play, slider),
      legend(["masked", "masked in this step, and filled in"], ["early", "decided early"], ["late", "decided late"],
        ["unknown", "not yet known"], ["kept", "kept from the recording"]));
    node.append(box);
    const show = () => {
      if (!data || !data.steps.length) return;
      const step = data.steps[slider.value];
      const count = step.masked.reduce((sum, [first, end]) => sum + end - first, 0);
      text.textContent = `Step ${Number(slider.value) + 1} of ${data.steps.length}: codebook ${step.codebook + 1}, its step `
        + `${step.step + 1} of ${step.of}. The ${count} least certain frames are masked and filled in together.`;
      canvas.setAttribute("aria-label", text.textContent);
      draw(canvas, data, Number(slider.value));
    };
    const stop = () => { clearInterval(timer); timer = null; play.textContent = "▶"; };
    const run = () => {
      if (timer) { stop(); return; }
      if (Number(slider.value) >= data.steps.length - 1) slider.value = 0;
      play.textContent = "❚❚";
      timer = setInterval(() => {
        if (Number(slider.value) >= data.steps.length - 1) { stop(); return; }
        slider.value = Number(slider.value) + 1;
        show();
      }, Math.max(60, Math.min(300, 8000 / data.steps.length)));
    };
    play.addEventListener("click", run);
    slider.addEventListener("input", () => { stop(); show(); });
    app.whenLooksChange(node, show);
    return {
      hide: () => { stop(); box.hidden = true; box.dataset.clip = ""; },
      clip: () => box.dataset.clip,
      show: async (take, scroll) => {
        stop();
        const found = await (await fetch(take.steps)).json();
        data = found;
        box.dataset.clip = take.id;
        title.textContent = `How “${take.title}” was decoded`;
        slider.max = Math.max(found.steps.length - 1, 0);
        slider.value = scroll ? 0 : slider.max;
        box.hidden = false;
        show();
        if (scroll) { box.scrollIntoView({ behavior: "smooth", block: "nearest" }); run(); }
      },
    };
  };

  // What is masked at this moment, of a clip that is being made.
  app.liveMask = (node) => {
    const canvas = app.make("canvas", { "aria-hidden": "true" });
    node.append(app.make("div", { class: "mg-canvas" }, canvas));
    const steps = [];
    let length = 0;
    return (pending) => {
      if (!pending.step || !pending.frames) return;
      if (pending.frames !== length) { steps.length = 0; length = pending.frames; }
      steps.push(pending.step);
      const known = Array.from({ length: pending.codebooks }, () => []);
      draw(canvas, { codebooks: pending.codebooks, frames: length, frame_rate: pending.frame_rate, known,
        steps }, steps.length - 1);
    };
  };
})();
