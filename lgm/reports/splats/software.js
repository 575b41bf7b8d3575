// The same image without a GPU. Where WebGL is emulated on the CPU (virtual machines, remote desktops) every quad
// is blended in full, however much stands in front of it, and a frame takes a second. Here Gaussians are drawn front
// to back, and a pixel is left alone once it is opaque: links lead over such pixels (a disjoint-set forest in each
// row, with path halving). Workers draw interleaved strips of rows, so that the page stays responsive.

const STRIP = 8; // rows

// Whether WebGL computes on the CPU, or is missing.
function isWithoutGpu() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return true;
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

// As makeDraw of webgl.js, for a 2D canvas. draw(camera, focal, scale, isRough) returns false while a frame is under
// way, and onFrame is called when one is shown; draw.now(…) is for saving images, draws in this thread and waits.
// isRough: a third faster, for images that are gone in a moment (40 dB of PSNR to the exact one).
function makeSoftwareDraw(canvas, scene, onFrame) {
  // In the CPU's memory: strips are copied there, and not each of them to an emulated GPU.
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let workers = null, here = null, waiting = 0;

  function show({ strips, y0, step, width }) {
    const rows = STRIP * width * 4;
    for (let y = y0, at = 0; at < strips.length; y += step, at += rows) {
      context.putImageData(new ImageData(strips.subarray(at, at + rows), width, STRIP), 0, y);
    }
  }
  function received({ data }) {
    const { width, height } = canvas;
    // A frame of another size comes from before a resize.
    if (data.width === width && data.height === height) show(data);
    if (--waiting === 0) onFrame();
  }
  function draw(camera, focal, scale = 1, isRough = false) {
    if (waiting > 0) return false;
    workers ??= startWorkers(scene, received);
    if (workers.length === 0) {
      draw.now(camera, focal, scale);
      onFrame();
      return true;
    }
    waiting = workers.length;
    const { width, height } = canvas;
    for (const worker of workers) worker.postMessage({ camera: { ...camera }, focal, scale, isRough, width, height });
    return true;
  }
  draw.now = (camera, focal, scale = 1) => {
    here ??= makeRaster(scene, 0, 1);
    show(here({ camera, focal, scale, isRough: false, width: canvas.width, height: canvas.height }));
  };
  draw.stop = () => workers?.forEach((worker) => worker.terminate());
  return draw;
}

// One per core, fewer where each one's copy of the Gaussians is large; none where the page's policy forbids them.
function startWorkers(scene, onmessage) {
  const functions = [cameraAxes, makeSort, makeRaster, makeFrame, rasterize, toBytes];
  const source = `"use strict"; const STRIP = ${STRIP}; ${functions.join("\n")}
    let draw = null;
    onmessage = ({ data }) => {
      if (draw === null) { draw = makeRaster(data.scene, data.number, data.total); return; }
      const frame = draw(data);
      postMessage(frame, [frame.strips.buffer]);
    };`;
  const most = Math.max(2, Math.floor(4e6 / scene.count));
  const total = Math.min(8, most, navigator.hardwareConcurrency || 1);
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  try {
    return Array.from({ length: total }, (_, number) => {
      const worker = new Worker(url);
      worker.onmessage = onmessage;
      worker.postMessage({ scene, number, total });
      return worker;
    });
  } catch {
    return [];
  }
}

// draw({camera, focal, scale, isRough, width, height}) for every total-th strip of rows, from the number-th on.
function makeRaster(scene, number, total) {
  const { count, means, colors } = scene;
  const order = new Uint32Array(count);
  const sort = makeSort(means, order);
  // exp(-d/2) by squared Mahalanobis distances d up to where an opacity of 1 has fallen to 1/255.
  const most = 2 * Math.log(255), steps = 2048;
  const falloff = Float32Array.from({ length: steps + 2 }, (_, i) => Math.exp((-0.5 * i * most) / steps) / 255);
  // Distances at which alpha has fallen to so many of 255 steps.
  const within = (least) =>
    Float32Array.from({ length: count }, (_, i) => 2 * Math.log(Math.max(1, colors[4 * i + 3] / least)));
  const table = { falloff, perUnit: steps / most, order };
  // opaque: of what lies behind such a pixel no more than one of 255 steps shows; five in a rough image.
  const exact = { limits: within(1), opaque: 254 / 255 }, rough = { limits: within(2), opaque: 250 / 255 };
  let frame = null;
  return ({ camera, focal, scale, isRough, width, height }) => {
    if (frame === null || frame.width !== width || frame.height !== height) {
      frame = makeFrame(width, height, number, total);
    }
    frame.pixels.fill(0);
    frame.next.set(frame.links);
    const axes = cameraAxes(camera);
    sort(axes.back);
    rasterize(scene, { ...table, ...(isRough ? rough : exact) }, frame, { ...axes, radius: camera.radius, focal: (focal * Math.min(width, height)) / 2, scale });
    return { strips: toBytes(frame), y0: number * STRIP, step: total * STRIP, width, height };
  };
}

