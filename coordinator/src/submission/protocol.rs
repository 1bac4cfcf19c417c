//! The protocol of a dataset on the command line.

use anyhow::{Context as _, bail};
use halfheard_import::nonfinite::Reference;
use halfheard_shared::benchmark::{
    Kind,
    definition::{ClassesSpec, DefinitionSpec, Rule},
};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Maximum size of a file with a protocol, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// A value of `--as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct As {
    /// The dataset's canonical name, which is the default name of an import.
    pub(crate) name: &'static str,
    /// The protocol.
    pub(crate) kind: Kind,
    /// The loader whose treatment of non-finite values is followed.
    pub(crate) reference: Reference,
}

/// Parses `mosi`, `CMU-MOSI`, `sims_v2`: the field spells its names in many ways.
fn parse_as(text: &str) -> Result<As, String> {
    let plain: String = text
        .to_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let (name, kind, reference) = match plain.trim_start_matches("cmu").trim_start_matches("ch") {
        "mosi" => ("mosi", Kind::Mosi, Reference::Mmsa),
        "mosei" => ("mosei", Kind::Mosei, Reference::Mmsa),
        "sims" | "simsv1" => ("sims", Kind::Sims, Reference::Mmsa),
        "simsv2" | "sims2" | "simsv2s" | "sims3l" => ("simsv2", Kind::Sims, Reference::SimsV2),
        _ => {
            return Err(format!(
                "unknown protocol `{text}`; expected mosi, mosei, sims, or simsv2 (CH-SIMS v2, which follows the protocol of sims)"
            ));
        }
    };
    Ok(As {
        name,
        kind,
        reference,
    })
}

/// The options that select a protocol.
#[derive(clap::Args, Debug)]
pub(crate) struct ProtocolArgs {
    /// The dataset whose protocol it follows: mosi, mosei, sims, or simsv2 (the protocol of sims). A
    /// custom protocol is given by --label-range, --language and --classes, or by --protocol
    #[arg(
        long = "as",
        value_name = "DATASET",
        value_parser = parse_as,
        required_unless_present_any = ["label_range", "protocol"],
        conflicts_with_all = ["label_range", "protocol"]
    )]
    follows: Option<As>,
    /// The smallest and the largest label of a custom protocol: -1..1, 0..5
    #[arg(
        long,
        value_name = "LOW..HIGH",
        allow_hyphen_values = true,
        value_parser = parse_range,
        requires_all = ["language", "classes"],
        conflicts_with = "protocol"
    )]
    label_range: Option<Ends>,
    /// The language of its texts, which selects the text encoder in a spec: en, zh
    #[arg(long, value_name = "LANGUAGE", requires = "label_range")]
    language: Option<String>,
    /// The accuracies to measure, by their number of classes: 2,3,5
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        requires = "label_range"
    )]
    classes: Vec<u32>,
    /// How labels map to classes: rounded (to whole numbers, as in MOSI) or intervals (as in SIMS)
    /// [default: rounded between whole numbers 4 to 20 apart, else intervals]
    #[arg(long, value_name = "RULE", requires = "label_range")]
    rule: Option<Rule>,
    /// It also has labels for each modality
    #[arg(long, requires = "label_range")]
    unimodal: bool,
    /// A TOML file with the keys label_range, language, classes, rule and unimodal, where classes may
    /// be lists of edges
    #[arg(long, value_name = "FILE")]
    protocol: Option<PathBuf>,
}

/// The smallest and the largest label.
type Ends = [f64; 2];

/// Parses `-1..1`.
fn parse_range(text: &str) -> Result<Ends, String> {
    text.split_once("..")
        .and_then(|(low, high)| Some([low.trim().parse().ok()?, high.trim().parse().ok()?]))
        .ok_or_else(|| "expected the smallest and the largest label, such as -1..1".to_owned())
}

impl ProtocolArgs {
    /// Returns the selected protocol.
    ///
    /// # Errors
    ///
    /// The definition is invalid, or a file cannot be read.
    pub(crate) fn resolve(&self) -> anyhow::Result<As> {
        if let Some(follows) = self.follows {
            return Ok(follows);
        }
        let definition = match (&self.protocol, self.label_range) {
            (Some(path), _) => read(path)?,
            (None, Some(label_range)) => DefinitionSpec {
                label_range,
                language: self.language.clone().unwrap_or_default(),
                classes: self
                    .classes
                    .iter()
                    .map(|n| ClassesSpec::Count(*n))
                    .collect(),
                rule: self.rule,
                unimodal: self.unimodal,
            },
            // The parser requires one of them.
            (None, None) => {
                bail!("pass --as, --label-range or --protocol")
            }
        };
        let resolved = definition.resolve().context("invalid protocol")?;
        Ok(As {
            name: "own",
            kind: Kind::own(resolved).context("invalid protocol")?,
            // The field's usual loader.
            reference: Reference::Mmsa,
        })
    }
}

fn read(path: &Path) -> anyhow::Result<DefinitionSpec> {
    let mut text = String::new();
    let bytes = File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    if bytes as u64 > MAX_BYTES {
        bail!(
            "{} is larger than {MAX_BYTES} bytes; a protocol has five lines",
            path.display()
        );
    }
    toml::from_str(&text).with_context(|| {
        format!(
            "invalid protocol in {}; its keys are label_range, language and classes",
            path.display()
        )
    })
}

