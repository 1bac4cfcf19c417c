//! The ids of an encoder's special tokens, from the files of its vocabulary.

use super::{
    Architecture, Config,
    error::{AGAIN, EncoderError, Result},
    files::recognize,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Read as _,
    path::Path,
};

/// Maximum size of a vocabulary's file: XLM-RoBERTa's has 17 MB in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// The ids of the tokens that frame a text or stand for something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TokenIds {
    /// What an erased token becomes: `[UNK]`, `<unk>`.
    pub unknown: i64,
    /// What a hidden token becomes in pretraining: `[MASK]`, `<mask>`. Some vocabularies have none.
    pub mask: Option<i64>,
    /// Every text begins with it: `[CLS]`, `<s>`.
    pub start: i64,
    /// Every text that is not cut off ends with it: `[SEP]`, `</s>`.
    pub end: i64,
    /// What fills up short texts: `[PAD]`, `<pad>`.
    pub padding: i64,
}

impl TokenIds {
    /// Those of Google's BERT vocabularies, English, Chinese and multilingual.
    pub const BERT: Self = Self {
        unknown: 100,
        mask: Some(103),
        start: 101,
        end: 102,
        padding: 0,
    };

    /// Whether they are BERT's.
    pub fn is_bert(&self) -> bool {
        *self == Self::BERT
    }
}

impl Default for TokenIds {
    /// BERT's: what was meant before a training named them.
    fn default() -> Self {
        Self::BERT
    }
}

/// A special token's part.
struct Role {
    /// Its key in `special_tokens_map.json` and `tokenizer_config.json`.
    key: &'static str,
    /// What it is called where neither says.
    usual: [&'static str; 2],
}

const ROLES: [Role; 5] = [
    Role {
        key: "unk_token",
        usual: ["[UNK]", "<unk>"],
    },
    Role {
        key: "mask_token",
        usual: ["[MASK]", "<mask>"],
    },
    Role {
        key: "cls_token",
        usual: ["[CLS]", "<s>"],
    },
    Role {
        key: "sep_token",
        usual: ["[SEP]", "</s>"],
    },
    Role {
        key: "pad_token",
        usual: ["[PAD]", "<pad>"],
    },
];

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<Added>,
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Added {
    id: i64,
    content: String,
}

#[derive(Deserialize)]
struct Model {
    vocab: Option<Entries>,
}

/// Tokens with their ids, or in the order of their ids with a score.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entries {
    Ids(HashMap<String, i64>),
    Scores(Vec<(String, f64)>),
}

/// Where ids were found.
struct Source {
    file: &'static str,
    ids: HashMap<String, i64>,
}

/// Reads the ids of the vocabulary in `folder`.
pub(super) fn read(folder: &Path, config: &Config) -> Result<TokenIds> {
    let names = names(folder)?;
    let sources = sources(folder, config, &names)?;
    if sources.is_empty() {
        return match config.architecture {
            Architecture::Bert => Ok(TokenIds {
                padding: config.pad_token_id.unwrap_or(0),
                ..TokenIds::BERT
            }),
            Architecture::Roberta => Err(EncoderError::new(
                folder,
                "it has none of vocab.json, tokenizer.json and vocab.txt: which ids its special \
                 tokens have is not known",
                "put the tokenizer's files, as they were published, beside the weights",
            )),
        };
    }
    let mut ids = [None; 5];
    for (role, (token, id)) in ROLES.iter().zip(names.iter().zip(&mut ids)) {
        let candidates: Vec<&str> = match token {
            Some(declared) => vec![declared],
            // The architecture's own spelling first.
            None if config.architecture == Architecture::Bert => role.usual.to_vec(),
            None => role.usual.iter().rev().copied().collect(),
        };
        for token in candidates {
            *id = find_id(folder, config, &sources, token)?;
            if id.is_some() {
                break;
            }
        }
    }
    let [unknown, mask, start, end, padding] = ids;
    let needed = |id: Option<i64>, role: usize| {
        id.ok_or_else(|| {
            let files: Vec<&str> = sources.iter().map(|source| source.file).collect();
            let role = &ROLES[role];
            let token = names_of(role, config);
            EncoderError::new(
                folder,
                format!(
                    "its vocabulary ({}) has no `{token}` ({})",
                    files.join(", "),
                    role.key
                ),
                "take the tokenizer's files that were published with the weights",
            )
        })
    };
    let ids = TokenIds {
        unknown: needed(unknown, 0)?,
        mask,
        start: needed(start, 2)?,
        end: needed(end, 3)?,
        padding: needed(padding, 4)?,
    };
    if config.architecture == Architecture::Roberta && config.pad_token_id != Some(ids.padding) {
        return Err(EncoderError::new(
            folder,
            format!(
                "its vocabulary pads with {}, its config.json says pad_token_id {}, which its \
                 positions are counted from",
                ids.padding,
                config.pad_token_id.unwrap_or_default()
            ),
            "take the tokenizer's files that were published with the weights",
        ));
    }
    Ok(ids)
}

