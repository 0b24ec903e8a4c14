// node onnxruntime_node.mjs QUESTIONS ANSWERS
import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { answer } from "./answering.mjs";

const [questions, answers] = process.argv.slice(2);
const found = await answer(ort, JSON.parse(readFileSync(questions)));
writeFileSync(answers, JSON.stringify({ version: ort.env.versions?.node, answers: found }));
