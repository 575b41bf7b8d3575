// What a page of evaluations does besides showing: tables that sort and filter, predictions that turn into their
// targets, and Gaussians that turn. Without scripts the page still shows all numbers and images.
"use strict";
(() => {
  // Tables: a heading sorts, the best or the worst first; text by its words, numbers by their value.
  function makeSortable(table) {
    const headings = [...table.tHead.rows[0].cells];
    const keyOf = (row, column) => {
      const text = row.cells[column].textContent.trim();
      return column === 0 ? text : text === "–" ? NaN : parseFloat(text.replace("−", "-"));
    };
    const compare = (a, b) => {
      if (typeof a === "string") return a.localeCompare(b, undefined, { numeric: true });
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return a - b;
    };
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const isAscending = heading.getAttribute("aria-sort") !== "ascending";
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows].map((row) => [keyOf(row, column), row]);
        rows.sort(([a], [b]) => {
          const isUnknown = Number.isNaN(a) || Number.isNaN(b); // last, either way
          return isAscending || isUnknown ? compare(a, b) : compare(b, a);
        });
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  }

  // A filter: rows whose first cell has all words.
  function makeFilter(label, table) {
    const rows = [...table.tBodies[0].rows];
    const input = label.querySelector("input"), output = label.querySelector("output");
    label.hidden = rows.length < 2;
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/);
      let number = 0;
      for (const row of rows) {
        const name = row.cells[0].textContent.toLowerCase();
        row.hidden = !words.every((word) => name.includes(word));
        number += !row.hidden;
      }
      output.textContent = input.value.trim() ? `${number} of ${rows.length}` : "";
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
  const label = document.querySelector(".filter");
  if (label) makeFilter(label, document.querySelector("table.sortable"));

  // Predictions: a tap or a key, where hovering is not to be had.
  for (const button of document.querySelectorAll(".flip")) {
    const target = button.nextElementSibling.querySelector("img").cloneNode();
    target.className = "target";
    button.append(target);
    button.addEventListener("click", () => {
      const isTarget = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isTarget));
      button.setAttribute("aria-label", isTarget ? "Target; press to see the prediction" : "Prediction; press to see the target");
    });
  }

  for (const video of document.querySelectorAll("video")) {
    video.addEventListener("error", () => video.remove()); // the page was moved away from its folder
  }

  // Gaussians and meshes: drawn while they are near the visible part of the page, since a browser keeps few WebGL contexts.
  async function inflated(base64) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  const KINDS = {
    gaussians: { read: (buffer) => buffer, turn: turnGaussians },
    mesh: { read: unpackMesh, turn: turnMesh },
  };

  class Orbit {
    constructor(element) {
      this.element = element;
      this.kind = KINDS[element.dataset.kind];
      this.options = JSON.parse(element.dataset.options);
      this.view = null;
      this.isNear = false;
      this.copies = new Set(); // canvases of other orbits, over which this one is laid
      new IntersectionObserver((entries) => this.show(entries.at(-1).isIntersecting), { rootMargin: "100px" }).observe(element);
    }

    get isWanted() {
      return this.isNear || this.copies.size > 0;
    }

    async show(isNear) {
      this.isNear = isNear;
      if (!this.isWanted) {
        if (!this.view) return;
        this.camera = { ...this.view.camera }; // and goes on from there
        this.view.stop();
        this.view = null;
        const { canvas } = this; // its context is gone for good
        canvas.replaceWith(canvas.cloneNode());
        return;
      }
      try {
        this.scene ??= inflated(this.element.querySelector(".scene").textContent).then(this.kind.read);
        const scene = await this.scene;
        if (!this.isWanted || this.view) return;
        const { canvas } = this;
        const onFrame = () => this.copies.forEach((copy) => this.copyTo(copy));
        const onTurn = (camera) => orbits.filter((other) => this.leads(other)).forEach((other) => other.follow(camera));
        this.view = this.kind.turn(canvas, scene, { ...this.options, turning: false, pageScrolls: true, onTurn, onFrame });
        if (this.camera) this.view.look(this.camera);
        this.element.orbit = this.view;
      } catch (error) {
        const line = this.element.querySelector(".message");
        line.textContent = `Not drawn: ${error.message}`;
        line.hidden = false; // of a mesh, the image of its six sides stands beside it
      }
    }

    get canvas() {
      return this.element.querySelector("canvas:not(.other)");
    }

    // Lays each image of this orbit over another one's, which has the same camera, until that is taken away.
    layOver(other) {
      const copy = document.createElement("canvas");
      copy.className = "other";
      other.element.append(copy);
      this.copies.add(copy);
      if (this.view) this.view.look({}); // draws anew: a WebGL canvas can be read only right after that
      else this.show(this.isNear);
      return () => {
        copy.remove();
        this.copies.delete(copy);
        this.show(this.isNear);
      };
    }

    copyTo(copy) {
      const { canvas } = this;
      [copy.width, copy.height] = [canvas.width, canvas.height];
      copy.getContext("2d").drawImage(canvas, 0, 0);
    }

    // Orbits of one group turn together, also one that is not drawn now.
    leads(other) {
      const { group } = this.element.dataset;
      return group !== "" && other !== this && other.element.dataset.group === group;
    }

    follow(camera) {
      this.camera = { ...camera };
      this.view?.look(camera);
    }
  }
  const orbits = [...document.querySelectorAll(".orbit")].map((element) => new Orbit(element));

  // Checkpoints of one object in one place: resting on the button shows the other one, a press keeps it there, and
  // resting on a pressed button shows the first again.
  for (const button of document.querySelectorAll(".swap")) {
    const boxes = [...button.closest("section").querySelectorAll(".orbit")];
    const [here, other] = [button.closest(".turning").querySelector(".orbit"), boxes[button.dataset.other]];
    const [own, laid] = [here, other].map((box) => orbits.find((orbit) => orbit.element === box));
    let isOver = false, end = null;
    const update = () => {
      const isSwapped = isOver !== (button.getAttribute("aria-pressed") === "true");
      if (isSwapped) end ??= laid.layOver(own);
      else end = end?.();
    };
    const over = (value) => (event) => {
      if (event.pointerType === "mouse") isOver = value; // a finger cannot rest
      update();
    };
    button.addEventListener("pointerenter", over(true));
    button.addEventListener("pointerleave", over(false));
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
      update();
    });
  }
})();
