import { change, useAddress } from "../browser/address.ts";

/** A text that narrows a list, kept in the address as `q`. */
export function SearchField({ placeholder }: { placeholder: string }) {
  const { params } = useAddress();
  return (
    <label>
      <span>Find</span>
      <input
        type="search"
        value={params.get("q") ?? ""}
        placeholder={placeholder}
        onChange={(event) => change({ q: event.target.value })}
      />
    </label>
  );
}
