// A waveform with a play button, and a spectrogram below it that has the same time axis.
(() => {
  const app = window.magnetApp;

  app.player = (container, { url, picture, title, height = 56, plugins = [] }) => {
    const button = app.make("button", { type: "button", class: "mg-play", "aria-label": `Play ${title}` }, "▶");
    const time = app.make("span", { class: "mg-time" }, "0:00.0");
    const wave = app.make("div", { class: "mg-wave" });
    const head = app.make("div", { class: "mg-head" });
    const spectrum = picture && app.make("div", { class: "mg-spectrum" },
      app.make("img", { src: picture, alt: `Spectrogram of ${title}`, loading: "lazy" }), head);
    container.append(app.make("div", { class: "mg-player" }, button,
      app.make("div", { class: "mg-tracks" }, wave, spectrum), time));
    const surfer = window.WaveSurfer.create({
      container: wave, url, height, plugins, normalize: true, dragToSeek: !plugins.length, waveColor: app.colour("wave"),
      progressColor: app.colour("played"), cursorColor: app.colour("cursor"), cursorWidth: 2, barWidth: 2, barGap: 1,
      barRadius: 2,
    });
    app.whenLooksChange(wave, () => surfer.setOptions({ waveColor: app.colour("wave"), cursorColor: app.colour("cursor"),
      progressColor: app.colour("played") }));
    button.addEventListener("click", () => surfer.playPause());
    surfer.on("ready", (length) => { time.textContent = app.seconds(length); container.dataset.ready = "true"; });
    surfer.on("error", () => { time.textContent = "cannot be played"; });
    surfer.on("timeupdate", (now) => {
      time.textContent = app.seconds(now);
      head.style.left = `${(100 * now) / Math.max(surfer.getDuration(), 1e-3)}%`;
    });
    surfer.on("play", () => {
      if (app.playing && app.playing !== surfer) app.playing.pause();
      app.playing = surfer;
      button.textContent = "❚❚";
    });
    for (const end of ["pause", "finish"]) surfer.on(end, () => { button.textContent = "▶"; });
    if (spectrum) {
      spectrum.addEventListener("click", (event) => {
        const box = spectrum.getBoundingClientRect();
        surfer.seekTo(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
      });
    }
    return surfer;
  };
})();
