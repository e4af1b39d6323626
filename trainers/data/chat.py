"""Chat templates: the text that a tokenizer's template writes around a user's message.

A template is a program of the model's authors. Some drop a message that is a plain string, because they expect a list
of parts; some raise an error; some change the text. So the template is first tried on probes, and a model whose
template does not write the message unchanged is not treated as a chat model.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from jinja2 import TemplateError

from heads.errors import InputError

PROBES = ("What is it?", 'A "second"  text:\n\n<b>it\'s</b> 5 & 6 \\ {{ x }} {% y %}, naïve')
ANSWER = "An answer"

# The two forms in which templates expect a message: a string, or a list of parts.
FORMS: tuple[Callable[[str], Any], ...] = (lambda text: text, lambda text: [{"type": "text", "text": text}])

# What templates raise: raise_exception, and errors in their expressions.
FAILURES = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)

TODAY = datetime(2024, 7, 26)  # for templates that write the date: results must not depend on the day (Llama 3's own)
DATE_CODES = "aAbBdHIjmMpSyY"


class ChatFrame(NamedTuple):
    """What a chat template writes before and after a user's message, up to where the assistant's answer begins."""

    before: str
    after: str


def chat_frame(tokenizer: Any) -> ChatFrame:
    """The text around a user's message in a tokenizer's chat template.

    Raises:
        InputError: there is no template, or it does not write the message exactly once and unchanged.
    """
    if not tokenizer.chat_template:
        raise InputError("the tokenizer has no chat template")
    reason = ""
    for form in FORMS:
        try:
            frame = _frame(tokenizer, form)
        except FAILURES as error:
            first_line = (str(error).splitlines() or [""])[0]
            reason = reason or f"the chat template raises an error ({type(error).__name__}: {first_line})"
            continue
        if frame is not None:
            return frame
        reason = "the chat template does not write the user's message exactly once and unchanged"
    raise InputError(reason)


def _frame(tokenizer: Any, form: Callable[[str], Any]) -> ChatFrame | None:
    """The frame, if messages in this form are written exactly once and unchanged."""
    first = _render(tokenizer, [("user", form(PROBES[0]))])
    if first.count(PROBES[0]) != 1:
        return None
    before, _, after = first.partition(PROBES[0])
    if _render(tokenizer, [("user", form(PROBES[1]))]) != f"{before}{PROBES[1]}{after}":
        return None
    if _render(tokenizer, [("user", form(PROBES[0]))], prompt=False) == first:
        after = _up_to_the_answer(tokenizer, form, ChatFrame(before, after)) or after
    return ChatFrame(before, after)


def _up_to_the_answer(tokenizer: Any, form: Callable[[str], Any], frame: ChatFrame) -> str:
    """The text before an assistant's answer, for a template that ignores add_generation_prompt; empty if unknown."""
    try:
        dialogue = _render(tokenizer, [("user", form(PROBES[0])), ("assistant", form(ANSWER))], prompt=False)
    except FAILURES:
        return ""
    opening, found, _ = dialogue.partition(ANSWER)
    prefix = f"{frame.before}{PROBES[0]}"
    if not found or not opening.startswith(prefix):
        return ""
    between = opening.removeprefix(prefix)
    if between == f"{frame.after}{frame.before}":
        return ""  # the template does not look at roles
    # white space alone is left to the answer, which begins with it
    return between if between.rstrip() != frame.after.rstrip() else ""


def _render(tokenizer: Any, messages: list[tuple[str, Any]], *, prompt: bool = True) -> str:
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        replaced = "".join(f'|replace("%{code}", "{TODAY.strftime(f"%{code}")}")' for code in DATE_CODES)
        template = f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}{template}"
    return tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages],
        chat_template=template,
        tokenize=False,
        add_generation_prompt=prompt,
        enable_thinking=False,
    )
