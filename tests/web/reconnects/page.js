// The page of a client in Node: prints what it shows, as a line of JSON with the name of its directory.
import { readFileSync } from "node:fs";
import { basename } from "node:path";

const client = basename(import.meta.dirname);
const print = (shown) => console.log(JSON.stringify({ client, ...shown }));

export const show = (runs) => print({ runs: Object.fromEntries(runs) });
export const fail = (error) => print({ error: error.message });
export const token = async () => readFileSync(process.env.TOKEN_FILE, "utf8").trim();
