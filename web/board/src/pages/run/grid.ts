// Parameters and samples as rows of texts.

export interface Grid {
  columns: readonly string[];
  rows: readonly (readonly string[])[];
}

/** An object of a list of values for each parameter: the values of one row belong together. null if there are none. */
export function parameterGrid(values: unknown): Grid | null {
  if (!isObject(values)) return null;
  const columns = Object.keys(values);
  if (columns.length === 0) return null;
  const lists = columns.map((column) => (Array.isArray(values[column]) ? values[column] : [values[column]]));
  const length = Math.max(...lists.map((list) => list.length));
  const rows = Array.from({ length }, (_, row) => lists.map((list) => (row < list.length ? written(list[row]) : "")));
  return { columns, rows };
}

/** Samples as somebody stored them: a list of lists, of objects, or of single values. null for none. */
export function gridOf(samples: unknown): Grid | null {
  if (isObject(samples)) return parameterGrid(samples);
  if (!Array.isArray(samples) || samples.length === 0) return null;
  if (samples.every(isObject)) {
    const columns = [...new Set(samples.flatMap((sample) => Object.keys(sample)))];
    return {
      columns,
      rows: samples.map((sample) =>
        columns.map((column) => (Object.hasOwn(sample, column) ? written(sample[column]) : "")),
      ),
    };
  }
  const rows = samples.map((sample: unknown) => (Array.isArray(sample) ? sample.map(written) : [written(sample)]));
  const width = rows.reduce((most, row) => Math.max(most, row.length), 0);
  return { columns: Array.from({ length: width }, (_, at) => `Column ${at}`), rows };
}

/** A text as it is, another value as JSON. */
export function written(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const NARROWEST = 8;
const WIDEST = 40;
const OF_HEADING = 1.25; // its letters are wider
const OF_NUMBER = 22; // such as -1.2345678901234567e-10

/** How many characters each column takes, by some of its rows. */
export function widthsOf(titles: readonly string[], rows: readonly (readonly unknown[])[]): number[] {
  return titles.map((title, column) => {
    const values = rows.filter((row) => column < row.length).map((row) => row[column]);
    const fractions = values.some((value) => typeof value === "number" && !Number.isInteger(value));
    const heading = Math.ceil(title.length * OF_HEADING);
    const longest = values.reduce<number>((most, value) => Math.max(most, written(value).length), heading);
    return Math.min(Math.max(longest, fractions ? OF_NUMBER : NARROWEST), WIDEST);
  });
}
