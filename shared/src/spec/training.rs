//! How each method and variant is trained, where it is otherwise than for the whole sweep: its
//! regime, the faults of its reference, its encoders and files.

use super::{
    DatasetSpec, Files, FoundDataset, FoundEncoder, ResolvedDataset, ResolvedInputs, Spec,
    VariantSpec,
    external::Methods,
    ground::Ground,
    methods::known_methods,
    place::{Checker, Step},
};
use crate::{
    methods::{
        DataFacts,
        faults::{Fault, Faults},
        nearest,
    },
    regime::Regime,
    wire::Protocol,
};
use std::collections::BTreeMap;

/// Checks the faults and methods that are named.
pub(super) fn check(spec: &Spec, methods: &Methods, checker: &mut Checker<'_>) {
    use Step::{Index, Key};
    let known = known_methods(spec, methods);
    check_faults(
        &[Key("protocol"), Key("faults")],
        &spec.protocol.faults,
        None,
        checker,
    );
    for (i, variant) in spec.variants.iter().enumerate() {
        let at = [Key("variant"), Index(i), Key("faults")];
        check_faults(&at, &variant.faults, Some(&variant.id), checker);
    }
    for (id, training) in &spec.training {
        if !known.contains(id) {
            let near = nearest(id, known.iter().map(String::as_str));
            checker.problem_key(
                &[Key("method"), Key(id)],
                format!("unknown method `{id}`"),
                "unknown",
                near.map(|near| format!("did you mean `{near}`?")),
            );
            continue;
        }
        let at = [Key("method"), Key(id), Key("faults")];
        check_faults(&at, &training.faults, Some(id), checker);
        for name in training.files.keys() {
            if !spec.datasets.contains_key(name) {
                let near = nearest(name, spec.datasets.keys().map(String::as_str));
                checker.problem_key(
                    &[Key("method"), Key(id), Key("files"), Key(name)],
                    format!("unknown dataset `{name}`"),
                    "unknown",
                    near.map(|near| format!("did you mean `{near}`?")),
                );
            }
        }
    }
}

/// Refuses names that no fault has, and faults that `id`'s method does not have.
fn check_faults(
    at: &[Step<'_>],
    faults: &BTreeMap<String, bool>,
    id: Option<&str>,
    checker: &mut Checker<'_>,
) {
    let method = id.map(method_of);
    let concerns = |fault: &Fault| method.is_none_or(|method| fault.concerns(method));
    let names = || {
        Fault::ALL
            .iter()
            .filter(|fault| concerns(fault))
            .map(|fault| fault.id())
    };
    for name in faults.keys() {
        let mut place = at.to_vec();
        place.push(Step::Key(name));
        let (message, near) = match (name.parse::<Fault>(), method) {
            (Ok(fault), _) if concerns(&fault) => continue,
            (Ok(fault), Some(method)) => (
                format!("{method} does not have the fault `{fault}`"),
                Some(format!("it is one of {}", fault.methods().join(", "))),
            ),
            _ => (
                format!("unknown fault `{name}`"),
                Some(match nearest(name, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known: {}", Vec::from_iter(names()).join(", ")),
                }),
            ),
        };
        checker.problem_key(&place, message, "unknown", near);
    }
}

/// What one place of a spec says of how models are trained.
#[derive(Clone)]
pub(super) struct Layer<'s> {
    /// The place.
    pub(super) at: Vec<Step<'s>>,
    pub(super) regime: Option<Regime>,
    pub(super) faults: &'s BTreeMap<String, bool>,
}

/// What counts for `id` beside `protocol`, the most general first: of its method, of the variants that
/// it starts from, its own.
pub(super) fn layers<'s>(spec: &'s Spec, id: &'s str) -> Vec<Layer<'s>> {
    let own = |id: &'s str| {
        let training = spec.training.get(id)?;
        Some(Layer {
            at: vec![Step::Key("method"), Step::Key(id)],
            regime: training.train_missing,
            faults: &training.faults,
        })
    };
    let method = method_of(id);
    let mut layers: Vec<_> = own(method).into_iter().collect();
    if method != id {
        let chain = variants(spec, id).into_iter().rev();
        layers.extend(chain.map(|(place, variant)| Layer {
            at: vec![Step::Key("variant"), Step::Index(place)],
            regime: variant.train_missing,
            faults: &variant.faults,
        }));
        layers.extend(own(id));
    }
    layers
}

/// The variant `id` of the spec and those that it starts from, with their places, the nearest first.
fn variants<'s>(spec: &'s Spec, id: &str) -> Vec<(usize, &'s VariantSpec)> {
    // Each one starts from one above it, so this ends.
    let mut above: &[VariantSpec] = &spec.variants;
    let (mut id, mut chain) = (id, Vec::new());
    while let Some(at) = above.iter().position(|own| own.id == id) {
        chain.push((at, &above[at]));
        id = above[at].base.as_deref().unwrap_or_default();
        above = &above[..at];
    }
    chain
}