/// Returns the value of `benchmark` in a spec for a dataset with this protocol.
pub(crate) fn in_spec(kind: Kind) -> String {
    let Kind::Own(_) = kind else {
        return format!("\"{}\"", kind.as_str());
    };
    let definition = kind.definition();
    let [low, high] = definition.label_range;
    format!(
        "{{ label_range = [{low:?}, {high:?}], language = \"{}\", classes = {}, rule = \"{}\"{} }}",
        definition.language,
        definition.written_classes(),
        definition.rule.as_str(),
        if definition.unimodal {
            ", unimodal = true"
        } else {
            ""
        }
    )
}

/// Returns the options of `coord data import` for a protocol.
pub(crate) fn as_options(kind: Kind) -> String {
    let Kind::Own(_) = kind else {
        return format!("--as {}", kind.as_str());
    };
    let definition = kind.definition();
    let [low, high] = definition.label_range;
    let counts: Vec<ClassesSpec> = definition
        .classes
        .iter()
        .map(|classes| ClassesSpec::Count(classes.count))
        .collect();
    let written: Vec<String> = definition
        .classes
        .iter()
        .map(|c| c.count.to_string())
        .collect();
    let by_counts = DefinitionSpec {
        label_range: definition.label_range,
        language: definition.language.clone(),
        classes: counts,
        rule: Some(definition.rule),
        unimodal: definition.unimodal,
    };
    if by_counts.resolve().as_ref() != Ok(definition) {
        // Custom edges are too long for a command line.
        return "--protocol PROTOCOL.toml".to_owned();
    }
    format!(
        "--label-range={low}..{high} --language {} --classes {} --rule {}{}",
        definition.language,
        written.join(","),
        definition.rule.as_str(),
        if definition.unimodal {
            " --unimodal"
        } else {
            ""
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser, Debug)]
    struct Line {
        #[command(flatten)]
        protocol: ProtocolArgs,
    }

    fn parsed(line: &str) -> Result<Kind, String> {
        let words = std::iter::once("x").chain(line.split(' '));
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.protocol
            .resolve()
            .map(|protocol| protocol.kind)
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn protocol_is_built_in_or_custom() {
        assert_eq!(parsed("--as sims"), Ok(Kind::Sims));
        let mine = parsed("--label-range -1..1 --language zh --classes 2,3,5").unwrap();
        assert_eq!(mine.label_range(), [-1.0, 1.0]);
        assert_eq!((mine.language(), mine.classes().len()), ("zh", 5));
        assert!(!mine.has_unimodal_labels());
        assert_eq!(
            in_spec(mine),
            "{ label_range = [-1.0, 1.0], language = \"zh\", classes = [2, 3, 5], rule = \
             \"intervals\" }"
        );
        let options = as_options(mine);
        assert_eq!(
            options,
            "--label-range=-1..1 --language zh --classes 2,3,5 --rule intervals"
        );
        assert_eq!(parsed(&options), Ok(mine));
        assert_eq!(as_options(Kind::Sims), "--as sims");
        // The printed value parses as the same protocol.
        let text = format!("benchmark = {}", in_spec(mine));
        let table: std::collections::BTreeMap<String, DefinitionSpec> =
            toml::from_str(&text).unwrap();
        assert_eq!(Kind::own(table["benchmark"].resolve().unwrap()), Ok(mine));
        for (line, part) in [
            (
                "--label-range 1..-1 --language zh --classes 2",
                "smaller number first",
            ),
            ("--label-range 1 --language zh --classes 2", "-1..1"),
            (
                "--label-range -1..1 --language zh --classes 4",
                "no default edges for 4",
            ),
            ("--label-range -1..1 --language zh", "--classes"),
            (
                "--as mosi --label-range -1..1 --language zh --classes 2",
                "cannot be used with",
            ),
            ("--language zh", "--as"),
            ("--as iemocap", "mosi, mosei, sims"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn protocol_file_may_have_edges_and_is_limited_in_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("protocol.toml");
        let line = format!("--protocol {}", path.display());
        let good = "label_range = [0, 100]\nlanguage = \"en\"\nclasses = [[20, 40.5], 2]";
        std::fs::write(&path, good).unwrap();
        let kind = parsed(&line).unwrap();
        assert_eq!(kind.classes(), ["to 20", "20 to 40.5", "over 40.5"]);
        assert_eq!(as_options(kind), "--protocol PROTOCOL.toml");
        assert!(
            in_spec(kind).contains("classes = [2, [20.0, 40.5]]"),
            "{}",
            in_spec(kind)
        );
        for (text, part) in [
            ("label_range = [0, 100]", "language"),
            (
                "label_range = [0, 100]\nlanguage = \"en\"\nclasses = [2]\nclases = 1",
                "clases",
            ),
            (
                "label_range = [0, 100]\nlanguage = \"en\"\nclasses = [\"two\"]",
                "number of classes",
            ),
            (&"#".repeat(70_000), "larger than"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = parsed(&line).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn dataset_names_are_parsed_in_all_spellings() {
        let of = |text| parse_as(text).map(|p| (p.name, p.kind, p.reference));
        let mosi = ("mosi", Kind::Mosi, Reference::Mmsa);
        let v2 = ("simsv2", Kind::Sims, Reference::SimsV2);
        for name in ["mosi", "MOSI", "CMU-MOSI"] {
            assert_eq!(of(name), Ok(mosi), "{name}");
        }
        for name in ["simsv2", "sims-v2", "SIMS_v2", "CH-SIMS v2", "sims2"] {
            assert_eq!(of(name), Ok(v2), "{name}");
        }
        assert_eq!(of("ch-sims"), Ok(("sims", Kind::Sims, Reference::Mmsa)));
        let error = of("iemocap").unwrap_err();
        assert!(error.contains("simsv2"), "{error}");
    }
}
