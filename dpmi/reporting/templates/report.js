(() => {
  "use strict";
  const root = document.documentElement;

  // Dark and light: what the system prefers, until the button is pressed.
  const button = document.getElementById("theme");
  const prefers = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const paint = () => {
    const dark = chosen === null ? prefers.matches : chosen;
    root.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", String(dark));
  };
  button.addEventListener("click", () => { chosen = root.dataset.theme !== "dark"; paint(); });
  prefers.addEventListener("change", paint);
  let before = null; // paper is white
  window.addEventListener("beforeprint", () => { before = root.dataset.theme; root.dataset.theme = "light"; });
  window.addEventListener("afterprint", () => { root.dataset.theme = before; });
  paint();

  // Sort: by number where the column has numbers, empty cells last either way, each data set apart.
  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => row.className !== "group");
        rows.sort((a, b) => {
          const [x, y] = [value(a, column), value(b, column)];
          if (x === "" || y === "") return (x === "") - (y === "");
          return down ? compare(y, x) : compare(x, y);
        });
        body.append(...rows);
      }
    }));
  }

  // Filter by data set.
  document.getElementById("filter")?.addEventListener("change", (event) => {
    for (const part of document.querySelectorAll("[data-panel]")) {
      part.hidden = event.target.value !== "" && part.dataset.panel !== event.target.value;
    }
  });

  // What a cell or a mark tells, to the mouse, the finger and the keyboard.
  const tooltip = document.getElementById("tooltip");
  let target = null;
  const place = () => {
    if (!target) return;
    const at = target.getBoundingClientRect();
    const own = tooltip.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left), window.innerWidth - own.width - 8);
    const under = at.bottom + 8 + own.height < window.innerHeight;
    tooltip.style.left = `${left}px`;
    tooltip.style.top = `${under ? at.bottom + 8 : Math.max(8, at.top - own.height - 8)}px`;
  };
  const show = (wanted) => {
    target = wanted;
    tooltip.hidden = !target;
    if (!target) return;
    tooltip.textContent = target.dataset.tip.split("; ").join("\n");
    place();
  };
  for (const kind of ["mouseover", "focusin", "click"]) {
    document.addEventListener(kind, (event) => show(event.target.closest("[data-tip]")));
  }
  document.addEventListener("focusout", () => show(null));
  document.addEventListener("scroll", place, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") show(null); });
})();
