// A time in the viewer's zone, which is an instant in the address.
import { change } from "../../browser/address.ts";
import type { FilterName } from "./filter.ts";
import { Field } from "./field.tsx";

/** A browser lets nobody type a year of five digits then, which the API knows not. */
const LAST = "9999-12-31T23:59";

export function TimeField({ label, name, value }: { label: string; name: FilterName; value: string }) {
  return (
    <Field label={label}>
      <input
        name={name}
        type="datetime-local"
        max={LAST}
        value={localOf(value)}
        onChange={({ target }) => change({ [name]: instantOf(target.value) })}
      />
    </Field>
  );
}

/** As the input takes it, to the minute; empty if it is no time. */
function localOf(value: string): string {
  const at = new Date(value);
  if (Number.isNaN(at.getTime())) return "";
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

function instantOf(local: string): string {
  const at = new Date(local);
  return Number.isNaN(at.getTime()) ? "" : at.toISOString();
}
