"use strict";
const VALUES = [-1, -0.5, 0, 0.5, 1];
const NAMES = ["bad", "poor", "fair", "good", "very good"];
const ASK_EVERY = 2000;
const $ = (id) => document.getElementById(id);
let cards = [];  // {id, element, buttons, place: 0 to 4 or null}
let current = 0;
let sending = false;
let sent = 0;  // an answer asked for before the last sending shows what is rated by now

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function written(text) {
  if (text.trim()) {
    // The space that many a first token begins with belongs to the prompt before it.
    const element = make("p", "written", text.replace(/^ /, ""));
    element.dir = "auto";
    return element;
  }
  return make("p", "written empty", text ? "(nothing but white space)" : "(an empty text)");
}

function prompt(text) {
  const element = make("div", "prompt");
  element.append(make("p", "label", "Prompt"), written(text));
  return element;
}

function card(sample, index, together, alone) {
  const element = make("article");
  const letter = String.fromCharCode(65 + index);
  if (!together) element.append(prompt(sample.prompt));
  element.append(make("p", "label", alone ? "Text" : "Text " + letter));
  element.append(written(sample.text));
  if (sample.reference !== null) {
    const details = make("details");
    details.append(make("summary", "", "Reference"), written(sample.reference));
    element.append(details);
  }
  const scale = make("div", "scale");
  scale.setAttribute("role", "group");
  scale.setAttribute("aria-label", "Rating of text " + letter);
  const buttons = VALUES.map((_, place) => {
    const button = make("button", "", String(place + 1));
    button.type = "button";
    button.title = NAMES[place];
    button.setAttribute("aria-label", (place + 1) + ", " + NAMES[place]);
    button.style.setProperty("--tone", "var(--r" + (place + 1) + ")");
    button.addEventListener("click", () => {
      rate(index, cards[index].place === place ? null : place);
    });
    return button;
  });
  scale.append(...buttons);
  const ends = make("div", "ends");
  ends.append(make("span", "", NAMES[0]), make("span", "", NAMES[4]));
  element.append(scale, ends);
  element.addEventListener("click", () => point(index));
  return {id: sample.id, element, buttons, place: null};
}

function show(samples) {
  const together = samples.every((sample) => sample.prompt === samples[0].prompt);
  cards = samples.map((sample, index) => {
    return card(sample, index, together, samples.length === 1);
  });
  $("prompt").replaceChildren(...(together && samples.length ? [prompt(samples[0].prompt)] : []));
  $("cards").replaceChildren(...cards.map((each) => each.element));
  document.body.dataset.count = cards.length;
  $("idle").hidden = cards.length > 0;
  $("bar").hidden = cards.length === 0;
  window.scrollTo(0, 0);
  point(0);
  update();
}

function point(index) {
  current = index;
  cards.forEach((each, i) => {
    each.element.classList.toggle("current", i === index && cards.length > 1);
  });
}

function move(to) {
  if (to < 0 || to >= cards.length) return;
  point(to);
  cards[to].element.scrollIntoView({block: "nearest"});
}

function rate(index, place) {
  if (sending) return;
  cards[index].place = place;
  update();
}

function update() {
  for (const each of cards) {
    each.buttons.forEach((button, place) => {
      button.setAttribute("aria-pressed", String(place === each.place));
    });
  }
  const rated = cards.filter((each) => each.place !== null).length;
  $("send").disabled = sending || rated === 0;
  $("skip").disabled = sending || rated === cards.length;
  $("send").textContent = rated < cards.length && rated ? `Send ${rated} of ${cards.length}`
    : "Send";
}

function say(text, alarm) {
  $("status").classList.toggle("alarm", Boolean(alarm));
  $("status").textContent = text;
}

async function asked(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function send(skipping) {
  const ratings = {};
  for (const each of cards) {
    if (each.place !== null) ratings[each.id] = VALUES[each.place];
    else if (skipping) ratings[each.id] = null;
  }
  if (sending || !Object.keys(ratings).length) return;
  const rated = Object.values(ratings).filter((value) => value !== null).length;
  sending = true;
  sent += 1;
  update();
  try {
    const {saved} = await asked("/ratings", {
      method: "POST",
      headers: {"Content-Type": "application/json"},
      body: JSON.stringify({ratings}),
    });
    cards = [];
    if (saved < rated) say(`Saved ${saved}; ${rated - saved} no longer waited for a rating.`);
    else say(rated ? `Saved ${saved}.` : "Put off.");
  } catch (error) {
    say(`Not saved (${error.message}). Your ratings are still here: send them again.`, true);
  }
  sending = false;
  if (cards.length) update();
  else await refresh();
}

async function refresh() {
  const before = sent;
  try {
    const {samples, waiting, rated} = await asked("/next");
    if (sent !== before) return;
    $("counts").textContent = `${waiting} waiting · ${rated} rated`;
    document.title = waiting ? `(${waiting}) Rate texts` : "Rate texts";
    if (!cards.length && !sending) show(samples);
  } catch (error) {
    $("counts").textContent = "The server does not answer.";
  }
}

$("send").addEventListener("click", () => send(false));
$("skip").addEventListener("click", () => send(true));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !cards.length) return;
  const place = "12345".indexOf(event.key);
  const pressed = event.target.getAttribute("aria-pressed");
  if (place >= 0) {
    rate(current, place);
    const next = cards.findIndex((each) => each.place === null);
    if (next >= 0) move(next);
  } else if (event.key === "ArrowRight" || event.key === "j") move(current + 1);
  else if (event.key === "ArrowLeft" || event.key === "k") move(current - 1);
  else if (event.key === "s") send(true);
  else if (event.key === "Enter" && pressed !== "false" && event.target.id !== "skip"
           && event.target.tagName !== "SUMMARY") send(false);
  else return;
  event.preventDefault();
});

refresh();
setInterval(refresh, ASK_EVERY);
