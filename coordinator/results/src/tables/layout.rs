//! What each of the paper's tables holds.

use halfheard_shared::published;
use halfheard_shared::{benchmark::Benchmark, methods};

/// What a table's rows are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Means over all cases of the kind.
    Overall,
    /// Case by case.
    Details,
}

/// The kind of case, as the views call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseKind {
    /// Random missing.
    Rate,
    /// Missing modalities.
    Missing,
}

/// Which rows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// What the sweep has, in the paper's order; not the variants that are rows of other tables.
    Methods,
    /// Those that the paper's table has, in its order: an ablation.
    Listed,
    /// The same, each labelled with the weights of its loss.
    Weights,
}

/// One table of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its number.
    pub number: u8,
    /// What it shows.
    pub title: &'static str,
    /// The paper's datasets, in order; those of one's own stand behind ([`Layout::shows`]).
    pub datasets: &'static [Benchmark],
    /// Means or details.
    pub scope: Scope,
    /// Over what.
    pub kind: CaseKind,
    /// Its rows.
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

/// A table of listed rows, of means over the missing rates.
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

/// The tables that can be printed.
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

/// The layout of table `number`, if it can be printed.
pub fn find(number: u8) -> Option<Layout> {
    LAYOUTS.iter().copied().find(|l| l.number == number)
}

impl Layout {
    /// Whether the table has a block for a dataset. One that follows a built-in protocol stands
    /// where that does; one with a protocol of its own where those stand whose classes are made as
    /// its are (rounded: with MOSI; by intervals: with SIMS), and in all tables of ablations.
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

    /// Of the datasets of a sweep those that the table shows: the paper's in its order, then the
    /// others.
    pub fn datasets(self, have: &[Benchmark]) -> Vec<Benchmark> {
        let others = have.iter().filter(|b| matches!(b, Benchmark::Own(_)));
        let others = others.filter(|b| self.shows(**b));
        self.datasets.iter().chain(others).copied().collect()
    }

    /// What it shows, of the datasets that have a block.
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

/// How tables write a dataset: `MOSI`; a name of one's own as it is.
pub fn dataset_title(name: &str) -> String {
    match name.parse::<Benchmark>() {
        Ok(built_in) => built_in.title(),
        Err(_) => name.to_owned(),
    }
}

/// A column's heading and its metrics.
pub type Heading = (String, Vec<&'static str>);

/// The columns of a dataset: heading and metrics, two beside each other where the paper prints
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

/// Where a method stands in tables: in the paper's order, those the paper does not have behind.
pub fn method_order(method: &str) -> usize {
    let all = methods::all();
    let place = all.iter().position(|known| known.id == method);
    place.unwrap_or(all.len())
}

/// How tables write a method or variant: `LNLN`, `LNLN/no-dmc`.
pub fn label(method: &str, variant: &str) -> String {
    let name = methods::find(method).map_or(method, |known| &known.name);
    if variant.is_empty() {
        name.to_owned()
    } else {
        format!("{name}/{variant}")
    }
}

/// The rows of the paper's table `number` on a dataset, in its order: methods and variants. On one
/// that the paper does not have, those of the table's first.
pub fn listed_rows(number: u8, benchmark: Benchmark) -> Vec<(&'static str, &'static str)> {
    let mut rows = Vec::new();
    let first = || find(number).and_then(|layout| layout.datasets.first().copied());
    let benchmark = benchmark.published().or_else(first);
    for n in published::numbers() {
        let row = (n.method, n.variant);
        if n.table == number && Some(n.dataset) == benchmark && !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows
}

/// Whether a variant is a row of one of the tables of ablations.
pub fn is_ablation(method: &str, variant: &str) -> bool {
    !variant.is_empty()
        && published::numbers()
            .iter()
            .any(|n| n.method == method && n.variant == variant)
}

/// How the tables of ablations write a variant.
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

/// How a table writes a row.
pub fn row_label(rows: Rows, benchmark: Benchmark, method: &str, variant: &str) -> String {
    match rows {
        Rows::Methods => label(method, variant),
        Rows::Listed => ABLATIONS
            .iter()
            .find(|(id, _)| *id == variant)
            .map_or_else(|| label(method, variant), |(_, text)| (*text).to_owned()),
        Rows::Weights => {
            weights(benchmark, method, variant).unwrap_or_else(|| label(method, variant))
        }
    }
}

/// `α=0.9, β=0.8, γ=0.1`, as the method's file has them.
fn weights(benchmark: Benchmark, method: &str, variant: &str) -> Option<String> {
    let info = methods::find(method)?;
    let changes = match variant {
        "" => None,
        _ => Some(&info.variants.get(variant)?.hyper),
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
    fn a_dataset_of_ones_own_stands_where_its_like_do() {
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
    fn every_table_of_the_paper_has_a_layout_with_its_datasets_and_rows() {
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
    fn ablations_are_labelled_as_the_paper_does() {
        let label = |rows, benchmark, variant| row_label(rows, benchmark, "lnln", variant);
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
            for (_, variant) in listed_rows(number, Benchmark::Mosi) {
                let text = label(find(number).unwrap().rows, Benchmark::Mosi, variant);
                assert!(!text.contains('/') || text.starts_with("w/o"), "{text}");
            }
        }
    }

    #[test]
    fn methods_stand_in_the_papers_order_and_others_behind() {
        let paper = [
            "MISA", "Self-MM", "MMIM", "CENET", "TETFN", "TFR-Net", "ALMT", "LNLN",
        ];
        let mut all: Vec<&str> = methods::all().iter().map(|m| m.id).collect();
        all.extend(["no-longer-there"]);
        all.sort();
        all.sort_by_key(|id| method_order(id));
        let labels: Vec<String> = all.iter().map(|id| label(id, "")).collect();
        assert_eq!(labels[..8], paper);
        assert_eq!(labels[8..], ["LF-DNN", "no-longer-there"]);
        assert_eq!(label("lnln", "no-dmc"), "LNLN/no-dmc");
    }
}
