// The visitor's clips as cards side by side: the one in the making first, then favourites, then the newest.
(() => {
  const app = window.magnetApp;

  // A button of a card.
  const action = (text, title, onclick, extra = {}) =>
    app.make("button", { type: "button", class: "mg-action", title, onclick, ...extra }, text);

  const card = (take, trigger, steps) => {
    const star = action("☆", "Keep as a favourite", () => trigger("favourite", { id: take.id }), { class: "mg-star" });
    const remove = action("✕", "Remove this clip", () => trigger("remove", { id: take.id }),
      { class: "mg-icon", "aria-label": "Remove this clip" });
    const body = app.make("div", { class: "mg-body" });
    const node = app.make("article", { class: "mg-card", "data-clip": take.id },
      app.make("div", { class: "mg-title" }, app.make("h3", { title: take.title }, take.title), star, remove),
      app.make("p", { class: "mg-note" }, `${take.seconds.toFixed(1)} s · seed ${take.seed}`, app.make("br"), take.note),
      body,
      app.make("div", { class: "mg-row" },
        action("Use as source", "Edit this clip", () => {
          trigger("use", { id: take.id });
          document.querySelector("#mg-tabs")?.scrollIntoView({ behavior: "smooth" });
        }, { "data-do": "use" }),
        action("Steps", "Show how it was decoded", () => steps.show(take, true), { "data-do": "steps" }),
        app.make("a", { class: "mg-action", href: take.audio, download: `magnet-${take.id}.wav`, "data-do": "download",
          title: "The audio, with its settings inside" }, "Download"),
        app.make("a", { class: "mg-action", href: take.settings, download: `magnet-${take.id}.json`,
          title: "The settings alone, as JSON" }, "JSON")));
    let surfer = null;
    return {
      node,
      attach: () => {
        surfer = surfer || app.player(body, { url: take.audio, picture: take.spectrogram, title: take.title });
      },
      update: (now) => {
        node.classList.toggle("mg-favourite", now.favourite);
        star.textContent = now.favourite ? "★" : "☆";
        star.setAttribute("aria-pressed", String(now.favourite));
        star.setAttribute("aria-label", now.favourite ? "Favourite" : "Keep as a favourite");
      },
      remove: () => { if (surfer) surfer.destroy(); node.remove(); },
    };
  };

  const pendingCard = () => {
    const title = app.make("h3", {}), note = app.make("p", { class: "mg-note" });
    const bar = app.make("progress", { max: 1, value: 0 }), mask = app.make("div", {}), body = app.make("div", {});
    const node = app.make("article", { class: "mg-card mg-pending" }, app.make("div", { class: "mg-title" }, title), note,
      bar, mask, body);
    let url = null, surfer = null, live = app.liveMask(mask), label = null;
    return {
      node,
      update: (pending) => {
        if (pending.title !== label) { label = pending.title; mask.replaceChildren(); live = app.liveMask(mask); }
        title.textContent = pending.title || "…";
        note.textContent = pending.ahead ? `waiting for ${pending.ahead} before it`
          : pending.audio ? `${pending.seconds.toFixed(1)} s are finished; step ${pending.done} of ${pending.total}`
            : pending.total ? `step ${pending.done} of ${pending.total}` : "starting";
        bar.max = pending.total || 1;
        bar.value = pending.done;
        live(pending);
        if (pending.audio && pending.audio !== url && !(surfer && surfer.isPlaying())) {
          url = pending.audio;
          if (surfer) surfer.destroy();
          body.replaceChildren();
          surfer = app.player(body, { url, title: pending.title, height: 44 });
        }
      },
      remove: () => { if (surfer) surfer.destroy(); node.remove(); },
    };
  };

  app.shelf = (element, props, watch, trigger) => {
    const cards = new Map();
    let pending = null, newest = null;
    const empty = app.make("p", { class: "mg-empty" }, "Your clips appear here, side by side, as they finish.");
    const clear = action("Clear all but favourites", "Remove clips that are no favourites", () => trigger("clear", {}));
    const count = app.make("h2", {}, "Clips");
    const top = app.make("div", { class: "mg-bar" }, count, clear);
    const grid = app.make("div", { class: "mg-grid" });
    element.append(top, empty, grid);
    const steps = app.stepsView(element);

    const show = () => {
      const value = props.value || { takes: [], pending: null };
      const names = new Set(value.takes.map((take) => take.id));
      for (const [id, one] of cards) if (!names.has(id)) { one.remove(); cards.delete(id); }
      if (value.pending && !pending) pending = pendingCard();
      if (!value.pending && pending) { pending.remove(); pending = null; }
      const order = pending ? [pending.node] : [];
      for (const take of value.takes) {
        if (!cards.has(take.id)) cards.set(take.id, card(take, trigger, steps));
        cards.get(take.id).update(take);
        order.push(cards.get(take.id).node);
      }
      order.forEach((node, index) => {
        if (grid.children[index] !== node) grid.insertBefore(node, grid.children[index] || null);
      });
      for (const one of cards.values()) one.attach();
      if (pending) pending.update(value.pending);
      empty.hidden = order.length > 0;
      top.hidden = order.length === 0;
      count.textContent = value.takes.length ? `Clips (${value.takes.length})` : "Clips";
      if (!names.has(steps.clip())) steps.hide();
      const latest = value.takes.reduce((best, take) => (!best || take.id > best.id ? take : best), null);
      if (latest && latest.id !== newest && !value.pending) steps.show(latest, false);
      newest = latest && !value.pending ? latest.id : newest;
    };
    watch("value", show);
    show();
  };
})();
