// The chat page. What a model writes goes into the document as text nodes only, never as markup.
"use strict";

const element = (id) => document.getElementById(id);
const messages = [];     // the conversation so far, as the API takes it
let running = null;      // AbortController of the answer that streams

function headers() {
  const key = element("key").value.trim();
  return key ? { "Content-Type": "application/json", Authorization: "Bearer " + key } : { "Content-Type": "application/json" };
}

function notice(text) {
  element("notice").textContent = text;
  element("notice").hidden = !text;
}

function addTurn(role, text) {
  element("welcome").hidden = true;
  element("new").hidden = false;
  const turn = document.createElement("div");
  turn.className = "turn " + role;
  turn.append(document.createTextNode(text));
  element("log").append(turn);
  return turn;
}

// What the calculator computed, where the model asked for it.
function addCalculation(turn, calculation) {
  const shown = document.createElement("span");
  shown.className = "calculation";
  shown.title = "Computed by the calculator";
  shown.textContent = calculation.expression + " = " + calculation.result;
  turn.append(shown);
}

// An answer as it comes: text, and between its pieces what was computed.
class Answer {
  constructor(turn) {
    this.turn = turn;
    this.content = "";
    this.characters = 0;      // of the content: what offsets count
    this.calculations = [];
    this.last = turn.firstChild;
  }

  addText(text) {
    if (!text) return;
    if (this.last === null) {
      this.last = document.createTextNode("");
      this.turn.append(this.last);
    }
    this.last.appendData(text);
    this.content += text;
    this.characters += Array.from(text).length;
  }

  add(delta) {
    const text = Array.from(delta.content || "");
    for (const { expression, result, offset } of delta.nanochat_calculations || []) {
      this.addText(text.splice(0, Math.max(0, offset - this.characters)).join(""));
      this.calculations.push({ expression, result, offset });
      addCalculation(this.turn, { expression, result });
      this.last = null;       // text that follows stands behind it
    }
    this.addText(text.join(""));
  }

  message() {
    const message = { role: "assistant", content: this.content };
    if (this.calculations.length > 0) message.nanochat_calculations = this.calculations;
    return message;
  }
}

function addNote(turn, text) {
  const note = document.createElement("span");
  note.className = "note";
  note.textContent = text;
  turn.append(note);
}

// Follows the end of the conversation, unless the reader has scrolled away from it.
function atEnd() {
  const log = element("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
}

function scrollToEnd() {
  element("log").scrollTop = element("log").scrollHeight;
}

function setRunning(controller) {
  running = controller;
  element("send").hidden = controller !== null;
  element("stop").hidden = controller === null;
  updateSend();
}

function updateSend() {
  element("send").disabled = running !== null || !element("text").value.trim();
}

function fitTextArea() {
  const area = element("text");
  area.style.height = "auto";
  area.style.height = area.scrollHeight + 2 + "px";
}

async function errorText(response) {
  if (response.status === 401) {
    element("settings").open = true;
    return "The server asks for an API key: enter it under Settings.";
  }
  try {
    return (await response.json()).error.message;
  } catch {
    return "The server answered " + response.status + ".";
  }
}

// Calls onEvent with the object of each server-sent event.
async function readEvents(response, onEvent) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (pending + value).split("\n\n");
    pending = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ") || part === "data: [DONE]") continue;
      onEvent(JSON.parse(part.slice(6)));
    }
  }
}

async function answer() {
  const turn = addTurn("assistant", "");
  turn.classList.add("waiting");
  const given = new Answer(turn);
  scrollToEnd();
  const controller = new AbortController();
  setRunning(controller);
  let stopped = false;
  let reason = "";
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: headers(),
      signal: controller.signal,
      body: JSON.stringify({
        messages: messages,
        stream: true,
        temperature: Number(element("temperature").value),
        max_tokens: Math.max(1, Math.floor(Number(element("max-tokens").value))),
      }),
    });
    if (!response.ok) throw new Error(await errorText(response));
    await readEvents(response, (event) => {
      if (event.error) throw new Error(event.error.message);
      for (const choice of event.choices) {
        const follow = atEnd();
        given.add(choice.delta);
        if (choice.finish_reason) reason = choice.finish_reason;
        if (follow) scrollToEnd();
      }
    });
  } catch (error) {
    stopped = controller.signal.aborted;
    if (!stopped) notice(error instanceof TypeError ? "The server cannot be reached." : error.message);
  }
  turn.classList.remove("waiting");
  if (stopped) addNote(turn, "Stopped.");
  if (reason === "length") addNote(turn, "The answer reached its longest length.");
  if (given.content || given.calculations.length > 0) {
    messages.push(given.message());
  } else {
    const question = messages.pop();  // it was not answered: it can be edited and sent again
    if (!stopped && reason === "") {
      turn.previousElementSibling.remove();
      turn.remove();
      if (!element("text").value) element("text").value = question.content;
      fitTextArea();
    } else if (!stopped) {
      addNote(turn, "The answer is empty.");
    }
  }
  setRunning(null);
  element("text").focus();
}

function send(event) {
  event.preventDefault();
  const text = element("text").value.trim();
  if (!text || running) return;
  notice("");
  element("text").value = "";
  fitTextArea();
  messages.push({ role: "user", content: text });
  addTurn("user", text);
  answer();
}

function newChat() {
  if (running) running.abort();
  messages.length = 0;
  for (const turn of document.querySelectorAll(".turn")) turn.remove();
  element("welcome").hidden = false;
  element("new").hidden = true;
  notice("");
  element("text").focus();
}

async function showModel() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (response.ok) element("model").textContent = (await response.json()).data[0].id;
  } catch {
    // The first message will say what is wrong.
  }
}

element("form").addEventListener("submit", send);
element("stop").addEventListener("click", () => running && running.abort());
element("new").addEventListener("click", newChat);
element("key").addEventListener("change", showModel);
element("text").addEventListener("input", () => { fitTextArea(); updateSend(); });
element("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
updateSend();
showModel();
