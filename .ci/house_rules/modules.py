"""Builds the tree of the crate's modules and resolves paths in it to the files that define what they name."""

import pathlib
import re
from dataclasses import dataclass, field

from . import rust

_NAMED = {"fn", "struct", "enum", "union", "trait", "type", "const", "static"}
_PREFIXES = {"unsafe", "async", "extern", "default", "auto", "safe"}
_PATH_IN_STRING = re.compile(r'"[A-Za-z_]\w*(?:::[A-Za-z_]\w*)+"')


@dataclass(eq=False)
class Import:
    """One name that a `use` declaration brings into a module, or everything (`*`) of a path."""

    name: str
    path: tuple
    line: int
    # `pub use`, `pub(crate) use`, `pub(super) use`.
    is_reexport: bool
    is_used: bool = False


@dataclass(eq=False)
class Module:
    """A module of the crate: a file, or an inline `mod name { .. }` of one. Modules that only tests have are left out."""

    file: str
    parent: "Module | None"
    folder: pathlib.Path
    children: dict = field(default_factory=dict)
    items: set = field(default_factory=set)
    imports: list = field(default_factory=list)
    # (path, line, whether it may be a local variable) of every path in the code.
    mentions: list = field(default_factory=list)

    def root(self):
        return self.parent.root() if self.parent else self

    def walk(self):
        yield self
        for child in self.children.values():
            yield from child.walk()


@dataclass(frozen=True)
class Edge:
    """One file's dependency on another: the first item that it names, and the line."""

    item: str
    line: int


