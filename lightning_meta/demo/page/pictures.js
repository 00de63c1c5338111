// The tab "Your pictures": files sorted into classes, others to classify, an answer for each.

import { announce, byId, element, focusNear, iconButton, Latest, percent, showProblem } from "./dom.js";
import { Bars, winnerOf } from "./bars.js";
import { ClassList } from "./class_list.js";
import { connectCheckpoints } from "./checkpoints.js";
import { pictureOf } from "./drawing.js";
import { acceptDrops, openPictures } from "./files.js";
import { filePicker, PictureCard } from "./picture_card.js";
import { SAMPLES, variant } from "./samples.js";
import { Steps } from "./steps.js";

const FIRST_CLASSES = 2;
const DELAY = 150; // milliseconds without a change before the network is asked
const [PORTION, PORTION_LENGTH] = [50, 6e6]; // pictures and characters of a request; a pile takes several

/** Cuts a list of queries into lists that are small enough to be sent. */
function portions(queries) {
  const lists = [[]];
  let length = 0;
  for (const query of queries) {
    length += query.picture.file.length;
    if (lists.at(-1).length === PORTION || (length > PORTION_LENGTH && lists.at(-1).length)) {
      lists.push([]);
      length = query.picture.file.length;
    }
    lists.at(-1).push(query);
  }
  return lists;
}

/** The answers to several portions as one. */
function joined(answers) {
  const steps = answers[0].steps.map((step, index) => ({
    ...step,
    probabilities: answers.flatMap((answer) => answer.steps[index].probabilities),
  }));
  return { steps, notes: [...new Set(answers.flatMap((answer) => answer.notes))] };
}

export class PicturesTab {
  #latest = new Latest();
  #timer = 0;
  #answer = null; // {steps, cards, queries}

