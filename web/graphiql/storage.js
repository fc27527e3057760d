// The browser's storage, where GraphiQL keeps tabs and history: without headers, which may hold a token.
// (`shouldPersistHeaders` is about the tabs only: the history keeps the headers of each operation.)
const kept = (key, value) => (key === "headers" ? null : value);

export function withoutHeaders(storage) {
  return {
    get length() {
      return storage.length;
    },
    key: (index) => storage.key(index),
    getItem: (key) => storage.getItem(key),
    removeItem: (key) => storage.removeItem(key),
    clear() {
      for (const key of Object.keys(storage)) if (key.startsWith("graphiql:")) storage.removeItem(key);
    },
    setItem(key, value) {
      if (key === "graphiql:headers") return;
      const isRecords = /^graphiql:(queries|favorites|tabState)$/.test(key);
      storage.setItem(key, isRecords ? JSON.stringify(JSON.parse(value), kept) : value);
    },
  };
}
