// What does not agree in the database, the gravest first, and its repair.
import { useState } from "react";

import { change, href, useAddress } from "../../browser/address.ts";
import { BoardIntegrityDocument, type ProblemKind } from "../../gql/graphql.ts";
import { useLive } from "../../api/live.ts";
import { HeadButton } from "../../parts/head_button.tsx";
import { Failure, Loading } from "../../parts/states.tsx";
import { Tiles } from "../../parts/tiles.tsx";
import { useMay } from "../../api/session.tsx";
import { MARKS, tone, word } from "../../values/statuses.ts";
import { ProblemList } from "./list.tsx";
import { type Count, KIND_WORDS, kindsOf, SEVERITIES, totalOf, type Wanted } from "./problems.ts";
import { Repair } from "./repair.tsx";

import "../../styles/lists.css";
import "./page.css";

export function IntegrityPage() {
  const { data, error } = useLive(BoardIntegrityDocument, {});
  const counts = data?.integrity.counts;
  return (
    <>
      <h1 tabIndex={-1}>Integrity</h1>
      {error && <Failure error={error} />}
      {!counts && !error && <Loading rows={8} />}
      {counts && (
        <>
          <Severities counts={counts} />
          <Problems counts={counts} />
        </>
      )}
    </>
  );
}

/** How many there are of each severity; one of them can be chosen. */
function Severities({ counts }: { counts: readonly Count[] }) {
  const { path, params } = useAddress();
  const chosen = params.get("severity");
  const tiles = SEVERITIES.map((severity) => ({
    key: severity,
    tone: tone(severity),
    count: totalOf(counts, { severity, kind: null }),
    mark: MARKS[severity],
    word: word(severity),
    href: href(path, { severity: chosen === severity ? null : severity }),
    isChosen: chosen === severity,
  }));
  return <Tiles label="Problems by severity" tiles={tiles} />;
}

function Problems({ counts }: { counts: readonly Count[] }) {
  const { params } = useAddress();
  const mayRepair = useMay("ADMIN");
  const [isRepairing, setRepairing] = useState(false);
  const severity = SEVERITIES.find((each) => each === params.get("severity")) ?? null;
  const kind = params.get("kind");
  const total = totalOf(counts, { severity: null, kind: null });
  const wanted: Wanted = { severity, kind: isKind(kind) ? kind : null };
  const inView = totalOf(counts, wanted);
  const memory = `problems ${wanted.severity} ${wanted.kind}`;
  return (
    <section aria-label="Problems">
      <ProblemList key={memory} memory={memory} wanted={wanted} counts={counts}>
        {(button) => (
          <div className="section-head">
            <h2 tabIndex={-1}>
              Problems{" "}
              <span className="count" role="status">
                {inView === total ? "" : `${inView.toLocaleString()} of `}
                {total.toLocaleString()}
              </span>
            </h2>
            {button && <HeadButton onPress={button.onPress}>{button.text}</HeadButton>}
            {total > 0 && <Kinds counts={counts} wanted={wanted} />}
            {mayRepair && <button onClick={() => setRepairing(true)}>Repair…</button>}
          </div>
        )}
      </ProblemList>
      {mayRepair && isRepairing && <Repair counts={counts} close={() => setRepairing(false)} />}
    </section>
  );
}

/** The choice of a kind, of those of the severity that is chosen. */
function Kinds({ counts, wanted: { severity, kind } }: { counts: readonly Count[]; wanted: Wanted }) {
  const kinds = kindsOf(counts.filter((each) => !severity || each.severity === severity));
  return (
    <label className="kind">
      <span className="hidden">Kind</span>
      <select value={kind ?? ""} onChange={(event) => change({ kind: event.target.value })}>
        <option value="">All kinds</option>
        {kind && !kinds.some((each) => each.kind === kind) && <option value={kind}>{KIND_WORDS[kind]} (0)</option>}
        {kinds.map((each) => (
          <option key={each.kind} value={each.kind}>
            {KIND_WORDS[each.kind]} ({each.count.toLocaleString()})
          </option>
        ))}
      </select>
    </label>
  );
}

function isKind(text: string | null): text is ProblemKind {
  return text !== null && Object.hasOwn(KIND_WORDS, text);
}
