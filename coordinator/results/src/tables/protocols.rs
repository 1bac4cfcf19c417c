//! How the models of a table were trained and selected, in words.

use super::layout::label;
use halfheard_shared::{
    methods::faults::{Fault, Faults},
    regime::Regime,
    results::{Model, Protocol},
    wire::{Fidelity, Selection},
};

/// What `protocols` say of the models that are `shown`: a line about selection, one about training data,
/// one about switched faults. Where models differ, they are named, but for what most have.
pub fn lines(protocols: &[Protocol], shown: impl Fn(&Model) -> bool) -> Vec<String> {
    let protocols: Vec<(&Protocol, Vec<&Model>)> = protocols
        .iter()
        .map(|protocol| {
            (
                protocol,
                protocol.models.iter().filter(|m| shown(m)).collect(),
            )
        })
        .filter(|(_, models): &(_, Vec<_>)| !models.is_empty())
        .collect();
    if protocols.is_empty() {
        return Vec::new();
    }
    let selected = by_models(&protocols, |protocol| vec![selection(protocol)]);
    let trained = by_models(&protocols, |protocol| {
        vec![training(protocol.train_missing)]
    });
    let mut lines = vec![
        joined("", most_first(selected)),
        joined("trained on ", most_first(trained)),
    ];
    let bundle = |fidelity| {
        let own = |protocol: &&Protocol| protocol.fidelity == fidelity;
        by_models(&protocols, |protocol| match own(&protocol) {
            true => protocol.switched.iter().map(ToString::to_string).collect(),
            false => Vec::new(),
        })
    };
    for (fidelity, what) in [
        (Fidelity::Reference, "faults of references corrected: "),
        (Fidelity::Corrected, "faults of references kept: "),
    ] {
        let switched = bundle(fidelity);
        if !switched.is_empty() {
            lines.push(joined(what, switched));
        }
    }
    lines
}

/// What a protocol says, and the models for which it says so; no models where it says so for all.
type Said = Vec<(String, Vec<String>)>;

/// Groups models by what `say` says of them.
fn by_models(
    protocols: &[(&Protocol, Vec<&Model>)],
    say: impl Fn(&Protocol) -> Vec<String>,
) -> Said {
    let mut said: Said = Vec::new();
    for (protocol, models) in protocols {
        for text in say(protocol) {
            let at = said.iter().position(|(known, _)| *known == text);
            let at = at.unwrap_or_else(|| {
                said.push((text, Vec::new()));
                said.len() - 1
            });
            said[at].1.extend(models.iter().map(|model| label(model)));
        }
    }
    let all: usize = protocols.iter().map(|(_, models)| models.len()).sum();
    for (_, models) in &mut said {
        if models.len() == all {
            models.clear();
        }
    }
    said
}

/// What is said of more than half of the models comes first and names none: the others are named.
fn most_first(mut said: Said) -> Said {
    let all: usize = said.iter().map(|(_, models)| models.len()).sum();
    if let Some(most) = said.iter().position(|(_, models)| models.len() * 2 > all) {
        let (text, _) = said.remove(most);
        said.insert(0, (text, Vec::new()));
    }
    said
}

fn joined(what: &str, said: Said) -> String {
    let part = |(text, models): (String, Vec<String>)| match models.is_empty() {
        true => text,
        false => format!("{text} ({})", models.join(", ")),
    };
    let parts: Vec<String> = said.into_iter().map(part).collect();
    format!("{what}{}", parts.join("; "))
}

fn selection(protocol: &Protocol) -> String {
    let Protocol {
        selection_rate,
        erasure_seed,
        ..
    } = protocol;
    let split = match protocol.selection {
        Selection::Test => "the test split, as in the paper's code,",
        Selection::Validation => "the validation split",
        Selection::Both => "the validation split, and others on the test split,",
    };
    let fidelity = match protocol.fidelity {
        Fidelity::Corrected => "the papers where they and the reference code differ",
        Fidelity::Reference => "the reference code",
    };
    format!(
        "checkpoints selected on {split} at the missing rate {selection_rate} (erasure seed \
         {erasure_seed}); methods follow {fidelity}"
    )
}

/// What a regime makes of the training data.
fn training(regime: Regime) -> String {
    match regime {
        Regime::Complete => "complete data".to_owned(),
        Regime::Fixed(rate) => format!("data erased once at the rate {rate}"),
        Regime::DrawnOnce => "data erased once at drawn rates".to_owned(),
        Regime::Redrawn => "data erased anew in every epoch".to_owned(),
        Regime::LnlnLoader => "data erased as by the loader of LNLN's authors".to_owned(),
    }
}

