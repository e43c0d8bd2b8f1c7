"use strict";
// Moves through the frames of the film and draws them; without it the page still says everything but this.
(async () => {
  const film = JSON.parse(document.getElementById("film-data").textContent);
  const { height, width, names, colours, frames, ignoring } = film;
  const cells = height * width;
  const size = names.length * cells;

  const packed = Uint8Array.from(atob(film.packed), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const block = (number) => bytes.subarray(number * size, (number + 1) * size);
  const targets = block(0);
  const ignored = ignoring ? block(1) : new Uint8Array(size);
  const pictures = frames.map((_, number) => block(number + (ignoring ? 2 : 1)));
  // each frame is packed as what changed since the one before
  for (let f = 1; f < pictures.length; f++) {
    for (let i = 0; i < size; i++) pictures[f][i] ^= pictures[f - 1][i];
  }

  const PANEL = 112; // pixels that the longer side of a grid should have
  const LEGIBLE = 17; // and a cell with a number in it
  const wrongColour = "#b3261e";
  // black or white, whichever is read better
  const inks = colours.map((colour) => {
    const [r, g, b] = [1, 3, 5].map((at) => (parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
  });

  const slider = document.getElementById("step");
  const label = document.getElementById("label");
  const numbers = document.getElementById("numbers");
  const play = document.getElementById("play");
  const cards = names.map(card);

  function card(name) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const panels = document.createElement("div");
    panels.className = width > 2 * height ? "panels wide" : "panels";
    const canvases = ["target", "reconstruction", "error"].map((kind) => {
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      canvas.dataset.kind = kind;
      panels.append(canvas);
      return canvas;
    });
    figure.append(caption, panels);
    document.getElementById("grids").append(figure);
    return { name, caption, canvases };
  }

  function brush(canvas) {
    const plain = Math.max(1, Math.floor(PANEL / Math.max(height, width)));
    const side = numbers.checked ? Math.max(LEGIBLE, plain) : Math.max(plain, Math.min(6, Math.floor(320 / width)));
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * side * scale);
    canvas.height = Math.round(height * side * scale);
    canvas.style.width = `${width * side}px`;
    canvas.style.height = `${height * side}px`;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.font = `${Math.round(side * 0.62)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    return { context, side };
  }

  function drawClasses(canvas, labels, hidden) {
    const { context, side } = brush(canvas);
    for (let i = 0; i < cells; i++) {
      const x = (i % width) * side;
      const y = Math.floor(i / width) * side;
      if (hidden[i]) {
        hatch(context, x, y, side);
        continue;
      }
      context.fillStyle = colours[labels[i]];
      context.fillRect(x, y, side, side);
      if (numbers.checked) {
        context.fillStyle = inks[labels[i]];
        context.fillText(labels[i], x + side / 2, y + side / 2 + 0.5);
      }
    }
    rule(context, side);
  }

  function drawErrors(canvas, target, labels, hidden) {
    const { context, side } = brush(canvas);
    for (let i = 0; i < cells; i++) {
      const x = (i % width) * side;
      const y = Math.floor(i / width) * side;
      if (hidden[i]) {
        hatch(context, x, y, side);
      } else if (target[i] !== labels[i]) {
        context.fillStyle = wrongColour;
        context.fillRect(x, y, side, side);
        line(context, "#fff", x + side * 0.22, y + side * 0.22, x + side * 0.78, y + side * 0.78);
        line(context, "#fff", x + side * 0.78, y + side * 0.22, x + side * 0.22, y + side * 0.78);
      }
    }
    rule(context, side);
  }

  function line(context, colour, x0, y0, x1, y1) {
    context.strokeStyle = colour;
    context.lineWidth = 1.2;
    context.beginPath();
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
    context.stroke();
  }

  function hatch(context, x, y, side) {
    line(context, "#888", x, y + side, x + side, y);
    line(context, "#888", x, y + side / 2, x + side / 2, y);
    line(context, "#888", x + side / 2, y + side, x + side, y + side / 2);
  }

  function rule(context, side) {
    if (side < 5) return;
    context.fillStyle = "rgb(128 128 128 / 35%)";
    for (let column = 1; column < width; column++) context.fillRect(column * side, 0, 1, height * side);
    for (let row = 1; row < height; row++) context.fillRect(0, row * side, width * side, 1);
  }

  function drawTargets() {
    cards.forEach(({ name, canvases }, g) => {
      const part = [g * cells, (g + 1) * cells];
      drawClasses(canvases[0], targets.subarray(...part), ignored.subarray(...part));
      canvases[0].setAttribute("aria-label", `${name}, target`);
    });
  }

  function draw() {
    const at = Number(slider.value);
    const [step, pixel, worst, worstClass] = frames[at];
    const share = (value) => (value === null ? "not measured" : value.toFixed(4));
    const of = worstClass === null ? "" : ` (class ${worstClass})`;
    label.textContent = `step ${step}: pixel accuracy ${share(pixel)}, worst class ${share(worst)}${of}`;
    slider.setAttribute("aria-valuetext", label.textContent);
    cards.forEach(({ name, caption, canvases }, g) => {
      const part = [g * cells, (g + 1) * cells];
      const [target, hidden, labels] = [targets, ignored, pictures[at]].map((all) => all.subarray(...part));
      let wrong = 0;
      for (let i = 0; i < cells; i++) wrong += !hidden[i] && target[i] !== labels[i];
      drawClasses(canvases[1], labels, hidden);
      drawErrors(canvases[2], target, labels, hidden);
      const found = wrong ? `${wrong} wrong` : "exact";
      caption.textContent = `${name}: ${found}`;
      canvases[1].setAttribute("aria-label", `${name}, reconstruction at step ${step}`);
      canvases[2].setAttribute("aria-label", `${name}, error at step ${step}: ${found}`);
    });
  }

  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    play.setAttribute("aria-pressed", "false");
    play.textContent = "▶ Play";
  }

  function move(at) {
    slider.value = at;
    draw();
  }

  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (slider.value === slider.max) move(0);
    play.setAttribute("aria-pressed", "true");
    play.textContent = "❚❚ Pause";
    timer = setInterval(() => {
      move(Number(slider.value) + 1);
      if (slider.value === slider.max) stop();
    }, 180);
  });
  slider.addEventListener("input", () => {
    if (timer !== null) stop();
    draw();
  });
  numbers.addEventListener("change", () => {
    drawTargets();
    draw();
  });
  // the slider hears these keys by itself; the other controls beside it move it too
  document.querySelector(".controls").addEventListener("keydown", (event) => {
    const at = Number(slider.value);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: Number(slider.max) }[event.key];
    if (event.target === slider || to === undefined) return;
    event.preventDefault();
    if (timer !== null) stop();
    move(to);
  });

  for (const part of document.querySelectorAll(".controls, #grids")) part.hidden = false;
  drawTargets();
  draw();
})();