/// The protocol of `id`, a method or variant: that of the sweep with what is said of it alone.
pub(super) fn protocol_of(spec: &Spec, sweep: &Protocol, id: &str) -> Protocol {
    let method = method_of(id);
    let (mut regime, mut faults) = (sweep.train_missing, sweep.faults());
    for layer in layers(spec, id) {
        regime = layer.regime.unwrap_or(regime);
        faults = with(faults, layer.faults);
    }
    Protocol {
        train_missing: regime,
        switched: switched(faults, Faults::from(sweep.fidelity), method),
        ..sweep.clone()
    }
}

/// `faults` with the switches of a spec.
pub(super) fn with(faults: Faults, switches: &BTreeMap<String, bool>) -> Faults {
    // `check` has refused unknown ones.
    let known = switches
        .iter()
        .filter_map(|(name, kept)| Some((name.parse().ok()?, *kept)));
    known.fold(faults, |faults, (fault, kept)| faults.with(fault, kept))
}

/// Those of `method` in which `faults` differs from `bundle`.
fn switched(faults: Faults, bundle: Faults, method: &str) -> Vec<Fault> {
    let differs = |fault: &Fault| faults.keeps(*fault) != bundle.keeps(*fault);
    let all = Fault::ALL.iter().copied();
    all.filter(|fault| fault.concerns(method) && differs(fault))
        .collect()
}

/// The faults that the whole sweep switches.
pub(super) fn sweep_switches(spec: &Spec) -> Vec<Fault> {
    let bundle = Faults::from(spec.protocol.fidelity);
    let faults = with(bundle, &spec.protocol.faults);
    let differs = |fault: &Fault| faults.keeps(*fault) != bundle.keeps(*fault);
    Fault::ALL.iter().copied().filter(differs).collect()
}

/// The encoder that `id` reads texts in `language` with, where it is another than the sweep's: its
/// path, and the place in the spec that says so.
pub(super) fn encoder_path<'s>(
    spec: &'s Spec,
    id: &'s str,
    language: &str,
) -> Option<(&'s str, &'s str)> {
    let method = method_of(id);
    [id, method].into_iter().find_map(|id| {
        let encoder = spec.training.get(id)?.encoders.get(language)?;
        Some((id, encoder.path.as_str()))
    })
}

/// Whether `id` reads texts of all languages with the English encoder.
pub(super) fn keeps_english_encoder(id: &str, faults: Faults) -> bool {
    let fault = Fault::TfrEnglishEncoder;
    fault.concerns(method_of(id)) && faults.keeps(fault)
}

/// The file that `id` reads instead of that of `dataset`, and who says so.
pub(super) fn file_path<'s>(
    spec: &'s Spec,
    id: &'s str,
    dataset: &str,
) -> Option<(&'s str, &'s str)> {
    let method = method_of(id);
    [id, method].into_iter().find_map(|id| {
        let file = spec.training.get(id)?.files.get(dataset)?;
        Some((id, file.as_str()))
    })
}

/// What methods read otherwise than others, by method and dataset, with its sizes.
pub(super) type Inputs<'s> = BTreeMap<(&'s str, &'s str), (ResolvedInputs, Ground)>;

/// Finds the encoders and files of single methods.
pub(super) fn find_inputs<'s>(
    spec: &'s Spec,
    sweep: &Protocol,
    common: Common<'_>,
    files: &mut dyn Files,
    checker: &mut Checker<'_>,
) -> Inputs<'s> {
    let mut found = Inputs::new();
    for (i, id) in spec.methods.iter().enumerate() {
        let faults = protocol_of(spec, sweep, id).faults();
        for dataset in common.datasets {
            let name = dataset.benchmark.id();
            let Some((name, said)) = spec.datasets.get_key_value(name) else {
                continue; // each comes from there
            };
            let language = said.language.as_deref();
            let language = language.unwrap_or_else(|| dataset.benchmark.kind().language());
            let mut seeker = Seeker {
                spec,
                i,
                id,
                name,
                files: &mut *files,
                checker: &mut *checker,
            };
            let ground = common
                .grounds
                .get(name.as_str())
                .cloned()
                .unwrap_or_default();
            let encoder = seeker.encoder(language, faults, common.encoders);
            let data = seeker.data(dataset, &ground);
            let (Ok(encoder), Ok(data)) = (encoder, data) else {
                continue; // said
            };
            if encoder.is_none() && data.is_none() {
                continue;
            }
            let facts = common.encoders.get(language).map(|encoder| &encoder.facts);
            let facts = encoder.as_ref().map(|encoder| &encoder.facts).or(facts);
            let texts = data.as_ref().map_or(&ground.texts, |data| &data.texts);
            if let (Some(texts), Some(facts)) = (texts, facts)
                && let Some(what) = texts.misfit(facts)
            {
                seeker.misfit(&what);
                continue;
            }
            let inputs = ResolvedInputs {
                data: data
                    .as_ref()
                    .map_or(&dataset.data, |data| &data.blob)
                    .clone(),
                encoder: encoder
                    .as_ref()
                    .map_or(&dataset.encoder, |own| &own.blob)
                    .clone(),
                tokens: encoder
                    .as_ref()
                    .map_or(dataset.tokens, |own| own.facts.tokens),
                // With an encoder of its own, other tokens are heard: `confusions::of_methods`.
                confusions: dataset.confusions.clone(),
            };
            let ground = Ground {
                data: data.map_or(ground.data, |data| data.facts),
                encoder: encoder.map_or(ground.encoder, |own| own.shape),
                texts: None,
                labels: None,
            };
            found.insert((id.as_str(), name.as_str()), (inputs, ground));
        }
    }
    found
}