/// In what `a` and `b` differ, one line each: what compares two models compares that as well.
pub fn differences(a: &Protocol, b: &Protocol) -> Vec<String> {
    let mut lines = Vec::new();
    if a.train_missing != b.train_missing {
        lines.push(format!(
            "trained under different regimes: A on {}, B on {}",
            training(a.train_missing),
            training(b.train_missing)
        ));
    }
    let (of_a, of_b) = (selection(a), selection(b));
    if of_a != of_b {
        lines.push(format!("A: {of_a}; B: {of_b}"));
    }
    let keeps = |protocol: &Protocol, fault: Fault| {
        let bundle = Faults::from(protocol.fidelity).keeps(fault);
        bundle != protocol.switched.contains(&fault)
    };
    // The bundles are named above; here it is what was switched beside them.
    let switched = |fault: &&Fault| a.switched.contains(fault) || b.switched.contains(fault);
    for fault in Fault::ALL.iter().filter(switched) {
        let word = |protocol| {
            if keeps(protocol, *fault) {
                "keeps"
            } else {
                "corrects"
            }
        };
        if keeps(a, *fault) != keeps(b, *fault) {
            lines.push(format!(
                "the fault {fault}: A {} it, B {} it",
                word(a),
                word(b)
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::case::Rate;

    fn protocol(regime: &str, models: &[&str]) -> Protocol {
        Protocol {
            selection: Selection::Validation,
            selection_rate: Rate::from_thousandths(500),
            erasure_seed: 1111,
            fidelity: Fidelity::Reference,
            train_missing: regime.parse().unwrap(),
            switched: Vec::new(),
            models: models.iter().map(|id| id.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn models_are_named_where_they_differ() {
        let all = |_: &Model| true;
        let mut tfr = protocol("fixed:0.2", &["tfr-net"]);
        tfr.switched = vec![Fault::TfrEnglishEncoder];
        let protocols = [protocol("redrawn", &["misa", "lnln", "lnln/no-dmc"]), tfr];
        let selected = "checkpoints selected on the validation split at the missing rate 0.5 (erasure \
                        seed 1111); methods follow the reference code";
        assert_eq!(
            lines(&protocols, all),
            [
                selected,
                "trained on data erased anew in every epoch; data erased once at the rate 0.2 (TFR-Net)",
                "faults of references corrected: tfr-english-encoder (TFR-Net)"
            ]
        );
        // Where no regime is that of most, all are named.
        let two = lines(&protocols, |model| {
            model.variant.is_empty() && model.method != "misa"
        });
        assert_eq!(
            two[1],
            "trained on data erased anew in every epoch (LNLN); data erased once at the rate 0.2 \
             (TFR-Net)"
        );
        // What is not in the table is not said under it.
        assert_eq!(
            lines(&protocols, |model| model.method == "lnln"),
            [selected, "trained on data erased anew in every epoch"]
        );
        assert!(lines(&protocols, |model| model.method == "almt").is_empty());
    }

    #[test]
    fn a_fault_that_all_have_switched_names_no_models() {
        let mut corrected = protocol("complete", &["lnln", "almt"]);
        corrected.fidelity = Fidelity::Corrected;
        corrected.switched = vec![Fault::InPlaceResidual];
        let said = lines(&[corrected], |_| true);
        assert_eq!(said[1], "trained on complete data");
        assert_eq!(said[2], "faults of references kept: in-place-residual");
    }

    #[test]
    fn differences_name_regime_selection_and_faults() {
        let (a, mut b) = (
            protocol("complete", &["lnln"]),
            protocol("redrawn", &["lnln"]),
        );
        assert!(differences(&a, &a).is_empty());
        assert_eq!(
            differences(&a, &b),
            [
                "trained under different regimes: A on complete data, B on data erased anew in every epoch"
            ]
        );
        b.train_missing = a.train_missing;
        b.selection_rate = Rate::from_thousandths(300);
        b.switched = vec![Fault::GrlOnProxy];
        let said = differences(&a, &b);
        assert!(
            said[0].contains("rate 0.5") && said[0].contains("rate 0.3"),
            "{said:?}"
        );
        assert_eq!(said[1], "the fault grl-on-proxy: A keeps it, B corrects it");
        // Corrected by its bundle or by a switch is the same.
        b = Protocol {
            fidelity: Fidelity::Corrected,
            switched: Vec::new(),
            ..b
        };
        let a = Protocol {
            switched: vec![Fault::GrlOnProxy],
            ..a
        };
        assert!(!differences(&a, &b).iter().any(|line| line.contains("grl")));
    }
}
