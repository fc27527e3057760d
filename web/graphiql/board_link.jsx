// The way to the board, if the server has one: it says in the page which pages it has.
const pages = document.documentElement.dataset.pages?.split(" ") ?? [];

export function BoardLink() {
  return pages.includes("board") && <a href="board">Board</a>;
}
