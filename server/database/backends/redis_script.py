"""The script that writes to Redis: all of a write set, or nothing where what was read does not stand any more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha1

from server.database.backends.notes import FOLLOWED, LIFETIMES, PREFIX
from server.database.backends.revision_count import MAX_REVISION
from server.database.backends.write_set import WriteSet
from server.database.models import EntityKind

REVISION_KEY = f"{PREFIX}:revision"
MARK = f"{PREFIX}:written:"
"""Each write has a mark, so that it is not made again where its reply was lost."""
MARK_SECONDS = 60
MADE = "1"
"""The value of the mark of a write that was made."""

_RAISE = f"""
local function raise_revision(key, revision, step)
  local text = redis.pcall('GET', key)
  local stored = type(text) == 'string' and #text <= 10 and string.match(text, '^%d+$') and tonumber(text) or 0
  if stored > {MAX_REVISION} then
    stored = 0
  end
  local number = math.min(math.max(stored, revision) + step, {MAX_REVISION})
  if number ~= stored then
    redis.call('SET', key, string.format('%d', number))
  end
  return number
end
"""
"""Where somebody has written something else, the count is written anew."""
STORE_SCRIPT = f"{_RAISE}return raise_revision(KEYS[1], tonumber(ARGV[1]), 0)"

# KEYS[1] is the mark of this write: 1 where it was made, another text where it was withdrawn. KEYS[2] is the count of
# revisions. The rest are what it touches. ARGV is a sequence of counted parts, read in order. Nothing is decoded or
# encoded here: values are compared and written as the texts they are. Where memory is used up, Redis looks at the first
# write of a script only, and refuses no DEL: what frees memory begins with one, of nothing.
SCRIPT = f"""{_RAISE}
local position = 0
local function take()
  position = position + 1
  return ARGV[position]
end
local function count()
  return tonumber(take())
end
local function key()
  return KEYS[count()]
end

local mark = redis.call('GET', KEYS[1])
if mark == '1' then
  return 2
elseif mark then
  return 0
end

local same = true
for _ = 1, count() do
  local record = key()
  local fields = count()
  if fields == 0 then
    same = same and redis.call('EXISTS', record) == 0
  else
    same = same and redis.call('HLEN', record) == fields
    for _ = 1, fields do
      local field = take()
      local value = take()
      same = same and redis.call('HGET', record, field) == value
    end
  end
end
for _ = 1, count() do
  local map = key()
  local stands = redis.call('HGET', map, take())
  local present = take()
  local value = take()
  if present == '1' then
    same = same and stands == value
  else
    same = same and not stands
  end
end
for _ = 1, count() do
  local stands = redis.call('GET', key())
  local present = take()
  local value = take()
  if present == '1' then
    same = same and stands == value
  else
    same = same and not stands
  end
end
if not same then
  return 0
end

if take() == '1' then
  redis.call('DEL', KEYS[1])
end
redis.call('SET', KEYS[1], '1', 'EX', take())
for _ = 1, count() do
  local map = key()
  redis.call('HDEL', map, take())
end
for _ = 1, count() do
  redis.call('DEL', key())
end
raise_revision(KEYS[2], tonumber(take()), 1)
for _ = 1, count() do
  local hash = key()
  for _ = 1, count() do
    local field = take()
    redis.call('HSET', hash, field, take())
  end
end
for _ = 1, count() do
  local note = key()
  local lifetime = take()
  if lifetime == '0' then
    redis.call('SET', note, take())
  else
    redis.call('SET', note, take(), 'EX', lifetime)
  end
end
return 1
"""
SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""By which Redis names the script."""


def frees_memory(batch: WriteSet) -> bool:
    """Whether it is a deletion, or changes records to what takes no more room than before."""
    if not all(batch.read.get(key) for key in batch.written):
        return False  # a new record
    if batch.deleted:
        return True
    stands = [
        ((batch.read[key] or {}).get(name), text)
        for key, fields in batch.written.items()
        for name, text in fields.items()
    ]
    stands += [(batch.read_notes.get(key), text or "") for key, text in batch.notes.items() if key.kind in FOLLOWED]
    stands += [(batch.owners.get(name), owner or "") for name, owner in batch.names.items()]
    return sum(len(text) - len(before or "") for before, text in stands) <= 0


def program(batch: WriteSet, revision: int) -> tuple[Sequence[str], Sequence[str | int]]:
    """The script's keys and arguments."""
    numbers: dict[str, int] = {}

    def number(key: str) -> int:
        return numbers.setdefault(key, len(numbers) + 3)

    def pairs(fields: Iterable[tuple[str, str]]) -> list[str]:
        return [text for pair in fields for text in pair]

    compared = {key: raw for key, raw in batch.read.items() if raw is None or raw}
    arguments: list[str | int] = [len(compared)]
    for key, raw in compared.items():
        arguments += [number(str(key)), len(raw or {}), *pairs((raw or {}).items())]
    arguments.append(len(batch.owners))
    for (kind, name), owner in batch.owners.items():
        arguments += [number(_name_map(kind)), name, "0" if owner is None else "1", owner or ""]
    arguments.append(len(batch.read_notes))
    for note, text in batch.read_notes.items():
        arguments += [number(str(note)), "0" if text is None else "1", text or ""]
    writes = {str(key): dict(fields) for key, fields in batch.written.items()}
    drops: list[str | int] = []
    for (kind, name), owner in batch.names.items():
        if owner is None:
            drops += [number(_name_map(kind)), name]
        else:
            writes.setdefault(_name_map(kind), {})[name] = owner
    arguments += ["1" if frees_memory(batch) else "0", MARK_SECONDS, len(drops) // 2, *drops]
    gone = [*batch.deleted, *(note for note, text in batch.notes.items() if text is None)]
    arguments += [len(gone), *(number(str(key)) for key in gone)]
    arguments += [min(revision, MAX_REVISION), len(writes)]
    for key_text, fields in writes.items():
        arguments += [number(key_text), len(fields), *pairs(fields.items())]
    kept = {note: text for note, text in batch.notes.items() if text is not None}
    arguments.append(len(kept))
    for note, text in kept.items():
        arguments += [number(str(note)), LIFETIMES.get(note.kind, 0), text]
    return [MARK + batch.id, REVISION_KEY, *numbers], arguments


def _name_map(kind: EntityKind) -> str:
    return f"{kind}:name"
