"""The form of a loss-scaling policy, made from the policies' models: every key, bound and word is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

import streamlit as st
from pydantic.fields import FieldInfo

from lsviz.analysis.findings import format_powers
from lsviz.errors import UserError
from lsviz.policies import POLICIES, Policy, Range, format_number, format_policy, parse_policy
from lsviz.ui.text import plain

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

SHOWN_AT_ONCE: Final = 1
"""How many settings stand beside the policy's name; the rest is one click away."""


def policy_form(form: str, default: str, below: DeltaGenerator | None = None) -> str:
    """Ask for a policy and its settings.

    Args:
        form: Tells forms apart; the form called ``policy`` keeps its value in the URL.
        default: String form of the policy shown first.
        below: Where the settings that are seldom changed stand, which not every policy has; else at the end.

    Returns:
        The policy's string form; where a setting is wrong, what was typed, which `parse_policy` refuses.
    """
    _take_from_url(form, default)
    name = st.selectbox(
        "Loss-scaling policy",
        list(POLICIES),
        key=f"{form}.name",
        help="What decides on S. Type to search: every library's own scaler is here.",
    )
    cls = POLICIES[name]
    with st.container(key=f"{form}-rule"):  # of a steady height, whichever policy it is
        st.caption(f"{plain(format_powers(cls.rule))} *{plain(cls.source)}.*")
        keys = cls.settings()
        values = {key: _setting(form, cls, key) for key in keys[:SHOWN_AT_ONCE]}
    rest = keys[SHOWN_AT_ONCE:]
    if rest:
        with below or st.container(), st.expander(f"{len(rest)} more settings of {name}"):
            values.update({key: _setting(form, cls, key) for key in rest})
    text = _string_form(cls, values)
    try:
        policy = parse_policy(text)
    except UserError as error:
        st.caption(f":material/error: {plain(error)}")
    else:
        text = format_policy(policy)
        st.code(text, language=None)
        for note in policy.notes():
            st.caption(f":material/info: {plain(note)}")
    _put_into_url(form, text)
    return text


def _setting(form: str, cls: type[Policy], key: str) -> str:
    """Draw one setting and return what was entered, as the string form has it."""
    field = cls.model_fields[key]
    label = key.replace("_", " ").capitalize()
    widget = f"{form}.{cls.name}.{key}"
    explained = _explained(field)
    kind = field.annotation
    if kind is bool:
        return str(st.toggle(label, _seeded(widget, field.default), key=widget, help=explained)).lower()
    if get_origin(kind) is Literal:
        options = list(get_args(kind))
        index = None if widget in st.session_state else options.index(field.default)
        return str(st.selectbox(label, options, index or 0, key=widget, help=explained))
    if kind is int:
        low, high = _bounds(field)
        value = _seeded(widget, field.default, "min")
        return str(st.number_input(label, low, high, value, key=widget, help=explained))
    shown = _shown(field.default)
    empty = f"default: {shown}" if shown else "usual" if key == "init_scale" else "none"
    return st.text_input(label, _seeded(widget, shown, ""), key=widget, help=explained, placeholder=empty)


def _seeded(widget: str, default: Any, otherwise: Any = False) -> Any:
    """The default, unless the state holds a value: streamlit warns where both are given."""
    return otherwise if widget in st.session_state else default


def _string_form(cls: type[Policy], values: dict[str, str]) -> str:
    parts = []
    for key, value in values.items():
        default = cls.model_fields[key].default
        # A comma would begin another key: it stays one value, which is then refused.
        entered = value.strip().replace(",", ";")
        if entered and entered != _shown(default):
            parts.append(f"{key}={entered}")
    return f"{cls.name}:{','.join(parts)}" if parts else cls.name


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else format_number(value)


def _bounds(field: FieldInfo) -> tuple[int | None, int | None]:
    low = next((m.ge for m in field.metadata if hasattr(m, "ge")), None)
    high = next((m.le for m in field.metadata if hasattr(m, "le")), None)
    return low, high


def _explained(field: FieldInfo) -> str:
    """A setting's description, its range and its default."""
    words = [field.description or ""]
    signs = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    limits = [
        f"{word} {_shown(getattr(m, sign))}"
        for m in field.metadata
        for sign, word in signs.items()
        if getattr(m, sign, None) is not None
    ]
    if limits:
        words.append(f"{', '.join(limits).capitalize()}.")
    # A setting that may be empty has its type, with the range, as one of a union's members.
    metadata = [*field.metadata, *(m for kind in get_args(field.annotation) for m in get_args(kind))]
    spans = [m for m in metadata if isinstance(m, Range)]
    words += [f"From {_shown(span.low)} to {_shown(span.high)}, as 1024 or 2^10." for span in spans]
    default = _shown(field.default)
    if default:
        words.append(f"Default: {default}.")
    elif "bound" in words[0] or words[0].startswith(("Floor", "Ceiling")):
        words.append("Empty: no such bound.")
    return plain(format_powers(" ".join(words)))


def _take_from_url(form: str, default: str) -> None:
    """Fill the form's state from the URL, where that was changed from outside, or for the first time."""
    asked = st.query_params.get(form) if form == "policy" else None
    last = st.session_state.get(f"{form}.text")
    if f"{form}.name" in st.session_state and (asked is None or asked == last):
        return
    text = asked or last or default
    try:
        policy = parse_policy(text)
    except UserError as error:
        if asked:
            st.warning(plain(f"The link's policy is shown as its default: {error}"))
        policy = parse_policy(default)
    settings = {key: getattr(policy, key) for key in policy.settings()}
    if asked and policy != type(policy)(**settings):
        st.warning(plain(f"The link's policy has taken steps already ({text}); the form starts it afresh."))
    st.session_state[f"{form}.name"] = policy.name
    for key, value in settings.items():
        kind = type(policy).model_fields[key].annotation
        plain_kind = kind in (bool, int) or get_origin(kind) is Literal
        st.session_state[f"{form}.{policy.name}.{key}"] = value if plain_kind else _shown(value)


def _put_into_url(form: str, text: str) -> None:
    st.session_state[f"{form}.text"] = text
    if form == "policy":
        st.query_params[form] = text


def canonical_policies(texts: Sequence[str]) -> list[str]:
    """Return policies in their canonical form, each once; what is none is told."""
    policies = []
    for text in texts:
        try:
            policies.append(format_policy(parse_policy(text)))
        except UserError as error:
            st.warning(plain(f"Left out: {error}"))
    return list(dict.fromkeys(policies))
