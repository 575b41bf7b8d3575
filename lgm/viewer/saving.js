// Images and turntables of what is shown: drawn here as on the page, videos encoded by the server.
"use strict";

const TURNTABLE = { frames: 120, fps: 30, size: 512 };

// One canvas with the views side by side, size² each. background: a CSS colour, or null for transparent.
function composed(views, size, background, camera = null) {
  const sheet = document.createElement("canvas");
  sheet.width = size * views.length;
  sheet.height = size;
  const context = sheet.getContext("2d");
  if (background !== null) {
    context.fillStyle = background;
    context.fillRect(0, 0, sheet.width, sheet.height);
  }
  views.forEach((view, k) => context.drawImage(view.snapshot(size, size, camera ?? view.camera), k * size, 0));
  return sheet;
}

async function saveImage(views, size, background, name) {
  download(await encoded(composed(views, size, background), "image/png"), `${name}.png`);
}

// A video has no transparency: white stands behind it then. onProgress(fraction).
async function saveTurntable(views, background, name, onProgress) {
  const parts = [], start = { ...views[0].camera };
  for (let k = 0; k < TURNTABLE.frames; k++) {
    const camera = { ...start, azimuthDeg: start.azimuthDeg + (360 * k) / TURNTABLE.frames };
    const frame = await encoded(composed(views, TURNTABLE.size, background ?? "#ffffff", camera), "image/jpeg", 0.95);
    const length = new DataView(new ArrayBuffer(4));
    length.setUint32(0, frame.size, true);
    parts.push(length.buffer, frame);
    onProgress((k + 1) / TURNTABLE.frames);
  }
  const answer = await fetch(`/video?fps=${TURNTABLE.fps}`, { method: "POST", body: new Blob(parts) });
  if (!answer.ok) throw new Error(await answer.text());
  download(await answer.blob(), `${name}.mp4`);
}

const encoded = (canvas, type, quality) =>
  new Promise((done, fail) => canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("The image is too large."))), type, quality));

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\p{L}\p{N}._-]+/gu, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
