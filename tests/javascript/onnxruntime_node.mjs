// node onnxruntime_node.mjs REQUESTS PREDICTIONS
import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { predict } from "./predicting.mjs";

const [requests, predictions] = process.argv.slice(2);
const found = await predict(ort, JSON.parse(readFileSync(requests)));
writeFileSync(predictions, JSON.stringify({ version: ort.env.versions?.node, predictions: found }));
