// The page: which object, how it is shown, and what follows the server's changes.
"use strict";

const $ = (id) => document.getElementById(id);
let state = null, shown = [], pose = null, loading = 0;

class Pane {
  constructor(index) {
    this.index = index;
    this.view = null;
    this.inputs = [];
    this.figure = document.createElement("figure");
    const layer = () => Object.assign(document.createElement("div"), { className: "frustums" });
    this.layers = { behind: layer(), before: layer() };
    this.message = document.createElement("p");
    this.caption = document.createElement("figcaption");
    this.figure.append(this.layers.behind, this.layers.before, this.message, this.caption);
    $("stage").append(this.figure);
  }

  stop() {
    this.view?.stop();
    this.view = null;
    this.figure.querySelector("canvas")?.remove();
  }

  caption_(text) {
    this.caption.textContent = text;
  }

  async load(name) {
    const set = state.sets[this.index], number = set.objects.indexOf(name);
    const step = set.step === null ? "" : ` · step ${set.step.toLocaleString("en")}`;
    this.caption_(`${set.title}${step}`);
    if (number < 0) throw new Error(`${set.title} has no ${name}.`);
    const path = `/sets/${this.index}/objects/${number}`;
    const [about, buffer] = await Promise.all([fetched(path, "json"), fetched(`${path}/gaussians`, "arrayBuffer")]);
    return { about, buffer, path, caption: `${set.title}${step} · ${about.gaussians.toLocaleString("en")} Gaussians` };
  }

  show({ about, buffer, path, caption }) {
    this.stop();
    this.caption_(caption);
    this.message.textContent = new DataView(buffer).getUint32(4, true) ? "" : "No Gaussian here is opaque enough to be seen.";
    const canvas = document.createElement("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${caption}: drag to turn, wheel to zoom`);
    this.layers.behind.after(canvas);
    const { radius, fovYDeg } = state.camera;
    this.focal = 1 / Math.tan((fovYDeg * Math.PI) / 360);
    const options = { radius, fovYDeg, elevationDeg: 10, turning: false, scale: Number($("scale").value), drawn: drawnBy() };
    options.onTurn = (camera) => follow(this, camera);
    options.onFrame = (camera) => this.drawn(camera);
    this.view = turnGaussians(canvas, buffer, options);
    if (pose !== null) this.view.look(pose);
    this.inputs = about.inputs.map((input, k) => ({ ...input, image: input.hasImage ? `${path}/inputs/${k}.png?version=${state.version}` : null }));
    this.frustums = makeFrustums(this.layers, this.inputs);
  }

  // What goes with an image: the frustums around it, and where it is seen from.
  drawn(camera) {
    const areShown = $("cameras").checked;
    for (const layer of Object.values(this.layers)) layer.hidden = !areShown;
    if (areShown) this.frustums(camera, this.focal);
    if (this !== shown.find((pane) => pane.view !== null)) return;
    const azimuth = ((camera.azimuthDeg % 360) + 360) % 360, { elevationDeg, radius } = camera;
    $("pose").textContent = `azimuth ${azimuth.toFixed(0)}° · elevation ${elevationDeg.toFixed(0)}° · distance ${radius.toFixed(2)}`;
  }
}

// ?drawn=gpu or cpu, to choose what viewer.js else finds out.
const drawnBy = () => new URLSearchParams(location.search).get("drawn") ?? undefined;

async function fetched(path, as) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(await answer.text());
  return answer[as]();
}

// All views have one camera.
function follow(source, camera) {
  pose = camera;
  for (const pane of shown) if (pane !== source) pane.view?.look(camera);
}

function look(camera) {
  pose = { ...(shown[0]?.view?.camera ?? {}), ...camera };
  for (const pane of shown) pane.view?.look(pose);
}

async function choose(name) {
  const turn = ++loading; // of several choices, the last one counts
  $("status").textContent = `Loading ${name} …`;
  const loaded = await Promise.allSettled(shown.map((pane) => pane.load(name)));
  if (turn !== loading) return;
  const notes = [];
  loaded.forEach(({ status, value, reason }, k) => {
    const pane = shown[k], of = shown.length > 1 ? `${state.sets[k].title}: ` : "";
    try {
      if (status === "rejected") throw reason;
      pane.show(value);
      notes.push(...value.about.notes.map((note) => of + note));
    } catch (error) {
      pane.stop();
      pane.message.textContent = error.message;
    }
  });
  $("notes").replaceChildren(...notes.map((note) => Object.assign(document.createElement("li"), { textContent: note })));
  $("status").textContent = "";
  document.title = name;
  showInputs();
  document.body.dataset.shown = `${name}@${state.version}`;
}

