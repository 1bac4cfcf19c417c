//! Special tokens, vocabularies, and texts against them.

use super::*;

fn ids(folder: &Path) -> Result<TokenIds, String> {
    let encoder = Encoder::open(folder).unwrap();
    encoder.token_ids().map_err(|error| error.to_string())
}

const ROBERTA: TokenIds = TokenIds {
    unknown: 3,
    mask: Some(59),
    start: 0,
    end: 2,
    padding: 1,
};

#[test]
fn special_token_ids_come_from_vocabulary() {
    // A BERT without one has those that all BERT vocabularies give.
    assert_eq!(ids(&written("bert")), Ok(TokenIds::BERT));
    assert_eq!(ids(&written("roberta")), Ok(ROBERTA));
    let folder = copy("bert");
    let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    write(
        "vocab.txt",
        "[PAD]\r\n[MASK]\r\n[SEP]\n[CLS]\n[UNK]\nword\n",
    );
    let own = TokenIds {
        unknown: 4,
        mask: Some(1),
        start: 3,
        end: 2,
        padding: 0,
    };
    assert_eq!(ids(folder.path()), Ok(own));
    // Other names, as the folder declares them, and the fast tokenizer's file beside it.
    write(
        "special_tokens_map.json",
        r#"{"unk_token": {"content": "word"}, "cls_token": "[CLS]"}"#,
    );
    write(
        "tokenizer.json",
        r#"{"added_tokens": [{"id": 3, "content": "[CLS]"}], "model": {"vocab": {"word": 5}}}"#,
    );
    assert_eq!(ids(folder.path()), Ok(TokenIds { unknown: 5, ..own }));
    write(
        "tokenizer.json",
        r#"{"added_tokens": [{"id": 4, "content": "[CLS]"}]}"#,
    );
    let error = ids(folder.path()).unwrap_err();
    assert!(
        error.contains("its vocab.txt gives `[CLS]` the id 3, its tokenizer.json the id 4"),
        "{error}"
    );
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    write("vocab.txt", "[PAD]\n[SEP]\nword\n");
    assert!(
        ids(folder.path())
            .unwrap_err()
            .contains("has no `[CLS]` (cls_token)")
    );
    write(
        "vocab.txt",
        &"\n".repeat(600).replacen('\n', "[PAD]\n[SEP]\nword\n", 1),
    );
    write("vocab.json", r#"{"[CLS]": 512}"#);
    assert!(
        ids(folder.path())
            .unwrap_err()
            .contains("the id 512, its weights have 512 tokens")
    );
    write("vocab.json", "[]");
    assert!(
        ids(folder.path())
            .unwrap_err()
            .contains("not what a tokenizer writes")
    );
    write("vocab.json", "version https://git-lfs.github.com/spec/v1\n");
    assert!(ids(folder.path()).unwrap_err().contains("git lfs pull"));
}

#[test]
fn roberta_vocabulary_must_exist_and_match_positions() {
    let folder = copy("roberta");
    let vocabulary = folder.path().join("vocab.json");
    fs::remove_file(&vocabulary).unwrap();
    assert!(
        ids(folder.path())
            .unwrap_err()
            .contains("none of vocab.json")
    );
    // XLM-RoBERTa's tokenizer has them in code.
    fs::write(folder.path().join("sentencepiece.bpe.model"), "pieces").unwrap();
    assert_eq!(ids(folder.path()), Ok(ROBERTA));
    // The order of a list is that of the ids.
    let pieces = r#"{"model": {"unk_id": 3, "vocab": [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0],
        ["<unk>", 0.0]]}, "added_tokens": [{"id": 59, "content": "<mask>", "special": true}]}"#;
    fs::write(folder.path().join("tokenizer.json"), pieces).unwrap();
    assert_eq!(ids(folder.path()), Ok(ROBERTA));
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    fs::write(
        &vocabulary,
        r#"{"<s>": 0, "<pad>": 4, "</s>": 2, "<unk>": 3}"#,
    )
    .unwrap();
    let error = ids(folder.path()).unwrap_err();
    assert!(
        error.contains("pads with 4, its config.json says pad_token_id 1"),
        "{error}"
    );
}

