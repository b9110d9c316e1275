// Markdown as DOM nodes. What a model writes becomes text nodes and the few elements that are made here: it is never parsed as
// HTML, links lead to http, https and mailto only, and images are shown as their text.
//
//   const view = new MarkdownView(parent);
//   view.update("Some *text*");  // again with longer text as an answer streams; blocks that stay the same keep their nodes

const MAX_DEPTH = 8;             // of lists, quotes and emphasis within each other
const MAX_INLINE = 20000;        // characters of a paragraph that are searched for emphasis and links
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])\s*(\1\s*){2,}$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:\s+(.*)|\s*)$/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

// ------------------------------------------------------------------------------------------------------------- blocks

function isBlank(line) { return line.trim() === ""; }

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || /^ {0,3}>/.test(line) || ITEM.test(line);
}

// Splits lines into blocks {kind, lines, ...}. `lines` are the source, by which the view knows a block that has not changed.
export function parseBlocks(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length;) {
    if (isBlank(lines[at])) {
      ++at;
      continue;
    }
    const begin = at;
    const block = parseBlock(lines, at);
    at = block.end;
    block.source = lines.slice(begin, at).join("\n");
    blocks.push(block);
  }
  return blocks;
}

function parseBlock(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return parseFence(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return { kind: "heading", level: heading[1].length, text: heading[2], end: at + 1 };
  if (RULE.test(line)) return { kind: "rule", end: at + 1 };
  if (/^ {0,3}>/.test(line)) return parseQuote(lines, at);
  if (ITEM.test(line)) return parseList(lines, at);
  if (line.includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DIVIDER.test(lines[at + 1])) {
    return parseTable(lines, at);
  }
  let end = at + 1;
  while (end < lines.length && !isBlank(lines[end]) && !startsBlock(lines[end])) ++end;
  return { kind: "paragraph", text: lines.slice(at, end).join("\n"), end };
}

function parseFence(lines, at, fence) {
  const mark = fence[1];
  let end = at + 1;
  const isEnd = (line) => line.trim().startsWith(mark) && line.trim().replaceAll(mark[0], "") === "";
  while (end < lines.length && !isEnd(lines[end])) ++end;
  return { kind: "code", language: fence[2].trim().split(/\s+/)[0], text: lines.slice(at + 1, end).join("\n"), end: Math.min(end + 1, lines.length) };
}

function parseQuote(lines, at) {
  let end = at;
  const inner = [];
  while (end < lines.length && /^ {0,3}>/.test(lines[end])) inner.push(lines[end++].replace(/^ {0,3}> ?/, ""));
  return { kind: "quote", inner, end };
}

function parseList(lines, at) {
  const ordered = /\d/.test(ITEM.exec(lines[at])[2]);
  const items = [];
  let end = at;
  let loose = false;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    const within = items.length > 0 && item && item[1].length >= items[items.length - 1].indent;   // a list of the last item
    if (item && !within && !RULE.test(lines[end]) && /\d/.test(item[2]) === ordered) {
      items.push({ indent: item[1].length + item[2].length + 1, lines: [item[3] || ""] });
      ++end;
      continue;
    }
    const last = items[items.length - 1];
    const indented = /^\s{2,}/.test(lines[end]);
    if (isBlank(lines[end])) {
      // A blank line ends the list unless another of its items or an indented line follows.
      const next = lines.findIndex((line, index) => index > end && !isBlank(line));
      const following = next < 0 ? null : ITEM.exec(lines[next]);
      if (next < 0 || !((following && /\d/.test(following[2]) === ordered) || /^\s{2,}/.test(lines[next]))) break;
      loose = true;
      last.lines.push("");
      ++end;
      continue;
    }
    if (!indented && (startsBlock(lines[end]) || last.lines[last.lines.length - 1] === "")) break;
    last.lines.push(lines[end].replace(new RegExp("^\\s{0," + last.indent + "}"), ""));
    ++end;
  }
  const first = ordered ? Number.parseInt(ITEM.exec(lines[at])[2], 10) : 1;
  return { kind: "list", ordered, first, items: items.map((item) => item.lines), loose, end };
}

