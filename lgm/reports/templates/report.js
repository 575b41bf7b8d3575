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

  // Gaussians: drawn while they are near the visible part of the page, since a browser keeps few WebGL contexts.
  async function inflated(base64) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  class Orbit {
    constructor(element) {
      this.element = element;
      this.options = JSON.parse(element.dataset.options);
      this.view = null;
      new IntersectionObserver((entries) => this.show(entries.at(-1).isIntersecting), { rootMargin: "100px" }).observe(element);
    }

    async show(isNear) {
      this.isNear = isNear;
      if (!isNear) {
        if (!this.view) return;
        this.camera = { ...this.view.camera }; // and goes on from there
        this.view.stop();
        this.view = null;
        const canvas = this.element.querySelector("canvas"); // its context is gone for good
        canvas.replaceWith(canvas.cloneNode());
        return;
      }
      try {
        this.buffer ??= inflated(this.element.querySelector(".gaussians").textContent);
        const buffer = await this.buffer;
        if (!this.isNear || this.view) return;
        const canvas = this.element.querySelector("canvas");
        const onTurn = (camera) => orbits.filter((other) => this.leads(other)).forEach((other) => other.follow(camera));
        this.view = turnGaussians(canvas, buffer, { ...this.options, turning: false, pageScrolls: true, onTurn });
        if (this.camera) this.view.look(this.camera);
        this.element.orbit = this.view;
      } catch (error) {
        const line = this.element.querySelector(".message");
        line.textContent = `Not drawn: ${error.message}`;
        line.hidden = false;
      }
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
})();
