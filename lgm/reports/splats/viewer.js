// Orbit of 3D Gaussians in WebGL 2 (Kerbl et al. 2023), in one function and without a dependency:
//
//   const view = turnGaussians(canvas, buffer, {radius, fovYDeg, elevationDeg, azimuthDeg, turning, onTurn});
//
// buffer: of lgm.reports.splats.packing. The camera looks at the origin from (azimuth, elevation, radius), +y up,
// and moves to the right until somebody takes hold of it; a reader who prefers reduced motion gets a still image.
// onTurn({azimuthDeg, elevationDeg, radius}): called when the camera was moved, to link two views; view.look(…)
// sets it. view.stop() ends everything. canvas.dataset.frames counts what was drawn.
// Gaussians are projected as quads (Zwicker et al. 2001, EWA splatting), sorted back to front on the CPU by a
// counting sort, and blended with premultiplied colours over a transparent canvas.
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

function turnGaussians(canvas, buffer, options = {}) {
  const scene = unpackGaussians(buffer);
  const gl = canvas.getContext("webgl2", { antialias: false, depth: false, premultipliedAlpha: true });
  if (!gl) throw new Error("This browser has no WebGL 2, which draws the object.");
  const start = {
    azimuthDeg: options.azimuthDeg ?? 0,
    elevationDeg: options.elevationDeg ?? 0,
    radius: options.radius ?? 1.5,
  };
  const camera = { ...start };
  const focal = 1 / Math.tan(((options.fovYDeg ?? 49.1) * Math.PI) / 360); // of half the height
  const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let turning = options.turning ?? !isStill;
  let frame = 0, before = null, isStale = true, drawn = 0;

  const draw = makeDraw(gl, scene);
  const size = new ResizeObserver(() => {
    const ratio = Math.min(devicePixelRatio || 1, 2);
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    isStale = true;
  });
  size.observe(canvas);

  function step(now) {
    frame = requestAnimationFrame(step);
    if (turning && before !== null) {
      camera.azimuthDeg += Math.min(now - before, 100) * 0.036; // 36 degrees a second
      isStale = true;
    }
    before = now;
    if (!isStale || gl.isContextLost()) return;
    isStale = false;
    draw(camera, focal);
    canvas.dataset.frames = ++drawn;
  }
  frame = requestAnimationFrame(step);

  function look(to) {
    Object.assign(camera, to);
    camera.elevationDeg = Math.max(-89, Math.min(89, camera.elevationDeg));
    camera.radius = Math.max(0.3 * start.radius, Math.min(4 * start.radius, camera.radius));
    isStale = true;
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
  const forget = takeHold(canvas, move, () => {
    look(start);
    turning = !isStill;
    options.onTurn?.({ ...camera });
  });
  return {
    look,
    camera,
    stop() {
      cancelAnimationFrame(frame);
      size.disconnect();
      forget();
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}

// Mouse, pen, fingers, wheel and keys to move(degrees, degrees, zoom); returns what ends that.
function takeHold(canvas, move, reset) {
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
      event.preventDefault();
      move(0, 0, Math.exp(Math.max(-100, Math.min(100, event.deltaY)) * 0.002));
    },
    keydown(event) {
      const step = {
        ArrowLeft: [-5, 0, 1], ArrowRight: [5, 0, 1], ArrowUp: [0, 5, 1], ArrowDown: [0, -5, 1],
        "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1 / 0.9],
      }[event.key];
      if (!step) return;
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

const GAUSSIAN_VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D shapes; // three texels each: mean and xx | xy xz yy yz | zz
uniform sampler2D colors;
uniform mat3 axes; // world to camera: x right, y up, z towards the viewer
uniform vec3 eye;
uniform vec2 viewport; // half of it, in pixels
uniform float focal; // in pixels
in vec2 corner;
in uint index;
out vec2 place; // in standard deviations
out vec4 color;

ivec2 texel(uint number, int width) { return ivec2(int(number) % width, int(number) / width); }

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside
  vec4 a = texelFetch(shapes, texel(3u * index, textureSize(shapes, 0).x), 0);
  vec4 b = texelFetch(shapes, texel(3u * index + 1u, textureSize(shapes, 0).x), 0);
  vec4 c = texelFetch(shapes, texel(3u * index + 2u, textureSize(shapes, 0).x), 0);
  color = texelFetch(colors, texel(index, textureSize(colors, 0).x), 0);
  vec3 mean = axes * (a.xyz - eye);
  float depth = -mean.z;
  if (depth < 0.05) return;
  mat3 world = mat3(a.w, b.x, b.y, b.x, b.z, b.w, b.y, b.w, c.x);
  mat3 own = axes * world * transpose(axes);
  vec3 dx = vec3(focal / depth, 0.0, focal * mean.x / (depth * depth));
  vec3 dy = vec3(0.0, focal / depth, focal * mean.y / (depth * depth));
  vec3 sx = own * dx, sy = own * dy;
  // 0.3 pixels² more, as the renderers of this program have it: nothing is thinner than a pixel.
  float xx = dot(dx, sx) + 0.3, xy = dot(dx, sy), yy = dot(dy, sy) + 0.3;
  float middle = 0.5 * (xx + yy), apart = length(vec2(0.5 * (xx - yy), xy));
  float first = middle + apart, second = max(middle - apart, 0.1);
  vec2 along = abs(xy) < 1e-6 ? (xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0)) : normalize(vec2(xy, first - xx));
  // To where it adds less than one of 255 steps.
  float reach = sqrt(max(0.0, 2.0 * log(255.0 * color.a)));
  place = corner * reach;
  vec2 offset = place.x * sqrt(first) * along + place.y * sqrt(second) * vec2(-along.y, along.x);
  vec2 center = focal * mean.xy / depth;
  gl_Position = vec4((center + offset) / viewport, 0.0, 1.0);
}`;

const GAUSSIAN_FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
in vec4 color;
out vec4 result;
void main() {
  float alpha = color.a * exp(-0.5 * dot(place, place));
  if (alpha < 1.0 / 255.0) discard;
  result = vec4(color.rgb * alpha, alpha);
}`;

// The WebGL side: draw(camera, focal) for one scene.
function makeDraw(gl, scene) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, GAUSSIAN_VERTEX], [gl.FRAGMENT_SHADER, GAUSSIAN_FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  const uniform = (name) => gl.getUniformLocation(program, name);

  const { count, means, covariances, colors } = scene;
  const shapes = new Float32Array(12 * count);
  for (let i = 0; i < count; i++) {
    shapes.set(means.subarray(3 * i, 3 * i + 3), 12 * i);
    shapes.set(covariances.subarray(6 * i, 6 * i + 6), 12 * i + 3);
  }
  setTexture(gl, 0, gl.RGBA32F, gl.FLOAT, shapes, 3 * count);
  setTexture(gl, 1, gl.RGBA8, gl.UNSIGNED_BYTE, colors, count);
  gl.uniform1i(uniform("shapes"), 0);
  gl.uniform1i(uniform("colors"), 1);

  const corner = gl.getAttribLocation(program, "corner"), index = gl.getAttribLocation(program, "index");
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
  gl.enableVertexAttribArray(corner);
  gl.vertexAttribPointer(corner, 2, gl.FLOAT, false, 0, 0);
  const order = new Uint32Array(count);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
  gl.enableVertexAttribArray(index);
  gl.vertexAttribIPointer(index, 1, gl.UNSIGNED_INT, 0, 0);
  gl.vertexAttribDivisor(index, 1);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const sort = makeSort(means, order);
  const where = { axes: uniform("axes"), eye: uniform("eye"), viewport: uniform("viewport"), focal: uniform("focal") };

  return (camera, focal) => {
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
    sort(back);
    gl.bufferSubData(gl.ARRAY_BUFFER, 0, order);
    const { width, height } = gl.canvas;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    // Columns: of x, of y, of z in the world.
    const axes = [0, 1, 2].flatMap((k) => [right[k], up[k], back[k]]);
    gl.uniformMatrix3fv(where.axes, false, axes);
    gl.uniform3fv(where.eye, back.map((x) => x * camera.radius));
    gl.uniform2f(where.viewport, width / 2, height / 2);
    // A canvas that is higher than wide shows as much across as a square one does.
    gl.uniform1f(where.focal, (focal * Math.min(width, height)) / 2);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
  };
}

function setTexture(gl, unit, format, type, values, texels) {
  const width = 3 * 512, height = Math.max(1, Math.ceil(texels / width));
  const padded = new values.constructor(4 * width * height);
  padded.set(values);
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, format, width, height, 0, gl.RGBA, type, padded);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
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