function cells(line) {
  return line.trim().replace(/^\|/, "").replace(/\|$/, "").split("|").map((cell) => cell.trim());
}

function parseTable(lines, at) {
  let end = at + 2;
  while (end < lines.length && !isBlank(lines[end]) && lines[end].includes("|")) ++end;
  return { kind: "table", head: cells(lines[at]), rows: lines.slice(at + 2, end).map(cells), end };
}

// ------------------------------------------------------------------------------------------------------------- inline

function safeLink(url) {
  try {
    return ["http:", "https:", "mailto:"].includes(new URL(url).protocol);
  } catch {
    return false;
  }
}

class Inline {
  // `addText(parent, text)` appends text that has no markup.
  constructor(addText) {
    this.addText = addText;
  }

  append(parent, text, depth = 0) {
    if (depth > MAX_DEPTH || text.length > MAX_INLINE) {
      this.addText(parent, text);
      return;
    }
    const missing = new Set();   // what does not occur again: searched for once
    const find = (mark, from) => {
      if (missing.has(mark)) return -1;
      const found = text.indexOf(mark, from);
      if (found < 0) missing.add(mark);
      return found;
    };
    let plain = 0;               // the beginning of the text that is in no node yet
    for (let at = 0; at < text.length;) {
      const made = this.element(text, at, find, depth);
      if (made === null) {
        ++at;
        continue;
      }
      this.addText(parent, text.slice(plain, at));
      parent.append(made.node);
      plain = at = made.end;
    }
    this.addText(parent, text.slice(plain));
  }

