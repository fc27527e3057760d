"""Encodes responses as JSON, whatever is stored."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson


def encode_json(value: object) -> bytes:
    """Valid JSON, whatever was stored: NaN and infinity are null, as in JavaScript.

    orjson refuses integers beyond 64 bits and lone surrogates; then the standard library writes them.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False).encode()


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case orjson.Fragment():
            return orjson.loads(orjson.dumps(value))
        case _:
            return value
