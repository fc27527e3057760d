// A time in the viewer's zone, which is an instant in the address.
import { change } from "../../browser/address.ts";
import type { FilterName } from "./filter.ts";
import { Field } from "./field.tsx";

export function TimeField({ label, name, value }: { label: string; name: FilterName; value: string }) {
  return (
    <Field label={label}>
      <input
        name={name}
        type="datetime-local"
        value={localOf(value)}
        onChange={({ target }) => change({ [name]: target.value && new Date(target.value).toISOString() })}
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
