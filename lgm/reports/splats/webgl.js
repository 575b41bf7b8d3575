// 3D Gaussians in WebGL 2: projected as quads (Zwicker et al. 2001, EWA splatting), sorted back to front on the CPU,
// and blended with premultiplied colours over a transparent canvas.

const GAUSSIAN_VERTEX = `#version 300 es
precision highp float;
precision highp sampler2D;
uniform sampler2D shapes; // three texels each: mean and xx | xy xz yy yz | zz
uniform sampler2D colors;
uniform mat3 axes; // world to camera: x right, y up, z towards the viewer
uniform vec3 eye;
uniform vec2 viewport; // half of it, in pixels
uniform float focal; // in pixels
uniform float spread; // of covariances
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
  mat3 own = spread * axes * world * transpose(axes);
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

// The WebGL side: draw(camera, focal, scale) for one scene, which returns whether it drew.
function makeDraw(canvas, scene, onFrame) {
  const gl = canvas.getContext("webgl2", { antialias: false, depth: false, premultipliedAlpha: true });
  const program = makeProgram(gl, GAUSSIAN_VERTEX, GAUSSIAN_FRAGMENT);
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
  const names = ["axes", "eye", "viewport", "focal", "spread"];
  const where = Object.fromEntries(names.map((name) => [name, uniform(name)]));

  function draw(camera, focal, scale = 1) {
    if (gl.isContextLost()) return false;
    draw.now(camera, focal, scale);
    onFrame();
    return true;
  }
  draw.now = (camera, focal, scale = 1) => {
    const { right, up, back } = cameraAxes(camera);
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
    gl.uniform1f(where.spread, scale * scale);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, count);
  };
  draw.stop = () => gl.getExtension("WEBGL_lose_context")?.loseContext();
  return draw;
}

// Compiled, linked and in use; throws the driver's own message.
function makeProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  return program;
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
