"""Tokenizes Rust source text and finds its functions; covers as much of the language as the house rules need."""

import bisect
import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>//[^\n]*|/\*)
    | (?P<string>[bc]?r(?P<hashes>\#*)".*?"(?P=hashes)|[bc]?"(?:[^"\\]|\\.)*")
    | (?P<char>b?'(?:[^'\\\n]|\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.))')
    | (?P<lifetime>'[A-Za-z_]\w*)
    | (?P<ident>(?:r\#)?[A-Za-z_]\w*)
    | (?P<number>\d\w*(?:\.\d\w*)?)
    | (?P<punct>::|->|=>|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    line: int
    start: int
    end: int


def tokenize(text):
    """The tokens of a file in order, comments included, white space left out."""
    newlines = [match.start() for match in re.finditer("\n", text)]
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        kind, end = match.lastgroup, match.end()
        if kind == "hashes":
            kind = "string"
        if match.group() == "/*":
            end = _block_comment_end(text, end)
        if kind != "space":
            line = bisect.bisect_left(newlines, position) + 1
            tokens.append(Token(kind, text[position:end], line, position, end))
        position = end
    return tokens


def _block_comment_end(text, position):
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(text, position)
        if not edge:
            return len(text)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position


def without_comments(tokens):
    return [token for token in tokens if token.kind != "comment"]


def closing(tokens, index):
    """The index of the bracket that closes the one at `index`."""
    depth = 0
    for position in range(index, len(tokens)):
        if tokens[position].kind == "punct":
            depth += (tokens[position].text in _OPEN) - (tokens[position].text in _CLOSE)
            if depth == 0:
                return position
    return len(tokens) - 1


def item_end(tokens, index, to_semicolon=False):
    """The index after the item that begins at `index`: behind its `;` or its braces."""
    while index < len(tokens):
        text = tokens[index].text
        if tokens[index].kind == "punct" and text in _OPEN:
            index = closing(tokens, index)
            if text == "{" and not to_semicolon:
                return index + 1
        elif text == ";" or (tokens[index].kind == "punct" and text in _CLOSE):
            return index + 1
        index += 1
    return index


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    first_line: int
    last_line: int
    # Without `self`.
    parameters: int
    # The range of the tokens between its braces.
    body: range

    @property
    def lines(self):
        return self.last_line - self.first_line + 1


def functions(tokens):
    """Every function with a name, also those inside of `impl` blocks, other functions and macros. Takes tokens without comments."""
    for index, token in enumerate(tokens[:-1]):
        if token.kind != "ident" or token.text != "fn":
            continue
        name = index + 1
        if tokens[name].text == "$":
            name += 1
        if tokens[name].kind == "ident":
            yield _function(tokens, index, name)


def _function(tokens, index, name):
    opening = _parameters_start(tokens, name + 1)
    end = closing(tokens, opening)
    count = _count_parameters(tokens, opening + 1, end)
    while end < len(tokens) and tokens[end].text not in ("{", ";"):
        end = closing(tokens, end) + 1 if tokens[end].text in ("(", "[") else end + 1
    last = closing(tokens, end) if end < len(tokens) and tokens[end].text == "{" else min(end, len(tokens) - 1)
    return Function(tokens[name].text, tokens[index].line, tokens[last].line, count, range(end + 1, last))


def _parameters_start(tokens, index):
    angles = 0
    while index < len(tokens) - 1:
        text = tokens[index].text
        if text == "(" and angles == 0:
            return index
        if tokens[index].kind == "punct" and text in _OPEN:
            index = closing(tokens, index)
        angles += (text == "<") - (text == ">")
        index += 1
    return index


def _count_parameters(tokens, start, end):
    parameters, angles, index = [[]], 0, start
    while index < end:
        text = tokens[index].text
        if tokens[index].kind == "punct" and text in _OPEN:
            index = closing(tokens, index)
        angles += (text == "<") - (text == ">")
        if text == "," and angles == 0:
            parameters.append([])
        else:
            parameters[-1].append(text)
        index += 1
    given = [parameter for parameter in parameters if parameter]
    return len(given) - sum(1 for parameter in given[:1] if _is_self(parameter))


def _is_self(parameter):
    before_colon = parameter[: parameter.index(":")] if ":" in parameter else parameter
    return before_colon[-1:] == ["self"]


def is_table(tokens, body):
    """Tells whether a function's body is one `match`, one array or one macro's list, and nothing else."""
    if len(body) < 2:
        return False
    first, last = body[0], body[-1]
    if tokens[first].text == "match":
        opening = first + 1
        while opening < last and tokens[opening].text != "{":
            opening = closing(tokens, opening) + 1 if tokens[opening].text in ("(", "[") else opening + 1
    else:
        opening = first
        while opening < last and tokens[opening].text != "[" and (tokens[opening].kind == "ident" or tokens[opening].text in "&!"):
            opening += 1
        if tokens[opening].text != "[":
            return False
    return closing(tokens, opening) == last
