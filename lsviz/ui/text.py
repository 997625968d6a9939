"""Text that came from outside, shown as it stands."""

from __future__ import annotations

import re

import pandas as pd

from lsviz.runs.showing import showable

# Only what could act is escaped, so that most text stays as it is: emphasis, code, links, HTML and
# entities, formulas, streamlit's :directives: and marks that begin a block.
_MARKUP = re.compile(
    r"""[\\`*\[\]<~$]
    |(?<![^\W_])_|_(?![^\W_])
    |&(?=\w+;|\#)
    |:(?=\S)
    |^[#>+-]
    |(?<=^\d)[.)]|(?<=^\d\d)[.)]""",
    re.VERBOSE,
)
# Streamlit looks for emoji, icons and addresses once more where escapes are gone already: only a mark
# between their parts that nobody sees (U+2060) keeps them apart.
_LATER = re.compile(
    r"""(?<=:)(?=[\w+-]+\\?:)
    |(?<=:)(?=material/\w+\\?:)
    |(?<=:)(?=//)
    |(?<=www)(?=\.)
    |(?<=@)(?=\w)""",
    re.VERBOSE | re.IGNORECASE,
)
_JOINER = "\u2060"


def plain(text: object) -> str:
    """Return text that streamlit's Markdown shows as it stands, in one line.

    Links, addresses, images, HTML, colours, emoji, icons and formulas in it mean nothing; controls and
    marks that turn its direction are left out.
    """
    one_line = showable(re.sub(r"[ \t\r\n]+", " ", str(text)).strip(" "))
    return _LATER.sub(_JOINER, _MARKUP.sub(r"\\\g<0>", one_line))


def plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table to be shown, without controls and marks that turn directions in its texts."""

    def clean(value: object) -> object:
        if isinstance(value, list):
            return [clean(item) for item in value]
        return showable(value) if isinstance(value, str) else value

    safe = frame.copy(deep=False)
    for place, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_datetime64_any_dtype(kind):
            safe.isetitem(place, frame.iloc[:, place].astype(object).map(clean))
    return safe.rename(columns=clean, index=clean)
