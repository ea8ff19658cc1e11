// The waveform of the recording that is edited, with regions that are dragged, and written into the field “Regions”.
(() => {
  const app = window.magnetApp;
  const FIELD = "mg-regions";

  const read = (text) => [...(text || "").matchAll(/(\d+(?:\.\d*)?)\s*(?:-|–|to)\s*(\d+(?:\.\d*)?)/g)]
    .map((match) => [Number(match[1]), Number(match[2])]).filter(([start, end]) => end > start);

  app.editor = (node, props, watch) => {
    let surfer = null, regions = null, url = null, quiet = false;
    const hint = app.make("p", { class: "mg-caption" }), name = app.make("strong", {});
    const body = app.make("div", { class: "mg-body" });
    const clear = app.make("button", { type: "button", class: "mg-action", onclick: () => {
      if (regions) regions.clearRegions();
      write();
    } }, "Clear the regions");
    const undo = app.make("button", { type: "button", class: "mg-action", onclick: () => {
      const last = regions && regions.getRegions().at(-1);
      if (last) { last.remove(); write(); }
    } }, "Remove the last");
    const tools = app.make("div", { class: "mg-row", hidden: true }, name, undo, clear);
    node.append(app.make("div", { class: "mg-panel" }, hint, body, tools));

    const write = () => {
      if (quiet || !regions) return;
      const found = regions.getRegions().map((region) => [region.start, region.end]).sort((a, b) => a[0] - b[0]);
      app.type(FIELD, found.map(([start, end]) => `${start.toFixed(2)}-${end.toFixed(2)}`).join(", "));
    };

    const place = (text) => {
      quiet = true;
      regions.clearRegions();
      for (const [start, end] of read(text)) regions.addRegion({ start, end, color: app.colour("region") });
      quiet = false;
    };

    const load = (value) => {
      if (surfer) surfer.destroy();
      body.replaceChildren();
      delete body.dataset.ready;
      regions = window.WaveSurfer.Regions.create();
      surfer = app.player(body, { url: value.url, title: value.name, height: 96, plugins: [regions] });
      regions.enableDragSelection({ color: app.colour("region") });
      regions.on("region-created", (region) => {
        if (!quiet && props.value.single) {
          for (const other of regions.getRegions()) if (other !== region) other.remove();
        }
        write();
      });
      for (const event of ["region-updated", "region-removed"]) regions.on(event, write);
      regions.on("region-double-clicked", (region) => region.remove());
      surfer.on("ready", () => place(document.querySelector(`#${FIELD} textarea, #${FIELD} input`)?.value));
    };

    const show = () => {
      const value = props.value || {};
      hint.textContent = value.hint || "";
      tools.hidden = !value.url;
      name.textContent = value.url ? `${value.name} · ${value.seconds.toFixed(1)} s` : "";
      if (value.url && value.url !== url) load(value);
      url = value.url;
    };
    watch("value", show);
    show();
    document.addEventListener("input", (event) => {             // Somebody types; what `write` does is no key press.
      if (regions && event.isTrusted && event.target.closest?.(`#${FIELD}`)) place(event.target.value);
    });
  };
})();
