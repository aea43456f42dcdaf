"""The index files of depmod (modules.dep.bin, modules.alias.bin, ...), in which kmod's modprobe looks names up.

A file holds a trie: each node has a part of the key, a table of the children by their first character, and values with
priorities. Numbers are big-endian; an offset's highest bits say which parts its node has. Source: kmod,
libkmod/libkmod-index.c and tools/depmod.c (version 2.1 of the format, since module-init-tools 3.4 of 2008).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from acon_nb.errors import TreeError

_HEADER = struct.pack(">II", 0xB007F457, 0x00020001)
_PREFIX, _VALUES, _CHILDREN, _OFFSET = 0x80000000, 0x40000000, 0x20000000, 0x0FFFFFFF
_MOST_KEY_BYTES = 4095  # kmod's buffers
Index = Mapping[bytes, Sequence[bytes]]  # the values of each key, the first one first


@dataclass
class _Node:
    prefix: bytes = b""
    children: dict[int, _Node] = field(default_factory=dict)
    values: list[tuple[int, bytes]] = field(default_factory=list)


def write(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the file of keys and values; of several values of a key, the first has the highest priority.

    Keys that kmod cannot hold (not ASCII, empty, with NULs) are left out, as kmod would never ask for them.
    """
    root = _Node()
    for priority, (key, value) in enumerate(pairs):
        if key and key.isascii() and b"\0" not in key and len(key) <= _MOST_KEY_BYTES:
            _insert(root, key, (priority, value))
    return _serialised(root)


def _insert(node: _Node, key: bytes, value: tuple[int, bytes]) -> None:
    while True:
        common = _common(node.prefix, key)
        if common < len(node.prefix):  # the part that does not fit becomes a child
            rest = _Node(node.prefix[common + 1 :], node.children, node.values)
            node.children, node.values = {node.prefix[common]: rest}, []
            node.prefix = node.prefix[:common]
        key = key[common:]
        if not key:
            node.values.append(value)
            return
        child = node.children.get(key[0])
        if child is None:
            node.children[key[0]] = _Node(key[1:], values=[value])
            return
        node, key = child, key[1:]


def _common(first: bytes, second: bytes) -> int:
    if second.startswith(first):
        return len(first)
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _serialised(root: _Node) -> bytes:
    """Children before their parents, as depmod; without recursion, since keys may be long."""
    out = bytearray(_HEADER + bytes(4))
    offsets: dict[int, int] = {}
    pending = [(root, False)]
    while pending:
        node, ready = pending.pop()
        if not ready:
            pending.append((node, True))
            pending += [(node.children[first], False) for first in sorted(node.children, reverse=True)]
            continue
        offset = len(out)
        if node.prefix:
            offset |= _PREFIX
            out += node.prefix + b"\0"
        if node.children:
            offset |= _CHILDREN
            first, last = min(node.children), max(node.children)
            out += bytes((first, last))
            for one in range(first, last + 1):
                child = node.children.get(one)
                out += struct.pack(">I", offsets[id(child)] if child is not None else 0)
        if node.values:
            offset |= _VALUES
            out += struct.pack(">I", len(node.values))
            for priority, value in node.values:
                out += struct.pack(">I", priority) + value + b"\0"
        offsets[id(node)] = offset
    out[8:12] = struct.pack(">I", offsets[id(root)])
    return bytes(out)


def read(data: bytes) -> dict[bytes, list[bytes]]:
    """Return what a file holds, keys in order. Errors: `TreeError` for one that is damaged or of another version."""
    if not data.startswith(_HEADER):
        raise TreeError("it is not an index of version 2.1")
    values_of: dict[bytes, list[bytes]] = {}
    try:
        (root,) = struct.unpack_from(">I", data, 8)
        # A node lies before its parent, and has one: what says otherwise would never end
        pending, seen = [(b"", root, len(data) + 1)], set[int]()
        while pending:
            key, node, below = pending.pop()
            offset = node & _OFFSET
            if not len(_HEADER) < offset < below or offset in seen:
                raise TreeError("its nodes are not a tree")
            seen.add(offset)
            end = offset
            if node & _PREFIX:
                prefix, end = _text(data, end)
                key += prefix
            if len(key) > _MOST_KEY_BYTES:
                raise TreeError("it has a key that is too long")
            if node & _CHILDREN:
                first, last = data[end : end + 2]
                end += 2
                offsets = struct.unpack_from(f">{max(0, last - first + 1)}I", data, end)
                end += 4 * len(offsets)
                children = [(key + bytes((first + n,)), child, offset) for n, child in enumerate(offsets) if child]
                pending += reversed(children)
            if node & _VALUES:
                (count,) = struct.unpack_from(">I", data, end)
                end += 4
                for _ in range(count):
                    value, end = _text(data, end + 4)
                    values_of.setdefault(key, []).append(value)
    except (struct.error, ValueError) as error:
        raise TreeError(f"it is truncated or damaged ({error})") from error
    return values_of


def _text(data: bytes, start: int) -> tuple[bytes, int]:
    """A string and what comes after its NUL."""
    end = data.index(b"\0", start)
    return data[start:end], end + 1
