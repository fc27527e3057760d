import { Copy } from "../../parts/copy.tsx";
import { Section } from "../../parts/section.tsx";
import { commandsOf } from "./commands.ts";

/** What this page can't do, since the server never starts or stops work: the commands that do, to be copied. */
export function Commands({ workspace }: { workspace: string }) {
  return (
    <Section title="Commands of Merlin">
      <p className="detail">To be run where Merlin is configured. The board starts and stops nothing itself.</p>
      <ul className="rows commands">
        {commandsOf(workspace).map(({ name, text, note }) => (
          <li key={name}>
            <div className="command">
              <span className="strong">{name}</span>
              <Copy text={text} label={`the command: ${name}`} />
            </div>
            <code className="block">{text}</code>
            <p className="detail">{note}</p>
          </li>
        ))}
      </ul>
    </Section>
  );
}