class Crate:
    """The library's modules and the binary's, read from a folder that holds `src`."""

    def __init__(self, top):
        self.top = top
        src = top / "src"
        self.roots = {}
        for name in ("lib.rs", "main.rs"):
            if (src / name).exists():
                root = Module(f"src/{name}", None, src)
                self.roots[name] = root
                self._read_file(root)

    def edges(self):
        """The dependencies between files: {(file, file it depends on): Edge}."""
        found = {}
        for root in self.roots.values():
            for module in root.walk():
                for target, item, line in self._dependencies(module):
                    if target != module.file:
                        found.setdefault((module.file, target), Edge(item, line))
        return found

    # Reading.

    def _read_file(self, module):
        tokens = rust.without_comments(rust.tokenize((self.top / module.file).read_text()))
        self._read_items(module, tokens)

    def _read_items(self, module, tokens):
        index = 0
        while index < len(tokens):
            start = index
            index, is_test = _attributes(tokens, index)
            attributes = tokens[start:index]
            if index >= len(tokens):
                break
            index, is_public = _visibility(tokens, index)
            end = self._read_item(module, tokens, index, is_public, is_test)
            if not is_test:
                for token in attributes:
                    if token.kind == "string" and _PATH_IN_STRING.fullmatch(token.text):
                        module.mentions.append((tuple(token.text.strip('"').split("::")), token.line, False))
            index = max(end, index + 1)

    def _read_item(self, module, tokens, index, is_public, is_test):
        text = tokens[index].text
        if text == "mod":
            return self._read_mod(module, tokens, index, is_test)
        if text == "use":
            end = rust.item_end(tokens, index, to_semicolon=True)
            if not is_test:
                module.imports += _use_tree(tokens, index + 1, (), is_public)[0]
            return end
        name, to_semicolon = _item_name(tokens, index)
        end = rust.item_end(tokens, index, to_semicolon)
        if not is_test:
            if name:
                module.items.add(name)
            _scan(module, tokens[index:end])
        return end

    def _read_mod(self, module, tokens, index, is_test):
        name = tokens[index + 1].text.removeprefix("r#")
        if tokens[index + 2].text == "{":
            end = rust.closing(tokens, index + 2)
            if not is_test:
                child = module.children[name] = Module(module.file, module, module.folder / name)
                self._read_items(child, tokens[index + 3 : end])
            return end + 1
        for path in (module.folder / f"{name}.rs", module.folder / name / "mod.rs"):
            if path.exists() and not is_test:
                child = module.children[name] = Module(str(path.relative_to(self.top)), module, module.folder / name)
                self._read_file(child)
        return index + 3

    # Resolving.

    def resolve(self, module, path, is_prefix=False, seen=frozenset()):
        """The (file, item) that a path names in a module; a `Module` if it names one; `None` for other crates' items.

        A module and an item can share a name: a prefix of a longer path means the module.
        """
        first, rest = path[0], path[1:]
        if first == "crate":
            here = module.root()
        elif first == "self":
            here = module
        elif first == "super":
            here = module.parent
        elif first == "postern" and module.root() is self.roots.get("main.rs"):
            here = self.roots.get("lib.rs")
        else:
            here = self._look_up(module, first, is_prefix or bool(rest), seen)
        for position, name in enumerate(rest):
            if not isinstance(here, Module):
                return here
            if name == "super":
                here = here.parent
                continue
            # A name that is not found was defined by a macro.
            is_module = is_prefix or position + 1 < len(rest)
            here = self._look_up(here, name, is_module, seen) or (here.file, name)
        return here

    def _look_up(self, module, name, is_prefix, seen):
        if (id(module), name, is_prefix) in seen:
            return None
        seen = seen | {(id(module), name, is_prefix)}
        candidates = [module.children.get(name), (module.file, name) if name in module.items else None]
        candidates += [self.resolve(module, used.path, is_prefix, seen) for used in module.imports if used.name == name]
        found = sorted(filter(None, candidates), key=lambda target: isinstance(target, Module) != is_prefix)
        if found:
            return found[0]
        for used in module.imports:
            if used.name == "*":
                target = self.resolve(module, used.path, True, seen)
                if isinstance(target, Module) and (item := self._look_up(target, name, is_prefix, seen)):
                    used.is_used = True
                    return item
        return None

    def _dependencies(self, module):
        imports = [used for used in module.imports if not used.is_reexport]
        targets = [(used, self.resolve(module, used.path, used.name == "*")) for used in imports]
        for used, target in targets:
            if target and not isinstance(target, Module):
                yield target[0], target[1], used.line
        for path, line, is_variable in module.mentions:
            if is_variable and path[0] in ("self", "super", "crate", "Self"):
                continue
            target = self.resolve(module, path)
            for used in module.imports:
                if used.name == path[0] and len(path) > 1:
                    used.is_used = True
            if target and not isinstance(target, Module):
                yield target[0], target[1], line
        for used, target in targets:
            if isinstance(target, Module) and not used.is_used:
                yield target.file, used.path[-1], used.line


def _attributes(tokens, index):
    """Skips attributes; tells whether one of them restricts the item to tests."""
    is_test = False
    while index < len(tokens) and tokens[index].text == "#":
        opening = index + 2 if tokens[index + 1].text == "!" else index + 1
        if opening >= len(tokens) or tokens[opening].text != "[":
            break
        end = rust.closing(tokens, opening)
        texts = [token.text for token in tokens[opening + 1 : end]]
        is_test |= texts[:3] == ["cfg", "(", "test"] or texts[:5] == ["cfg", "(", "all", "(", "test"] or texts == ["test"]
        index = end + 1
    return index, is_test


def _visibility(tokens, index):
    if tokens[index].text != "pub":
        return index, False
    index += 1
    if tokens[index].text == "(" and tokens[index + 1].text in ("crate", "super", "self", "in"):
        index = rust.closing(tokens, index) + 1
    return index, True


