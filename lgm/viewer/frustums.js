// Cameras of input views as frustums with the images that they saw, in two layers: behind the object's canvas, which
// is transparent, and before it.
"use strict";

const FRUSTUM_DEPTH = 0.3, NEAR = 0.05;

// layers: { behind, before }, elements as large as the canvas. inputs: [{ c2w, kNorm, isOrthographic, image }], OpenCV
// axes; image may be null. Returns show(camera, focal), the camera of viewer.js; focal in pixels of half the shorter
// side.
function makeFrustums(layers, inputs) {
  const frustums = inputs.map(({ c2w, kNorm, isOrthographic, image }) => {
    const world = (local) => [0, 1, 2].map((k) => c2w[k][0] * local[0] + c2w[k][1] * local[1] + c2w[k][2] * local[2] + c2w[k][3]);
    // A corner of the image (0 or 1 each) at a depth.
    const corner = ([x, y], depth) => {
      const wide = isOrthographic ? 1 : depth;
      return world([((x - kNorm[0][2]) / kNorm[0][0]) * wide, ((y - kNorm[1][2]) / kNorm[1][1]) * wide, depth]);
    };
    const corners = [[0, 0], [1, 0], [1, 1], [0, 1]];
    const points = [0, FRUSTUM_DEPTH].flatMap((depth) => corners.map((at) => corner(at, depth)));
    const element = document.createElement(image === null ? "span" : "img");
    if (image !== null) Object.assign(element, { src: image, alt: "" });
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    return { points, element, path };
  });
  const sheets = Object.fromEntries(Object.entries(layers).map(([name, layer]) => {
    layer.replaceChildren();
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    layer.append(svg);
    return [name, { layer, svg }];
  }));

  return (camera, focal) => {
    const { right, up, back } = cameraAxes(camera);
    const width = layers.before.clientWidth, height = layers.before.clientHeight;
    const f = (focal * Math.min(width, height)) / 2;
    const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    for (const { points, element, path } of frustums) {
      const seen = points.map((point) => {
        const depth = camera.radius - dot(back, point);
        return { depth, x: width / 2 + (f * dot(right, point)) / depth, y: height / 2 - (f * dot(up, point)) / depth };
      });
      // One that the camera is in, or has behind it, is not drawn.
      const isSeen = seen.every(({ depth }) => depth > NEAR);
      const sheet = sheets[seen[0].depth < camera.radius ? "before" : "behind"];
      element.hidden = !isSeen;
      path.setAttribute("visibility", isSeen ? "visible" : "hidden");
      if (element.parentNode !== sheet.layer) sheet.layer.prepend(element);
      if (path.parentNode !== sheet.svg) sheet.svg.append(path);
      if (!isSeen) continue;
      const at = (k) => `${seen[k].x.toFixed(1)} ${seen[k].y.toFixed(1)}`;
      const edges = [0, 1, 2, 3].map((k) => `M${at(k)}L${at(k + 4)}`);
      path.setAttribute("d", `M${at(0)}L${at(1)}L${at(2)}L${at(3)}Z M${at(4)}L${at(5)}L${at(6)}L${at(7)}Z${edges.join("")}`);
      element.style.transform = matrixOnto(seen.slice(4));
    }
  };
}

// CSS's matrix3d that carries a square of 100 pixels onto four points, clockwise from its upper left
// (Heckbert 1989, section 2.2.3: square to quadrilateral).
function matrixOnto([p0, p1, p2, p3]) {
  const sx = p0.x - p1.x + p2.x - p3.x, sy = p0.y - p1.y + p2.y - p3.y;
  const dx1 = p1.x - p2.x, dx2 = p3.x - p2.x, dy1 = p1.y - p2.y, dy2 = p3.y - p2.y;
  const det = dx1 * dy2 - dx2 * dy1;
  if (Math.abs(det) < 1e-6) return "scale(0)"; // seen from its edge
  const g = (sx * dy2 - dx2 * sy) / det, h = (dx1 * sy - sx * dy1) / det;
  const a = p1.x - p0.x + g * p1.x, b = p3.x - p0.x + h * p3.x;
  const d = p1.y - p0.y + g * p1.y, e = p3.y - p0.y + h * p3.y;
  const s = 1 / 100;
  return `matrix3d(${[a * s, d * s, 0, g * s, b * s, e * s, 0, h * s, 0, 0, 1, 0, p0.x, p0.y, 0, 1].join(",")})`;
}
