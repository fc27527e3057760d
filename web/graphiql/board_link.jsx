// The way to the board, if the server has one: its first page leads there whoever may see it.
import { useEffect, useState } from "react";

export function BoardLink() {
  const [exists, setExists] = useState(false);
  useEffect(() => {
    fetch(new URL(".", location.href), { method: "HEAD", credentials: "same-origin" })
      .then(({ url }) => setExists(new URL(url).pathname.endsWith("/board")))
      .catch(() => {}); // a server that can't be reached says so to the first query
  }, []);
  return exists && <a href="board">Board</a>;
}
