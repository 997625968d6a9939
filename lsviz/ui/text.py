"""Text that came from outside, shown as it stands."""

from __future__ import annotations

import re

# Only what could act is escaped, so that most text stays as it is: emphasis, code, links, HTML and
# entities, formulas, streamlit's :directives: and bare addresses, and marks that begin a block.
_MARKUP = re.compile(
    r"""[\\`*\[\]<~$]
    |(?<!\w)_|_(?!\w)
    |&(?=\w+;|\#)
    |:(?=\S)
    |(?<=www)\.
    |^[#>+-]
    |(?<=^\d)[.)]|(?<=^\d\d)[.)]""",
    re.VERBOSE,
)


def plain(text: object) -> str:
    """Return text that streamlit's Markdown shows as it stands, in one line.

    Links, images, HTML, colours, icons and formulas in it mean nothing.
    """
    one_line = re.sub(r"[ \t\r\n]+", " ", str(text)).strip(" ")
    return _MARKUP.sub(r"\\\g<0>", one_line)
