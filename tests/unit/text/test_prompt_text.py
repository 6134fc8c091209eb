"""Prompts as text for another vocabulary, chat templates' own tokens, model sizes, scoring profiles."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from tiny_gguf import TinyConfig

from lazygguf import LazyModel
from lazygguf._ffi import TensorInfo
from lazygguf.errors import ModelFileError
from lazygguf.files.model_file import ModelFile, ModelSize
from lazygguf.schedule.scoring import SCORING_KEY, ScoringProfile, resolve_scoring
from lazygguf.text.prompt_text import PromptTexts, compile_headings

Write = Callable[[TinyConfig], tuple[Path, Any]]


class Vocabulary:
    """Tokens by name; 0 and 1 are control tokens."""

    tokens = (b"<a>", b"<b>", b"x", b"\n", b"# h", b"\xe4\xb8", b"\x96")

    def piece(self, token: int, special: bool = False) -> bytes:
        return b"" if token < 2 and not special else self.tokens[token]


def test_control_tokens_are_text_only_where_the_reader_knows_them() -> None:
    text = PromptTexts(Vocabulary(), lambda piece: piece == b"<a>").text([0, 2, 1, 2])
    assert text.data == b"<a>xx"
    assert text.spans.tolist() == [[0, 3], [3, 4], [4, 4], [4, 5]]
    assert text.is_control.tolist() == [True, False, True, False]


def test_a_character_of_several_tokens_is_whole_and_a_half_one_is_a_question_mark() -> None:
    texts = PromptTexts(Vocabulary(), lambda piece: False)
    assert texts.text([5, 6]).data == b"\xe4\xb8\x96"
    assert texts.text([5, 2]).data == b"??x"


def test_lines_matching_begin_so_are_marked_whole() -> None:
    text = PromptTexts(Vocabulary(), lambda piece: False).text([2, 3, 4, 2, 3, 2, 4, 3])
    assert text.data == b"x\n# hx\nx# h\n"
    assert text.lines_matching(re.compile(b"#")).tolist() == [False, False, True, True, True, False, False, False]
    pattern = compile_headings("[#]+ ")
    assert pattern is not None
    assert text.lines_matching(pattern).any()
    assert compile_headings(None) is None


@pytest.mark.parametrize("tokenizer", ["bpe", "spm"])
def test_the_newest_short_messages_are_found(tiny_model: Write, tokenizer: str) -> None:
    document, middle = "the cat sat on the mat. " * 40, "and then the dog ran. " * 30
    said = [("system", "be brief"), ("user", document), ("assistant", "ok"), ("user", middle), ("assistant", "yes")]
    said += [("user", "so"), ("assistant", "no"), ("user", "user")]
    with LazyModel(tiny_model(TinyConfig(tokenizer=tokenizer))[0], keep="off", n_threads=1) as model:
        prompt = model.chat_template.render([{"role": role, "content": content} for role, content in said]).prompt
        pieces = [model._tokenizer.piece(token, special=True) for token in prompt.ids]
    text = b"".join(pieces[pos] for pos in prompt.recent).decode()
    assert text.replace(" ", "") == "okyessonouser"  # one is short and too old, two are long
    assert not set(prompt.recent) & set(prompt.protect)


def test_a_models_size_is_its_tensors_and_its_layers(tiny_model: Write) -> None:
    tensors = [
        TensorInfo("token_embd.weight", "F32", (8, 10, 1, 1), 0, 320),
        *(TensorInfo(f"blk.{il}.attn_q.weight", "F32", (8, 8, 1, 1), 0, 256) for il in (1, 10, 0)),
        TensorInfo("blk.10.attn_norm.weight", "F32", (8, 1, 1, 1), 0, 32),
    ]
    size = ModelSize.of(tensors)
    assert (size.n_params, size.by_layer) == (80 + 3 * 64 + 8, (64, 64, 72))
    assert (size.work(), size.work(2)) == (200, 128)
    config = TinyConfig()
    assert len(ModelFile.read(tiny_model(config)[0]).size.by_layer) == config.n_layer


# ---- scoring profiles


def test_a_profile_is_its_json() -> None:
    profile = ScoringProfile((3, 5), {3: (0, 2)}, n_query=8, over_query="max", pool=(4, 2))
    assert ScoringProfile.from_json(json.dumps({**profile.to_dict(), "measurements": {}})) == profile
    assert profile.around == (4, 2) and profile.n_layer == 6 and profile.max_query == 8
    assert ScoringProfile((0,), pool=13).around == (6, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON object with a list of layers"),
        ('{"layers": []}', "layers are []"),
        ('{"layers": [3, 2]}', r"layers are [3, 2], expected different integers >= 0, ascending"),
        ('{"layers": [1], "heads": {"2": [0]}}', "heads of layer 2"),
        ('{"layers": [1], "heads": [0]}', "expected lists of heads by layer"),
        ('{"layers": [1], "n_query": 0}', "n_query is 0"),
        ('{"layers": [1], "over_query": "sum"}', "over_query is 'sum'"),
        ('{"layers": [1], "pool": 4}', "pool is 4, expected an odd integer"),
        ('{"layers": [1], "pool": [1, -1]}', "pool is (1, -1)"),
        ('{"layers": [1], "pol": 1}', "did you mean 'pool'"),
    ],
)
def test_a_wrong_profile_is_refused_by_value(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        ScoringProfile.from_json(text)
    assert message in str(caught.value)


def test_a_profile_comes_from_the_caller_the_file_what_ships_or_the_depth(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": 30,
        "llama.attention.head_count": 9,
    }
    shipped, own = ScoringProfile((3, 4), pool=(2, 1)), ScoringProfile((2,))
    known = shipped.to_dict()
    tuned = {**metadata, SCORING_KEY: json.dumps(own.to_dict())}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(own.to_dict()))
    assert resolve_scoring(None, metadata, known) == shipped
    assert resolve_scoring(None, tuned, known) == own
    assert resolve_scoring(str(path), metadata, known) == resolve_scoring(own, metadata, known) == own
    assert resolve_scoring(None, metadata, None).layers == tuple(range(15, 24))
    assert resolve_scoring(None, {**metadata, "llama.block_count": 1}, None).layers == (0,)
    with pytest.raises(ValueError, match="head is 9, expected at most 8"):
        resolve_scoring(ScoringProfile((2,), {2: (9,)}), metadata, None)
    with pytest.raises(ModelFileError, match=r"lazygguf\.scoring: scoring profile: layer is 40"):
        resolve_scoring(None, {**metadata, SCORING_KEY: '{"layers": [40]}'}, None)


@pytest.mark.model
def test_the_shipped_profile_is_found_by_the_models_file(smollm2_path: Path) -> None:
    file = ModelFile.read(smollm2_path)
    assert file.shipped_scoring is not None
    assert resolve_scoring(None, file.metadata, file.shipped_scoring).n_layer == 18
    assert file.size.n_params == 134_515_008
    assert np.isclose(file.size.work(18) / file.size.work(), 0.6)
