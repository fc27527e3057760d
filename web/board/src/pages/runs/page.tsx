// All runs: searched, filtered, ordered, annotated, deleted. The address holds the view.
import { useAddress } from "../../browser/address.ts";
import { viewOf } from "./filter.ts";
import { FilterForm } from "./form.tsx";
import { RunList } from "./list.tsx";

import "./page.css";

export function RunsPage() {
  const { params } = useAddress();
  const view = viewOf(params);
  const memory = `runs ${JSON.stringify([view.filter, view.order])}`;
  return (
    <>
      <h1 tabIndex={-1}>Runs</h1>
      <FilterForm params={params} view={view} />
      {view.problems.length > 0 && (
        <div className="problems" role="alert">
          <ul>
            {view.problems.map((problem) => (
              <li key={problem}>{problem}</li>
            ))}
          </ul>
        </div>
      )}
      <RunList key={memory} view={view} memory={memory} />
    </>
  );
}
