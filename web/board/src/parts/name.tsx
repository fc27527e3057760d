/** A name that somebody gave, whatever its characters: it turns nothing beside it around, and is never invisible. */
export function Name({ children: name }: { children: string }) {
  return <bdi>{name.trim() ? name : <span className="none">“{name}”</span>}</bdi>;
}