  // The element that begins at `at`, or null.
  element(text, at, find, depth) {
    const c = text[at];
    if (c === "\\" && at + 1 < text.length && /[!-/:-@[-`{-~]/.test(text[at + 1])) {
      return { node: document.createTextNode(text[at + 1]), end: at + 2 };
    }
    if (c === "\n" && text.slice(Math.max(0, at - 2), at) === "  ") return { node: document.createElement("br"), end: at + 1 };
    if (c === "`") return this.code(text, at, find);
    if (c === "*" || c === "_" || c === "~") return this.emphasis(text, at, find, depth);
    if (c === "[" || (c === "!" && text[at + 1] === "[")) return this.link(text, at, find, depth);
    if (c === "h" && (at === 0 || !/\w/.test(text[at - 1]))) return this.address(text, at);
    return null;
  }

  code(text, at, find) {
    const mark = /^`+/.exec(text.slice(at, at + 16))[0];
    const end = find(mark, at + mark.length);
    if (end < 0 || text[end + mark.length] === "`") return null;
    const node = document.createElement("code");
    this.addText(node, text.slice(at + mark.length, end).replaceAll("\n", " ").replace(/^ (.*\S.*) $/, "$1"));
    return { node, end: end + mark.length };
  }

  emphasis(text, at, find, depth) {
    const c = text[at];
    const double = text[at + 1] === c;
    if (c === "~" && !double) return null;
    const mark = double ? c + c : c;
    const begin = at + mark.length;
    if (begin >= text.length || /\s/.test(text[begin])) return null;
    if (c === "_" && at > 0 && /\w/.test(text[at - 1])) return null;
    let end = find(mark, begin);
    // "*a **b** c*": the single mark that ends it is not part of a double one.
    while (!double && end >= 0 && text[end + 1] === c) end = find(mark, end + 2);
    if (end <= begin - 1 || end < 0 || /\s/.test(text[end - 1]) || end === begin) return null;
    if (c === "_" && end + mark.length < text.length && /\w/.test(text[end + mark.length])) return null;
    const node = document.createElement(c === "~" ? "del" : double ? "strong" : "em");
    this.append(node, text.slice(begin, end), depth + 1);
    return { node, end: end + mark.length };
  }

  link(text, at, find, depth) {
    const image = text[at] === "!";
    const begin = at + (image ? 2 : 1);
    const middle = find("](", begin);
    if (middle < 0) return null;
    const end = find(")", middle + 2);
    if (end < 0) return null;
    const url = text.slice(middle + 2, end).trim().replace(/\s+["'(].*$/, "");
    if (/[\n\s<>]/.test(url)) return null;
    const label = text.slice(begin, middle);
    const node = document.createElement(!image && safeLink(url) ? "a" : "span");
    if (node.tagName === "A") this.lead(node, url);
    this.append(node, label, depth + 1);
    return { node, end: end + 1 };
  }

  // A URL without markup.
  address(text, at) {
    const found = /^https?:\/\/[^\s<>"'`\\^{|}]+/.exec(text.slice(at, at + 2048));
    if (!found) return null;
    const url = found[0].replace(/[.,;:!?)\]*_~]+$/, "");
    if (!safeLink(url)) return null;
    const node = document.createElement("a");
    this.lead(node, url);
    node.append(url);
    return { node, end: at + url.length };
  }

  lead(anchor, url) {
    anchor.href = url;
    anchor.target = "_blank";
    anchor.rel = "noopener noreferrer nofollow";
  }
}

// -------------------------------------------------------------------------------------------------------------- view

export class MarkdownView {
  // `addText(parent, text)` appends text to a node; `codeHead(text)` returns a node for the head of a code block, or null.
  constructor(parent, addText, codeHead) {
    this.parent = parent;
    this.inline = new Inline(addText);
    this.addText = addText;
    this.codeHead = codeHead;
    this.sources = [];
  }

  update(text) {
    const blocks = parseBlocks(text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n"));
    let same = 0;
    while (same < blocks.length && same < this.sources.length && blocks[same].source === this.sources[same]) ++same;
    while (this.parent.childNodes.length > same) this.parent.lastChild.remove();
    for (const block of blocks.slice(same)) this.parent.append(this.node(block, 0));
    this.sources = blocks.map((block) => block.source);
  }

  blocks(parent, lines, depth) {
    if (depth > MAX_DEPTH) {
      this.addText(parent, lines.join("\n"));
      return;
    }
    for (const block of parseBlocks(lines)) parent.append(this.node(block, depth));
  }

  node(block, depth) {
    switch (block.kind) {
      case "code": return this.codeBlock(block);
      case "heading": return this.withText("h" + Math.min(6, block.level + 2), block.text);   // the page has h1 and h2
      case "rule": return document.createElement("hr");
      case "quote": {
        const quote = document.createElement("blockquote");
        this.blocks(quote, block.inner, depth + 1);
        return quote;
      }
      case "list": return this.list(block, depth);
      case "table": return this.table(block);
      default: return this.withText("p", block.text);
    }
  }

  withText(name, text) {
    const node = document.createElement(name);
    this.inline.append(node, text);
    return node;
  }

  codeBlock(block) {
    const outer = document.createElement("div");
    outer.className = "code";
    const head = this.codeHead(block.language, block.text);
    const pre = document.createElement("pre");
    pre.tabIndex = 0;            // it may scroll sideways
    const code = document.createElement("code");
    this.addText(code, block.text);
    pre.append(code);
    outer.append(head, pre);
    return outer;
  }

  list(block, depth) {
    const list = document.createElement(block.ordered ? "ol" : "ul");
    if (block.ordered && block.first !== 1) list.start = block.first;
    for (const lines of block.items) {
      const item = document.createElement("li");
      const inner = parseBlocks(lines);
      if (!block.loose && inner.length > 0 && inner[0].kind === "paragraph") {
        this.inline.append(item, inner[0].text);
        this.blocks(item, lines.slice(inner[0].source.split("\n").length), depth + 1);
      } else {
        this.blocks(item, lines, depth + 1);
      }
      list.append(item);
    }
    return list;
  }

  table(block) {
    const outer = document.createElement("div");
    outer.className = "table";
    outer.tabIndex = 0;
    const table = document.createElement("table");
    const row = (texts, name) => {
      const line = document.createElement("tr");
      for (const text of texts) line.append(this.withText(name, text));
      return line;
    };
    const head = document.createElement("thead");
    head.append(row(block.head, "th"));
    const body = document.createElement("tbody");
    for (const texts of block.rows) body.append(row(texts.slice(0, block.head.length), "td"));
    table.append(head, body);
    outer.append(table);
    return outer;
  }
}