/// What all methods read.
#[derive(Clone, Copy)]
pub(super) struct Common<'a> {
    pub(super) datasets: &'a [ResolvedDataset],
    pub(super) grounds: &'a BTreeMap<String, Ground>,
    pub(super) encoders: &'a BTreeMap<String, FoundEncoder>,
}

/// Finds what one method reads of one dataset.
struct Seeker<'s, 'c, 't> {
    spec: &'s Spec,
    /// The method's place in `methods`.
    i: usize,
    id: &'s str,
    name: &'s str,
    files: &'c mut dyn Files,
    checker: &'c mut Checker<'t>,
}

/// A problem was reported.
struct Reported;

impl Seeker<'_, '_, '_> {
    /// Its encoder, where it is another than the dataset's.
    fn encoder(
        &mut self,
        language: &str,
        faults: Faults,
        encoders: &BTreeMap<String, FoundEncoder>,
    ) -> Result<Option<FoundEncoder>, Reported> {
        if let Some((of, path)) = encoder_path(self.spec, self.id, language) {
            let found = self.files.encoder(language, path).map_err(|reason| {
                let at = ["method", of, "encoders", language, "path"].map(Step::Key);
                self.checker.problem(&at, reason, "cannot be used", None);
                Reported
            })?;
            return Ok(Some(found));
        }
        if language == "en" || !keeps_english_encoder(self.id, faults) {
            return Ok(None);
        }
        let found = encoders.get("en").cloned().ok_or_else(|| {
            self.checker.problem(
                &[Step::Key("methods"), Step::Index(self.i)],
                format!(
                    "the reference of {} reads `{}` with the English encoder, and the spec has none",
                    self.id, self.name
                ),
                "no encoder for `en`",
                Some(
                    "add `[encoders.en]`, or write `[method.tfr-net]` and, below it, \
                     `faults = { tfr-english-encoder = false }`"
                        .to_owned(),
                ),
            );
            Reported
        })?;
        Ok(Some(found))
    }

    /// Its file, where it is another than the dataset's.
    fn data(
        &mut self,
        dataset: &ResolvedDataset,
        ground: &Ground,
    ) -> Result<Option<FoundDataset>, Reported> {
        let Some((of, file)) = file_path(self.spec, self.id, self.name) else {
            return Ok(None);
        };
        let at = ["method", of, "files", self.name].map(Step::Key);
        let own = DatasetSpec {
            file: file.to_owned(),
            synthesize: None,
            ..self.spec.datasets[self.name].clone()
        };
        let refused = match self.files.dataset(self.name, &own) {
            Err(reason) => reason,
            Ok(found) if found.kind != dataset.benchmark.kind() => format!(
                "the file was imported for {}, the dataset `{}` follows {}",
                found.kind,
                self.name,
                dataset.benchmark.kind()
            ),
            Ok(found) => {
                let samples = |facts: Option<DataFacts>| facts.map(|facts| facts.samples);
                match (samples(found.facts), samples(ground.data)) {
                    (Some(own), Some(others)) if own != others => format!(
                        "the file has {own:?} samples of train, valid and test, that of the dataset \
                         has {others:?}: predictions could not be compared"
                    ),
                    _ if found.labels.is_some()
                        && ground.labels.is_some()
                        && found.labels != ground.labels =>
                    {
                        "the file's samples have other labels than those of the dataset, or stand in \
                         another order: predictions could not be compared"
                            .to_owned()
                    }
                    _ => return Ok(Some(found)),
                }
            }
        };
        let help = format!(
            "put {} into a spec of its own, whose `{}` is this file",
            self.id, self.name
        );
        self.checker
            .problem(&at, refused, "cannot be used", Some(help));
        Err(Reported)
    }

    fn misfit(&mut self, what: &str) {
        self.checker.problem(
            &[Step::Key("methods"), Step::Index(self.i)],
            format!(
                "what {} reads of `{}` does not fit its text encoder: {what}",
                self.id, self.name
            ),
            "does not fit",
            Some("give `[method]` an encoder and a file that belong together".to_owned()),
        );
    }
}

/// The method of a method or variant.
pub(super) fn method_of(id: &str) -> &str {
    id.split_once('/').map_or(id, |(method, _)| method)
}
