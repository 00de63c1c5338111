// Dark or light: as the system says, until somebody presses the button.

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function store(theme) {
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Where the browser keeps nothing, the choice lasts as long as the page.
  }
}

function stored() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null;
  }
}

/** Makes `button` switch between dark and light; canvases repaint on the window's "themechange". */
export function connectTheme(button) {
  const root = document.documentElement;
  if (["dark", "light"].includes(stored())) root.dataset.theme = stored();

  function update() {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
    button.setAttribute("aria-pressed", isDark);
    window.dispatchEvent(new Event("themechange"));
  }

  button.addEventListener("click", () => {
    root.dataset.theme = button.getAttribute("aria-pressed") === "true" ? "light" : "dark";
    store(root.dataset.theme);
    update();
  });
  dark.addEventListener("change", update);
  update();
}
