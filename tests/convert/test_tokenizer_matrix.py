"""Every kind of tokenizer times many texts: the same ids after conversion, or a refusal that names why."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from convert.tiny_checkpoints import Spec, hf_config, write_json
from convert.tokenizer_kinds import KINDS, TEXTS, Kind

from lazygguf.errors import LazyError
from lazygguf.text.tokenizer import Tokenizer

Convert = Callable[..., int]
SPECIALS = ("<s>", "</s>", "<|im_start|>")


def write(kind: Kind, folder: Path) -> None:
    """The tokenizer's files, and the config.json of a model with some rows more than it has tokens."""
    config = hf_config(Spec(n_vocab=kind.write(folder)))
    config.pop("bos_token_id")
    config.pop("eos_token_id")
    write_json(folder / "config.json", config)


def original_ids(folder: Path, text: str) -> list[int]:
    """As the original's own library splits it, with what it adds."""
    if (folder / "tokenizer.json").is_file():
        import tokenizers

        ids: list[int] = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
        return ids
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return [processor.bos_id()] * (processor.bos_id() >= 0) + processor.EncodeAsIds(text)


def is_skipped(kind: Kind, text: str) -> bool:
    inside = any(text.find(special) >= 0 and not text.endswith(special) for special in SPECIALS)
    return ("space first" in kind.skips and text.startswith(" ")) or ("special inside" in kind.skips and inside)


def test_the_matrix_is_as_large_as_it_was() -> None:
    assert len(KINDS) >= 61
    assert len(TEXTS) >= 40
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_a_tokenizer_splits_alike_after_conversion_or_is_refused_by_name(
    kind: Kind, tmp_path: Path, convert: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tokenizers")
    write(kind, tmp_path)
    out = tmp_path / "vocab.gguf"
    if kind.refused:
        with pytest.raises(LazyError, match=kind.refused) as caught:
            convert(tmp_path, "--vocab-only", "--outfile", out)
        assert "\n" not in str(caught.value)
        assert "not known here" not in str(caught.value), "refused by its name, not by the trial"
        assert not out.exists()
        return
    convert(tmp_path, "--vocab-only", "--outfile", out)
    notes = capsys.readouterr().err
    assert kind.noted in notes
    tokenizer = Tokenizer(str(out))
    special = (tmp_path / "tokenizer.json").is_file()  # sentencepiece reads no text as a control token
    texts = [text for text in TEXTS if not is_skipped(kind, text)]
    assert len(texts) >= 35
    wrong: dict[str, Any] = {}
    for text in texts:
        ours, theirs = tokenizer.tokenize(text.encode(), add_bos=True, special=special), original_ids(tmp_path, text)
        if ours != theirs:
            wrong[text] = (ours, theirs)
    tokenizer.close()
    assert not wrong


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.refused], ids=lambda kind: kind.name)
def test_a_refused_tokenizer_is_refused_before_weights_are_read(kind: Kind, tmp_path: Path, convert: Convert) -> None:
    """A dry run finds it too."""
    write(kind, tmp_path)
    with pytest.raises(LazyError, match=kind.refused):
        convert(tmp_path, "--vocab-only", "--dry-run")
