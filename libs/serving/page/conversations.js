// The conversations of this page, kept in the browser. Each one is an entry of localStorage, so that two open pages do not
// overwrite each other's.
//
//   {id, title, created, updated, system, turns: [{question, answers: [answer, ...]}]}
//   answer: {model, content, calculations: [{expression, result, offset}], note, tokens, seconds}
//
// With two models side by side, each question has two answers; each model sees the conversation with its own.

const PREFIX = "nanochat.conversation.";
const SETTINGS = "nanochat.settings";
const FORMAT = "nanochat-conversations";
const MAX_TITLE = 60;

export function newConversation(system) {
  const now = Date.now();
  return { id: crypto.getRandomValues(new Uint32Array(4)).join("-"), title: "", created: now, updated: now, system, turns: [] };
}

export function newAnswer(model) {
  return { model, content: "", calculations: [], note: "", tokens: 0, seconds: 0 };
}

// The messages for one of the models, as the API takes them, up to the last question.
export function apiMessages(conversation, column) {
  const messages = conversation.system ? [{ role: "system", content: conversation.system }] : [];
  conversation.turns.forEach((turn, index) => {
    messages.push({ role: "user", content: turn.question });
    if (index === conversation.turns.length - 1) return;
    const answer = turn.answers[column] || turn.answers[0];
    if (!answer) return;
    const message = { role: "assistant", content: answer.content };
    if (answer.calculations.length > 0) message.nanochat_calculations = answer.calculations;
    messages.push(message);
  });
  return messages;
}

export class Conversations {
  constructor(onFull) {
    this.onFull = onFull;        // called when the browser's storage takes no more
    this.all = new Map();
    this.reload();
  }

  reload() {
    this.all.clear();
    for (let i = 0; i < localStorage.length; ++i) {
      const key = localStorage.key(i);
      if (!key.startsWith(PREFIX)) continue;
      const conversation = checked(parse(localStorage.getItem(key)));
      if (conversation) this.all.set(conversation.id, conversation);
    }
  }

  // The newest first.
  list() {
    return Array.from(this.all.values()).sort((a, b) => b.updated - a.updated);
  }

  save(conversation) {
    conversation.updated = Date.now();
    if (!conversation.title && conversation.turns.length > 0) {
      conversation.title = Array.from(conversation.turns[0].question.trim().replace(/\s+/g, " ")).slice(0, MAX_TITLE).join("");
    }
    this.all.set(conversation.id, conversation);
    try {
      localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
    } catch {
      this.onFull();
    }
  }

  remove(id) {
    this.all.delete(id);
    localStorage.removeItem(PREFIX + id);
  }

  exported() {
    return JSON.stringify({ format: FORMAT, version: 1, conversations: this.list() }, null, 1);
  }

  // Adds the conversations of an exported file, and returns their number. One that is already here is replaced if the file's is
  // newer. Throws an Error for text of another form.
  importText(text) {
    const file = parse(text);
    if (!file || file.format !== FORMAT || !Array.isArray(file.conversations)) {
      throw new Error("This is not a file of conversations that this page exported.");
    }
    const conversations = file.conversations.map(checked);
    if (conversations.includes(null)) throw new Error("A conversation of this file is not complete. Nothing was imported.");
    for (const conversation of conversations) {
      const known = this.all.get(conversation.id);
      if (known && known.updated >= conversation.updated) continue;
      const updated = conversation.updated;
      this.save(conversation);
      conversation.updated = updated;
    }
    return conversations.length;
  }
}

export function loadSettings() {
  return parse(localStorage.getItem(SETTINGS)) || {};
}

export function saveSettings(settings) {
  try {
    localStorage.setItem(SETTINGS, JSON.stringify(settings));
  } catch {
    // They are then those of this page only.
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// A copy with exactly the fields above, or null. Nothing of a file or of the storage is used unchecked.
function checked(value) {
  const text = (member) => typeof member === "string";
  const number = (member) => (Number.isFinite(member) ? member : 0);
  if (!value || !text(value.id) || !/^[\w-]{1,100}$/.test(value.id) || !Array.isArray(value.turns)) return null;
  const turns = [];
  for (const turn of value.turns) {
    if (!turn || !text(turn.question) || !Array.isArray(turn.answers)) return null;
    const answers = [];
    for (const answer of turn.answers.slice(0, 2)) {
      if (!answer || !text(answer.content)) return null;
      const calculations = (Array.isArray(answer.calculations) ? answer.calculations : [])
        .filter((one) => one && text(one.expression) && text(one.result) && Number.isInteger(one.offset))
        .map(({ expression, result, offset }) => ({ expression, result, offset }));
      answers.push({
        model: text(answer.model) ? answer.model : "", content: answer.content, calculations, note: text(answer.note) ? answer.note : "",
        tokens: number(answer.tokens), seconds: number(answer.seconds),
      });
    }
    turns.push({ question: turn.question, answers });
  }
  return {
    id: value.id, title: text(value.title) ? value.title : "", created: number(value.created), updated: number(value.updated),
    system: text(value.system) ? value.system : "", turns,
  };
}
