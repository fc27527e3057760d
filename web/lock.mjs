// Writes package-lock.json of each folder that it is given anew, without addresses: neither a registry's (.npmrc), nor
// those where one may donate.
import { execFileSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

for (const folder of process.argv.slice(2)) {
  const path = join(folder, "package-lock.json");
  execFileSync("npm", ["install", "--package-lock-only", "--silent"], { cwd: folder, stdio: "inherit" });
  const lock = JSON.parse(readFileSync(path, "utf8"));
  for (const entry of Object.values(lock.packages)) {
    delete entry.funding;
  }
  writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
}
