"""The script that writes to Redis: all of a write set, or nothing where what was read does not stand any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import sha1

from server.database.backends.codec import Raw
from server.database.backends.notes import FOLLOWED, LIFETIMES, PREFIX
from server.database.backends.revision_count import MAX_REVISION
from server.database.backends.write_set import WriteSet
from server.database.models import EntityKind, Key
from server.database.steps import Steps

REVISION_KEY = f"{PREFIX}:revision"
MARK = f"{PREFIX}:written:"
"""Each write has a mark, so that it is not made again where its reply was lost."""
MARK_SECONDS = 60
MADE = "1"
"""The value of the mark of a write that was made."""
_DIGESTED_TOGETHER = 20
"""Records: it takes less than a millisecond, and some where each has a long list."""

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
# encoded here: texts are written as they are, and records are compared by digests of their texts, since the lists of a
# large study are long. Where memory is used up, Redis looks at the first write of a script only, and refuses no DEL:
# what frees memory begins with one, of nothing.
SCRIPT = (
    _RAISE
    + """
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

local function digest(record, fields)
  local parts = {}
  for start = 1, #fields, 1000 do
    for _, value in ipairs(redis.call('HMGET', record, unpack(fields, start, math.min(start + 999, #fields)))) do
      if not value then
        return nil
      end
      parts[#parts + 1] = #value .. ':'
      parts[#parts + 1] = value
    end
  end
  return redis.sha1hex(table.concat(parts))
end

local layouts = {}
for number = 1, count() do
  layouts[number] = {}
  for place = 1, count() do
    layouts[number][place] = take()
  end
end
local function as_read(stands)
  local present = take()
  local value = take()
  if present == '1' then
    return stands == value
  end
  return not stands
end
local same = true
for _ = 1, count() do
  local record = key()
  local fields = layouts[count()]
  local unread = count()
  local before = take()
  if not fields then
    same = same and redis.call('EXISTS', record) == 0
  else
    same = same and redis.call('HLEN', record) == #fields + unread and digest(record, fields) == before
  end
end
for _ = 1, count() do
  local map = key()
  same = as_read(redis.call('HGET', map, take())) and same
end
for _ = 1, count() do
  same = as_read(redis.call('GET', key())) and same
end
if not same then
  return 0
end

-- As `list_patch` does it in Python, where it is explained.
local function has(text, word, from)
  return string.find(text, word, from, true)
end
local function is_flat(text)
  return text and (text == '[]' or string.sub(text, 1, 2) == '["' and string.sub(text, -2) == '"]')
    and not has(text, '\\\\', 1) and not has(text, '{', 1) and not has(text, '[', 2)
end
local function with(text, item)
  if has(text, item, 1) then
    return nil
  end
  return text == '[]' and '[' .. item .. ']' or string.sub(text, 1, -2) .. ', ' .. item .. ']'
end
local function without(text, item)
  local first, last = has(text, item, 1)
  if not first or has(text, item, last + 1) then
    return nil
  end
  local is_first, is_last = first == 2, last == #text - 1
  if is_first and is_last then
    return '[]'
  elseif not is_last and string.sub(text, last + 1, last + 3) ~= ', "' then
    return nil
  elseif is_first then
    return '[' .. string.sub(text, last + 3)
  end
  local is_plain = string.sub(text, first - 3, first - 1) == '", '
  return is_plain and string.sub(text, 1, first - 3) .. string.sub(text, last + 1)
end
local patched = {}
for number = 1, count() do
  local record = key()
  local field = take()
  local text = redis.call('HGET', record, field)
  text = is_flat(text) and text
  for _ = 1, count() do
    local item = take()
    text = text and without(text, item)
  end
  for _ = 1, count() do
    local item = take()
    text = text and with(text, item)
  end
  if not text then
    return 0
  end
  patched[number] = {record, field, text}
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
for _, change in ipairs(patched) do
  redis.call('HSET', change[1], change[2], change[3])
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
)
SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""By which Redis names the script."""


def frees_memory(batch: WriteSet) -> bool:
    """Whether it is a deletion, or changes records to what takes no more room than before."""
    if not all(batch.read.get(key) for key in batch.written):
        return False  # a new record
    if batch.deleted:
        return True
    growth = sum(patch.growth for patches in batch.patches.values() for patch in patches.values())
    stands = [
        ((batch.read[key] or {}).get(name), text)
        for key, fields in batch.written.items()
        for name, text in fields.items()
    ]
    stands += [(batch.read_notes.get(key), text or "") for key, text in batch.notes.items() if key.kind in FOLLOWED]
    stands += [(batch.owners.get(name), owner or "") for name, owner in batch.names.items()]
    return growth + sum(len(text) - len(before or "") for before, text in stands) <= 0


async def program(batch: WriteSet, revision: int, *, frees: bool) -> tuple[Sequence[str], Sequence[str | int]]:
    """The script's keys and arguments. `frees`: what `frees_memory` says."""
    numbers: dict[str, int] = {}

    def number(key: str) -> int:
        return numbers.setdefault(key, len(numbers) + 3)

    def pairs(fields: Iterable[tuple[str, str]]) -> list[str]:
        return [text for pair in fields for text in pair]

    arguments: list[str | int] = await _compared(batch.read, batch.unread, number)
    arguments.append(len(batch.owners))
    for (kind, name), owner in batch.owners.items():
        arguments += [number(_name_map(kind)), name, "0" if owner is None else "1", owner or ""]
    arguments.append(len(batch.read_notes))
    for note, text in batch.read_notes.items():
        arguments += [number(str(note)), "0" if text is None else "1", text or ""]
    arguments += _patches(batch, number)
    writes = {str(key): dict(fields) for key, fields in batch.written.items()}
    drops: list[str | int] = []
    for (kind, name), owner in batch.names.items():
        if owner is None:
            drops += [number(_name_map(kind)), name]
        else:
            writes.setdefault(_name_map(kind), {})[name] = owner
    arguments += ["1" if frees else "0", MARK_SECONDS, len(drops) // 2, *drops]
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


def _patches(batch: WriteSet, number: Callable[[str], int]) -> list[str | int]:
    """The part of the arguments that says what is added to lists, and removed from them."""
    patches = [(key, name, patch) for key, fields in batch.patches.items() for name, patch in fields.items()]
    arguments: list[str | int] = [len(patches)]
    for key, name, patch in patches:
        arguments += [number(str(key)), name]
        for ids in (patch.removed, patch.added):
            arguments += [len(ids), *(f'"{id_}"' for id_ in ids)]
    return arguments


async def _compared(
    read: Mapping[Key, Raw | None], unread: Mapping[Key, Collection[str]], number: Callable[[str], int]
) -> list[str | int]:
    """The part of the arguments that says how the records stood. Those of one layout have the same fields."""
    layouts: dict[tuple[str, ...], int] = {}
    records: list[str | int] = []
    compared = {key: raw for key, raw in read.items() if raw is None or raw}
    steps = Steps()
    if len(compared) > _DIGESTED_TOGETHER:
        await asyncio.sleep(0)  # to encode the batch took its time, too
    for place, (key, raw) in enumerate(compared.items(), 1):
        if not place % _DIGESTED_TOGETHER:
            await steps.turn()
        fields = tuple(sorted(raw or ()))
        layout = layouts.setdefault(fields, len(layouts) + 1) if raw else 0
        left_out = len(unread.get(key, ()))
        records += [number(str(key)), layout, left_out, _digest(raw[name] for name in fields) if raw else ""]
    arguments: list[str | int] = [len(layouts)]
    for fields in layouts:
        arguments += [len(fields), *fields]
    return [*arguments, len(compared), *records]


def _digest(texts: Iterable[str]) -> str:
    """As the script makes it. The lengths keep apart what stands in one field and what in the next."""
    digest = sha1(usedforsecurity=False)
    for text in texts:
        stored = text.encode(errors="surrogateescape")
        digest.update(b"%d:" % len(stored))
        digest.update(stored)
    return digest.hexdigest()


def _name_map(kind: EntityKind) -> str:
    return f"{kind}:name"
