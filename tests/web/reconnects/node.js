// Runs clients of docs/clients.md, whose files are named on the command line.
import { WebSocket } from "ws";

globalThis.WebSocket ??= WebSocket; // Node has one of its own from version 22 on
for (const file of process.argv.slice(2)) await import(file);
