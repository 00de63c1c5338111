// Starts the page: its engine (of the server, or in the browser), its tabs, and the networks to choose from.

import { byId, showProblem } from "./dom.js";
import { DrawTab } from "./draw.js";
import { FitTab } from "./fit.js";
import { PicturesTab } from "./pictures.js";
import { ServerEngine } from "./server_engine.js";
import { connectTabs } from "./tabs.js";
import { connectTheme } from "./theme.js";

const PREFERRED = { draw: "omniglot_reptile_3w", fit: "sinusoid_maml", pictures: "omniglot_maml_5w1s" };
const JOINT = "sinusoid_joint"; // the network beside which the others are shown

async function loadEngine() {
  const { content } = document.querySelector("meta[name=engine]");
  if (content === "server") return new ServerEngine();
  const { LocalEngine } = await import("./engine/local.js");
  return new LocalEngine();
}

function giveUp(panel, error, retry = null) {
  showProblem(panel, error, retry);
  panel.querySelector("select").options[0].textContent = "Not available";
}

async function start() {
  const panels = { draw: byId("draw"), fit: byId("fit"), pictures: byId("pictures") };
  const engine = await loadEngine();
  const tabs = {
    draw: new DrawTab(panels.draw, engine),
    fit: new FitTab(panels.fit, engine),
    pictures: new PicturesTab(panels.pictures, engine),
  };

  async function load() {
    for (const panel of Object.values(panels)) showProblem(panel, null);
    try {
      const all = await engine.checkpoints();
      const ofPictures = all.filter(({ kind }) => kind === "pictures");
      const grey = ofPictures.filter(({ channels }) => channels === 1);
      const choices = {
        draw: grey,
        fit: all.filter(({ kind, name }) => kind === "curve" && name !== JOINT),
        pictures: ofPictures,
      };
      for (const [key, checkpoints] of Object.entries(choices)) {
        if (checkpoints.length) tabs[key].start(checkpoints, PREFERRED[key]);
        else giveUp(panels[key], new Error("There is no trained network for this tab."));
      }
    } catch (error) {
      for (const panel of Object.values(panels)) giveUp(panel, error, load);
    }
  }

  connectTabs(document.querySelector("[role=tablist]"), () => window.dispatchEvent(new Event("themechange")));
  await load();
}

connectTheme(byId("theme"));
start().catch((error) => showProblem(byId("draw"), new Error(`The page could not start: ${error.message}`)));
