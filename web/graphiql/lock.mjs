// Writes package-lock.json anew, without addresses: neither a registry's (.npmrc), nor those where one may donate.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";

const path = new URL("package-lock.json", import.meta.url);
execFileSync("npm", ["install", "--package-lock-only", "--silent"], { cwd: new URL(".", import.meta.url), stdio: "inherit" });
const lock = JSON.parse(readFileSync(path, "utf8"));
for (const entry of Object.values(lock.packages)) {
  delete entry.funding;
}
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
