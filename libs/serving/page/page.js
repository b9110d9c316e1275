// The chat page: shows conversations (conversations.js) and has the server answer (stream.js). What a model writes goes into the
// document through markdown.js, as text nodes and never as markup.
import { apiMessages, Conversations, loadSettings, newAnswer, newConversation, saveSettings } from "./conversations.js";
import { MarkdownView } from "./markdown.js";
import { listModels, streamAnswer } from "./stream.js";

const element = (id) => document.getElementById(id);
const DEFAULTS = { system: "", temperature: 0.8, topP: 1, topK: 0, maxTokens: 512, seed: "", theme: "", model: "", second: "" };
// A calculation within the text of an answer, between two characters that models have no use for.
const MARK = /\uE000(\d+)\uE001/;

const conversations = new Conversations(() => notice("The browser's storage is full: export or delete conversations."));
const settings = { ...DEFAULTS, ...loadSettings() };
let models = [];
let current = newConversation(settings.system);
let running = null;              // {conversation, controller, answers} while answers stream
let views = new Map();           // the view of each answer that is shown

// ---------------------------------------------------------------------------------------------------- small helpers

function make(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function button(label, title, onClick) {
  const node = make("button", "quiet small", label);
  node.type = "button";
  node.title = title;
  if (title !== label) node.setAttribute("aria-label", title);
  node.addEventListener("click", onClick);
  return node;
}

function notice(text) {
  element("notice").textContent = text;
  element("notice").hidden = !text;
}

function announce(text) { element("status").textContent = text; }

function headers() {
  const key = element("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: "Bearer " + key } : {}) };
}

async function copy(text, from) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
  } else {                       // a page that was not loaded over HTTPS or from this machine
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const label = from.textContent;
  from.textContent = "Copied";
  announce("Copied.");
  setTimeout(() => { from.textContent = label; }, 1500);
}

// Follows the end of the conversation, unless the reader has scrolled away from it.
function atEnd() {
  const log = element("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
}

function scrollToEnd() { element("log").scrollTop = element("log").scrollHeight; }

function fitTextArea() {
  const area = element("text");
  area.style.height = "auto";
  area.style.height = area.scrollHeight + 2 + "px";
}

// ---------------------------------------------------------------------------------------------------------- answers

class AnswerView {
  constructor(turn, answer) {
    this.answer = answer;
    this.node = make("article", "turn assistant");
    this.node.setAttribute("aria-label", answer.model ? "Answer of " + answer.model : "Answer");
    if (turn.answers.length > 1) this.node.append(make("p", "by", answer.model));
    this.text = make("div", "markdown");
    this.foot = make("div", "foot");
    this.node.append(this.text, this.foot);
    this.markdown = new MarkdownView(this.text, (parent, text) => this.addText(parent, text), codeHead);
    this.turn = turn;
    this.draw();
  }

  // Text with what the calculator computed where the model asked for it.
  addText(parent, text) {
    const parts = text.split(MARK);    // text, index, text, ...
    parts.forEach((part, index) => {
      if (index % 2 === 0) {
        if (part) parent.append(part);
        return;
      }
      const calculation = this.answer.calculations[Number(part)];
      const shown = make("span", "calculation", calculation.expression + " = " + calculation.result);
      shown.title = "Computed by the calculator";
      parent.append(shown);
    });
  }

  marked() {
    const { content, calculations } = this.answer;
    const plain = content.replace(/[\uE000\uE001]/g, "\uFFFD");
    if (calculations.length === 0) return plain;
    const characters = Array.from(plain);
    let text = "";
    let at = 0;
    calculations.forEach(({ offset }, index) => {
      text += characters.slice(at, offset).join("") + "\uE000" + index + "\uE001";
      at = Math.max(at, offset);
    });
    return text + characters.slice(at).join("");
  }

  // Draws at the next frame. A hidden page has no frames: whoever ends an answer calls draw().
  update() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      const follow = atEnd();
      this.draw();
      if (follow) scrollToEnd();
    });
  }

  draw() {
    const busy = running !== null && running.answers.includes(this.answer);
    this.node.setAttribute("aria-busy", String(busy));
    this.node.classList.toggle("waiting", busy);
    this.markdown.update(this.marked());
    this.foot.replaceChildren();
    if (busy) return;
    if (this.answer.note) this.foot.append(make("span", "note", this.answer.note));
    const { tokens, seconds } = this.answer;
    if (tokens > 1 && seconds > 0.001) {
      this.foot.append(make("span", "speed", tokens + " tokens, " + ((tokens - 1) / seconds).toFixed(1) + " tokens/s"));
    }
    this.foot.append(button("Copy", "Copy the answer", (event) => copy(this.answer.content, event.target)));
    if (this.turn === current.turns[current.turns.length - 1] && !running) {
      this.foot.append(button("Regenerate", "Answer the question again", () => regenerate(this.answer)));
    }
  }
}

function codeHead(language, text) {
  const head = make("div", "code-head");
  head.append(make("span", "", language || "code"), button("Copy", "Copy the code", (event) => copy(text, event.target)));
  return head;
}

