//! An encoder's small files: configuration, index of shards, vocabularies. The first byte says which.

#![no_main]

use halfheard_fuzz::{Scratch, encoder_files};
use halfheard_shared::{
    encoder::{Config, Encoder, WeightFiles, read_list},
    hash::Hash,
};
use libfuzzer_sys::fuzz_target;
use std::{fs, sync::LazyLock};

struct Files {
    scratch: Scratch,
    config: Vec<u8>,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let (config, weights) = encoder_files();
    let scratch = Scratch::new();
    scratch.put("model.safetensors", &weights);
    Files { scratch, config }
});

const NAMES: [&str; 7] = [
    "config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.json",
    "added_tokens.json",
];

fuzz_target!(|input: &[u8]| {
    let Some((&which, bytes)) = input.split_first() else {
        return;
    };
    let Files { scratch, config } = &*FILES;
    match which {
        b'0'..=b'6' => {
            for name in NAMES {
                let _ = fs::remove_file(scratch.path().join(name));
            }
            scratch.put("config.json", config);
            // Tokens need a vocabulary, whatever the other files say.
            scratch.put(
                "vocab.txt",
                b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n",
            );
            scratch.put(NAMES[usize::from(which - b'0')], bytes);
            match Encoder::open(scratch.path()) {
                Ok(encoder) => {
                    let _ = encoder.token_ids();
                    let _ = (
                        encoder.config().longest(),
                        encoder.config().first_position(),
                    );
                }
                Err(error) => {
                    let _ = error.to_string();
                }
            }
            if let Ok(config) = Config::read(scratch.path()) {
                // As many as the configuration asks for, without their numbers.
                let _ = config.tensors().take(10_000).count();
            }
        }
        b'i' => {
            let shards = Scratch::new();
            shards.put("model.safetensors.index.json", bytes);
            if let Ok(files) = WeightFiles::find(shards.path()) {
                for path in files.paths() {
                    assert_eq!(path.parent(), Some(shards.path()), "a name leads elsewhere");
                }
            }
        }
        b'l' => {
            if let Ok(files) = read_list(bytes, &Hash::of(b"")) {
                for (name, _) in files {
                    assert!(!name.contains('/') && name != "..");
                }
            }
        }
        _ => {}
    }
});
