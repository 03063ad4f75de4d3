// Writes cases.json: tokenizer configurations in the shape of published Mixtral fine-tunes, 300 texts for each, and the
// ids that Hugging Face's tokenizers library (Rust) gives them; and chatml.json, conversations and their ids. Needs Node 18 and the npm package @anush008/tokenizers
// (0.6.0, built on tokenizers 0.22.2), installed in the folder that NODE_PATH names:
//
//   npm install --prefix /tmp/oracle @anush008/tokenizers@0.6.0
//   NODE_PATH=/tmp/oracle/node_modules node make.mjs
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const { Tokenizer } = createRequire(import.meta.url)("@anush008/tokenizers");
const here = path.dirname(fileURLToPath(import.meta.url));
const base = JSON.parse(fs.readFileSync(path.join(here, "../tokenizer_1/tokenizer.json")));
const N_TEXTS = 300;

let state = 20260129;
function random(n) {  // mulberry32
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) % n;
}
const pick = (list) => list[random(list.length)];

const prepend = { type: "Prepend", prepend: "▁" };
const replace = { type: "Replace", pattern: { String: " " }, content: "▁" };
const metaspace = (prepend_scheme) => ({ type: "Metaspace", replacement: "▁", prepend_scheme, split: false });
const SPACES = {
  legacy: { normalizer: { type: "Sequence", normalizers: [prepend, replace] }, pre_tokenizer: null, strip: true },
  bare: { normalizer: { type: "Sequence", normalizers: [replace] }, pre_tokenizer: null, strip: false },
  first: { normalizer: null, pre_tokenizer: metaspace("first"), strip: true },
  always: { normalizer: null, pre_tokenizer: metaspace("always"), strip: true },
  never: { normalizer: null, pre_tokenizer: metaspace("never"), strip: false },
};

const special = { special: true }, plain = {}, normalized = { normalized: true };
const strips = { lstrip: true, rstrip: true };
// Content and flags; ids count on from the 1024 pieces of the base unless they are given.
const TOKENS = {
  chatml: [["<|im_end|>", special], ["<|im_start|>", plain]],
  chatml_special: [["<|im_end|>", special], ["<|im_start|>", special], ["<pad>", special]],
  pad_normalized: [["[PAD]", { ...normalized, special: true }], ["<|endoftext|>", normalized]],
  openchat: [["<|end_of_turn|>", special], ["<|pad_0|>", plain], ["GPT4 Correct User:", plain], ["\n\n", plain]],
  zephyr: [["<|system|>", normalized], ["<|user|>", normalized], ["<|assistant|>", normalized]],
  tools: [["[TOOL_CALLS]", special], ["[TOOL_RESULTS]", special], ["<tool_call>", plain], ["</tool_call>", plain],
          ["<tool>", plain], ["<tools>", plain]],
  stripping: [["<mask>", { ...special, lstrip: true }], ["<sep>", { rstrip: true }], ["<both>", strips],
              ["[N]", { ...strips, normalized: true }]],
  words: [["Mixtral", { single_word: true }], ["expert", { single_word: true, normalized: true }],
          ["été", { single_word: true }], ["router", { single_word: true, ...strips }]],
  spaces_inside: [["<|im start|>", plain], [" the", plain], ["end of turn", normalized], ["  ", plain], ["\t", plain]],
  nested: [["<|a", plain], ["<|a|>", special], ["<|a|><|b", plain], ["a|>", plain], ["ab", plain], ["bc", normalized],
           ["abcd", plain]],
  own_pieces: [["</s>", { ...special, lstrip: true, replace: true }], ["in", plain], ["▁the", normalized], ["er", special]],
  gaps: [["<|im_end|>", { ...special, id: 1030 }], ["<|x|>", { id: 1027 }], ["<|y|>", { id: 1100, ...strips }]],
  signs: [["😀", plain], ["你好", { single_word: true }], ["é", normalized], ["###", plain], ["### Instruction:", plain],
          ["\u00a0", plain]],
};
const TEXTS = ["the", " the", "in", "er", " ", "  ", "   ", "\n", "\n\n", "\t", "size", "Hello", "a", "b", "ab", "abcd", "bc",
               "0", "_", "é", "ñ", "你", "好", "😀", "▁", "\u3000", "\u00a0", "<", "|", ">", "<|", "|>", "[", "]", "<s>", "</s>",
               "<unk>", "returns", "Mixtral", "expert", "router", ".", "-", "\r", "\u0301", "\u2028", "x"];

