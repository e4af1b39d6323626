"""The boundary between prompt and answer, in four kinds of vocabulary: which tokens are scored."""

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from heads.errors import InputError
from heads.example import Example
from heads.prompts import Template
from trainers.data.prompts import Prompter
from trainers.launch import SHIPPED

TEXTS = ["Review: a fine film. Sentiment: positive", "Review: dull. Sentiment: negative", "very good, very bad. x" * 3]


def byte_level(merge_across_spaces=False):
    """GPT-2's kind: a space belongs to the word after it. Or a vocabulary whose pieces cross any boundary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merge_across_spaces)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = [": positive. ", ": negative. "] if merge_across_spaces else TEXTS
    tokenizer.train_from_iterator(texts * 20, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def metaspace():
    """Llama's kind: the space is a letter of its own, one is put before the text, and <s> begins it."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>"]
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def gpt1():
    """GPT-1's kind: words end in </w>, spaces are dropped, text is lower-cased."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], end_of_word_suffix="</w>")
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def wordpiece():
    """BERT's kind: [CLS] and [SEP] around the text, ## before a word's later pieces."""
    return AutoTokenizer.from_pretrained(str(SHIPPED / "tiny_bert"))


KINDS = {"byte_level": byte_level, "metaspace": metaspace, "gpt1": gpt1, "wordpiece": wordpiece}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return KINDS[request.param]()


def prompter(tokenizer, pattern, words=(), *, scored="answer", n_ctx=200, chat=False):
    return Prompter(tokenizer, n_ctx, Template(pattern, scored), ["text"], list(words), chat=chat)


def scored_text(tokenizer, item, c):
    sequence = [*item.prefix, *item.branches[c]]
    first, last = item.scored[c]
    return plain(tokenizer, sequence[first:last])


def plain(tokenizer, ids):
    """The text of some tokens, without the marks of their vocabulary."""
    text = tokenizer.decode(ids, skip_special_tokens=True).replace("</w>", " ").replace("▁", " ")
    return text.replace("##", "").strip()


def test_the_answer_and_nothing_else_is_scored(tokenizer):
    ask = prompter(tokenizer, "Review: {text} Sentiment: {answer}", ["negative", "positive"])
    (found,) = ask.causal([Example("0", ("a fine film.",))])
    assert [scored_text(tokenizer, found.candidates, c).replace(" ", "") for c in (0, 1)] == ["negative", "positive"]
    assert found.chars == [8, 8]


def test_the_whole_sequence_is_what_the_tokenizer_makes_of_the_text(tokenizer):
    ask = prompter(tokenizer, "Review: {text} Sentiment: {answer}", ["negative", "positive"])
    (found,) = ask.causal([Example("0", ("a fine film.",))])
    text = "Review: a fine film. Sentiment: positive"
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    sequence = [*found.candidates.prefix, *found.candidates.branches[1]]
    assert sequence[len(sequence) - len(whole) :] == whole


@pytest.mark.parametrize("text", ["a fine film. ", "  a fine film.", "a fine film."])
def test_white_space_around_a_text_changes_nothing(tokenizer, text):
    ask = prompter(tokenizer, "Review: {text} Sentiment: {answer}", ["negative", "positive"])
    assert ask.causal([Example("0", (text,))]) == ask.causal([Example("0", ("a fine film.",))])


def test_a_merge_across_the_boundary_is_scored_with_the_answer():
    tokenizer = byte_level(merge_across_spaces=True)
    ask = prompter(tokenizer, "Review: {text} Sentiment: {answer}", ["negative", "positive"])
    (found,) = ask.causal([Example("0", ("a fine film.",))])
    item = found.candidates
    for c, word in enumerate(["negative", "positive"]):
        sequence, (first, last) = [*item.prefix, *item.branches[c]], item.scored[c]
        read = tokenizer.decode(sequence[first:last])
        assert read.endswith(word)  # the piece that holds the boundary is scored whole
        assert len(read) > len(f" {word}")
        assert not tokenizer.decode(sequence[:first]).endswith("Sentiment:")
        assert sequence == tokenizer(f"Review: a fine film. Sentiment: {word}")["input_ids"]


def test_a_text_scored_as_a_whole_begins_from_the_start_token_where_there_is_one():
    (found,) = prompter(metaspace(), "{text}").causal([Example("0", ("a fine film.",))])
    assert [*found.candidates.prefix, *found.candidates.branches[0]][0] == 1
    assert found.candidates.scored[0][0] == 1
    bare = byte_level()
    (found,) = prompter(bare, "{text}").causal([Example("0", ("a fine film.",))])
    n_tokens = len(bare("a fine film.")["input_ids"])
    assert found.candidates.scored == ((1, n_tokens),)  # nothing predicts the first


def test_a_single_token_with_nothing_before_it_is_refused():
    with pytest.raises(InputError, match="row 0: a text that is to be scored has no token that another predicts"):
        prompter(byte_level(), "{text}").causal([Example("0", ("x",))])


def test_a_row_that_spells_a_special_token_is_plain_text():
    tokenizer = wordpiece()
    (found,) = prompter(tokenizer, "{text} It was {answer}.", ["good"]).masked([Example("0", ("a [MASK] film [SEP]",))])
    assert found.candidates.rows[0].count(tokenizer.mask_token_id) == 1
    assert found.candidates.rows[0].count(tokenizer.sep_token_id) == 1


def test_words_of_one_piece_share_a_row_and_others_are_masked_piece_by_piece():
    tokenizer = wordpiece()
    pieces = {
        word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in ("good", "film", "unpersuasively")
    }
    assert [len(ids) for ids in pieces.values()][:2] == [1, 1]
    n_pieces = len(pieces["unpersuasively"])
    assert n_pieces > 1
    (found,) = prompter(tokenizer, "{text} It was {answer}.", pieces).masked([Example("0", ("a film.",))])
    rows, reads = found.candidates.rows, found.candidates.reads
    assert len(rows) == 1 + n_pieces
    assert [read[3] for read in reads] == [0, 1, *[2] * n_pieces]
    assert reads[0][:2] == reads[1][:2]
    assert [read[2] for read in reads] == [*pieces["good"], *pieces["film"], *pieces["unpersuasively"]]
    for row, position, *_ in reads:
        assert rows[row][position] == tokenizer.mask_token_id
        assert rows[row].count(tokenizer.mask_token_id) == 1
        assert (rows[row][0], rows[row][-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)


def test_a_text_that_is_too_long_is_cut_and_the_prompt_is_not(tokenizer):
    ask = prompter(tokenizer, "Review: {text} Sentiment: {answer}", ["negative", "positive"], n_ctx=40)
    short, long = ask.causal([Example("0", ("a film.",)), Example("1", ("a fine film. " * 30,))])
    assert (short.cut, long.cut) == (False, True)
    lengths = [len(long.candidates.prefix) + len(branch) for branch in long.candidates.branches]
    assert 36 <= max(lengths) <= 40
    assert [scored_text(tokenizer, long.candidates, c).replace(" ", "") for c in (0, 1)] == ["negative", "positive"]


@pytest.mark.parametrize("over", [1, 2, 3, 4])
def test_a_text_is_cut_before_a_character_of_several_tokens(over):
    tokenizer, texts = byte_level(), ("good " * 20 + "🦙",)
    longest = prompter(tokenizer, "{text}\nLabel: {answer}", ["a", "b"]).causal([Example("0", texts)])[0].candidates
    n_ctx = len(longest.prefix) + max(map(len, longest.branches)) - over
    (found,) = prompter(tokenizer, "{text}\nLabel: {answer}", ["a", "b"], n_ctx=n_ctx).causal([Example("0", texts)])
    assert found.cut
    read = tokenizer.decode([*found.candidates.prefix, *found.candidates.branches[0]])
    assert read.startswith("good good good")
    assert "\N{REPLACEMENT CHARACTER}" not in read
    assert read.endswith("\nLabel: a")


@pytest.mark.parametrize(("sizes", "left"), [((60, 60), (17, 17)), ((60, 5), (30, 5)), ((30, 30, 30), (11, 11, 11))])
def test_several_long_texts_share_what_is_cut(sizes, left):
    tokenizer = byte_level()
    names = ["a", "b", "c"][: len(sizes)]
    template = Template("".join(f"{{{name}}}\n" for name in names) + "{answer}")
    texts = tuple(" ".join(["x"] * n) for n in sizes)
    (found,) = Prompter(tokenizer, 41, template, names, ["very good", "very bad"]).causal([Example("0", texts)])
    lines = tokenizer.decode(found.candidates.prefix).split("\n")
    n_tokens = len(found.candidates.prefix) + max(map(len, found.candidates.branches))
    assert 39 <= n_tokens <= 41
    kept = [line.count("x") for line in lines[: len(sizes)]]
    assert all(abs(a - b) <= 3 for a, b in zip(kept, left, strict=True)), kept


def test_a_prompt_that_is_too_long_without_its_texts_is_refused(tokenizer):
    ask = prompter(tokenizer, "Review: {text} Sentiment: {answer}", ["negative " * 60, "positive"], n_ctx=40)
    with pytest.raises(InputError, match=r"row 7: the prompt 'Review: .* alone are longer than the 40 tokens"):
        ask.causal([Example("7", ("a film.",))])


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_candidate_without_a_token_is_refused(kind):
    ask = prompter(wordpiece(), "{text} {answer}")
    with pytest.raises(InputError, match="row 0: a text that is to be scored has no token"):
        getattr(ask, kind)([Example("0", ("a film",), ("\u200b", "good"))])


CHAT = "{% for m in messages %}<u>{{ m['content'] }}</u>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"


def test_in_a_chat_the_first_answer_token_tells_labels_apart():
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<u>", "</u>", "<a>"]})
    tokenizer.chat_template = CHAT
    ask = prompter(tokenizer, "Is it good? {text}", ["negative", "positive"], chat=True)
    (found,) = ask.causal([Example("0", ("a fine film.",))])
    item = found.candidates
    assert tokenizer.decode(item.prefix) == "<u>Is it good? a fine film.</u><a>"
    assert [last - first for first, last in item.scored] == [1, 1]
    same = prompter(tokenizer, "Is it good? {text}", ["very bad", "very good"], chat=True)
    (found,) = same.causal([Example("0", ("a fine film.",))])
    assert [scored_text(tokenizer, found.candidates, c) for c in (0, 1)] == ["very bad", "very good"]


def test_after_a_plain_marker_the_answer_begins_with_a_space():
    tokenizer = byte_level()
    tokenizer.chat_template = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
    (found,) = prompter(tokenizer, "{text}", ["very bad", "very good"], chat=True).causal([Example("0", ("a film",))])
    item = found.candidates
    assert tokenizer.decode([*item.prefix, *item.branches[0]]) == "[INST] a film [/INST] very bad"
    assert [scored_text(tokenizer, item, c) for c in (0, 1)] == ["very bad", "very good"]


def test_after_an_added_marker_that_is_not_special_the_answer_begins_without_a_space():
    tokenizer = byte_level()
    tokenizer.add_tokens(["<|assistant|>"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|assistant|>{% endfor %}"
    (found,) = prompter(tokenizer, "{text}", ["very bad", "very good"], chat=True).causal([Example("0", ("a film",))])
    item = found.candidates
    assert tokenizer.decode([*item.prefix, *item.branches[0]]) == "a film<|assistant|>very bad"


def test_without_last_words_there_is_nothing_unconditional():
    assert prompter(byte_level(), "{text} {answer}", ["a b", "c d"]).unconditional(Example("0", ("a",))) is None


def test_the_unconditional_prompt_is_the_templates_last_words(tokenizer):
    ask = prompter(tokenizer, "Review: {text}\nSentiment: {answer}", ["negative", "positive"])
    item = ask.unconditional(Example("0", ("a fine film.",)))
    assert plain(tokenizer, [*item.prefix, *item.branches[1]]).lower().replace(" ", "") == "sentiment:positive"
    assert prompter(tokenizer, "{text}").unconditional(Example("0", ("a",))) is None
