"""Cards, weights and recipes that nobody should have to fear; what each must end with is in test_hostile_cards.py."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

DEEP = 100_000
GIANT = 10**9
HUGE = int("9" * 400)


def nested(depth: int) -> str:
    """Lists inside lists."""
    return "[" * depth + "]" * depth


WHOLE_CARDS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "null": b"null",
    "number": b"7",
    "text": b'"card"',
    "list": b"[]",
    "object": b"{}",
    "open": b'{"kind": "codec"',
    "two values": b"{} {}",
    "not UTF-8": b'{"kind": "\xff\xfe"}',
    "UTF-16": '{"kind": "codec"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"kind": "codec"}',
    "binary": bytes(range(256)) * 16,
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07os.exit\x94.",
    "deep lists": nested(DEEP).encode(),
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep enough to be parsed": b'{"recipe": ' + nested(200).encode() + b"}",
    "no kind": json.dumps({"fingerprint": "0" * 64}).encode(),
    "no fingerprint": b'{"kind": "codec"}',
    "hundred megabytes": b" " * 100_000_000,
    "many small values": b"[" + b"0," * 6_000_000 + b"0]",
}
"""Files in the place of a card."""

LITERALS: dict[str, str] = {
    "NaN": '"temperature": NaN',
    "infinity": '"rate": Infinity',
    "negative infinity": '"rate": -Infinity',
    "overflow": '"rate": 1e999',
    "giant integer": f'"parameters": {"9" * 5000}',
    "kind twice": '"kind": "codec", "kind": "classifier"',
    "sha256 twice": f'"sha256": "{"0" * 64}"',
    "NaN in what is not read": '"training": {"settings": {"a": NaN}}',
    "key twice in what is not read": '"training": {"settings": {"a": 1, "a": 2}}',
    "deep in what is not read": f'"training": {{"settings": {{"a": {nested(100)}}}}}',
}
"""Text that is put into an otherwise valid card."""


def each(key: str, values: Sequence[Any]) -> list[tuple[str, Any]]:
    """A key with each of some values."""
    return [(key, value) for value in values]


VALUES: list[tuple[str, Any]] = [
    *each("kind", (None, 1, True, [], {}, "", "Codec", "model", "codec\n", ["codec"])),
    *each("fingerprint", (None, 0, HUGE, [], "", "0" * 63, "0" * 65, "G" * 64, "0" * 64 + "\n", "A" * 64, ["0" * 64])),
    *each("sha256", (1, "", "zz", "0" * 64, ["0" * 64], "../" * 21 + "a")),
    *each("name", (1, "", ".", "..", "a/b", "../x", "/etc/passwd", "a\\b", "a\0b", "x" * 300, [])),
    *each("codec", (3, "", "..", "../../codec", "/", "a\nb", {"a": 1})),
    *each("labels", (1, "x", {}, [1], [None], [[]], [{}], [{"label": 1}], [{"label": None}])),
    *each("labels", ([{"label": "a", "wnid": 7}], [{"label": "a", "color": "red"}], [["label"]])),
    *each("rate", ("1", [], True, 0, -1, HUGE, 1e300, {"rate": 1})),
    *each("bytes", ("9", -1, 1.5, HUGE, [], True)),
    *each("parameters", ("9", -1, 0.5, HUGE, {})),
    *each("temperature", (0, -1, 0.0, 1e-300, 1e300, "1", None, [], True, HUGE)),
    *each("int8", (0, 1, "true", None, [])),
    *each("void", (-1, 256, 1.5, "11", GIANT)),
    *each("input", (1, "", "pixels", ["latent"])),
    *each("schema", (0, 1, 3, "2", 2.5, True, [], HUGE)),
    *each("results", (1, {}, [1], [{}], [{"dataset": 1}], [{"dataset": "x", "count": 1, "top1": 2}])),
    *each("results", ([{"dataset": "x", "count": -1}], [{"dataset": "x", "count": 1, "miou": "good"}])),
    *each("bd_rates", (1, {}, [1], [{"dataset": "x", "count": 1}], [{"dataset": "x", "count": 1, "against": 3}])),
    *each("baselines", (1, {}, [1], [{"dataset": "x", "count": 1, "rows": []}])),
    *each("baselines", ([{"dataset": "x", "count": 1, "rows": [{}]}],)),
    *each("training", (1, [], {"images": {"x": -1}}, {"settings": 1}, {"start": {}}, {"start": [{"sha256": "a/b"}]})),
    *each("license", (1, None, [], {})),
    *each("history", ("anything",)),
    *each("macs_per_pixel", (1, {}, {"analysis": 1}, {"analysis": -1, "synthesis": 1, "context": 1})),
]
"""A key of an otherwise valid card, and a value that it must not have."""


def safetensors(header: Any, data: bytes = b"") -> bytes:
    """A file of weights with this header, a text or a value of JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype: Any, shape: Any, *offsets: Any) -> dict[str, Any]:
    """One entry of a header."""
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}}


WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "header of 100 MB": struct.pack("<Q", 10**8) + b"{}",
    "no JSON": safetensors(b"{"),
    "not UTF-8": safetensors(b'{"\xff": 1}'),
    "list": safetensors([]),
    "deep": safetensors(nested(DEEP).encode()),
    "no tensors": safetensors({}),
    "entry is a number": safetensors({"x": 1}),
    "no shape": safetensors({"x": {"dtype": "F32", "data_offsets": [0, 4]}}, b"\0" * 4),
    "shape is a number": safetensors(tensor("F32", 1, 0, 4), b"\0" * 4),
    "shape of 2^62": safetensors(tensor("F32", [2**62], 0, 4), b"\0" * 4),
    "shape of 10^400": safetensors(tensor("F32", [HUGE], 0, 4), b"\0" * 4),
    "product that overflows": safetensors(tensor("F32", [2**32, 2**32], 0, 0)),
    "negative shape": safetensors(tensor("F32", [-1], 0, 4), b"\0" * 4),
    "nothing times 10^9": safetensors(tensor("F32", [GIANT, 0], 0, 0)),
    "thousand dimensions": safetensors(tensor("F32", [1] * 1000, 0, 4), b"\0" * 4),
    "offsets beyond the end": safetensors(tensor("F32", [1], 0, 400), b"\0" * 4),
    "negative offsets": safetensors(tensor("F32", [1], -4, 0), b"\0" * 4),
    "one offset": safetensors(tensor("F32", [1], 0), b"\0" * 4),
    "unknown type": safetensors(tensor("F7", [1], 0, 4), b"\0" * 4),
    "type is a list": safetensors(tensor(["F32"], [1], 0, 4), b"\0" * 4),
    "complex": safetensors(tensor("C64", [1], 0, 8), b"\0" * 8),
    "integers": safetensors(tensor("I32", [1], 0, 4), b"\0" * 4),
    "NaN": safetensors(tensor("F32", [1], 0, 4), struct.pack("<f", float("nan"))),
    "infinity": safetensors(tensor("F16", [1], 0, 2), struct.pack("<e", float("inf"))),
    "name twice": safetensors(b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "x": 1}', b"\0" * 4),
    "bytes after the end": safetensors(tensor("F32", [1], 0, 4), b"\0" * 40),
    "of something else": safetensors(tensor("F32", [1], 0, 4), b"\0" * 4),
    "ten thousand tensors": safetensors(
        {f"x{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(10_000)},
        b"\0" * 40_000,
    ),
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x07os.exit\x94.",
}
"""Files in the place of weights; the card states their SHA-256."""

Change = Callable[[dict[str, Any]], object]
TENSORS: dict[str, Change] = {
    "groups of 10^9 channels": lambda t: t["context.groups"].__setitem__((0, 0), GIANT),
    "negative channels": lambda t: t["context.groups"].__setitem__((0, 0), -1),
    "groups of 10^9 levels": lambda t: t["context.groups"].__setitem__((0, 1), GIANT),
    "10^9 passes": lambda t: t["context.groups"].__setitem__((0, 2), GIANT),
    "a million groups": lambda t: t.update({"context.groups": t["context.groups"][:1].repeat(10**6, 1)}),
    "groups in a row": lambda t: t.update({"context.groups": t["context.groups"].flatten()}),
    "no groups": lambda t: t.pop("context.groups"),
    "context weights in floats": lambda t: t.update({"context.exp": t["context.exp"].float()}),
    "largest context weights": lambda t: t["context.00.1.weight"].fill_(2**31 - 1),
    "NaN in a center": lambda t: t["quantizer.centers"].fill_(float("nan")),
    "giant centers": lambda t: t["quantizer.centers"].fill_(3e38),
    "one center": lambda t: t.update({"quantizer.centers": t["quantizer.centers"][:, :1]}),
    "transposed centers": lambda t: t.update({"quantizer.centers": t["quantizer.centers"].T}),
    "a number for a stem": lambda t: t.update({"analysis.stem.weight": t["analysis.stem.weight"].sum()}),
    "a stem of 10^7 rows": lambda t: t.update({"analysis.stem.weight": t["analysis.stem.bias"][:1].repeat(10**7, 1)}),
    "no stem": lambda t: t.pop("synthesis.stem.weight"),
    "a thousand blocks": lambda t: t.update(
        {f"analysis.blocks.{i}.conv1.weight": t["analysis.stem.bias"] for i in range(1000)}
    ),
    "tensors too many": lambda t: t.update({"analysis.more": t["analysis.stem.bias"]}),
}
"""What is done to the weights of a codec."""

