// Orbit of 3D Gaussians (Kerbl et al. 2023), in one function and without a dependency:
//
//   const view = turnGaussians(canvas, buffer, {radius, fovYDeg, elevationDeg, azimuthDeg, scale, turning, …});
//
// buffer: of lgm.reports.splats.packing. The camera looks at the origin from (azimuth, elevation, radius), +y up,
// and moves to the right until somebody takes hold of it; a reader who prefers reduced motion gets a still image.
// WebGL draws (webgl.js), or the CPU where WebGL is emulated or missing (software.js); options.drawn = "gpu" or
// "cpu" chooses.
// options.pageScrolls: the wheel is the page's until the canvas has the focus.
// options.onTurn({azimuthDeg, elevationDeg, radius}): the camera was moved here, and view.look(…) moves another
// one along. options.onFrame(camera): an image from there is shown.
// view.setScale(…): the size of each Gaussian. view.snapshot(width, height, camera, scale): a canvas with an image
// of its own, until the next one. view.stop() ends everything.
// canvas.dataset: .frames counts what was shown, .still says whether that is from where the camera is now, .drawn
// is gpu or cpu.
"use strict";

function unpackGaussians(buffer) {
  const header = new DataView(buffer);
  if (buffer.byteLength < 40 || header.getUint32(0, false) !== 0x4c474d31) {
    throw new Error("These are no packed Gaussians.");
  }
  const count = header.getUint32(4, true);
  if (buffer.byteLength !== 40 + 17 * count) throw new Error("The packed Gaussians are incomplete.");
  const box = Array.from({ length: 8 }, (_, i) => header.getFloat32(8 + 4 * i, true));
  const whole = new Uint16Array(buffer, 40, 3 * count);
  const logs = new Uint8Array(buffer, 40 + 6 * count, 3 * count);
  const colors = new Uint8Array(buffer, 40 + 9 * count, 4 * count);
  const quats = new Int8Array(buffer, 40 + 13 * count, 4 * count);
  const means = new Float32Array(3 * count);
  const covariances = new Float32Array(6 * count); // xx, xy, xz, yy, yz, zz
  for (let i = 0; i < count; i++) {
    for (let k = 0; k < 3; k++) means[3 * i + k] = box[k] + (whole[3 * i + k] / 65535) * (box[3 + k] - box[k]);
    const s = [0, 1, 2].map((k) => Math.exp(box[6] + (logs[3 * i + k] / 255) * (box[7] - box[6])));
    let [w, x, y, z] = quats.subarray(4 * i, 4 * i + 4);
    const norm = Math.hypot(w, x, y, z) || 1;
    w /= norm; x /= norm; y /= norm; z /= norm;
    // The rotation's columns, times the scales: M, and the covariance is M Mᵀ.
    const m = [
      (1 - 2 * (y * y + z * z)) * s[0], 2 * (x * y - w * z) * s[1], 2 * (x * z + w * y) * s[2],
      2 * (x * y + w * z) * s[0], (1 - 2 * (x * x + z * z)) * s[1], 2 * (y * z - w * x) * s[2],
      2 * (x * z - w * y) * s[0], 2 * (y * z + w * x) * s[1], (1 - 2 * (x * x + y * y)) * s[2],
    ];
    const dot = (a, b) => m[3 * a] * m[3 * b] + m[3 * a + 1] * m[3 * b + 1] + m[3 * a + 2] * m[3 * b + 2];
    covariances.set([dot(0, 0), dot(0, 1), dot(0, 2), dot(1, 1), dot(1, 2), dot(2, 2)], 6 * i);
  }
  return { count, means, covariances, colors };
}

const ROUGH_MS = 200; // after a move: the CPU's images may be rough until then

function turnGaussians(canvas, buffer, options = {}) {
  const scene = unpackGaussians(buffer);
  canvas.dataset.drawn = options.drawn ?? (isWithoutGpu() ? "cpu" : "gpu");
  return turnScene(canvas, scene, canvas.dataset.drawn === "cpu" ? makeSoftwareDraw : makeDraw, options);
}

