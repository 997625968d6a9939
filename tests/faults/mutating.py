"""Valid runs as zips, changed in one of the ways in which a file from elsewhere may be wrong. Seeded."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lsviz.runs.sealing import put_seal

Files = dict[str, bytes]
_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, -(2**63), 10**400, 1e308, 0.5, "", "\0", "../x", "\ud800", "x" * 5000),
    *("<b>", "2026-01-01", [], {}, [[]], {"a": {"b": []}}, "NaN", "run.json", "\u202e"),
)
_NAMES = ("../x", "/x", "RUN.JSON", "x" * 300, "a\0b", "run.json/x", "con", "ｒun.json")


def bytes_changed(content: bytes, chance: random.Random) -> bytes:
    """Change bytes here and there: flips, pieces cut out, put in, doubled or overwritten."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 5, 20))):
        if not changed:
            break
        at, length = chance.randrange(len(changed)), chance.choice((1, 2, 4, 8, 64))
        match chance.randrange(6):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + length] = chance.randbytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case 4:
                changed[at : at + length] = chance.choice((b"\xff", b"\0", b"\x7f")) * length
            case _:
                changed = changed[:at]
    return bytes(changed)


def json_changed(content: bytes, chance: random.Random) -> bytes:
    """Change a value somewhere in a document, its kind, its depth or its key."""
    try:
        document = json.loads(content)
        places = list(_places(document))
        if not places:
            return bytes_changed(content, chance)
        inside, key = chance.choice(places)
        match chance.randrange(4):
            case 0 if isinstance(inside, dict):
                inside[chance.choice(("x" * 300, "\0", "step", "__class__"))] = inside.pop(key)
            case 1:
                del inside[key]
            case 2:
                for _ in range(chance.choice((1, 50, 2000))):
                    inside[key] = [inside[key]]
            case _:
                inside[key] = chance.choice(_ODD)
        return json.dumps(document).encode()
    except (RecursionError, ValueError):
        return content[:-1]


def table_changed(content: bytes, chance: random.Random) -> bytes:
    """Write a table anew with something wrong in it, half of the time under a seal that is right."""
    table = pq.read_table(io.BytesIO(content))
    name = chance.choice(table.column_names)
    place = table.column_names.index(name)
    match chance.randrange(8):
        case 0:
            table = table.drop_columns([name])
        case 1:
            table = table.set_column(place, name, pa.nulls(len(table), table.schema.field(name).type))
        case 2:
            odd = chance.choice(([2**62], [-1], ["x"], [b"\xff"], [[1]], [None], [float("nan")], [{"a": 1}]))
            table = table.set_column(place, name, pa.array(odd * len(table)))
        case 3:
            table = table.take(pa.array([chance.randrange(len(table)) for _ in table["step"]]))
        case 4:
            table = table.append_column("extra", pa.nulls(len(table)))
        case 5:
            table = table.replace_schema_metadata(
                {"lsviz.row_groups": chance.choice(("5", "[" * 9999, "[[1]]", "{}", '[["a", "b"]]'))}
            )
        case 6:
            table = pa.concat_tables([table] * chance.choice((2, 50)))
        case _:
            table = table.select(chance.sample(table.column_names, len(table.column_names)))
    made = io.BytesIO()
    pq.write_table(
        table,
        made,
        compression=chance.choice(("zstd", "snappy", "gzip", "none", "brotli")),
        use_dictionary=chance.random() < 0.5,
        row_group_size=chance.choice((1, 7, 10_000)),
        data_page_version=chance.choice(("1.0", "2.0")),
        store_schema=chance.random() < 0.5,
        version=chance.choice(("1.0", "2.6")),
    )
    if chance.random() < 0.5:
        put_seal(made)
    return made.getvalue()


def pages_changed(content: bytes, chance: random.Random) -> bytes:
    """Change bytes under a seal that is right all the same, where Parquet still sees a file."""
    changed = bytes_changed(_unsealed(content), chance)
    with tempfile.TemporaryFile() as made:
        made.write(changed)
        made.flush()
        child = os.fork()  # sealing reads the footer, which can end a process
        if not child:
            code = 1
            with contextlib.suppress(Exception):
                put_seal(made)
                made.flush()
                code = 0
            os._exit(code)
        sealed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        made.seek(0)
        return made.read() if sealed else changed


def mutated(files: Files, chance: random.Random) -> bytes:
    """Return a zip of these files with something wrong in one of them, or in the zip."""
    files = dict(files)
    name = chance.choice(sorted(files))
    changes: list[Callable[[bytes, random.Random], bytes]] = [bytes_changed]
    if name.endswith(".json"):
        changes += [json_changed] * 3
    if name.endswith(".parquet"):
        changes += [table_changed, pages_changed, pages_changed]
    whole = chance.randrange(10)
    if whole > 1:
        files[name] = chance.choice(changes)(files[name], chance)
    if whole == 1:
        files[
            chance.choice(("../x", "/x", "RUN.JSON", "x" * 300, "a\0b", "run.json/x", "con", "ｒun.json"))
        ] = b""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, content in files.items():
            archive.writestr(zipfile.ZipInfo(each), content, archive.compression)
    return bytes_changed(file.getvalue(), chance) if whole == 0 else file.getvalue()


def _unsealed(content: bytes) -> bytes:
    made = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(content)), made, compression="zstd")
    return made.getvalue()


def _places(document: Any) -> Any:
    pairs = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(pairs):
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)
