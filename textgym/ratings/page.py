"""The page on which people rate: one document that loads nothing else.

The texts that it shows are a model's, so nobody knows what is in them. The script puts them on
the page as text, never as HTML, and the policy lets no other script or style run, should it fail.
"""

from __future__ import annotations

import base64
import hashlib

_STYLE = """
:root { color-scheme: light dark; --paper: #faf9f6; --card: #fff; --ink: #1a1c1e; --soft: #5f6368;
  --line: #e3e0d9; --accent: #2f6f73; --on-accent: #fff; --alarm: #a3391f;
  --r1: #b8503a; --r2: #a3632f; --r3: #7d6c3c; --r4: #55794a; --r5: #2c7a55; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --card: #1e2125; --ink: #e6e4df; --soft: #a0a5ab;
    --line: #33373c; --accent: #7fc4c4; --on-accent: #10201f; --alarm: #f0937c;
    --r1: #e08a73; --r2: #dba877; --r3: #cdbd85; --r4: #9cc48d; --r5: #78caa0; } }
html { scroll-padding: 1rem 0 7.5rem; }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { display: flex; flex-direction: column; min-height: 100vh; min-height: 100dvh; margin: 0;
  background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
header, main, footer > div { width: 100%; max-width: var(--width, 76rem); margin: 0 auto;
  padding: 0 1.25rem; }
body[data-count="1"] { --width: 46rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; justify-content: space-between;
  gap: 0 1rem; padding-top: 1.25rem; padding-bottom: .75rem; }
h1 { margin: 0; font-size: 1.15rem; font-weight: 650; }
#counts { color: var(--soft); font-size: .9rem; font-variant-numeric: tabular-nums; }
main { flex: 1; padding-bottom: 1.5rem; }
.label { margin: 0 0 .35rem; color: var(--soft); font-size: .8rem; font-weight: 600; }
.written { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.prompt { margin-bottom: 1.1rem; padding: .1rem 0 .1rem 1rem; border-left: 3px solid var(--line); }
.prompt .written { max-width: 48rem; color: var(--soft); }
article .prompt { margin-bottom: .9rem; padding-left: .75rem; font-size: .92rem; }
.empty { color: var(--soft); font-style: italic; }
#cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr));
  gap: 1rem; }
@media (min-width: 48rem) {
  body[data-count="4"] #cards { grid-template-columns: 1fr 1fr; } }
article { display: flex; flex-direction: column; min-width: 0;
  padding: 1rem 1.15rem 1.1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; }
article.current { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
article > .written { flex: 1; margin-bottom: 1rem; font-size: 1.06rem; line-height: 1.65; }
details { margin: 0 0 1rem; color: var(--soft); font-size: .92rem; }
summary { cursor: pointer; }
.scale { display: grid; grid-template-columns: repeat(5, 1fr); gap: .4rem; }
.scale button { min-height: 2.75rem; padding: 0; border: 1px solid var(--line);
  border-radius: .5rem; background: transparent; color: var(--ink); font: inherit;
  font-variant-numeric: tabular-nums; cursor: pointer; }
.scale button:hover { border-color: var(--tone); color: var(--tone); }
.scale button[aria-pressed=true] { background: var(--tone); border-color: var(--tone);
  color: var(--card); font-weight: 700; }
.ends { display: flex; justify-content: space-between; margin-top: .3rem; color: var(--soft);
  font-size: .78rem; }
#idle { padding: 18vh 0 2rem; text-align: center; }
#idle p { margin: .3rem 0; color: var(--soft); }
#idle p:first-child { color: var(--ink); font-size: 1.25rem; }
footer { position: sticky; bottom: 0; background: var(--paper); border-top: 1px solid var(--line); }
footer > div { display: flex; flex-wrap: wrap; align-items: center; gap: .6rem;
  padding-top: .7rem; padding-bottom: max(.7rem, env(safe-area-inset-bottom)); }
.keys, #status { color: var(--soft); font-size: .88rem; }
#status { flex: 1; text-align: right; }
#status.alarm { order: -1; flex-basis: 100%; color: var(--alarm); text-align: left; }
kbd { padding: .05rem .35rem; border: 1px solid var(--line); border-radius: .3rem;
  background: var(--card); font: inherit; font-size: .82rem; }
footer button { min-height: 2.75rem; padding: 0 1.15rem; border: 1px solid var(--line);
  border-radius: .5rem; background: transparent; color: var(--ink); font: inherit;
  cursor: pointer; }
#skip { margin-left: auto; }
#send { min-width: 9.5rem; background: var(--accent); border-color: var(--accent);
  color: var(--on-accent); font-weight: 600; }
#send:disabled { background: transparent; border-color: var(--line); color: var(--soft);
  cursor: default; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (pointer: coarse) { .keys { display: none; } }
@media (max-width: 40rem) { .keys { display: none; }
  #status { flex-basis: 100%; text-align: center; } #status:empty { display: none; }
  footer button { flex: 1; } #send { flex: 2; } }
"""

_SCRIPT = r"""
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
"""


def _digest(inline: str) -> str:
    return base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()


CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'sha256-{_digest(_SCRIPT)}'",
        f"style-src 'sha256-{_digest(_STYLE)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The header that goes with every answer: this script, this style, this server, nothing else."""

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rate texts</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<header><h1>Rate texts</h1><span id="counts"></span></header>
<main>
<div id="prompt"></div>
<div id="cards"></div>
<div id="idle" hidden><p>Nothing waits for a rating.</p>
<p>New texts appear here by themselves.</p></div>
</main>
<footer id="bar" hidden><div>
<span class="keys"><kbd>1</kbd> to <kbd>5</kbd> rate · <kbd>←</kbd> <kbd>→</kbd> move
 · <kbd>Enter</kbd> send · <kbd>S</kbd> skip</span>
<span id="status" role="status"></span>
<button id="skip" type="button">Skip</button>
<button id="send" type="button">Send</button>
</div></footer>
<script>{_SCRIPT}</script>
</body>
</html>
"""
