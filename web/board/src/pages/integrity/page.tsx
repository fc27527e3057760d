// What does not agree in the database, the gravest first, and its repair.
import { useMemo, useState } from "react";

import { change, href, useAddress } from "../../browser/address.ts";
import { BoardIntegrityDocument } from "../../gql/graphql.ts";
import { useHeld } from "../../lists/held.ts";
import { useLive } from "../../api/live.ts";
import { HeadButton } from "../../parts/head_button.tsx";
import { LongList } from "../../parts/long_list.tsx";
import { Empty, Failure, Loading } from "../../parts/states.tsx";
import { Tiles } from "../../parts/tiles.tsx";
import { useMay } from "../../api/session.tsx";
import { MARKS, tone, word } from "../../values/statuses.ts";
import { ProblemLine } from "./problem_line.tsx";
import { KIND_WORDS, kindsOf, type Problem, problemsOf, SEVERITIES } from "./problems.ts";
import { Repair } from "./repair.tsx";

import "../../styles/lists.css";
import "./page.css";

export function IntegrityPage() {
  const { data, error } = useLive(BoardIntegrityDocument, {});
  const problems = useMemo(() => data && problemsOf(data.integrity.problems), [data]);
  return (
    <>
      <h1 tabIndex={-1}>Integrity</h1>
      {error && <Failure error={error} />}
      {!problems && !error && <Loading rows={8} />}
      {problems && (
        <>
          <Severities problems={problems} />
          <Problems problems={problems} />
        </>
      )}
    </>
  );
}

/** How many there are of each severity; one of them can be chosen. */
function Severities({ problems }: { problems: readonly Problem[] }) {
  const { path, params } = useAddress();
  const chosen = params.get("severity");
  const tiles = SEVERITIES.map((severity) => ({
    key: severity,
    tone: tone(severity),
    count: problems.filter((problem) => problem.severity === severity).length,
    mark: MARKS[severity],
    word: word(severity),
    href: href(path, { severity: chosen === severity ? null : severity }),
    isChosen: chosen === severity,
  }));
  return <Tiles label="Problems by severity" tiles={tiles} />;
}

function Problems({ problems }: { problems: readonly Problem[] }) {
  const { params } = useAddress();
  const mayRepair = useMay("ADMIN");
  const [isRepairing, setRepairing] = useState(false);
  const severity = SEVERITIES.find((each) => each === params.get("severity"));
  const kind = params.get("kind");
  const ofSeverity = useMemo(
    () => problems.filter((each) => !severity || each.severity === severity),
    [problems, severity],
  );
  const kinds = useMemo(() => kindsOf(ofSeverity), [ofSeverity]);
  const rows = useMemo(() => ofSeverity.filter((each) => !kind || each.kind === kind), [ofSeverity, kind]);
  const all = useMemo(() => new Map(problems.map((problem) => [problem.id, problem])), [problems]);
  const { slots, news, renew, sorted } = useHeld(`${severity} ${kind}`, rows, all);
  const shown = rows.length === problems.length ? "" : `${rows.length.toLocaleString()} of `;
  return (
    <section aria-label="Problems">
      <div className="section-head">
        <h2 tabIndex={-1}>
          Problems{" "}
          <span className="count" role="status">
            {shown}
            {problems.length.toLocaleString()}
          </span>
        </h2>
        {!sorted && (
          <HeadButton onPress={renew}>
            {news > 0 ? `Show ${news.toLocaleString()} more` : "Leave out what is gone"}
          </HeadButton>
        )}
        {problems.length > 0 && (
          <label className="kind">
            <span className="hidden">Kind</span>
            <select value={kind ?? ""} onChange={(event) => change({ kind: event.target.value })}>
              <option value="">All kinds</option>
              {kind && !kinds.some((each) => each.kind === kind) && <option value={kind}>{kind} (0)</option>}
              {kinds.map((each) => (
                <option key={each.kind} value={each.kind}>
                  {KIND_WORDS[each.kind]} ({each.count.toLocaleString()})
                </option>
              ))}
            </select>
          </label>
        )}
        {mayRepair && <button onClick={() => setRepairing(true)}>Repair…</button>}
      </div>
      {mayRepair && isRepairing && <Repair problems={problems} close={() => setRepairing(false)} />}
      {slots.length === 0 ? (
        <Empty>
          {problems.length === 0
            ? "All agrees: no reference dangles, and every value can be read."
            : "No problem is like that."}
        </Empty>
      ) : (
        <LongList label="Problems" rows={slots} idOf={({ id }) => id} heights={{ wide: 90, narrow: 200 }}>
          {({ row, left }) => <ProblemLine problem={row} left={left} />}
        </LongList>
      )}
    </section>
  );
}