/// The id that the files give to `token`, on which they must agree; `None` if none has it.
fn find_id(folder: &Path, config: &Config, sources: &[Source], token: &str) -> Result<Option<i64>> {
    let mut found: Option<(&Source, i64)> = None;
    for source in sources {
        let Some(&here) = source.ids.get(token) else {
            continue;
        };
        match found {
            Some((first, other)) if other != here => {
                return Err(EncoderError::new(
                    folder,
                    format!(
                        "its {} gives `{token}` the id {other}, its {} the id {here}",
                        first.file, source.file
                    ),
                    "take the tokenizer's files of one model",
                ));
            }
            Some(_) => {}
            None => found = Some((source, here)),
        }
    }
    let Some((source, id)) = found else {
        return Ok(None);
    };
    if !(0..config.vocab_size).contains(&id) {
        return Err(EncoderError::new(
            folder,
            format!(
                "its {} gives `{token}` the id {id}, its weights have {} tokens",
                source.file, config.vocab_size
            ),
            "take the tokenizer's files that were published with the weights",
        ));
    }
    Ok(Some(id))
}

fn names_of(role: &Role, config: &Config) -> &'static str {
    match config.architecture {
        Architecture::Bert => role.usual[0],
        Architecture::Roberta => role.usual[1],
    }
}

/// The content of a file of the vocabulary, if it is there.
fn content(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut content))
        .map_err(|e| {
            EncoderError::new(
                folder,
                format!("its {name} cannot be read: {e}"),
                "check the file and its permissions",
            )
        })?;
    if content.len() as u64 > MAX_BYTES {
        let found = format!("its {name} has more than {MAX_BYTES} bytes");
        return Err(EncoderError::new(folder, found, AGAIN));
    }
    if let Some(kind) = recognize(&content) {
        let found = format!("its {name} is {}", kind.what);
        return Err(EncoderError::new(folder, found, kind.remedy));
    }
    Ok(Some(content))
}

fn json<T: for<'de> Deserialize<'de>>(folder: &Path, name: &str) -> Result<Option<T>> {
    let Some(content) = content(folder, name)? else {
        return Ok(None);
    };
    serde_json::from_slice(&content).map(Some).map_err(|e| {
        let found = format!("its {name} is not what a tokenizer writes: {e}");
        EncoderError::new(folder, found, AGAIN)
    })
}

/// What the special tokens are called, where the folder says so, in the order of [`ROLES`].
fn names(folder: &Path) -> Result<[Option<String>; 5]> {
    let mut names: [Option<String>; 5] = Default::default();
    for file in ["special_tokens_map.json", "tokenizer_config.json"] {
        let map: BTreeMap<String, serde_json::Value> = json(folder, file)?.unwrap_or_default();
        for (role, name) in ROLES.iter().zip(&mut names) {
            let token = map.get(role.key);
            let text = token.and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str()));
            if name.is_none() {
                *name = text.map(str::to_owned);
            }
        }
    }
    Ok(names)
}