RECIPES: dict[str, bytes] = {
    "empty": b"",
    "not UTF-8": b'name = "\xff"',
    "broken": b"[codec",
    "not TOML": b'{"codec": 1}',
    "deep lists": b"x = " + nested(DEEP // 4).encode(),
    "deep tables": b"[" + b".".join([b"a"] * 2000) + b"]",
    "hundred megabytes": b"#" * 100_000_000,
    "section is a number": b"codec = 1",
    "section is a list": b"codec = []",
    "unknown section": b"[model]\nname = 1",
    "giant integer": b"[codec]\nrate = " + b"9" * 5000,
    "key twice": b'[codec]\nname = "a"\nname = "b"',
    "binary": bytes(range(256)),
    "NUL": b'[codec]\nname = "a\\u0000b"',
}
"""Files in the place of a recipe."""

RECIPE_VALUES: list[tuple[str, str, str]] = [
    *(
        ("codec", "name", value)
        for value in ("1", "[]", "{}", '""', '"."', '".."', '"../x"', '"/etc/x"', '"a/b"', '"a\\\\b"', f'"{"x" * 300}"')
    ),
    *(("codec", "rate", value) for value in ('"1"', "0", "-1.0", "nan", "inf", "-inf", "true", "1e300", "1979-05-27")),
    *(
        ("codec", "groups", value)
        for value in (
            "1",
            "[]",
            "[1]",
            "[{}]",
            "[{ channels = 1 }]",
            "[{ channels = 1000000000, levels = 9, passes = 3 }]",
            "[{ channels = 0, levels = 9, passes = 3 }]",
            "[{ channels = 1, levels = 1000000000, passes = 3 }]",
            "[{ channels = 1, levels = 9, passes = 1000000000 }]",
            "[{ channels = 1.5, levels = 9, passes = 1 }]",
            "[{ channels = 1, levels = 9, passes = 1, more = 1 }]",
            "[" + "{ channels = 190, levels = 9, passes = 1 }," * 2 + "]",
            "[" + "{ channels = 1, levels = 9, passes = 1 }," * 500 + "]",
        )
    ),
    *(("codec", "width", value) for value in ("0", "-1", "1000000000", "8.0", '"8"', "true", "[]", "9" * 400)),
    *(("codec", "synthesis_depth", value) for value in ("0", "1000000000", "-3", '"6"')),
    *(("codec", "context_hidden", value) for value in ("0", "1000000000", "1.0")),
    *(("codec", "frozen", value) for value in ("1", '"synthesis"', "[1]", '["all"]')),
    *(("codec", "similarity", value) for value in ("-1", "nan", '"1"', "inf")),
    ("codec", "color", "1"),
    *(("data", "crop", value) for value in ("0", "7", "33", "-32", "1000000000", "32.0")),
    *(("data", "batch", value) for value in ("0", "-1", "1000000000", '"2"')),
    *(("data", "held_out", value) for value in ("0", "-1", "1.5", "1000000000000")),
    *(
        ("data", "weights", value)
        for value in ("1", "[]", "{ pictures = -1 }", "{ pictures = nan }", '{ pictures = "1" }')
    ),
    ("data", "weights", "{ pictures = 0 }"),
    *(("schedule", "steps", value) for value in ("0", "-1", "1.5", "nan", "9" * 400, '"3"')),
    *(("schedule", "learning_rate", value) for value in ("0", "-1", "nan", "inf", '"1"')),
    *(("schedule", "seed", value) for value in ("-1", "1.5", "9" * 40)),
    *(("schedule", "optimizer", value) for value in ("1", '"lion"', "[]")),
    *(("schedule", "ema", value) for value in ("2", "-1", "nan")),
    *(("schedule", "validate_every", value) for value in ("0", "-1", "0.5")),
    *(("schedule", "checkpoint_every", value) for value in ("0", "-1")),
    *(("schedule", "warmup", value) for value in ("-1", "1e9", "9" * 30)),
    *(("schedule", "bf16", value) for value in ("1", '"yes"')),
]
"""Section, key and value, as TOML, that are put into an otherwise valid recipe."""