function configuration(spaces, tokens) {
  const document = structuredClone(base);
  const { normalizer, pre_tokenizer, strip } = SPACES[spaces];
  Object.assign(document, { normalizer, pre_tokenizer });
  if (!strip) document.decoder.decoders.pop();
  let next = Object.keys(base.model.vocab).length;
  for (const [content, { id, replace: replaces, ...flags }] of TOKENS[tokens]) {
    const entry = { id: base.model.vocab[content] ?? id ?? next++, content, single_word: false, lstrip: false,
                    rstrip: false, normalized: false, special: false, ...flags };
    if (replaces) document.added_tokens = document.added_tokens.filter((t) => t.content !== content);
    document.added_tokens.push(entry);
  }
  return document;
}

const cases = [];
for (const tokens of Object.keys(TOKENS)) {
  for (const spaces of Object.keys(SPACES)) {
    const document = configuration(spaces, tokens);
    const tokenizer = Tokenizer.fromString(JSON.stringify(document));
    const contents = TOKENS[tokens].map(([content]) => content);
    const texts = [], ids = [];
    while (texts.length < N_TEXTS) {
      let text = "";
      for (let n = 1 + random(7); n > 0; --n) text += random(3) === 0 ? pick(contents) : pick(TEXTS);
      texts.push(text);
      ids.push((await tokenizer.encode(text, null, { addSpecialTokens: false })).getIds());
    }
    const { added_tokens, normalizer, pre_tokenizer, decoder } = document;
    cases.push({ name: `${tokens} ${spaces}`, patch: { added_tokens, normalizer, pre_tokenizer, decoder }, texts, ids });
  }
}
// Conversations in ChatML, the whole of each read at once. A last message of the user's is followed by the beginning of
// the answer.
const MESSAGES = ["", "Hello", " Hello ", "a\nb", "Two lines\n\nand a third.\n", "  indented", "[INST] [/INST]", "1 < 2 | 3 > 2",
                  "été 你好 😀", "<s> </s> <unk>", "\n"];
const render = (messages) =>
  messages.map(({ role, text }) => `<|im_start|>${role}\n${text}<|im_end|>\n`).join("") +
  (messages.at(-1).role === "user" ? "<|im_start|>assistant\n" : "");
const chats = [];
for (const tokens of ["chatml", "chatml_special"]) {
  for (const spaces of Object.keys(SPACES)) {
    const document = configuration(spaces, tokens);
    document.added_tokens = document.added_tokens.filter((t) => !/^<(s|\/s|unk)>$/.test(t.content));  // text is text
    const tokenizer = Tokenizer.fromString(JSON.stringify(document));
    const conversations = [];
    for (let i = 0; i < 12; ++i) {
      const messages = i % 2 === 0 ? [{ role: "system", text: pick(MESSAGES.slice(1)) }] : [];
      for (let n = 1 + random(4), user = true; n > 0; --n, user = !user) {
        messages.push({ role: user ? "user" : "assistant", text: pick(MESSAGES) });
      }
      const ids = (await tokenizer.encode(render(messages), null, { addSpecialTokens: false })).getIds();
      conversations.push({ messages, ids });
    }
    chats.push({ name: `${tokens} ${spaces}`, patch: cases.find((c) => c.name === `${tokens} ${spaces}`).patch, conversations });
  }
}
fs.writeFileSync(path.join(here, "chatml.json"), `[\n${chats.map((c) => JSON.stringify(c)).join(",\n")}\n]\n`);

const lines = cases.map((c) => JSON.stringify(c));
fs.writeFileSync(path.join(here, "cases.json"), `[\n${lines.join(",\n")}\n]\n`);
console.log(`${cases.length} configurations, ${cases.length * N_TEXTS} texts`);