#[test]
fn foreign_vocabulary_is_detected() {
    let bert = EncoderFacts {
        vocabulary: 30_522,
        longest: 512,
        segments: 2,
        tokens: TokenIds::BERT,
    };
    let texts = TextFacts {
        length: 50,
        largest: 29_000,
        segments: 0,
        starts: [(101, 40)].into(),
        ends: [(102, 38)].into(),
    };
    assert_eq!(texts.misfit(&bert), None);
    let roberta = EncoderFacts {
        tokens: ROBERTA,
        ..bert
    };
    let says = texts.misfit(&roberta).unwrap();
    assert!(
        says.contains(
            "another vocabulary: all of its texts start with the token 101, this encoder's start \
             with 0"
        ),
        "{says}"
    );
    let mixed = TextFacts {
        ends: [(102, 30), (7, 8)].into(),
        ..texts.clone()
    };
    let says = mixed.misfit(&bert).unwrap();
    assert!(
        says.contains("8 of 38 of its texts end with the token 7"),
        "{says}"
    );
    let says = |texts: TextFacts| texts.misfit(&bert).unwrap();
    let large = TextFacts {
        largest: 30_522,
        ..texts.clone()
    };
    assert!(says(large).contains("has only 30522 tokens"));
    let long = TextFacts {
        length: 513,
        ..texts.clone()
    };
    assert!(says(long).contains("takes at most 512"));
    let segments = TextFacts {
        segments: 2,
        ..texts.clone()
    };
    assert!(says(segments).contains("only 2 kinds"));
    let small = EncoderFacts {
        vocabulary: 100,
        ..bert
    };
    let short = TextFacts {
        largest: 99,
        ..texts
    };
    // Erasure would put the unknown token beyond the table.
    assert!(short.misfit(&small).unwrap().contains("the token 100"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// No damage makes opening or reading panic.
    #[test]
    fn changed_byte_never_panics(
        form in 0..6_usize, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let (form, file) = [
            ("bert", "config.json"),
            ("bert", "model.safetensors"),
            ("bert-zip", "pytorch_model.bin"),
            ("bert-legacy", "pytorch_model.bin"),
            ("bert-bin-shards", "pytorch_model.bin.index.json"),
            ("roberta", "vocab.json"),
        ][form];
        let folder = copy(form);
        let path = folder.path().join(file);
        let mut content = fs::read(&path).unwrap();
        // What can be understood wrongly lies at both ends; between them are numbers.
        let ends = content.len().min(6_000);
        for (at, value) in edits {
            let at = at.index(2 * ends);
            let at = if at < ends { at } else { content.len() - 1 - (at - ends) };
            content[at] = value;
        }
        fs::write(&path, content).unwrap();
        if let Ok(encoder) = Encoder::open(folder.path()) {
            let _ = encoder.check_finite();
            let _ = encoder.token_ids();
        }
    }
}

#[test]
fn vocabulary_is_read_whole_and_its_files_must_agree() {
    let folder = copy("bert");
    let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    let read = || crate::encoder::vocabulary(folder.path()).map_err(|error| error.to_string());
    assert!(read().unwrap_err().contains("none of vocab.txt"));
    write("vocab.txt", "[PAD]\r\nno\n##w\n");
    write("added_tokens.json", r#"{"know": 3}"#);
    let expected = [("[PAD]", 0), ("no", 1), ("##w", 2), ("know", 3)];
    let expected = expected.map(|(token, id)| (token.to_owned(), id));
    assert_eq!(read(), Ok(expected.into()));
    write("vocab.json", r#"{"no": 2}"#);
    assert!(
        read()
            .unwrap_err()
            .contains("its vocab.txt gives `no` the id 1, its vocab.json the id 2")
    );
    write("vocab.json", "{");
    assert!(read().unwrap_err().contains("not what a tokenizer writes"));
}
