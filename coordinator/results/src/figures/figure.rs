//! Which figure to draw, and what it needs.

use super::{FigureError, confusion, curves, features, labels, ranks, select::Content};
use halfheard_shared::{
    benchmark::Benchmark,
    case::Rate,
    results::{Filter, Predictions, Results},
};
use std::{collections::HashMap, str::FromStr};

/// A kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 2: metrics over the missing rate.
    Curves,
    /// 4: label distributions.
    Labels,
    /// 5, 6, 7: confusion matrices on a dataset.
    Confusion(Benchmark),
    /// The same on the only dataset of the request or of the sweep.
    ConfusionOfOne,
    /// 8: t-SNE of LNLN's features.
    Features,
    /// The critical-difference diagram, which the paper does not have.
    Ranks,
}

impl Kind {
    /// The figures of the paper.
    pub const PAPER: [Kind; 6] = [
        Kind::Curves,
        Kind::Labels,
        Kind::Confusion(Benchmark::Mosi),
        Kind::Confusion(Benchmark::Mosei),
        Kind::Confusion(Benchmark::Sims),
        Kind::Features,
    ];

    /// The id on the command line: the number in the paper, `confusion` or `ranks`.
    pub fn id(self) -> &'static str {
        match self {
            Kind::Curves => "2",
            Kind::Labels => "4",
            Kind::Confusion(Benchmark::Mosi) => "5",
            Kind::Confusion(Benchmark::Mosei) => "6",
            Kind::Confusion(Benchmark::Sims) => "7",
            Kind::Confusion(Benchmark::Own(_)) | Kind::ConfusionOfOne => "confusion",
            Kind::Features => "8",
            Kind::Ranks => "ranks",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = Kind::PAPER
            .into_iter()
            .chain([Kind::ConfusionOfOne, Kind::Ranks]);
        all.into_iter()
            .find(|kind| kind.id() == text)
            .ok_or_else(|| {
                format!("unknown figure `{text}`: known are 2, 4, 5, 6, 7, 8, confusion and ranks")
            })
    }
}

/// What to draw of a sweep; empty lists stand for the figure's default.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Models: METHOD or METHOD/VARIANT.
    pub methods: Vec<String>,
    /// Datasets.
    pub datasets: Vec<Benchmark>,
    /// Metrics by their ids, for Figure 2.
    pub metrics: Vec<String>,
    /// Missing rates.
    pub rates: Vec<Rate>,
    /// Add the paper's numbers, for Figure 2.
    pub published: bool,
}

/// A drawn figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The kind.
    pub kind: Kind,
    /// The title.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// What it lacks and what was chosen.
    pub notes: Vec<String>,
    /// The drawing.
    pub svg: String,
}

/// What a figure needs beside the sweep's results.
#[derive(Clone, Debug)]
pub enum Needs {
    /// Nothing else.
    Nothing,
    /// The label counts of imported datasets: [`Inputs::splits`].
    Splits,
    /// Predictions: [`Inputs::predictions`].
    Predictions(Filter),
    /// Features of the artifact store: [`Inputs::features`], one for each of these.
    Features(Vec<features::Needed>),
}

/// What [`Needs`] asks for.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// By the BLAKE3 hash of a dataset, the label counts of its training and validation split.
    pub splits: HashMap<String, Vec<labels::SplitCounts>>,
    /// The predictions that pass the filter.
    pub predictions: Predictions,
    /// The features of the first seed with any, for each that is needed.
    pub features: Vec<Option<features::Loaded>>,
    /// The address of the artifact store, without login.
    pub artifacts: String,
}

