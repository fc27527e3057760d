export interface Tile {
  key: string;
  /** The class that colours it. */
  tone: string;
  count: number;
  /** One character before the word, for eyes that see no colours. */
  mark?: string;
  word: string;
  href: string;
  /** For tiles of which one can be chosen: whether it is this one. */
  isChosen?: boolean;
}

/** Numbers that lead to what they count. */
export function Tiles({ label, tiles }: { label: string; tiles: readonly Tile[] }) {
  return (
    <ul className="tiles" aria-label={label}>
      {tiles.map(({ key, tone, count, mark, word, href, isChosen }) => (
        <li key={key}>
          <a className={`tile ${tone}`} href={href} aria-current={isChosen ? "true" : undefined}>
            <span className="number">{count.toLocaleString()}</span>
            <span className="word">
              {mark && (
                <>
                  <span aria-hidden="true">{mark}</span>{" "}
                </>
              )}
              {word}
            </span>
          </a>
        </li>
      ))}
    </ul>
  );
}
