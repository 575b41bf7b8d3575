// Orbit of a textured mesh, with the camera, the hand and the options of turnGaussians (viewer.js):
//
//   const view = turnMesh(canvas, await unpackMesh(buffer), options);
//
// buffer: of lgm.reports.meshes.packing. It is drawn unlit, because the texture has the light in it. WebGL alone draws
// it, emulated on the CPU too: opaque triangles behind a depth buffer cost little there.

async function unpackMesh(buffer) {
  const header = new DataView(buffer);
  if (buffer.byteLength < 40 || header.getUint32(0, false) !== 0x4c474d32) throw new Error("This is no packed mesh.");
  const [vertices, faces, bytes] = [4, 8, 12].map((at) => header.getUint32(at, true));
  if (buffer.byteLength !== 40 + 12 * faces + 10 * vertices + bytes) throw new Error("The packed mesh is incomplete.");
  const box = Array.from({ length: 6 }, (_, i) => header.getFloat32(16 + 4 * i, true));
  const at = 40 + 12 * faces;
  const texture = new Blob([new Uint8Array(buffer, at + 10 * vertices, bytes)], { type: "image/jpeg" });
  return {
    low: box.slice(0, 3),
    span: box.slice(3).map((high, k) => high - box[k]),
    indices: new Uint32Array(buffer, 40, 3 * faces),
    positions: new Uint16Array(buffer, at, 3 * vertices),
    uvs: new Uint16Array(buffer, at + 6 * vertices, 2 * vertices),
    texture: await createImageBitmap(texture, { colorSpaceConversion: "none" }),
  };
}

function turnMesh(canvas, mesh, options = {}) {
  canvas.dataset.drawn = "gpu";
  return turnScene(canvas, mesh, makeMeshDraw, options);
}

const MESH_VERTEX = `#version 300 es
precision highp float;
uniform vec3 low, span; // of the positions
uniform mat3 axes; // world to camera: x right, y up, z towards the viewer
uniform vec3 eye;
uniform vec2 zoom; // focal lengths, where the viewport is 2 wide and 2 high
in vec3 position; // 0..1
in vec2 uv;
out vec2 place;
const float near = 0.05, far = 100.0;
void main() {
  vec3 p = axes * (low + span * position - eye);
  gl_Position = vec4(zoom * p.xy, ((near + far) * -p.z - 2.0 * near * far) / (far - near), -p.z);
  place = uv;
}`;

const MESH_FRAGMENT = `#version 300 es
precision highp float;
uniform sampler2D image;
in vec2 place;
out vec4 result;
void main() { result = vec4(texture(image, place).rgb, 1.0); }`;

// As makeDraw of webgl.js. scale is of Gaussians, and means nothing here.
function makeMeshDraw(canvas, mesh, onFrame) {
  const gl = canvas.getContext("webgl2", { antialias: true, depth: true, premultipliedAlpha: true });
  if (!gl) throw new Error("this browser has no WebGL");
  const program = makeProgram(gl, MESH_VERTEX, MESH_FRAGMENT);
  const buffered = (kind, values) => {
    gl.bindBuffer(kind, gl.createBuffer());
    gl.bufferData(kind, values, gl.STATIC_DRAW);
  };
  for (const [name, size, values] of [["position", 3, mesh.positions], ["uv", 2, mesh.uvs]]) {
    const index = gl.getAttribLocation(program, name);
    buffered(gl.ARRAY_BUFFER, values);
    gl.enableVertexAttribArray(index);
    gl.vertexAttribPointer(index, size, gl.UNSIGNED_SHORT, true, 0, 0); // 0..65535 arrives as 0..1
  }
  buffered(gl.ELEMENT_ARRAY_BUFFER, mesh.indices);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB8, gl.RGB, gl.UNSIGNED_BYTE, mesh.texture);
  for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
  // No mipmaps: smaller levels would mix charts that only the atlas puts side by side.
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  gl.enable(gl.DEPTH_TEST);
  const where = Object.fromEntries(["low", "span", "axes", "eye", "zoom"].map((name) => [name, gl.getUniformLocation(program, name)]));
  gl.uniform3fv(where.low, mesh.low);
  gl.uniform3fv(where.span, mesh.span);

  function draw(camera, focal) {
    if (gl.isContextLost()) return false;
    draw.now(camera, focal);
    onFrame();
    return true;
  }
  draw.now = (camera, focal) => {
    const { right, up, back } = cameraAxes(camera);
    const { width, height } = gl.canvas, least = Math.min(width, height);
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(where.axes, false, [0, 1, 2].flatMap((k) => [right[k], up[k], back[k]]));
    gl.uniform3fv(where.eye, back.map((x) => x * camera.radius));
    gl.uniform2f(where.zoom, (focal * least) / width, (focal * least) / height);
    gl.drawElements(gl.TRIANGLES, mesh.indices.length, gl.UNSIGNED_INT, 0);
  };
  draw.stop = () => gl.getExtension("WEBGL_lose_context")?.loseContext();
  return draw;
}