/// Checks a request, and says what the figure needs.
///
/// # Errors
///
/// A request that does not fit the sweep or the figure.
pub fn needs(results: &Results, kind: Kind, request: &Request) -> Result<Needs, FigureError> {
    check(kind, request)?;
    let content = Content::of(results);
    Ok(match kind {
        Kind::Curves | Kind::Ranks => Needs::Nothing,
        Kind::Labels => Needs::Splits,
        Kind::Confusion(_) | Kind::ConfusionOfOne => {
            let dataset = dataset(&content, kind, request)?;
            Needs::Predictions(confusion::needs(&content, dataset, request)?)
        }
        Kind::Features => Needs::Features(features::needs(results, &content, request)?),
    })
}

/// Draws a figure of a sweep from what it [`needs`].
///
/// # Errors
///
/// A request that does not fit the sweep or the figure; results that are missing.
pub fn draw(
    results: &Results,
    kind: Kind,
    request: &Request,
    inputs: &Inputs,
) -> Result<Figure, FigureError> {
    check(kind, request)?;
    let content = Content::of(results);
    match kind {
        Kind::Curves => curves::figure(results, &content, request),
        Kind::Labels => labels::figure(results, &content, request, inputs),
        Kind::Confusion(_) | Kind::ConfusionOfOne => {
            let dataset = dataset(&content, kind, request)?;
            confusion::figure(&inputs.predictions, &content, dataset, request)
        }
        Kind::Features => features::figure(results, &content, request, inputs),
        Kind::Ranks => ranks::figure(results, &content, request),
    }
}

/// The dataset of a confusion matrix.
fn dataset(content: &Content, kind: Kind, request: &Request) -> Result<Benchmark, FigureError> {
    if let Kind::Confusion(dataset) = kind {
        return Ok(dataset);
    }
    match content.datasets(request)?[..] {
        [dataset] => Ok(dataset),
        _ => Err(FigureError::Several {
            have: content.names(),
        }),
    }
}

/// Rejects options without effect: they are misunderstandings.
fn check(kind: Kind, request: &Request) -> Result<(), FigureError> {
    let useless = |why, option| {
        Err(FigureError::Useless {
            figure: kind.id(),
            why,
            option,
        })
    };
    if kind != Kind::Curves {
        if !request.metrics.is_empty() {
            return useless("has fixed metrics", "--metric");
        }
        if request.published {
            return useless("has no published numbers", "--published");
        }
    }
    match kind {
        Kind::Labels if !request.methods.is_empty() => useless("shows no methods", "--method"),
        Kind::Labels | Kind::Ranks if !request.rates.is_empty() => {
            useless("is not of single rates", "--rates")
        }
        Kind::Confusion(_) if !request.datasets.is_empty() => {
            useless("is of one dataset", "--dataset")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figure_is_parsed_from_its_number() {
        for kind in Kind::PAPER {
            assert_eq!(kind.id().parse(), Ok(kind));
        }
        assert_eq!("ranks".parse(), Ok(Kind::Ranks));
        assert_eq!("confusion".parse(), Ok(Kind::ConfusionOfOne));
        let error = "3".parse::<Kind>().unwrap_err();
        assert!(
            error.contains("2, 4, 5, 6, 7, 8, confusion and ranks"),
            "{error}"
        );
    }

    #[test]
    fn option_without_effect_is_refused() {
        let refused = |kind: Kind, request: Request| check(kind, &request).unwrap_err().to_string();
        let rates = Request {
            rates: vec![Rate::new(0.3).unwrap()],
            ..Request::default()
        };
        assert_eq!(
            refused(Kind::Labels, rates.clone()),
            "figure 4 is not of single rates: leave --rates out"
        );
        assert!(check(Kind::Features, &rates).is_ok());
        let published = Request {
            published: true,
            ..Request::default()
        };
        assert!(check(Kind::Curves, &published).is_ok());
        assert!(refused(Kind::Ranks, published).contains("--published"));
        let datasets = Request {
            datasets: vec![Benchmark::Sims],
            ..Request::default()
        };
        assert!(refused(Kind::Confusion(Benchmark::Mosi), datasets).contains("--dataset"));
    }
}
