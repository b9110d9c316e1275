// Answers of the server, as they stream.

// Calls onEvent with the object of each server-sent event of a response.
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

async function errorOf(response) {
  if (response.status === 401) return Object.assign(new Error("The server asks for an API key: enter it under Settings."), { needsKey: true });
  try {
    return new Error((await response.json()).error.message);
  } catch {
    return new Error("The server answered " + response.status + ".");
  }
}

// Adds what the server answers to `answer` (conversations.js), and calls onChange each time. Throws an Error with a message
// for the reader. Returns when the answer is complete, or when the signal aborts it.
export async function streamAnswer({ headers, body, signal, answer, onChange }) {
  let first = 0;
  let ended = 0;
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", headers, signal,
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    });
    if (!response.ok) throw await errorOf(response);
    await readEvents(response, (event) => {
      if (event.error) throw new Error(event.error.message);
      if (event.usage) answer.tokens = event.usage.completion_tokens;
      for (const choice of event.choices) {
        const delta = choice.delta;
        if (choice.finish_reason === "length") answer.note = "The answer reached its longest length.";
        if (choice.finish_reason) ended = performance.now();
        for (const { expression, result, offset } of delta.nanochat_calculations || []) {
          answer.calculations.push({ expression, result, offset });
        }
        answer.content += delta.content || "";
        if (first === 0 && (delta.content || delta.nanochat_calculations)) first = performance.now();
        onChange();
      }
    });
  } catch (error) {
    if (signal.aborted) {
      answer.note = "Stopped.";
    } else {
      throw error instanceof TypeError ? new Error("The server cannot be reached.") : error;
    }
  } finally {
    if (first > 0) answer.seconds = ((ended || performance.now()) - first) / 1000;
  }
}

export async function listModels(headers) {
  const response = await fetch("v1/models", { headers });
  if (!response.ok) throw await errorOf(response);
  return (await response.json()).data.map((model) => model.id);
}