function addTurn(turn, index) {
  const question = make("article", "turn user");
  question.setAttribute("aria-label", "Your message");
  const foot = make("div", "foot");
  foot.append(button("Edit", "Edit the message and send it again", () => edit(index)),
              button("Copy", "Copy the message", (event) => copy(turn.question, event.target)));
  question.append(make("div", "question", turn.question));
  const block = make("div", "exchange");
  const answers = make("div", turn.answers.length > 1 ? "answers two" : "answers");
  for (const answer of turn.answers) {
    const view = new AnswerView(turn, answer);
    views.set(answer, view);
    answers.append(view.node);
  }
  block.append(question, foot, answers);
  element("log").append(block);
}

// ----------------------------------------------------------------------------------------------------- conversation

function show() {
  for (const block of document.querySelectorAll(".exchange")) block.remove();
  views = new Map();
  element("welcome").hidden = current.turns.length > 0;
  current.turns.forEach(addTurn);
  document.title = current.title ? current.title + " - nanochat" : "nanochat";
  element("system").value = current.system;
  showList();
  showRunning();
  scrollToEnd();
}

function showList() {
  const list = element("conversations");
  list.replaceChildren();
  for (const conversation of conversations.list()) {
    const open = button(conversation.title || "Untitled", conversation.title || "Untitled", () => select(conversation));
    open.removeAttribute("aria-label");
    open.className = "quiet open";
    if (conversation.id === current.id) open.setAttribute("aria-current", "true");
    const remove = button("\u00D7", "Delete \u201C" + (conversation.title || "Untitled") + "\u201D", () => removeConversation(conversation));
    remove.classList.add("remove");
    const item = make("li");
    item.append(open, remove);
    list.append(item);
  }
  element("export").disabled = conversations.list().length === 0;
}

function select(conversation) {
  current = conversation;
  notice("");
  closeMenu();
  show();
  element("text").focus();
}

function newChat() { select(newConversation(settings.system)); }

function removeConversation(conversation) {
  if (!confirm("Delete \u201C" + (conversation.title || "Untitled") + "\u201D?")) return;
  if (running && running.conversation === conversation) {
    running.removed = true;
    running.controller.abort();
  }
  conversations.remove(conversation.id);
  if (conversation.id === current.id) {
    newChat();
  } else {
    showList();
  }
}

function showRunning() {
  element("send").hidden = running !== null;
  element("stop").hidden = running === null;
  updateSend();
  for (const view of views.values()) view.draw();
}

function updateSend() { element("send").disabled = running !== null || !element("text").value.trim(); }

// ----------------------------------------------------------------------------------------------------------- asking

function chosenModels() {
  const chosen = [element("model").value];
  if (element("compare").getAttribute("aria-pressed") === "true") chosen.push(element("model-2").value);
  return chosen;
}

// Has the models answer the last question of the conversation; `answers` are those of its last turn that are to be written.
async function run(conversation, answers) {
  const turn = conversation.turns[conversation.turns.length - 1];
  const controller = new AbortController();
  running = { conversation, controller, answers, removed: false };
  const mine = running;
  conversations.save(conversation);
  show();
  announce("Answering.");
  const results = await Promise.allSettled(answers.map((answer) => streamAnswer({
    headers: headers(), signal: controller.signal, answer,
    body: {
      ...(answer.model ? { model: answer.model } : {}),
      messages: apiMessages(conversation, turn.answers.indexOf(answer)),
      temperature: settings.temperature, top_p: settings.topP, top_k: settings.topK, max_tokens: settings.maxTokens,
      ...(settings.seed === "" ? {} : { seed: Number(settings.seed) }),
    },
    onChange: () => views.get(answer)?.update(),
  })));
  running = null;
  const failed = results.find((result) => result.status === "rejected");
  const empty = turn.answers.every((answer) => !answer.content && answer.calculations.length === 0);
  if (failed) {
    notice(failed.reason.message);
    if (failed.reason.needsKey) openSettings();
  }
  if (mine.removed) {
    show();
    return;
  }
  if (empty && failed) {           // it was not answered: it can be edited and sent again
    conversation.turns.pop();
    if (current === conversation && !element("text").value) element("text").value = turn.question;
    fitTextArea();
  } else {
    for (const answer of turn.answers) {
      if (!answer.content && answer.calculations.length === 0 && !answer.note) answer.note = "The answer is empty.";
    }
  }
  if (conversation.turns.length > 0) {
    conversations.save(conversation);
  } else {
    conversations.remove(conversation.id);
  }
  announce(failed ? "" : "The answer is complete.");
  const follow = atEnd();
  if (current === conversation) {
    show();
    if (!follow) element("log").scrollTop = element("log").scrollTop;
    if (document.activeElement === document.body) element("text").focus();
  } else {
    showList();
    showRunning();
  }
}

function ask(question) {
  const turn = { question, answers: chosenModels().map(newAnswer) };
  current.turns.push(turn);
  run(current, turn.answers);
}

function send(event) {
  event.preventDefault();
  const text = element("text").value.trim();
  if (!text || running) return;
  notice("");
  element("text").value = "";
  fitTextArea();
  ask(text);
}