  constructor(panel, engine) {
    this.panel = panel;
    this.engine = engine;
    this.queries = []; // [{picture, root, verdict, bars}]
    this.steps = new Steps(byId("pictures-steps"), () => this.#showStep());
    byId("pictures-clear").addEventListener("click", () => this.#clear());
    byId("pictures-sample").addEventListener("click", () => this.#sample());
    const target = byId("query-drop");
    target.append(filePicker("Drop pictures here, or choose files", "query-files", (files) => this.#ask(files)).root);
    acceptDrops(target, ({ files, folders }) => this.#ask([...files, ...folders.flatMap((folder) => folder.files)]));
    acceptDrops(byId("picture-classes"), (what) => this.#sort(null, what));
    const changed = () => this.#changed();
    const on = { changed, dropped: (card, what) => this.#sort(card, what) };
    this.list = new ClassList("add-picture-class", PictureCard, on, FIRST_CLASSES, changed);
    this.cards = this.list.cards;
    this.#showStep();
  }

  /** Takes up the networks that can be asked. */
  start(checkpoints, preferred) {
    const [select, note] = [byId("pictures-checkpoint"), byId("pictures-checkpoint-note")];
    connectCheckpoints(select, note, checkpoints, preferred, (checkpoint) => {
      this.checkpoint = checkpoint;
      this.#changed();
    });
  }

  /** Puts files into `card` (or the first empty one), and every folder into a class of its own that has its name. */
  async #sort(card, { files, folders }) {
    const problems = [];
    const put = async (target, some) => {
      const { pictures, problem } = await openPictures(some);
      target.pictures.push(...pictures);
      target.refresh();
      if (problem) problems.push(problem.message);
    };
    const emptyCard = () => this.cards.find((each) => each.pictures.length === 0) ?? this.list.add();
    if (files.length) await put(card ?? emptyCard() ?? this.cards.at(-1), files);
    for (const folder of folders) {
      const target = this.cards.find((each) => each.name === folder.name) ?? emptyCard();
      if (target === null) break;
      target.rename(this.list.settleName(folder.name.slice(0, 24), target));
      await put(target, folder.files);
    }
    this.#changed();
    showProblem(this.panel, problems.length ? new Error(problems.join(" ")) : null);
  }

  async #ask(files) {
    const { pictures, problem } = await openPictures(files);
    for (const picture of pictures) this.#addQuery(picture);
    this.#changed();
    showProblem(this.panel, problem);
  }

  #addQuery(picture) {
    const verdict = element("p", { class: "verdict", "data-testid": "picture-verdict" });
    const list = element("ul", { class: "bars", "aria-label": `Probabilities for ${picture.name}` });
    const remove = () => {
      const index = this.queries.indexOf(query);
      this.queries = this.queries.filter((each) => each !== query);
      query.root.remove();
      focusNear(byId("picture-results"), index, byId("query-drop").querySelector("input"));
      this.#changed();
    };
    const head = element(
      "div",
      { class: "card-head" },
      element("span", { class: "file-name" }, picture.name),
      iconButton("remove", `Remove ${picture.name}`, { onclick: remove }),
    );
    const image = element("img", { src: picture.url, alt: "" });
    const root = element("li", { class: "card result", "data-testid": "picture-result" }, head, image, verdict, list);
    const query = { picture, root, verdict, bars: new Bars(list) };
    this.queries.push(query);
    byId("picture-results").append(root);
  }

  #clear() {
    for (const card of this.cards) {
      card.pictures = [];
      card.refresh();
    }
    for (const query of this.queries) query.root.remove();
    this.queries = [];
    this.#changed();
  }

  async #sample() {
    this.#clear();
    const characters = Object.entries(SAMPLES.at(-1).characters).slice(0, 3);
    const queries = [];
    for (const [index, [name, character]] of characters.entries()) {
      const card = this.cards[index] ?? this.list.add();
      card.rename(this.list.settleName(name, card));
      const draw = (hand, file) => pictureOf(variant(character, 100 * index + hand), file);
      const files = await Promise.all([1, 2].map((hand) => draw(hand, `${name.toLowerCase()} ${hand}.png`)));
      card.pictures = (await openPictures(files)).pictures;
      card.refresh();
      queries.push(await draw(3, `unlabelled ${index + 1}.png`));
    }
    await this.#ask([queries[1], queries[2], queries[0]]);
  }

  /** Something is different: asks the network soon, as a drop of many files brings many changes. */
  #changed() {
    this.#latest.cancel();
    clearTimeout(this.#timer);
    this.#show(null);
    this.#timer = setTimeout(() => this.classify(), DELAY);
  }

  /** Asks the network about the pictures as they are now. */
  async classify() {
    const [cards, queries] = [this.cards.filter((card) => card.pictures.length), [...this.queries]];
    if (!this.checkpoint || cards.length < 2 || queries.length === 0) return;
    const send = ({ file }) => ({ file });
    const classes = cards.map((card) => ({ name: card.name, pictures: card.pictures.map(send) }));
    const ask = async (signal) => {
      const answers = [];
      let asked = 0;
      for (const portion of portions(queries)) {
        asked += portion.length;
        byId("pictures-advice").textContent = `Classifying … ${asked} of ${queries.length}`;
        const request = { checkpoint: this.checkpoint.name, classes, queries: portion.map((each) => send(each.picture)) };
        answers.push(await this.engine.classify(request, { signal }));
      }
      return joined(answers);
    };
    this.panel.setAttribute("aria-busy", "true");
    try {
      const answer = await this.#latest.run(ask);
      if (answer) this.#show({ ...answer, cards, queries });
    } catch (error) {
      this.#show(null);
      showProblem(this.panel, error, () => {
        showProblem(this.panel, null);
        this.classify();
      });
    }
  }

  #show(answer) {
    this.panel.removeAttribute("aria-busy");
    this.#answer = answer;
    this.steps.setCount(answer ? answer.steps.length - 1 : 0);
    byId("pictures-notes").replaceChildren(...(answer?.notes ?? []).map((note) => element("li", {}, note)));
    this.#showStep();
    if (answer) announce(`${answer.queries.length} pictures classified.`);
  }

  #showStep() {
    byId("pictures-advice").textContent = this.#advice();
    if (!this.#answer) {
      for (const { verdict, bars } of this.queries) {
        verdict.textContent = "";
        bars.update([]);
      }
      return;
    }
    const { steps, cards, queries } = this.#answer;
    const now = steps[Math.min(this.steps.step, steps.length - 1)];
    this.steps.describe(`${percent(now.support_accuracy)} of the examples right`);
    queries.forEach(({ verdict, bars }, index) => {
      const probabilities = now.probabilities[index];
      const winner = winnerOf(probabilities);
      verdict.replaceChildren(element("strong", {}, cards[winner].name), ` ${percent(probabilities[winner])}`);
      bars.update(cards.map(({ name, hue }, each) => ({ name, hue, probability: probabilities[each] })));
    });
  }

  #advice() {
    if (this.#answer) {
      const now = this.#answer.steps[Math.min(this.steps.step, this.#answer.steps.length - 1)];
      return `The network gets ${percent(now.support_accuracy)} of your labelled pictures right.`;
    }
    if (this.cards.filter((card) => card.pictures.length).length < 2) {
      return "Give at least two classes a picture each. Folders can be dropped, too: each becomes a class.";
    }
    return this.queries.length ? "" : "Now drop the pictures that you want to have classified.";
  }
}
