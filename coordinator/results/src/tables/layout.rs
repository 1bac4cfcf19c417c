//! What each of the paper's tables holds.

use halfheard_shared::{
    benchmark::Benchmark,
    case::{Case, CaseKind, CaseOrMean},
    methods, published,
    results::Model,
};

/// Whether a table has means over cases or each case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Means over all cases of the kind.
    Overall,
    /// Case by case.
    Details,
}

/// The rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The models of the sweep, in the paper's order, without the ablations.
    Methods,
    /// The rows of the paper's table, in its order: an ablation.
    Listed,
    /// The same, labeled with the weights of the losses.
    Weights,
}

/// One table of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The number in the paper.
    pub number: u8,
    /// The title, with the paper's datasets.
    pub title: &'static str,
    /// The paper's datasets, in order; custom ones follow ([`Layout::shows`]).
    pub datasets: &'static [Benchmark],
    /// Means or single cases.
    pub scope: Scope,
    /// The kind of the cases.
    pub kind: CaseKind,
    /// The rows.
    pub rows: Rows,
    /// Whether values are printed with their standard deviation.
    pub spread: bool,
}

const ENGLISH: &[Benchmark] = &[Benchmark::Mosi, Benchmark::Mosei];
const CHINESE: &[Benchmark] = &[Benchmark::Sims];
const ABLATED: &[Benchmark] = &[Benchmark::Mosi, Benchmark::Sims];
const MOSI: &[Benchmark] = &[Benchmark::Mosi];

const fn layout(
    number: u8,
    title: &'static str,
    datasets: &'static [Benchmark],
    scope: Scope,
    kind: CaseKind,
) -> Layout {
    Layout {
        number,
        title,
        datasets,
        scope,
        kind,
        rows: Rows::Methods,
        spread: false,
    }
}

/// A table of listed rows, with means over the missing rates.
const fn listed(
    number: u8,
    title: &'static str,
    datasets: &'static [Benchmark],
    rows: Rows,
    spread: bool,
) -> Layout {
    Layout {
        number,
        title,
        datasets,
        scope: Scope::Overall,
        kind: CaseKind::Rate,
        rows,
        spread,
    }
}

/// The tables of the paper.
pub const LAYOUTS: &[Layout] = &[
    layout(
        2,
        "Overall performance under random missing on MOSI and MOSEI",
        ENGLISH,
        Scope::Overall,
        CaseKind::Rate,
    ),
    layout(
        3,
        "Overall performance under random missing on SIMS",
        CHINESE,
        Scope::Overall,
        CaseKind::Rate,
    ),
    listed(
        4,
        "LNLN without its components on MOSI and SIMS",
        ABLATED,
        Rows::Listed,
        false,
    ),
    listed(
        5,
        "LNLN without its losses on MOSI and SIMS",
        ABLATED,
        Rows::Listed,
        false,
    ),
    listed(
        6,
        "LNLN without modalities on MOSI",
        MOSI,
        Rows::Listed,
        false,
    ),
    listed(
        7,
        "LNLN with other weights of its losses on MOSI and SIMS",
        ABLATED,
        Rows::Weights,
        false,
    ),
    listed(
        8,
        "Mean and standard deviation over seeds under random missing on MOSI",
        MOSI,
        Rows::Listed,
        true,
    ),
    layout(
        9,
        "Performance at each missing rate on MOSI and MOSEI",
        ENGLISH,
        Scope::Details,
        CaseKind::Rate,
    ),
    layout(
        10,
        "Performance at each missing rate on SIMS",
        CHINESE,
        Scope::Details,
        CaseKind::Rate,
    ),
    layout(
        11,
        "Overall performance under missing modalities on MOSI and MOSEI",
        ENGLISH,
        Scope::Overall,
        CaseKind::Missing,
    ),
    layout(
        12,
        "Overall performance under missing modalities on SIMS",
        CHINESE,
        Scope::Overall,
        CaseKind::Missing,
    ),
    layout(
        13,
        "Performance for each set of missing modalities on MOSI and MOSEI",
        ENGLISH,
        Scope::Details,
        CaseKind::Missing,
    ),
    layout(
        14,
        "Performance for each set of missing modalities on SIMS",
        CHINESE,
        Scope::Details,
        CaseKind::Missing,
    ),
];