/// All files of the folder that give ids to special tokens.
fn sources(folder: &Path, config: &Config, names: &[Option<String>; 5]) -> Result<Vec<Source>> {
    let special = |token: &str| {
        let mut all = names.iter().flatten().map(String::as_str);
        all.any(|name| name == token) || ROLES.iter().any(|role| role.usual.contains(&token))
    };
    let mut sources = all_ids(folder, special)?;
    // XLM-RoBERTa's tokenizer puts these in front of its SentencePiece model and the mask behind.
    let pieces = "sentencepiece.bpe.model";
    if sources.is_empty()
        && config.architecture == Architecture::Roberta
        && content(folder, pieces)?.is_some()
    {
        let ids = [("<s>", 0), ("<pad>", 1), ("</s>", 2), ("<unk>", 3)]
            .into_iter()
            .chain([("<mask>", config.vocab_size - 1)])
            .map(|(token, id)| (token.to_owned(), id))
            .collect();
        sources.push(Source { file: pieces, ids });
    }
    Ok(sources)
}

/// The ids that the files of the folder give to tokens that are `wanted`.
fn all_ids(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    if let Some(content) = content(folder, "vocab.txt")? {
        let ids = content
            .split(|&byte| byte == b'\n')
            .zip(0..)
            .filter_map(|(line, id)| {
                let token = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
                wanted(token).then(|| (token.to_owned(), id))
            })
            .collect();
        sources.push(Source {
            file: "vocab.txt",
            ids,
        });
    }
    if let Some(mut ids) = json::<HashMap<String, i64>>(folder, "vocab.json")? {
        ids.retain(|token, _| wanted(token));
        sources.push(Source {
            file: "vocab.json",
            ids,
        });
    }
    if let Some(file) = json::<TokenizerFile>(folder, "tokenizer.json")? {
        let mut ids: HashMap<String, i64> = match file.model.and_then(|model| model.vocab) {
            Some(Entries::Ids(ids)) => ids,
            Some(Entries::Scores(entries)) => entries
                .into_iter()
                .map(|(token, _)| token)
                .zip(0..)
                .collect(),
            None => HashMap::new(),
        };
        ids.extend(
            file.added_tokens
                .into_iter()
                .map(|added| (added.content, added.id)),
        );
        ids.retain(|token, _| wanted(token));
        sources.push(Source {
            file: "tokenizer.json",
            ids,
        });
    }
    if let Some(mut ids) = json::<HashMap<String, i64>>(folder, "added_tokens.json")? {
        ids.retain(|token, _| wanted(token));
        sources.push(Source {
            file: "added_tokens.json",
            ids,
        });
    }
    Ok(sources)
}

/// All tokens of the vocabulary in `folder` with their ids.
///
/// # Errors
///
/// The folder has none of `vocab.txt`, `vocab.json` and `tokenizer.json`, one of them cannot be read or is
/// damaged, or they disagree.
pub fn vocabulary(folder: &Path) -> Result<HashMap<String, i64>> {
    let mut all = HashMap::<String, (i64, &str)>::new();
    for Source { file, ids } in all_ids(folder, |token| !token.is_empty())? {
        for (token, id) in ids {
            match all.get(&token) {
                Some((other, first)) if *other != id => {
                    return Err(EncoderError::new(
                        folder,
                        format!(
                            "its {first} gives `{token}` the id {other}, its {file} the id {id}"
                        ),
                        "take the tokenizer's files of one model",
                    ));
                }
                Some(_) => {}
                None => {
                    all.insert(token, (id, file));
                }
            }
        }
    }
    if all.is_empty() {
        return Err(EncoderError::new(
            folder,
            "it has none of vocab.txt, vocab.json and tokenizer.json: which ids its words have is not \
             known",
            "put the tokenizer's files, as they were published, beside the weights",
        ));
    }
    Ok(all
        .into_iter()
        .map(|(token, (id, _))| (token, id))
        .collect())
}