def _item_name(tokens, index):
    """The name that an item defines in its module, if it does, and whether it ends with `;` alone."""
    if tokens[index].text == "macro_rules":
        return tokens[index + 2].text, False
    while tokens[index].text in _PREFIXES or tokens[index].kind == "string":
        index += 1
    text, following = tokens[index].text, tokens[index + 1].text if index + 1 < len(tokens) else ""
    if text == "const" and following in _PREFIXES | {"fn"}:
        return _item_name(tokens, index + 1)
    if text == "static" and following == "mut":
        return tokens[index + 2].text, True
    if text in _NAMED:
        return following, text in ("const", "static", "type")
    return None, False


def _use_tree(tokens, index, prefix, is_reexport):
    """The imports of one branch of a `use` declaration, and the index after it."""
    path, line = list(prefix), tokens[index].line
    while tokens[index].kind == "ident" or tokens[index].text in ("::", "$"):
        if tokens[index].text == "as":
            return [Import(tokens[index + 1].text, _clean(path), line, is_reexport)], index + 2
        if tokens[index].kind == "ident":
            path.append(tokens[index].text.removeprefix("r#"))
            line = tokens[index].line
        index += 1
    if tokens[index].text == "*":
        return [Import("*", _clean(path), line, is_reexport)], index + 1
    if tokens[index].text != "{":
        if not path:
            return [], index
        name = path[-2] if path[-1] == "self" and len(path) > 1 else path[-1]
        return [Import(name, _clean(path), line, is_reexport)], index
    imports, end, index = [], rust.closing(tokens, index), index + 1
    while index < end:
        branch, index = _use_tree(tokens, index, path, is_reexport)
        imports += branch
        index += 1
    return imports, end + 1


def _clean(path):
    return tuple(path[:-1] if path[-1] == "self" and len(path) > 1 else path)


def _scan(module, tokens):
    """Collects the paths in an item's tokens, and the imports of its functions."""
    index = 0
    while index < len(tokens):
        token, before = tokens[index], tokens[index - 1].text if index else ""
        if token.text == "#" and tokens[index + 1 : index + 2] and tokens[index + 1].text == "[":
            end, is_test = _attributes(tokens, index)
            for attribute in tokens[index:end]:
                if attribute.kind == "string" and _PATH_IN_STRING.fullmatch(attribute.text):
                    module.mentions.append((tuple(attribute.text.strip('"').split("::")), attribute.line, False))
            index = _member_end(tokens, end) if is_test else end
        elif token.text == "use" and before in ("{", "}", ";", ")", "]") and tokens[index + 1].text != "<":
            imports, index = _use_tree(tokens, index + 1, (), False)
            module.imports += imports
        elif token.kind == "ident" and before not in (".", "::"):
            index = _scan_path(module, tokens, index, before)
        else:
            index += 1


def _scan_path(module, tokens, index, before):
    path, line = [tokens[index].text.removeprefix("r#")], tokens[index].line
    index += 1
    while index + 1 < len(tokens) and tokens[index].text == "::" and tokens[index + 1].kind == "ident":
        path.append(tokens[index + 1].text)
        index += 2
    following = tokens[index].text if index < len(tokens) else ""
    if before in ("fn", "struct", "enum", "trait", "type", "mod", "in", "let", "mut"):
        # A definition; `pub(in path)`, which names no item; but `for x in path::function()` names one.
        if before != "in" or following == ")":
            return index
    if len(path) > 1:
        module.mentions.append((tuple(path), line, False))
    elif path[0][0].isupper() or following in ("(", "!"):
        module.mentions.append((tuple(path), line, True))
    return index


def _member_end(tokens, index):
    """The index after a member of a block that begins at `index`: a function, a field, a statement."""
    is_function = False
    while index < len(tokens):
        text = tokens[index].text
        is_function |= text == "fn"
        if tokens[index].kind == "punct" and text in "([{":
            index = rust.closing(tokens, index)
            if text == "{":
                return index + 1
        elif text == ";" or (text == "," and not is_function):
            return index + 1
        elif tokens[index].kind == "punct" and text in ")]}":
            return index
        index += 1
    return index