// The camera, the hand and the clock of whatever `make(canvas, scene, onFrame)` draws.
function turnScene(canvas, scene, make, options) {
  const { drawn } = canvas.dataset;
  const start = {
    azimuthDeg: options.azimuthDeg ?? 0,
    elevationDeg: options.elevationDeg ?? 0,
    radius: options.radius ?? 1.5,
  };
  const camera = { ...start };
  const focal = 1 / Math.tan(((options.fovYDeg ?? 49.1) * Math.PI) / 360); // of half the height
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let turning = options.turning ?? !isStill;
  let frame = 0, before = null, isStale = true, shown = 0, asked = start, changed = 0, isRough = false;
  let scale = options.scale ?? 1;

  function invalidate() {
    isStale = true;
    changed = performance.now();
    canvas.dataset.still = "false";
  }
  function onFrame() {
    canvas.dataset.frames = ++shown;
    if (isRough) isStale = true; // until nothing has moved for a while
    canvas.dataset.still = String(!isStale && !turning);
    options.onFrame?.(asked);
  }
  const draw = make(canvas, scene, onFrame);
  let apart = null; // a canvas for snapshots
  const size = new ResizeObserver(() => {
    const ratio = drawn === "cpu" ? 1 : Math.min(devicePixelRatio || 1, 2);
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    invalidate();
  });
  size.observe(canvas);

  function step(now) {
    frame = requestAnimationFrame(step);
    if (turning && before !== null) {
      camera.azimuthDeg += Math.min(now - before, 100) * 0.036; // 36 degrees a second
      invalidate();
    }
    before = now;
    if (!isStale) return;
    const current = [asked, isRough];
    isStale = false; // this and the next two before onFrame, which reads them
    asked = { ...camera };
    isRough = drawn === "cpu" && shown > 0 && now - changed < ROUGH_MS;
    if (!draw(camera, focal, scale, isRough)) [isStale, asked, isRough] = [true, ...current];
  }
  frame = requestAnimationFrame(step);

  function look(to) {
    Object.assign(camera, to);
    camera.elevationDeg = Math.max(-89, Math.min(89, camera.elevationDeg));
    camera.radius = Math.max(0.3 * start.radius, Math.min(4 * start.radius, camera.radius));
    invalidate();
  }
  function move(azimuth, elevation, zoom) {
    turning = false;
    look({
      azimuthDeg: camera.azimuthDeg + azimuth,
      elevationDeg: camera.elevationDeg + elevation,
      radius: camera.radius * zoom,
    });
    options.onTurn?.({ ...camera });
  }
  const forget = takeHold(canvas, options.pageScrolls, move, () => {
    look(start);
    turning = options.turning ?? !isStill;
    options.onTurn?.({ ...camera });
  });
  return {
    look,
    camera,
    setScale(value) {
      scale = value;
      invalidate();
    },
    snapshot(width, height, from = camera, by = scale) {
      if (apart === null) {
        const copy = document.createElement("canvas");
        apart = { copy, draw: make(copy, scene, () => {}) };
      }
      [apart.copy.width, apart.copy.height] = [width, height];
      apart.draw.now(from, focal, by);
      return apart.copy;
    },
    stop() {
      cancelAnimationFrame(frame);
      size.disconnect();
      forget();
      draw.stop();
      apart?.draw.stop();
    },
  };
}

// The camera's axes in the world: to the right, up, and back to the viewer.
function cameraAxes(camera) {
  const azimuth = (camera.azimuthDeg * Math.PI) / 180, elevation = (camera.elevationDeg * Math.PI) / 180;
  const right = [Math.cos(azimuth), 0, -Math.sin(azimuth)];
  const back = [
    Math.sin(azimuth) * Math.cos(elevation), Math.sin(elevation), Math.cos(azimuth) * Math.cos(elevation),
  ];
  const up = [
    back[1] * right[2] - back[2] * right[1],
    back[2] * right[0] - back[0] * right[2],
    back[0] * right[1] - back[1] * right[0],
  ];
  return { right, up, back };
}

// Mouse, pen, fingers, wheel and keys to move(degrees, degrees, zoom); returns what ends that.
function takeHold(canvas, pageScrolls, move, reset) {
  const pointers = new Map();
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
  };
  const events = {
    pointerdown(event) {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      move(0, 0, 1);
    },
    pointermove(event) {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const wide = pointers.size === 2 ? spread() : 0;
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (pointers.size === 2) move(0, 0, wide / spread());
      else move((last[0] - event.clientX) * 0.4, (event.clientY - last[1]) * 0.4, 1);
    },
    pointerup: (event) => pointers.delete(event.pointerId),
    pointercancel: (event) => pointers.delete(event.pointerId),
    wheel(event) {
      if (pageScrolls && document.activeElement !== canvas) return;
      event.preventDefault();
      move(0, 0, Math.exp(Math.max(-100, Math.min(100, event.deltaY)) * 0.002));
    },
    keydown(event) {
      const step = {
        ArrowLeft: [-5, 0, 1], ArrowRight: [5, 0, 1], ArrowUp: [0, 5, 1], ArrowDown: [0, -5, 1],
        "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1 / 0.9],
      }[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      move(...step);
    },
    dblclick: reset,
  };
  for (const [name, act] of Object.entries(events)) canvas.addEventListener(name, act, { passive: false });
  return () => {
    for (const [name, act] of Object.entries(events)) canvas.removeEventListener(name, act);
  };
}

// Fills order with the Gaussians from the farthest to the nearest along an axis that points at the viewer.
function makeSort(means, order) {
  const count = order.length, bins = 1 << 16;
  const along = new Float32Array(count), bin = new Uint16Array(count), starts = new Uint32Array(bins);
  return (axis) => {
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < count; i++) {
      const x = axis[0] * means[3 * i] + axis[1] * means[3 * i + 1] + axis[2] * means[3 * i + 2];
      along[i] = x;
      if (x < low) low = x;
      if (x > high) high = x;
    }
    const scale = (bins - 1) / Math.max(high - low, 1e-9);
    starts.fill(0);
    for (let i = 0; i < count; i++) {
      bin[i] = (along[i] - low) * scale;
      starts[bin[i]]++;
    }
    for (let b = 0, sum = 0; b < bins; b++) [starts[b], sum] = [sum, sum + starts[b]];
    for (let i = 0; i < count; i++) order[starts[bin[i]]++] = i;
  };
}
