"use strict";
// Draws the frames of the animation. Without this script the rest of the page is still complete.
(async () => {
  const animation = JSON.parse(document.getElementById("animation-data").textContent);
  const { height, width, names, colours, frames, ignoring } = animation;
  const cells = height * width;
  const size = names.length * cells;

  const packed = Uint8Array.from(atob(animation.packed), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const block = (number) => bytes.subarray(number * size, (number + 1) * size);
  const targets = block(0);
  const ignored = ignoring ? block(1) : new Uint8Array(size);
  const pictures = frames.map((_, number) => block(number + (ignoring ? 2 : 1)));
  // each frame is stored as its difference from the frame before
  for (let f = 1; f < pictures.length; f++) {
    for (let i = 0; i < size; i++) pictures[f][i] ^= pictures[f - 1][i];
  }

  const PANEL = 112; // pixels of the longer side of a grid, if its cells are then large enough
  const LEGIBLE = 17; // pixels of a cell with a number
  const wrongColour = "#b3261e";
  // black or white, for the better contrast
  const inks = colours.map((colour) => {
    const [r, g, b] = [1, 3, 5].map((at) => (parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
  });

  const slider = document.getElementById("step");
  const label = document.getElementById("label");
  const numbers = document.getElementById("numbers");
  const play = document.getElementById("play");
  const grids = document.getElementById("grids");
  const cards = names.map(card);
  const seen = new Set();

  function card(name, number) {
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
    figure.dataset.number = number;
    grids.append(figure);
    return { name, caption, canvases };
  }

  function side() {
    const plain = Math.max(1, Math.floor(PANEL / Math.max(height, width)));
    if (numbers.checked) return Math.max(LEGIBLE, plain);
    return Math.max(plain, Math.min(6, Math.floor(320 / width)));
  }

  // a canvas out of sight keeps its size on the page, and needs no memory
  function layOut({ canvases }) {
    for (const canvas of canvases) {
      canvas.style.width = `${width * side()}px`;
      canvas.style.height = `${height * side()}px`;
      canvas.width = canvas.height = 0;
    }
  }

  function brush(canvas) {
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * side() * scale);
    canvas.height = Math.round(height * side() * scale);
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    context.font = `${Math.round(side() * 0.62)}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    return { context, side: side() };
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
    context.lineWidth = Math.min(1.2, 0.14 * side());
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

  function parts(g) {
    return [targets, pictures[Number(slider.value)], ignored].map((all) => all.subarray(g * cells, (g + 1) * cells));
  }

  function drawCard(g) {
    const [target, labels, hidden] = parts(g);
    drawClasses(cards[g].canvases[0], target, hidden);
    drawClasses(cards[g].canvases[1], labels, hidden);
    drawErrors(cards[g].canvases[2], target, labels, hidden);
  }

  function draw() {
    const [step, pixel, worst, worstClass] = frames[Number(slider.value)];
    const share = (value) => (value === null ? "not measured" : value.toFixed(4));
    const of = worstClass === null ? "" : ` (class ${worstClass})`;
    label.textContent = `step ${step}: pixel accuracy ${share(pixel)}, worst class ${share(worst)}${of}`;
    slider.setAttribute("aria-valuetext", label.textContent);
    cards.forEach(({ name, caption, canvases }, g) => {
      const [target, labels, hidden] = parts(g);
      let wrong = 0;
      for (let i = 0; i < cells; i++) wrong += !hidden[i] && target[i] !== labels[i];
      const found = wrong ? `${wrong} wrong` : "exact";
      caption.textContent = `${name}: ${found}`;
      canvases[0].setAttribute("aria-label", `${name}, target`);
      canvases[1].setAttribute("aria-label", `${name}, reconstruction at step ${step}`);
      canvases[2].setAttribute("aria-label", `${name}, error at step ${step}: ${found}`);
    });
    seen.forEach(drawCard);
  }

  let timer = null;
  function stop() {
    clearInterval(timer);
    timer = null;
    label.setAttribute("aria-live", "polite");
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
    label.setAttribute("aria-live", "off"); // a screen reader cannot follow five steps a second
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
    cards.forEach(layOut);
    draw();
  });
  window.addEventListener("beforeprint", () => cards.forEach((_, g) => drawCard(g)));
  window.addEventListener("afterprint", () => {
    cards.forEach(layOut);
    draw();
  });
  // the slider handles these keys itself; with the focus on another control they move it too
  document.querySelector(".controls").addEventListener("keydown", (event) => {
    const at = Number(slider.value);
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: Number(slider.max) }[event.key];
    if (event.target === slider || to === undefined) return;
    event.preventDefault();
    if (timer !== null) stop();
    move(to);
  });

  for (const part of document.querySelectorAll(".controls, #grids")) part.hidden = false;
  cards.forEach(layOut);
  draw();
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        const g = Number(target.dataset.number);
        if (isIntersecting) {
          seen.add(g);
          drawCard(g);
        } else {
          seen.delete(g);
          layOut(cards[g]);
        }
      }
    },
    { root: grids, rootMargin: "300px" },
  );
  for (const figure of grids.children) watcher.observe(figure);
})().catch(() => {
  document.getElementById("failed").hidden = false;
});