function edit(index) {
  if (running) return;
  const turn = current.turns[index];
  current.turns.length = index;
  element("text").value = turn.question;
  show();
  fitTextArea();
  updateSend();
  element("text").focus();
  // It is saved when it is sent again: a reload brings the conversation back as it was.
}

function regenerate(answer) {
  if (running) return;
  notice("");
  const turn = current.turns[current.turns.length - 1];
  const fresh = newAnswer(models.includes(answer.model) ? answer.model : element("model").value);
  turn.answers[turn.answers.indexOf(answer)] = fresh;
  run(current, [fresh]);
}

// --------------------------------------------------------------------------------------------------- models, settings

async function loadModels() {
  try {
    models = await listModels(headers());
  } catch (error) {
    if (error.needsKey) notice(error.message);
    return;                        // or the first message will say what is wrong
  }
  for (const [id, wanted, otherwise] of [["model", settings.model, models[0]], ["model-2", settings.second, models[models.length - 1]]]) {
    const select_ = element(id);
    select_.replaceChildren(...models.map((model) => {
      const option = make("option", "", model);
      option.value = model;
      return option;
    }));
    select_.value = models.includes(wanted) ? wanted : otherwise;
  }
}

function showTheme() {
  if (settings.theme) {
    document.documentElement.dataset.theme = settings.theme;
  } else {
    delete document.documentElement.dataset.theme;
  }
}

const FIELDS = [["temperature", "temperature"], ["top-p", "topP"], ["top-k", "topK"], ["max-tokens", "maxTokens"]];

function openSettings() {
  for (const [id, name] of FIELDS) element(id).value = settings[name];
  element("seed").value = settings.seed;
  element("theme").value = settings.theme;
  element("system").value = current.system;
  if (!element("settings").open) element("settings").showModal();
}

// A number that is not valid keeps its value.
function readSettings() {
  for (const [id, name] of FIELDS) {
    if (element(id).checkValidity()) settings[name] = Number(element(id).value);
  }
  if (element("seed").checkValidity()) settings.seed = element("seed").value;
  settings.theme = element("theme").value;
  const system = element("system").value;
  if (system !== current.system) {
    current.system = settings.system = system;
    if (current.turns.length > 0) conversations.save(current);
  }
  settings.model = element("model").value;
  settings.second = element("model-2").value;
  saveSettings(settings);
  showTheme();
}

function openMenu() {
  document.body.classList.add("menu-open");
  element("menu").setAttribute("aria-expanded", "true");
  element("new").focus();
}

function closeMenu() {
  if (!document.body.classList.contains("menu-open")) return;
  document.body.classList.remove("menu-open");
  element("menu").setAttribute("aria-expanded", "false");
}

function exportAll() {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([conversations.exported()], { type: "application/json" }));
  link.download = "nanochat-conversations.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function importAll(file) {
  try {
    const count = conversations.importText(await file.text());
    announce(count + " conversations were imported.");
    notice("");
  } catch (error) {
    notice(error.message);
  }
  showList();
}

// ----------------------------------------------------------------------------------------------------------- events

element("form").addEventListener("submit", send);
element("stop").addEventListener("click", () => running && running.controller.abort());
element("new").addEventListener("click", newChat);
element("menu").addEventListener("click", () => (document.body.classList.contains("menu-open") ? closeMenu() : openMenu()));
element("compare").addEventListener("click", () => {
  const on = element("compare").getAttribute("aria-pressed") !== "true";
  element("compare").setAttribute("aria-pressed", String(on));
  element("second").hidden = !on;
});
element("model").addEventListener("change", readSettings);
element("model-2").addEventListener("change", readSettings);
element("open-settings").addEventListener("click", openSettings);
element("settings").addEventListener("close", readSettings);
element("key").addEventListener("change", () => { notice(""); loadModels(); });
element("export").addEventListener("click", exportAll);
element("import").addEventListener("click", () => element("import-file").click());
element("import-file").addEventListener("change", (event) => {
  if (event.target.files.length > 0) importAll(event.target.files[0]);
  event.target.value = "";
});
element("text").addEventListener("input", () => { fitTextArea(); updateSend(); });
element("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
  if (event.key === "ArrowUp" && !element("text").value && current.turns.length > 0) {
    event.preventDefault();
    edit(current.turns.length - 1);
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || element("settings").open) return;
  if (document.body.classList.contains("menu-open")) {
    closeMenu();
    element("menu").focus();
  } else if (running) {
    running.controller.abort();
  }
});
// Another page of this browser has changed a conversation.
window.addEventListener("storage", () => {
  if (running) return;
  conversations.reload();
  current = conversations.all.get(current.id) || current;
  show();
});
// What has come of an answer so far survives a reload.
window.addEventListener("pagehide", () => {
  if (!running || running.removed) return;
  for (const answer of running.answers) answer.note = "Stopped.";
  conversations.save(running.conversation);
});

showTheme();
const newest = conversations.list()[0];
if (newest) current = newest;
show();
loadModels();
