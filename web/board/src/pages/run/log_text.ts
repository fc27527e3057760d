// The end of a text file, as pieces of it arrive: in blocks of whole lines, of which the oldest go first.

export interface Block {
  id: number;
  text: string;
  lines: number;
}

export interface LogText {
  blocks: readonly Block[];
  /** Bytes of the whole file. */
  size: number;
  /** Whether the blocks begin where the file does. */
  isWhole: boolean;
  /** The byte of the file before which they end. */
  end: number;
}

export interface Piece {
  text: string;
  size: number;
  /** The bytes of the file at which the text begins, and before which it ends. */
  start: number;
  end: number;
}

/** Characters that are kept. */
export const MOST = 2 ** 20;
const BLOCK = 2 ** 14;

/**
 * `before`: null for the first piece of a subscription. A piece that does not begin where the one before it ended is
 * of a file that was replaced or cut, and replaces what was there.
 */
export function withPiece(before: LogText | null, piece: Piece): LogText {
  const goesOn = before !== null && piece.start === before.end;
  const kept = goesOn ? [...before.blocks] : [];
  const last = kept.at(-1);
  let text = piece.text;
  let id = (before?.blocks.at(-1)?.id ?? -1) + 1; // never used twice: React tells blocks apart by it
  if (last && last.text.length < BLOCK) {
    kept.pop();
    text = last.text + text;
    id = last.id;
  }
  for (const part of cut(text)) kept.push({ id: id++, text: part, lines: linesOf(part) });
  let length = kept.reduce((sum, block) => sum + block.text.length, 0);
  let isWhole = goesOn ? before.isWhole : piece.start === 0;
  while (length > MOST && kept.length > 1) {
    length -= kept.shift()!.text.length;
    isWhole = false;
  }
  return { blocks: kept, size: piece.size, isWhole, end: piece.end };
}

/** Into blocks that end with a line, but for a line that is longer than a block. */
function cut(text: string): string[] {
  const parts: string[] = [];
  let from = 0;
  while (text.length - from > BLOCK) {
    const end = text.lastIndexOf("\n", from + BLOCK - 1) + 1;
    const to = end > from ? end : from + BLOCK;
    parts.push(text.slice(from, to));
    from = to;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

function linesOf(text: string): number {
  let lines = 0;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) lines += 1;
  return text.endsWith("\n") ? lines : lines + 1;
}