// The images that the first network was given; a click looks from there.
function showInputs() {
  const inputs = shown.find((pane) => pane.inputs.length)?.inputs ?? [];
  $("cameras").disabled = inputs.length === 0;
  if (inputs.length === 0) $("cameras").checked = false;
  $("inputs").hidden = inputs.length === 0;
  $("inputs").replaceChildren(...inputs.map(({ image, c2w }, k) => {
    const button = document.createElement("button");
    button.title = `Look from input ${k}`;
    button.append(image === null ? String(k) : Object.assign(document.createElement("img"), { src: image, alt: button.title }));
    button.onclick = () => {
      const [x, y, z] = c2w.slice(0, 3).map((row) => row[3]), radius = Math.hypot(x, y, z);
      look({ azimuthDeg: (Math.atan2(x, z) * 180) / Math.PI, elevationDeg: (Math.asin(y / radius) * 180) / Math.PI, radius });
    };
    return button;
  }));
}

function offer() {
  const before = $("object").value, { sets } = state;
  // Two files stand beside each other, whatever they are called.
  if (sets.length > 1 && sets.every((set) => set.objects.length === 1)) {
    const both = [...new Set(sets.map((set) => set.objects[0]))].join(" | ");
    for (const set of sets) set.objects = [both];
  }
  const offered = [...new Set(sets.flatMap((set) => set.objects))];
  $("object").replaceChildren(...offered.map((name) => new Option(name)));
  if (offered.includes(before)) $("object").value = before;
  for (const id of ["previous", "next"]) $(id).disabled = offered.length < 2;
  return offered.length > 0;
}

function step(by) {
  const select = $("object"), count = select.options.length;
  select.selectedIndex = (select.selectedIndex + by + count) % count;
  choose(select.value);
}

const background = () => {
  const value = $("background").value;
  return value === "transparent" ? null : value === "custom" ? $("color").value : { white: "#ffffff", black: "#000000", gray: "#808080" }[value];
};

function showBackground() {
  const value = $("background").value;
  $("color").hidden = value !== "custom";
  $("stage").dataset.background = value;
  for (const figure of $("stage").children) figure.style.background = value === "custom" ? $("color").value : "";
}

async function save(button, work) {
  const views = shown.map((pane) => pane.view).filter((view) => view !== null);
  if (views.length === 0) return;
  button.disabled = true;
  try {
    await work(views);
    $("status").textContent = "Saved.";
  } catch (error) {
    $("status").textContent = error.message;
  }
  button.disabled = false;
}

async function watch() {
  while (state.live) {
    try {
      const next = await fetched(`/state?after=${state.version}`, "json");
      if (next.version === state.version && next.live) continue;
      state = next;
    } catch {
      state = { ...state, live: false };
    }
    if (!state.live) $("status").textContent = "The training has ended.";
    else if (offer()) await choose($("object").value);
  }
}

async function begin() {
  state = await fetched("/state", "json");
  shown = state.sets.map((_, index) => new Pane(index));
  $("object").onchange = () => choose($("object").value);
  $("previous").onclick = () => step(-1);
  $("next").onclick = () => step(1);
  $("scale").oninput = () => {
    $("scale-value").textContent = Number($("scale").value).toFixed(2);
    for (const pane of shown) pane.view?.setScale(Number($("scale").value));
  };
  $("background").onchange = $("color").oninput = showBackground;
  $("cameras").onchange = () => {
    // From where an input camera stands, its own frustum and those beside it are out of sight.
    if ($("cameras").checked && shown[0].view.camera.radius < 2 * state.camera.radius) look({ radius: 2.4 * state.camera.radius });
    else look({});
  };
  $("reset").onclick = () => look({ azimuthDeg: 0, elevationDeg: 10, radius: state.camera.radius });
  $("save-image").onclick = (event) =>
    save(event.target, (views) => saveImage(views, Number($("size").value), background(), $("object").value));
  $("save-turntable").onclick = (event) =>
    save(event.target, (views) => saveTurntable(views, background(), $("object").value, (fraction) => {
      $("status").textContent = `Turntable: ${Math.round(100 * fraction)} %`;
    }));
  showBackground();
  if (offer()) await choose($("object").value);
  else $("status").textContent = "Waiting for the first validation …";
  watch();
}

begin().catch((error) => ($("status").textContent = error.message));