// Of a worker's strips, one below the other. pixels: premultiplied colour in 0..255, and alpha.
function makeFrame(width, height, number, total) {
  const strips = Math.max(0, Math.ceil((Math.ceil(height / STRIP) - number) / total));
  const size = strips * STRIP * width;
  const links = Int32Array.from({ length: size + 1 }, (_, i) => i);
  return { width, height, number, total, links, next: new Int32Array(size + 1), pixels: new Float32Array(4 * size) };
}

function rasterize({ count, means, covariances, colors }, { falloff, perUnit, limits, opaque, order }, frame, camera) {
  const { width, height, number, total, next, pixels } = frame;
  const { right, up, back, radius, focal, scale } = camera;
  const [r0, r1, r2] = right, [u0, u1, u2] = up, [b0, b1, b2] = back, spread = scale * scale;
  for (let k = count - 1; k >= 0; k--) {
    const i = order[k], limit = limits[i], n = 3 * i, c = 6 * i;
    const m0 = means[n] - radius * b0, m1 = means[n + 1] - radius * b1, m2 = means[n + 2] - radius * b2;
    const depth = -(b0 * m0 + b1 * m1 + b2 * m2);
    if (depth < 0.05 || limit === 0) continue;
    const mx = (r0 * m0 + r1 * m1 + r2 * m2) / depth, my = (u0 * m0 + u1 * m1 + u2 * m2) / depth;
    const px = width / 2 + focal * mx - 0.5, py = height / 2 - focal * my - 0.5; // of centres of pixels
    // The rows of the projection's Jacobian, in the world's axes; y points down.
    const g = focal / depth;
    const x0 = g * (r0 + mx * b0), x1 = g * (r1 + mx * b1), x2 = g * (r2 + mx * b2);
    const y0 = -g * (u0 + my * b0), y1 = -g * (u1 + my * b1), y2 = -g * (u2 + my * b2);
    const c0 = covariances[c], c1 = covariances[c + 1], c2 = covariances[c + 2];
    const c3 = covariances[c + 3], c4 = covariances[c + 4], c5 = covariances[c + 5];
    const s0 = c0 * x0 + c1 * x1 + c2 * x2, s1 = c1 * x0 + c3 * x1 + c4 * x2, s2 = c2 * x0 + c4 * x1 + c5 * x2;
    const t0 = c0 * y0 + c1 * y1 + c2 * y2, t1 = c1 * y0 + c3 * y1 + c4 * y2, t2 = c2 * y0 + c4 * y1 + c5 * y2;
    const xx = spread * (x0 * s0 + x1 * s1 + x2 * s2) + 0.3, yy = spread * (y0 * t0 + y1 * t1 + y2 * t2) + 0.3;
    const xy = spread * (y0 * s0 + y1 * s1 + y2 * s2), det = xx * yy - xy * xy;
    if (!(det > 0)) continue;
    const wide = Math.sqrt(limit * xx), tall = Math.sqrt(limit * yy);
    if (px + wide < 0 || px - wide > width) continue;
    // d = a (x - middle)² + (y - py)² / yy: in each row a parabola about a middle that moves by lean.
    const a = yy / det, lean = xy / yy, ofY = 1 / yy;
    const red = colors[4 * i], green = colors[4 * i + 1], blue = colors[4 * i + 2], opacity = colors[4 * i + 3];
    const last = Math.min(height - 1, Math.floor(py + tall));
    for (let y = Math.max(0, Math.ceil(py - tall)); y <= last; y++) {
      const strip = (y / STRIP) | 0;
      if (strip % total !== number) continue;
      const row = (((strip / total) | 0) * STRIP + (y % STRIP)) * width;
      const dy = y - py, own = dy * dy * ofY;
      const half = Math.sqrt(Math.max(0, limit - own) / a), middle = px + lean * dy;
      const end = row + Math.min(width - 1, Math.floor(middle + half)), origin = row + middle;
      let at = row + Math.max(0, Math.ceil(middle - half));
      while (at <= end) {
        let to = next[at];
        if (to !== at) {
          while (to !== next[to]) to = next[to] = next[next[to]];
          at = next[at] = to;
          continue;
        }
        const dx = at - origin, p = 4 * at, before = pixels[p + 3];
        const weight = (1 - before) * opacity * falloff[((a * dx * dx + own) * perUnit + 0.5) | 0];
        pixels[p] += weight * red;
        pixels[p + 1] += weight * green;
        pixels[p + 2] += weight * blue;
        const alpha = (pixels[p + 3] = before + weight);
        if (alpha > opaque) next[at] = at + 1;
        at++;
      }
    }
  }
}

// Straight colour and alpha, as a 2D canvas takes them.
function toBytes({ pixels }) {
  const bytes = new Uint8ClampedArray(pixels.length);
  for (let p = 0; p < pixels.length; p += 4) {
    const alpha = pixels[p + 3];
    if (alpha === 0) continue;
    bytes[p] = pixels[p] / alpha;
    bytes[p + 1] = pixels[p + 1] / alpha;
    bytes[p + 2] = pixels[p + 2] / alpha;
    bytes[p + 3] = alpha * 255;
  }
  return bytes;
}