/// The layout of table `number`.
pub fn find(number: u8) -> Option<Layout> {
    LAYOUTS.iter().copied().find(|l| l.number == number)
}

impl Layout {
    /// What the cells of a block are of; a block of an overall table has no case.
    pub(crate) fn case_or_mean(self, case: Option<Case>) -> CaseOrMean {
        case.map_or(CaseOrMean::Mean(self.kind), CaseOrMean::Case)
    }

    /// Whether the table has a block for a dataset. One that follows a built-in protocol is where
    /// that protocol's dataset is; one with a custom protocol is with those whose classes are formed
    /// alike (rounded: with MOSI; by intervals: with SIMS), and in all tables of ablations.
    pub fn shows(self, benchmark: Benchmark) -> bool {
        if let Some(published) = benchmark.published() {
            return self.datasets.contains(&published);
        }
        let rule = |b: &Benchmark| b.kind().definition().rule;
        self.rows != Rows::Methods
            || self
                .datasets
                .iter()
                .any(|own| rule(own) == rule(&benchmark))
    }

    /// The datasets of the table: the paper's in its order, then those of a sweep that it shows.
    pub fn datasets(self, have: &[Benchmark]) -> Vec<Benchmark> {
        let others = have.iter().filter(|b| matches!(b, Benchmark::Own(_)));
        let others = others.filter(|b| self.shows(**b));
        self.datasets.iter().chain(others).copied().collect()
    }

    /// The title, with the datasets that have a block.
    pub fn title_on(self, shown: &[Benchmark]) -> String {
        let of_paper = |b: &Benchmark| self.datasets.contains(b);
        let what = match self.title.rsplit_once(" on ") {
            Some((what, _)) if !shown.iter().all(of_paper) => what,
            _ => return self.title.to_owned(),
        };
        let titles: Vec<String> = shown.iter().map(|b| b.title()).collect();
        match titles.split_last() {
            Some((last, [])) => format!("{what} on {last}"),
            Some((last, others)) => format!("{what} on {} and {last}", others.join(", ")),
            None => self.title.to_owned(),
        }
    }
}

/// The printed name of a dataset: `MOSI`; a custom name as it is.
pub fn dataset_title(name: &str) -> String {
    match name.parse::<Benchmark>() {
        Ok(built_in) => built_in.title(),
        Err(_) => name.to_owned(),
    }
}

