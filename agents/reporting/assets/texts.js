"use strict";
// Shows texts token by token. What a model or a stranger wrote is only ever put on the page as text.
(() => {
  const { sets } = JSON.parse(document.getElementById("data").textContent);
  if (!sets.length) return;
  const PORTION = 8;
  const at = (id) => document.getElementById(id);
  const [list, card, more, sort, paint, chooser] = ["episodes", "card", "more", "sort", "paint", "set"].map(at);
  const phone = matchMedia("(max-width: 44rem)");
  let set = sets[0];
  let count = PORTION;
  let here = null; // the token whose card is open
  const known = new WeakMap(); // a text's element -> the text

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  const round = (number, digits) => Number(number.toPrecision(digits));
  const minus = (text) => text.replace("-", "−");
  const signed = (number, digits = 4) =>
    number === 0 ? "0" : (number > 0 ? "+" : "−") + String(Math.abs(round(number, digits)));
  const score = (number) => {
    const shown = Number(number.toFixed(3)) + 0; // no zero has a minus
    return minus((shown < 0 ? "" : "+") + shown.toFixed(3));
  };

  function percent(probability) {
    if (probability === null) return "–";
    const share = 100 * probability;
    if (share === 0) return "0%";
    return share < 0.001 ? `${share.toExponential(1)}%` : `${round(share, share < 1 ? 2 : 3)}%`;
  }

  // The absolute number that gets the full colour: exceeded by one in fifty of those that are not 0.
  function full(texts, of) {
    const numbers = texts.flatMap((text) => text.tokens.map((_, i) => Math.abs(of(text, i))));
    const some = numbers.filter((number) => number > 0).sort((a, b) => a - b);
    return some[Math.ceil(0.98 * some.length) - 1] ?? 1;
  }

  // What tokens can be coloured by: a number for each, and the one that gets the full colour.
  function paints() {
    const texts = set.prompts.flatMap((prompt) => prompt.texts);
    const names = [...new Set(texts.flatMap((text) => Object.keys(text.components)))];
    const found = [{ label: "reward", of: (text, i) => text.rewards[i], scale: set.scale }];
    if (names.length > 1) {
      for (const name of names) {
        found.push({ label: `reward: ${name}`, of: (text, i) => text.components[name]?.[i] ?? 0, scale: set.scale });
      }
    }
    if (texts.some((text) => text.probabilities)) {
      const format = (number) => `×${round(Math.exp(number), 3)}`;
      found.push({ label: "change of probability", of: likelier, scale: full(texts, likelier), format });
    }
    if (texts.some((text) => text.values)) {
      const of = (text, i) => text.values?.[1][i] ?? 0;
      found.push({ label: "critic’s value, after training", of, scale: full(texts, of) });
    }
    return found;
  }

  function likelier(text, i) {
    const [before, after] = text.probabilities?.map((of) => of[i]) ?? [];
    return before && after ? Math.log(after / before) : 0;
  }

  const gain = (prompt) => prompt.texts.at(-1).score - prompt.texts[0].score;
  function orders() {
    const found = [["in their order", null, 1]];
    const last = set.columns.length - 1;
    set.columns.forEach((column, i) => {
      const by = (prompt) => prompt.texts[i].score;
      const what = last ? `score ${column.toLowerCase()}` : "score";
      found.push([`${what}: highest first`, by, -1], [`${what}: lowest first`, by, 1]);
    });
    if (last) found.push(["gain: largest first", gain, -1], ["gain: smallest first", gain, 1]);
    return found;
  }

  let colours = [];
  let ways = [];

  function options(select, labels, chosen) {
    select.replaceChildren(...labels.map((label, value) => make("option", { value, textContent: label })));
    select.value = Math.max(labels.indexOf(chosen), 0);
  }

  function choose() {
    colours = paints();
    ways = orders();
    options(paint, colours.map((each) => each.label), paint.selectedOptions[0]?.textContent);
    options(sort, ways.map(([label]) => label), sort.selectedOptions[0]?.textContent);
    at("notes").replaceChildren(...set.notes.map((note) => make("p", { className: "fine", textContent: note })));
    show();
  }

  function show() {
    hide();
    const [, by, sign] = ways[sort.value];
    const prompts = by ? [...set.prompts].sort((a, b) => sign * (by(a) - by(b))) : set.prompts;
    list.replaceChildren(...prompts.slice(0, count).map(episode));
    const rest = prompts.length - count;
    more.hidden = rest <= 0;
    more.textContent = `Show all ${prompts.length} prompts`;
    colour();
  }

  function episode(prompt) {
    const header = make("header", {}, make("h3", { className: "prompt", textContent: prompt.prompt || "(an empty prompt)" }));
    if (set.columns.length > 1) {
      header.append(make("span", { className: "gain" }, "gain ", make("b", { textContent: score(gain(prompt)) })));
    }
    const sides = prompt.texts.map((text, i) => side(text, set.columns[i]));
    return make("li", {}, make("article", { className: "episode" }, header, make("div", { className: "beside" }, ...sides)));
  }

  function side(text, column) {
    const facts = [column];
    if (text.timesteps !== undefined) facts[0] += `, after ${text.timesteps.toLocaleString("en")} tokens`;
    if (text.success !== null) facts.push(text.success ? "solved" : "not solved");
    if (text.truncated) facts.push("cut");
    const total = make("b", { textContent: score(text.score), title: "score" });
    const written = make("p", { className: "written", tabIndex: 0 });
    written.setAttribute("role", "group");
    written.setAttribute("aria-label", `${column}, score ${score(text.score)}. Arrow keys go from token to token.`);
    written.dir = "auto";
    known.set(written, text);
    text.tokens.forEach((piece, i) => {
      replies(text, i).forEach((reply) => written.append(reply));
      written.append(token(text, piece, i));
    });
    replies(text, text.tokens.length).forEach((reply) => written.append(reply));
    const whole = make("div", { className: "side" }, make("h4", {}, make("span", { textContent: facts.join(" · ") }), total), written);
    if (text.context !== undefined) {
      whole.append(make("details", {}, make("summary", { textContent: "The prompt as the model read it" }), make("pre", { textContent: text.context })));
    }
    return whole;
  }

  const replies = (text, place) => text.replies.filter(([at]) => at === place)
    .map(([, reply]) => make("span", { className: "reply", textContent: `› ${reply}` }));

  function token(text, piece, i) {
    const element = make("span", { className: "token" });
    element.dataset.i = i;
    element.textContent = piece.replaceAll("\n", "⏎\n");
    if (!piece) {
      element.classList.add("silent");
      element.textContent = i in text.silent ? "∎" : "◦";
    }
    return element;
  }

  function colour() {
    const { of, scale, format = signed } = colours[paint.value];
    at("least").textContent = format(-scale);
    at("middle").textContent = format(0);
    at("most").textContent = format(scale);
    for (const element of list.querySelectorAll(".token")) {
      const number = of(known.get(element.closest(".written")), Number(element.dataset.i));
      element.classList.toggle("pos", number > 0);
      element.classList.toggle("neg", number < 0);
      element.style.setProperty("--share", `${(100 * Math.min(Math.abs(number) / scale, 1)).toFixed(1)}%`);
    }
  }

  // The card of a token.
  function fill(text, i) {
    const piece = text.tokens[i];
    const facts = make("dl");
    const fact = (name, value, className = "") =>
      facts.append(make("dt", { className, textContent: name }), make("dd", { className, textContent: value }));
    fact("reward", signed(text.rewards[i]), "total");
    const parts = Object.entries(text.components);
    for (const [name, paid] of parts) fact(name, signed(paid[i]), "part");
    if (text.values || text.probabilities) {
      facts.append(make("dd", { className: "over", textContent: "before → after training" }));
    }
    if (text.values) {
      const [before, after] = text.values.map((of) => (of[i] === null ? "–" : signed(of[i], 3)));
      fact("critic’s value", `${before} → ${after}`);
    }
    if (text.probabilities) {
      const [before, after] = text.probabilities.map((of) => of[i]);
      fact("probability", `${percent(before)} → ${percent(after)}`);
      if (before && after) {
        const factor = after / before;
        const words = factor >= 1 ? `${round(factor, 3)} times as likely` : `${round(1 / factor, 3)} times less likely`;
        facts.append(make("dd", { className: "fold", textContent: Math.abs(factor - 1) < 0.005 ? "as likely as before" : words }));
      }
    }
    const name = piece ? `“${piece.replaceAll("\n", "⏎")}”` : text.silent[i] ?? "part of a character";
    card.replaceChildren(
      make("p", {}, make("code", { textContent: name }), make("span", { textContent: `token ${i + 1} of ${text.tokens.length}` })),
      facts,
    );
  }

  function open(element) {
    if (here === element) return;
    here?.classList.remove("here");
    here = element;
    element.classList.add("here");
    fill(known.get(element.closest(".written")), Number(element.dataset.i));
    card.hidden = false;
    place();
  }

  function place() {
    if (phone.matches) { // the card lies at the bottom, and must not cover its token
      const below = here.getBoundingClientRect().bottom - (innerHeight - card.offsetHeight - 20);
      if (below > 0) scrollBy({ top: below, behavior: "instant" });
      return;
    }
    const box = here.getClientRects()[0];
    const above = box.top - card.offsetHeight - 8;
    const top = above > 0 ? above : box.bottom + 8;
    const left = Math.min(Math.max(box.left, 8), document.documentElement.clientWidth - card.offsetWidth - 8);
    card.style.top = `${top + scrollY}px`;
    card.style.left = `${left + scrollX}px`;
  }

  function hide() {
    here?.classList.remove("here");
    here = null;
    card.hidden = true;
  }

  list.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "mouse") return;
    const element = event.target.closest(".token");
    if (element) open(element); else if (!list.contains(document.activeElement)) hide();
  });
  list.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") hide();
  });
  document.addEventListener("click", (event) => {
    const element = event.target.closest?.(".token");
    if (element) open(element); else hide();
  });

  list.addEventListener("focusin", (event) => {
    const written = event.target.closest(".written");
    if (written && event.target.matches(":focus-visible") && !written.contains(here)) open(written.querySelector(".token"));
  });
  list.addEventListener("focusout", hide);
  list.addEventListener("keydown", (event) => {
    const written = event.target.closest(".written");
    if (!written) return;
    const tokens = [...written.querySelectorAll(".token")];
    const now = tokens.indexOf(here);
    const next = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const element = tokens[Math.min(Math.max(next, 0), tokens.length - 1)];
    if (!phone.matches) element.scrollIntoView({ block: "nearest" });
    open(element);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });

  sort.addEventListener("change", show);
  paint.addEventListener("change", () => { hide(); colour(); });
  more.addEventListener("click", () => { count = Infinity; show(); });
  chooser?.addEventListener("change", () => { set = sets[chooser.value]; count = PORTION; choose(); });
  choose();
})();
