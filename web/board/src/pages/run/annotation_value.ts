// The values of annotations, as people write them: JSON, or a text as it stands.

export type Read = { value: unknown } | { problem: string };

const BEGINS_AS_JSON = /^\s*[[{"]/;

export function readValue(text: string): Read {
  if (text.trim() === "") return { problem: "A value is missing." };
  try {
    const value: unknown = JSON.parse(text);
    return value === null ? { problem: "null would remove the annotation: use Remove." } : { value };
  } catch {
    if (BEGINS_AS_JSON.test(text)) return { problem: "This begins as JSON, and is none." };
    return { value: text.trim() };
  }
}

/** A text without quotes where it would be read as the same text again. */
export function writtenValue(value: unknown): string {
  if (typeof value === "string") {
    const read = readValue(value);
    if ("value" in read && read.value === value) return value;
  }
  return JSON.stringify(value);
}

export function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "list";
  return typeof value === "string" ? "text" : typeof value === "boolean" ? "truth value" : typeof value;
}