/// A column's heading and its metrics.
pub type Heading = (String, Vec<&'static str>);

/// The columns of a dataset: two metrics share one where the paper prints
/// `negative/positive / negative/non-negative`.
pub fn columns(benchmark: Benchmark) -> Vec<Heading> {
    let rules = benchmark.rules();
    let mut columns: Vec<Heading> = rules
        .scales
        .iter()
        .map(|scale| (format!("Acc-{}", scale.count()), vec![scale.accuracy]))
        .collect();
    if !rules.binaries.is_empty() {
        let binaries = || rules.binaries.iter();
        columns.push(("Acc-2".to_owned(), binaries().map(|b| b.accuracy).collect()));
        columns.push(("F1".to_owned(), binaries().map(|b| b.f1).collect()));
    }
    columns.push(("MAE".to_owned(), vec!["mae"]));
    columns.push(("Corr".to_owned(), vec!["corr"]));
    columns
}

/// The position of a method in tables: in the paper's order, others after these.
pub fn method_order(method: &str) -> usize {
    let all = methods::all();
    let place = all.iter().position(|known| known.id == method);
    place.unwrap_or(all.len())
}

/// Sorts models as tables list them.
pub(crate) fn sort_models(models: &mut [Model]) {
    models.sort_by(|a, b| {
        let order = |model: &Model| method_order(&model.method);
        order(a).cmp(&order(b)).then_with(|| a.cmp(b))
    });
}

/// The printed name of a model: `LNLN`, `LNLN/no-dmc`.
pub fn label(model: &Model) -> String {
    let method = model.method.as_str();
    let name = methods::find(method).map_or(method, |known| &known.name);
    Model::new(name, model.variant.as_str()).to_string()
}

/// The rows of the paper's table `number` on a dataset, in its order. On a dataset that the paper
/// does not have, those of the table's first.
pub fn listed_rows(number: u8, benchmark: Benchmark) -> Vec<Model> {
    let mut rows = Vec::new();
    let first = || find(number).and_then(|layout| layout.datasets.first().copied());
    let benchmark = benchmark.published().or_else(first);
    for n in published::numbers() {
        if n.table == number && Some(n.dataset) == benchmark {
            let row = Model::new(n.method, n.variant);
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    rows
}

/// Whether a model is a variant in one of the tables of ablations.
pub(crate) fn is_ablation(model: &Model) -> bool {
    let mut numbers = published::numbers().iter();
    !model.variant.is_empty()
        && numbers.any(|n| n.method == model.method && n.variant == model.variant)
}

/// The labels of variants in the tables of ablations.
const ABLATIONS: &[(&str, &str)] = &[
    ("no-dmc-reconstructor", "w/o DMC & Reconstructor"),
    ("no-dmc", "w/o DMC"),
    ("no-reconstructor", "w/o Reconstructor"),
    ("no-dmml", "w/o DMML"),
    ("no-train-missing", "w/o missing data in training"),
    ("no-l-cc", "w/o L_cc"),
    ("no-l-adv", "w/o L_adv"),
    ("no-l-rec", "w/o L_rec"),
    ("no-language", "w/o language"),
    ("no-audio", "w/o audio"),
    ("no-vision", "w/o vision"),
];

/// The label of a row.
pub(crate) fn row_label(rows: Rows, benchmark: Benchmark, model: &Model) -> String {
    let own = match rows {
        Rows::Methods => None,
        Rows::Listed => {
            let mut ablations = ABLATIONS.iter();
            let found = ablations.find(|(id, _)| *id == model.variant);
            found.map(|(_, text)| (*text).to_owned())
        }
        Rows::Weights => weights(benchmark, model),
    };
    own.unwrap_or_else(|| label(model))
}

/// `α=0.9, β=0.8, γ=0.1`, from the method's file.
fn weights(benchmark: Benchmark, model: &Model) -> Option<String> {
    let info = methods::find(&model.method)?;
    let changes = match model.variant.as_str() {
        "" => None,
        variant => Some(&info.variants.get(variant)?.hyper),
    };
    let hyper = info
        .resolve(benchmark.kind().as_str(), changes.as_slice())
        .ok()?;
    let weight = |key: &str| Some(format!("{}", hyper.get(key)?.as_f64()?));
    Some(format!(
        "α={}, β={}, γ={}",
        weight("alpha")?,
        weight("beta")?,
        weight("gamma")?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use halfheard_shared::benchmark::{Kind, definition::DefinitionSpec};

    #[test]
    fn every_column_is_a_metric_of_its_dataset() {
        for benchmark in Benchmark::ALL {
            for (_, metrics) in columns(benchmark) {
                for id in metrics {
                    assert!(benchmark.metric(id).is_some(), "{id}");
                }
            }
        }
    }

    #[test]
    fn columns_are_those_of_the_paper() {
        let names = |b| {
            columns(b)
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        let english = ["Acc-7", "Acc-5", "Acc-2", "F1", "MAE", "Corr"];
        assert_eq!(names(Benchmark::Mosi), english);
        let chinese = ["Acc-5", "Acc-3", "Acc-2", "F1", "MAE", "Corr"];
        assert_eq!(names(Benchmark::Sims), chinese);
        assert_eq!(
            columns(Benchmark::Mosei)[2].1,
            ["acc2_nonzero", "acc2_nonneg"]
        );
    }

    #[test]
    fn custom_dataset_is_where_alike_protocols_are() {
        let own = |name, text: &str| {
            let spec: DefinitionSpec = toml::from_str(text).unwrap();
            Benchmark::new(name, Kind::own(spec.resolve().unwrap()).unwrap()).unwrap()
        };
        let stars = own(
            "stars",
            "label_range = [0, 5]\nlanguage = \"en\"\nclasses = [2, 6]",
        );
        let zh = own(
            "zh",
            "label_range = [-1, 1]\nlanguage = \"zh\"\nclasses = [2, 3]",
        );
        let aligned = Benchmark::new("aligned", Kind::Mosi).unwrap();
        let shown = |number: u8| {
            find(number)
                .unwrap()
                .datasets(&[Benchmark::Mosi, stars, zh, aligned])
        };
        assert_eq!(
            shown(2),
            [Benchmark::Mosi, Benchmark::Mosei, stars, aligned]
        );
        assert_eq!(shown(3), [Benchmark::Sims, zh]);
        assert_eq!(
            shown(4),
            [Benchmark::Mosi, Benchmark::Sims, stars, zh, aligned]
        );
        assert_eq!(shown(6), [Benchmark::Mosi, stars, zh, aligned]);
        assert_eq!(listed_rows(6, zh), listed_rows(6, Benchmark::Mosi));
        let title = find(3).unwrap().title_on(&[Benchmark::Sims, zh]);
        assert_eq!(
            title,
            "Overall performance under random missing on SIMS and zh"
        );
        let title = find(2).unwrap().title_on(&[stars]);
        assert_eq!(title, "Overall performance under random missing on stars");
        assert_eq!(
            find(2).unwrap().title_on(&[Benchmark::Mosi]),
            find(2).unwrap().title
        );
        let names: Vec<String> = columns(stars).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Acc-6", "Acc-2", "F1", "MAE", "Corr"]);
    }

    #[test]
    fn layout_exists_for_every_table_with_its_datasets_and_rows() {
        for number in 2..=14 {
            let layout = find(number).unwrap();
            let numbers = || published::numbers().iter().filter(|n| n.table == number);
            for benchmark in Benchmark::ALL {
                let printed = numbers().any(|n| n.dataset == benchmark);
                assert_eq!(layout.datasets.contains(&benchmark), printed, "{number}");
            }
            assert_eq!(
                layout.spread,
                numbers().any(|n| n.std.is_some()),
                "{number}"
            );
        }
        assert_eq!(find(1), None);
        assert_eq!(listed_rows(4, Benchmark::Sims).len(), 6);
        assert_eq!(listed_rows(7, Benchmark::Mosi).len(), 9);
    }

    #[test]
    fn ablations_are_labeled_as_in_the_paper() {
        let label = |rows, benchmark, variant: &str| {
            row_label(rows, benchmark, &Model::new("lnln", variant))
        };
        assert_eq!(label(Rows::Listed, Benchmark::Mosi, "no-dmc"), "w/o DMC");
        assert_eq!(label(Rows::Listed, Benchmark::Mosi, ""), "LNLN");
        for (variant, text) in [
            ("", "α=0.9, β=0.6, γ=0.1"),
            ("beta-0.3", "α=0.9, β=0.3, γ=0.1"),
            ("no-l-rec", "α=0.9, β=0.6, γ=0"),
        ] {
            assert_eq!(label(Rows::Weights, Benchmark::Sims, variant), text);
        }
        for number in 4..=7 {
            for model in listed_rows(number, Benchmark::Mosi) {
                let rows = find(number).unwrap().rows;
                let text = label(rows, Benchmark::Mosi, &model.variant);
                assert!(!text.contains('/') || text.starts_with("w/o"), "{text}");
            }
        }
    }

    #[test]
    fn methods_are_in_the_order_of_the_paper_and_others_follow() {
        let paper = [
            "MISA", "Self-MM", "MMIM", "CENET", "TETFN", "TFR-Net", "ALMT", "LNLN",
        ];
        let mut all: Vec<&str> = methods::all().iter().map(|m| m.id.as_str()).collect();
        all.extend(["no-longer-there"]);
        all.sort();
        all.sort_by_key(|id| method_order(id));
        let labels: Vec<String> = all.iter().map(|id| label(&Model::new(*id, ""))).collect();
        assert_eq!(labels[..8], paper);
        assert_eq!(
            labels[8..],
            ["LF-DNN", "Text only", "EMT-DLFR", "no-longer-there"]
        );
        assert_eq!(label(&Model::new("lnln", "no-dmc")), "LNLN/no-dmc");
    }
}
