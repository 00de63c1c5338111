// Tabs after the ARIA practices: arrows, Home and End move and select; the address keeps the tab.

/** Makes the tabs of `list` work; `opened(id)` is called with the id of the panel that opens. */
export function connectTabs(list, opened) {
  const tabs = [...list.querySelectorAll("[role=tab]")];

  function select(tab, focus = false) {
    for (const each of tabs) {
      const chosen = each === tab;
      each.setAttribute("aria-selected", chosen);
      each.tabIndex = chosen ? 0 : -1;
      document.getElementById(each.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
    opened(tab.getAttribute("aria-controls"));
  }

  // Not the id itself, to which the browser would scroll.
  const address = (tab) => `#/${tab.getAttribute("aria-controls")}`;
  const named = () => tabs.find((tab) => address(tab) === location.hash);

  function choose(tab, focus) {
    select(tab, focus);
    history.replaceState(null, "", address(tab));
  }

  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) choose(tab);
  });
  list.addEventListener("keydown", (event) => {
    const index = tabs.indexOf(document.activeElement);
    const goal = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: -1 }[event.key];
    if (goal === undefined || index < 0) return;
    event.preventDefault();
    choose(tabs.at(goal % tabs.length), true);
  });
  window.addEventListener("hashchange", () => named() && select(named()));
  select(named() ?? tabs[0]);
}
