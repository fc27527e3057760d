// Parameters as text: those of a task, and all values that a run has.
import { writtenValue } from "./annotation_value.ts";

/** Names and values of an object as text, JSON where a value is no text. */
export function parametersOf(parameters: unknown): [string, string][] {
  return entriesOf(parameters).map(([name, value]) => [
    name,
    typeof value === "string" ? value : JSON.stringify(value),
  ]);
}

/** Of the parameters of a run. */
export function namesOf(parameters: unknown): string[] {
  return entriesOf(parameters).map(([name]) => name);
}

/** The values that a parameter of a run has, each once, written as a filter reads them. */
export function valuesOf(parameters: unknown, name: string): readonly string[] {
  const values = entriesOf(parameters).find(([each]) => each === name)?.[1];
  return Array.isArray(values) ? [...new Set(values.map(writtenValue))] : [];
}

function entriesOf(parameters: unknown): [string, unknown][] {
  return typeof parameters === "object" && parameters !== null ? Object.entries(parameters) : [];
}
